"""A person at the desk, for the demo and the tests: sends commands over MQTT, and hears what the sites say meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from controlplane.cli import desk
from controlplane.contract import command as commands
from controlplane.contract.operation import Operation, OperationState, Refusal
from controlplane.contract.plan import Plan
from controlplane.contract.report import CallEvent, CallEvents, Report
from controlplane.contract.topics import Topics
from controlplane.edge import clock
from controlplane.edge.config import Settings, load
from controlplane.edge.mqtt import Arrived
from tests.lab.lab import Lab
from tests.lab.shell import LabError

#: How long a command of the lab stays valid, seconds.
LIFE_S = 60


class Commander:
    """One person's connection to the fleet of a lab. Keeps every call event and the newest report and plan."""

    def __init__(self, lab: Lab, person: str = "wang") -> None:
        self.lab = lab
        self.settings: Settings = load(lab.layout.home / "desk" / "daemon" / f"{person}.toml")
        self.topics = Topics(self.settings.fleet.fleet)
        self.events: list[tuple[str, CallEvent]] = []
        self.reports: dict[str, Report] = {}
        self.applied: list[tuple[str, Report]] = []
        self.plan: Plan | None = None
        self._changed = asyncio.Event()

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[Commander]:
        """Hear the fleet for as long as the block runs."""
        subscriptions = (self.topics.all_calls, self.topics.all_reports, self.topics.plan)
        async with desk.listening(self.settings, subscriptions, self._hear):
            yield self

    def _hear(self, message: Arrived) -> None:
        if message.topic.endswith("/calls"):
            batch = msgspec.json.decode(message.payload, type=CallEvents)
            self.events += [(batch.site, event) for event in batch.events]
        elif message.topic.endswith("/report"):
            report = msgspec.json.decode(message.payload, type=Report)
            before = self.reports.get(report.site)
            self.reports[report.site] = report
            if report.applied is not None and (before is None or before.applied != report.applied):
                self.applied.append((report.site, report))
        elif message.topic == self.topics.plan:
            self.plan = msgspec.json.decode(message.payload, type=Plan)
        self._changed.set()

    async def wait_for(self, what: str, seen: Callable[[], bool], *, within_s: float) -> float:
        """Until `seen()` is true of what was heard; returns seconds, LabError naming `what` when it was not in time."""
        begun = clock.monotonic_s()
        while not seen():
            left = begun + within_s - clock.monotonic_s()
            if left <= 0:
                raise LabError(f"not within {within_s:g} s: {what}")
            self._changed.clear()
            try:
                async with asyncio.timeout(min(left, 1.0)):
                    await self._changed.wait()
            except TimeoutError:
                continue
        return clock.monotonic_s() - begun

    async def settled(self, *, within_s: float = 20.0) -> None:
        """Until a coordinator leads, nothing runs, and every site has applied the newest plan."""

        def seen() -> bool:
            plan = self.plan
            return (
                plan is not None
                and plan.running is None
                and all(
                    (r := self.reports.get(site)) is not None
                    and r.link == "ready"
                    and r.applied is not None
                    and r.applied.key == plan.key
                    for site in self.settings.fleet.sites
                )
            )

        await self.wait_for("every site has applied the newest plan", seen, within_s=within_s)

    async def command(self, kind: type[Any], *, within_s: float = 60.0, **fields: object) -> Operation:
        """Send a command and wait for its end. LabError when nobody answers."""
        body = {"kind": kind.__struct_config__.tag, **desk.stamp(self.settings, LIFE_S), **fields}
        command = commands.read(msgspec.json.encode(body))
        if isinstance(command, Refusal):
            raise LabError(f"this is no command: {command}")
        operation = await desk.send(self.settings, command, wait_s=within_s, on_progress=lambda _: None)
        if operation is None:
            raise LabError(f"no coordinator answered {body['kind']}")
        return operation

    async def done(self, kind: type[Any], *, within_s: float = 60.0, **fields: object) -> Operation:
        """The same; LabError when it did not end as done."""
        operation = await self.command(kind, within_s=within_s, **fields)
        if operation.state is not OperationState.DONE:
            raise LabError(f"{operation.kind} ended {operation.state}: {operation.refusals} {operation.unproven}")
        return operation
