"""One AMI connection: writing, order of delivery, back-pressure. Lives from connect to loss, never reused.

Invariants: an action is written at most once, and every action written ends: by its answer, or by OutcomeUnknown at its
deadline or at the loss, whichever is first. Events and answers are delivered in the order they arrived, and the code
that directly awaits an answer runs before any later event is delivered: otherwise a snapshot would overwrite what came
after it. The queue of undelivered events is bounded; when it is full, reading stops. Must not know: panoramisk, phases,
login.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final, final

import msgspec
from structlog.typing import FilteringBoundLogger

from controlplane.contract.errors import ControlPlaneError, InvariantBroken, LinkDown, OutcomeUnknown
from controlplane.edge.ami.actions import Action, encode
from controlplane.edge.ami.correlation import Correlation, Pending, Reply
from controlplane.edge.ami.frames import Frame, FrameParser
from controlplane.edge.ami.protocol import next_action_id

WRITE_HIGH_WATER_BYTES: Final = 256 * 1024
EVENTS_AT_A_TIME: Final = 64
FULLY_BOOTED: Final = "FullyBooted"


class Counters(msgspec.Struct):
    """What a link did since it was made; only ever grows."""

    connects: int = 0
    bytes_received: int = 0
    delivered: int = 0
    unwanted: int = 0
    oversized: int = 0
    late_dropped: int = 0
    callback_errors: int = 0
    reading_paused: int = 0


@final
class Connection:
    """The session behind the seam. `wanted` None: all events; else only these names reach `on_event`."""

    def __init__(
        self,
        *,
        on_event: Callable[[Frame], None],
        wanted: frozenset[str] | None,
        queue_size: int,
        counters: Counters,
        log: FilteringBoundLogger,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._on_event = on_event
        self._wanted = wanted
        self._queue_size = queue_size
        self._counters = counters
        self._log = log
        self._parser = FrameParser(wanted=None if wanted is None else wanted | {FULLY_BOOTED})
        self._actions = Correlation()
        self._queue: deque[Frame | Pending] = deque()
        self._arrived = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()
        self._transport: asyncio.Transport | None = None
        self._reading_paused = False
        self._callback_failed = False
        self._gone: asyncio.Future[str] = self._loop.create_future()
        self.admitted = asyncio.Event()
        self.booted = asyncio.Event()
        self.heard_at = self._loop.time()

    # -- what the seam calls

    def attached(self, transport: asyncio.Transport) -> None:
        """The socket is open."""
        self._transport = transport
        transport.set_write_buffer_limits(high=WRITE_HIGH_WATER_BYTES)
        self.heard_at = self._loop.time()

    def received(self, chunk: bytes) -> None:
        """Sort out what came; no callback runs in here, so none can harm the reading (fault 1)."""
        self.heard_at = self._loop.time()
        self._counters.bytes_received += len(chunk)
        for frame in self._parser.feed(chunk):
            name = frame.name
            if name == FULLY_BOOTED:
                self.booted.set()
            item = self._actions.take(frame, name)
            if isinstance(item, Pending):
                if item.at_once:
                    item.settle_answer()
                else:
                    self._queue.append(item)
            elif item is not None and (self._wanted is None or name in self._wanted):
                self._queue.append(item)
        self._count()
        if self._queue:
            self._arrived.set()
            if len(self._queue) >= self._queue_size and not self._reading_paused and self._transport is not None:
                self._reading_paused = True
                self._counters.reading_paused += 1
                self._transport.pause_reading()

    def lost(self, reason: str) -> None:
        """Whatever has no whole answer by now ends at once; what arrived before is still delivered."""
        if self._gone.done():
            return
        self._gone.set_result(reason)
        self._actions.lost(reason)
        self._writable.set()
        self._arrived.set()

    def pause_writing(self) -> None:
        """The peer does not take what we write: senders wait."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """Senders may go on."""
        self._writable.set()

    # -- what the link calls

    @property
    def banner(self) -> str:
        """The protocol version that the server named."""
        return self._parser.banner

    @property
    def held_by_us(self) -> bool:
        """Whether reading is paused because our own callbacks are slow: silence then says nothing about the peer."""
        return self._reading_paused

    @property
    def in_flight(self) -> int:
        """How many actions have no answer yet."""
        return len(self._actions)

    @property
    def backlog(self) -> int:
        """How much arrived and is not delivered yet."""
        return len(self._queue)

    async def submit(self, action: Action, *, timeout_s: float, at_once: bool = False) -> Pending:
        """Write one action. PayloadError or LinkDown when nothing was written.

        LinkDown also when the peer does not take what was written before for `timeout_s`.
        """
        name = type(action).__name__
        action_id = next_action_id()
        data = encode(action, action_id)
        deadline = self._loop.time() + timeout_s
        while not self._writable.is_set():
            try:
                async with asyncio.timeout_at(deadline):
                    await self._writable.wait()
            except TimeoutError:
                raise LinkDown(f"{name}: the peer takes no data; nothing was sent") from None
        if self._transport is None or self._transport.is_closing() or self._gone.done():
            raise LinkDown(f"{name}: the link is down; nothing was sent")
        pending = Pending(type(action), action_id, deadline=deadline, at_once=at_once)
        self._actions.add(pending)
        self._transport.write(data)
        return pending

    async def outcome(self, pending: Pending) -> Reply | ControlPlaneError:
        """Wait for the end of an action, until its deadline. When this is cancelled the action is forgotten."""
        try:
            if not pending.outcome.done():
                async with asyncio.timeout_at(pending.deadline):
                    await pending.outcome
            return pending.outcome.result()
        except TimeoutError:
            return pending.answer or OutcomeUnknown(f"{pending.action.__name__}: no answer in time")
        finally:
            self.forget(pending)

    async def perform(self, action: Action, *, timeout_s: float, at_once: bool = False) -> Reply:
        """Write one action and give its reply, or raise what became of it."""
        outcome = await self.outcome(await self.submit(action, timeout_s=timeout_s, at_once=at_once))
        if isinstance(outcome, ControlPlaneError):
            raise outcome
        return outcome

    def forget(self, pending: Pending) -> None:
        """Keep nothing of an action that nobody waits for (fault 11)."""
        self._actions.forget(pending)

    async def deliver(self) -> None:
        """Hand events to the callback and answers to their callers, in order, until the link is gone: LinkDown then."""
        answered = False
        burst = 0
        while True:
            if not self._queue:
                if self._gone.done():
                    raise LinkDown(f"connection lost: {self._gone.result()}")
                self._arrived.clear()
                await self._arrived.wait()
                continue
            item = self._queue.popleft()
            if isinstance(item, Pending):
                item.settle_answer()
                answered = True
            else:
                burst += 1
                if answered or burst >= EVENTS_AT_A_TIME:
                    # Let the one who waited for the answer run before what came after it; and be fair in a flood.
                    answered, burst = False, 0
                    await asyncio.sleep(0)
                self._call_back(item)
            if self._reading_paused and len(self._queue) <= self._queue_size // 2:
                self._reading_paused = False
                self.heard_at = self._loop.time()  # the peer was not listened to until now
                if self._transport is not None and not self._transport.is_closing():
                    self._transport.resume_reading()

    async def close(self) -> None:
        """Drop the socket and wait until it is gone. Answers that had arrived are still given."""
        try:
            if self._transport is not None:
                self._transport.abort()
                await asyncio.wait([self._gone], timeout=1.0)
        finally:
            self.lost("closed by us")
            for item in self._queue:
                if isinstance(item, Pending):
                    item.settle_answer()
            self._queue.clear()

    # -- inside

    def _count(self) -> None:
        parser, counters = self._parser, self._counters
        if parser.oversized:
            if not counters.oversized:
                self._log.warning("ami.frame_too_long", count=parser.oversized)
            counters.oversized += parser.oversized
        counters.unwanted += parser.unwanted
        counters.late_dropped += self._actions.late_dropped
        parser.oversized = parser.unwanted = self._actions.late_dropped = 0

    def _call_back(self, frame: Frame) -> None:
        self._counters.delivered += 1
        try:
            self._on_event(frame)
        except InvariantBroken:
            raise
        except Exception as error:  # noqa: BLE001 - a callback's fault must not cost the link (faults 1 and 3)
            self._counters.callback_errors += 1
            level = self._log.debug if self._callback_failed else self._log.error
            self._callback_failed = True
            level("ami.event_callback_failed", name=frame.name, error=type(error).__name__, exc_info=True)
