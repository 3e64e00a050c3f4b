"""The AMI link of a site: one connection kept up, with named phases, typed actions and ordered events.

Invariants: nothing is ever sent twice; a caller always learns the fate of an action (answer, refused, not sent, or
unknown) within its deadline; after each connect a full snapshot is taken before the link is READY. Why not panoramisk's
own: see `protocol`. Must not know: what an event means.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import final

from structlog.typing import FilteringBoundLogger

from controlplane.contract.errors import (
    ActionRefused,
    ControlPlaneError,
    InvariantBroken,
    LinkDown,
    OutcomeUnknown,
    PayloadError,
)
from controlplane.edge.ami.actions import Action
from controlplane.edge.ami.config import AmiConfig
from controlplane.edge.ami.connection import Connection, Counters
from controlplane.edge.ami.correlation import Pending, Reply
from controlplane.edge.ami.frames import Frame
from controlplane.edge.ami.phases import LEGAL_MOVES, OPEN_FOR_ACTIONS, Phase
from controlplane.edge.ami.protocol import open_session
from controlplane.edge.ami.session import LoginRefused, log_in, wait_for_boot, watch

__all__ = ["AmiConfig", "AmiLink", "Counters", "Frame", "LoginRefused", "Phase", "Reply"]


@final
class AmiLink:
    """Keeps one AMI connection up for as long as `run` runs.

    `on_event(frame)` is called for each wanted event, in order, from one task, already while `synchronise` runs; it
    must not block. `on_phase(phase, detail)` is called at each move. `synchronise(link)` takes the full snapshots after
    each connect; when it raises, the connection is given up and made again. Exceptions of the callbacks are logged and
    contained; only InvariantBroken ends `run`.
    """

    def __init__(
        self,
        config: AmiConfig,
        *,
        on_event: Callable[[Frame], None],
        on_phase: Callable[[Phase, str], None],
        synchronise: Callable[[AmiLink], Awaitable[None]],
        log: FilteringBoundLogger,
    ) -> None:
        self._config = config
        self._on_event = on_event
        self._on_phase = on_phase
        self._synchronise = synchronise
        self._log = log
        self._phase = Phase.DOWN
        self._connection: Connection | None = None
        self._failures = 0  # since a connection last held; sets the delay
        self._said = False  # whether the present outage was said
        self._ready_at: float | None = None
        self.counters = Counters()

    @property
    def phase(self) -> Phase:
        """Where the link is now."""
        return self._phase

    @property
    def in_flight(self) -> int:
        """How many actions wait for their answer."""
        return 0 if self._connection is None else self._connection.in_flight

    @property
    def backlog(self) -> int:
        """How many events and answers arrived and are not delivered yet."""
        return 0 if self._connection is None else self._connection.backlog

    async def run(self) -> None:
        """Connect, and connect again with growing delays, until cancelled. Leaves no task and no socket."""
        while True:
            cause = await self._one_connection()
            if isinstance(cause, InvariantBroken):
                raise cause
            self._note_failure(cause)
            await asyncio.sleep(self._delay_s(refused=isinstance(cause, LoginRefused)))

    async def call(self, action: Action, *, timeout_s: float | None = None) -> Reply:
        """The answer to one action; allowed in SYNCING and READY.

        LinkDown, PayloadError: nothing was sent. ActionRefused: Asterisk said no. OutcomeUnknown: it was sent, and the
        link went down or the deadline (`action_timeout_s` by default) passed before the whole answer came. Never sent
        again.
        """
        return await self._usable(action).perform(action, timeout_s=self._limit_s(timeout_s))

    async def call_many(
        self, actions: Sequence[Action], *, window: int = 100, timeout_s: float | None = None
    ) -> list[Reply | ControlPlaneError]:
        """The outcomes of many actions, in their order; up to `window` are in flight, each with its own deadline.

        They are written in order, all on the same connection. One that is refused does not stop those after it; once the
        link does not take one, none after it is sent. Cancelled in between, those written so far may have happened.
        """
        if not actions:
            return []
        try:
            connection = self._usable(actions[0])
        except LinkDown as error:
            return [error] * len(actions)
        outcomes: list[Reply | ControlPlaneError] = []
        flying: deque[Pending | ControlPlaneError] = deque()
        down: LinkDown | None = None

        async def land() -> None:
            first = flying[0]
            outcomes.append(first if isinstance(first, ControlPlaneError) else await connection.outcome(first))
            flying.popleft()

        try:
            for action in actions:
                if len(flying) >= window:
                    await land()
                if down is not None:
                    flying.append(down)
                    continue
                try:
                    flying.append(await connection.submit(action, timeout_s=self._limit_s(timeout_s)))
                except PayloadError as error:
                    flying.append(error)
                except LinkDown as error:
                    flying.append(down := error)
            while flying:
                await land()
        finally:
            for item in flying:  # only when cancelled
                if isinstance(item, Pending):
                    connection.forget(item)
        return outcomes

    # -- one connection

    async def _one_connection(self) -> ControlPlaneError:
        """From connect to loss; gives the reason why it ended."""
        config = self._config
        connection = Connection(
            on_event=self._on_event,
            wanted=frozenset(config.event_filters) or None,
            queue_size=config.queue_size,
            counters=self.counters,
            log=self._log,
        )
        self._move(Phase.CONNECTING, f"{config.host}:{config.port}")
        reason = "stopped"
        try:
            await open_session(config.host, config.port, connection, timeout_s=config.connect_timeout_s)
            self._connection = connection
            cause = await _first_failure(
                {
                    "ami-deliver": connection.deliver(),
                    "ami-bring-up": self._bring_up(connection),
                    "ami-watch": watch(connection, config),
                }
            )
            reason = str(cause)
            return cause
        except LinkDown as error:
            reason = str(error)
            return error
        finally:
            self._connection = None
            try:
                await connection.close()
            finally:
                self._move(Phase.DOWN, reason)

    async def _bring_up(self, connection: Connection) -> None:
        """Bring the connection to READY."""
        config = self._config
        self._move(Phase.AUTHENTICATING, f"{config.username}@{config.host}:{config.port}")
        await log_in(connection, config)
        self.counters.connects += 1
        await wait_for_boot(connection, config, self._log)
        self._move(Phase.SYNCING, "taking snapshots")
        await self._synchronised()
        self._ready_at = asyncio.get_running_loop().time()
        self._said = False
        self._log.info("ami.ready", host=config.host, port=config.port, version=connection.banner)
        self._move(Phase.READY, "")

    async def _synchronised(self) -> None:
        try:
            await self._synchronise(self)
        except ControlPlaneError:
            raise
        except Exception as error:
            self._log.error("ami.synchronise_failed", error=type(error).__name__, exc_info=True)
            raise LinkDown(f"the snapshots failed ({type(error).__name__})") from error

    # -- small parts

    def _usable(self, action: Action) -> Connection:
        if self._connection is None or self._phase not in OPEN_FOR_ACTIONS:
            raise LinkDown(f"{type(action).__name__}: the link is {self._phase}; nothing was sent")
        return self._connection

    def _limit_s(self, timeout_s: float | None) -> float:
        return self._config.action_timeout_s if timeout_s is None else timeout_s

    def _move(self, phase: Phase, detail: str) -> None:
        if phase not in LEGAL_MOVES[self._phase]:
            raise InvariantBroken(f"AMI link: {self._phase} to {phase}")
        self._phase = phase
        try:
            self._on_phase(phase, detail)
        except InvariantBroken:
            raise
        except Exception as error:  # noqa: BLE001 - a callback's fault must not cost the link
            self._log.error("ami.phase_callback_failed", phase=phase, error=type(error).__name__, exc_info=True)

    def _note_failure(self, cause: ControlPlaneError) -> None:
        """The first failure of an outage is said, its repeats only at DEBUG."""
        refused = isinstance(cause, LoginRefused)
        level = self._log.debug if self._said else self._log.error if refused else self._log.warning
        self._said = True
        text = "ami.login_refused" if refused else "ami.link_down"
        level(text, host=self._config.host, port=self._config.port, reason=str(cause))

    def _delay_s(self, *, refused: bool) -> float:
        """Doubles up to the maximum; the maximum at once when refused. From the minimum after a connection that held."""
        config = self._config
        now = asyncio.get_running_loop().time()
        if self._ready_at is not None and now - self._ready_at >= config.backoff_max_s:
            self._failures = 0
        self._ready_at = None
        delay_s = config.backoff_min_s * 2.0**self._failures
        self._failures = min(self._failures + 1, 30)
        return config.backoff_max_s if refused else min(config.backoff_max_s, delay_s)


async def _first_failure(parts: dict[str, Coroutine[None, None, None]]) -> ControlPlaneError:
    """Run the parts together until one fails; end the others; give the worst failure, consequences last.

    Not a TaskGroup: cancelled while a part fails, that one tells only of the failure, and on Python 3.11 it leaves the
    task marked as cancelled.
    """
    tasks = [asyncio.create_task(part, name=name) for name, part in parts.items()]
    errors: list[BaseException] = []
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        errors = [error for task in tasks if not task.cancelled() and (error := task.exception()) is not None]
    rank = (InvariantBroken, LoginRefused, LinkDown, ActionRefused, OutcomeUnknown)
    ours: list[ControlPlaneError] = []
    for error in errors:
        if not isinstance(error, ControlPlaneError):
            raise error
        ours.append(error)
    return min(ours, key=lambda error: next((i for i, kind in enumerate(rank) if isinstance(error, kind)), len(rank)))
