"""`controlplane call`: synthetic calls, and what was seen of each."""

from __future__ import annotations

import asyncio
import contextlib

import msgspec

from controlplane.cli import desk
from controlplane.contract.command import Command
from controlplane.contract.operation import Operation
from controlplane.contract.report import CallEventKind, CallEvents, synthetic_prefix
from controlplane.contract.topics import Topics
from controlplane.edge.config import Settings
from controlplane.edge.mqtt import Arrived
from controlplane.run.codec import Unreadable, decode

#: How long the last events may come after the operation's end.
_LAST_EVENTS_S = 1.5


class Seen(msgspec.Struct):
    """One synthetic call: the target that the division chose, the site where it arrived, and the time from its
    beginning to its answer by the entry site's clock (the answer waits up to 0.5 s for media)."""

    call: str
    target: str = ""
    site: str = ""
    setup_ms: int | None = None


async def place_and_watch(
    settings: Settings, command: Command, *, wait_s: float
) -> tuple[Operation | None, list[Seen]]:
    """Send the command and collect what the sites say of its calls."""
    head = synthetic_prefix(str(command.id))
    seen: dict[str, Seen] = {}

    heard = asyncio.Event()

    def hear(message: Arrived) -> None:
        heard.set()
        try:
            batch = decode(message.payload, CallEvents)
        except Unreadable:
            return
        for event in batch.events:
            if not event.call.startswith(head):
                continue
            one = seen.setdefault(event.call, Seen(event.call))
            if event.kind is CallEventKind.ROUTE:
                one.target = event.target
            elif event.kind is CallEventKind.ARRIVE:
                one.site = batch.site
            elif event.kind is CallEventKind.SYNTHETIC:
                one.setup_ms = event.waited_ms

    topics = Topics(settings.fleet.fleet)
    async with desk.listening(settings, (topics.all_calls,), hear):
        operation = await desk.send(settings, command, wait_s=wait_s, on_progress=lambda _: None)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LAST_EVENTS_S):
                while any(s.setup_ms is None for s in seen.values()):
                    heard.clear()
                    await heard.wait()
    return operation, sorted(seen.values(), key=lambda s: int(s.call.rsplit("-", 1)[1]))
