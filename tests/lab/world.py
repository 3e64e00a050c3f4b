"""The world as tests see it: callers, home agents, agents who call out, and the carrier's ledger."""

from __future__ import annotations

import asyncio
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from tests.lab.lab import Lab

PROGRAM = ("python3", "/world/world.py")
#: How long past its planned end a batch may take: slow answers, the last announcement, a machine under load.
GRACE_S = 90.0
#: More calls than a background load will ever begin.
UNBOUNDED = 20_000


class Outcome(StrEnum):
    """What became of a call. Whatever is not clearly one of the others is lost."""

    AGENT = "agent"
    QUEUE = "queue"
    ANNOUNCEMENT = "announcement"
    ANSWERED = "answered"
    LOST = "lost"
    OPEN = "open"


class Attempt(msgspec.Struct, frozen=True):
    """One ingress that the carrier tried. `sip` is the final response's code, empty when there was none."""

    ingress: str
    begun_ms: int
    status: str
    cause: str
    sip: str
    progress: bool
    took_ms: int | None


class Talk(msgspec.Struct, frozen=True):
    """An agent's phone answered the call."""

    agent: str
    answered_ms: int
    ended_ms: int | None


class Call(msgspec.Struct, frozen=True):
    """One call in the carrier's ledger; times are epoch milliseconds of this machine. Inbound (`direction` in): `number`
    is the caller, `ingress` the site that answered. Outbound: `number` was called by `agent` over the trunk of `site`."""

    number: str
    direction: str
    batch: str
    dialled_ms: int | None
    placed_ms: int | None
    did: str
    attempts: tuple[Attempt, ...]
    answered_ms: int | None
    ingress: str
    ended_ms: int | None
    ended_by: str
    talks: tuple[Talk, ...]
    site: str
    agent: str
    phone_answered_ms: int | None
    outcome: Outcome
    reason: str


class Registration(msgspec.Struct, frozen=True):
    """What a home agent's phone first heard: `registered`, `refused`, `silent`, or `nothing` in time."""

    agent: str
    site: str
    result: str
    took_ms: int
    port: int


def tally(calls: Iterable[Call]) -> dict[str, int]:
    """How many calls had each outcome; outcomes that did not occur are left out."""
    return dict(Counter(str(call.outcome) for call in calls))


class World:
    """Everything outside the sites, in the container `world`."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab

    def begin(self, did: str, *, count: int, rate: float = 10.0, talk_ms: int = 3000, ring_ms: int = 60_000) -> str:
        """Begin a batch of callers in the background; returns its id. Callers stay `talk_ms` after the answer."""
        batch = uuid.uuid4().hex[:12]
        argv = ["place", "--did", did, "--count", str(count), "--rate", str(rate), "--talk-ms", str(talk_ms)]
        self._json([*argv, "--ring-ms", str(ring_ms), "--batch", batch, "--detach"])
        return batch

    def place(
        self, did: str, *, count: int, rate: float = 10.0, talk_ms: int = 3000, ring_ms: int = 60_000
    ) -> list[Call]:
        """A whole batch: returns its ledger when the last call is over."""
        batch = self.begin(did, count=count, rate=rate, talk_ms=talk_ms, ring_ms=ring_ms)
        return self.wait(batch, within_s=count / rate + talk_ms / 1000 + GRACE_S)

    def wait(self, batch: str, *, within_s: float) -> list[Call]:
        """The ledger of a batch once its last call is over, or as it stands after `within_s`."""
        self._json(["wait", "--batch", batch, "--timeout-s", str(within_s)], timeout_s=within_s + 30)
        return self.ledger(batch)

    def stop(self, batch: str) -> None:
        """No more new calls in this batch."""
        self._json(["stop", "--batch", batch])

    @contextmanager
    def load(self, did: str, *, rate: float = 10.0, talk_ms: int = 3000) -> Iterator[str]:
        """Callers at this rate for as long as the block runs, then until the last of them is over; yields the batch."""
        batch = self.begin(did, count=UNBOUNDED, rate=rate, talk_ms=talk_ms)
        try:
            yield batch
        finally:
            self.stop(batch)
            self._json(["wait", "--batch", batch, "--timeout-s", str(talk_ms / 1000 + GRACE_S)], timeout_s=300)

    def outbound(
        self, agent: str, *, site: str, number: str, count: int = 1, rate: float = 10.0, password: str | None = None
    ) -> list[Call]:
        """This agent calls `number`, `number` + 1, … through `site`; returns the ledger when the last call is over."""
        batch = uuid.uuid4().hex[:12]
        argv = ["outbound", "--agent", agent, "--site", site, "--number", number]
        argv += ["--count", str(count), "--rate", str(rate), "--batch", batch]
        secret = password or self._lab.credentials.password(f"agent-{agent}")
        self._json(argv, stdin=secret + "\n", timeout_s=count / rate + GRACE_S)
        return self.ledger(batch)

    def register(
        self, agent: str, *, password: str, site: str, within_s: float = 5.0, refresh_ms: int = 40_000
    ) -> Registration:
        """A home agent's phone: it registers, answers calls, refreshes, and tries again (every 2 s) when refused."""
        argv = ["register", "--agent", agent, "--site", site]
        argv += ["--timeout-s", str(within_s), "--refresh-ms", str(refresh_ms)]
        return msgspec.convert(self._json(argv, stdin=password + "\n", timeout_s=within_s + 30), Registration)

    def unregister(self, agent: str) -> None:
        """End that phone, without a word to the site."""
        self._json(["unregister", "--agent", agent])

    def registration_words(self, agent: str) -> list[str]:
        """All results of that phone's attempts so far, oldest first: registered, refused, silent."""
        return [word["result"] for word in self._json(["registration", "--agent", agent])]

    def place_async(
        self, did: str, *, count: int, rate: float = 10.0, talk_ms: int = 3000
    ) -> asyncio.Future[list[Call]]:
        """`place` in a thread, for tests that look at something else meanwhile; await the result."""
        loop = asyncio.get_running_loop()
        return loop.run_in_executor(None, lambda: self.place(did, count=count, rate=rate, talk_ms=talk_ms))

    def ledger(self, batch: str = "") -> list[Call]:
        """The calls of one batch, or all there ever were, with their outcomes as of now."""
        argv = ["ledger", *(["--batch", batch] if batch else [])]
        return msgspec.convert(self._json(argv), list[Call])

    def _json(self, argv: list[str], *, stdin: str | None = None, timeout_s: float = 60.0) -> Any:
        return self._lab.exec_json("world", [*PROGRAM, *argv], stdin=stdin, timeout_s=timeout_s)
