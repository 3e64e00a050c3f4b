"""The site daemon: one loop that brings what happens to the site core and carries out what it wants.

It speaks AMI to the Asterisk beside it and MQTT to the fleet, and keeps its promise, slice and newest plan on disk. When
it dies, Asterisk goes on with the last thing written.

Longer than other modules because all of it is one object's wiring of two links, a disk and four timers; rules stand in
`site.core`. The synthetic calls are the part to move out when they grow.
"""

from __future__ import annotations

import asyncio
import uuid
from collections import deque

import msgspec
from structlog.typing import FilteringBoundLogger

from controlplane.contract.errors import ActionRefused, ControlPlaneError, InvariantBroken, JournalError
from controlplane.contract.key import Authority
from controlplane.contract.plan import Plan, Slice
from controlplane.contract.report import (
    MOST_AGE_MS,
    Applied,
    CallEvent,
    CallEventKind,
    CallEvents,
    Claim,
    Probe,
    Report,
    SeatState,
)
from controlplane.contract.topics import Topics
from controlplane.edge import clock
from controlplane.edge.ami.link import AmiConfig, AmiLink, Frame, Phase
from controlplane.edge.config import Settings
from controlplane.edge.journal import Journal
from controlplane.edge.mqtt import Arrived, Broker, Bus, Message, Will
from controlplane.run import asterisk
from controlplane.run.codec import Unreadable, decode, encode
from controlplane.run.supervise import run_together
from controlplane.site import core
from controlplane.site.calls import read_call_event
from controlplane.site.diff import Step

REPORT_S = 2.0
LOOK_S = 30.0
#: How soon after an event that may mean a difference.
LOOK_AFTER_S = 0.3
#: How soon a repair that failed is tried again.
RETRY_S = 2.0
CALLS_S = 0.1
MOST_EVENTS = 20_000
EVENTS_A_BATCH = 500
MOST_PROBES = 1_000
#: Synthetic calls whose end is waited for; of more, the oldest is given up.
MOST_PLACED = 2 * MOST_PROBES


class _Look(msgspec.Struct, frozen=True):
    """A look, and when it was begun (monotonic): one that was begun before the last steps were done shows neither what was
    there before them nor what is there now."""

    looked: core.Looked
    begun: float


class SiteDaemon:
    """One site. `run` ends only with an error or a signal."""

    def __init__(self, settings: Settings, journal: Journal, state: core.State, log: FilteringBoundLogger) -> None:
        host, ami = settings.host, settings.host.ami
        if host.site is None or ami is None:
            raise InvariantBroken("a site daemon was started without a site")
        self.site = host.site
        self._fleet_hash = settings.fleet.hash
        self._hold_file = settings.path(host.hold_file)
        self._journal = journal
        self._log = log
        self._topics = Topics(settings.fleet.fleet)
        self._state = state
        self._incarnation = uuid.uuid4().hex
        self._sequence = 0
        self._batches = 0
        self._dropped = 0
        self._seats: dict[str, SeatState] = {}
        self._version = ""
        self._health = asterisk.Health("", 0)
        self._healthy_at = clock.monotonic_s()
        self._inbox: asyncio.Queue[core.Input | _Look] = asyncio.Queue(1_000)
        self._events: deque[CallEvent] = deque()
        self._look_wanted = asyncio.Event()
        self._ready = asyncio.Event()
        self._look_due = False
        self._done_at = 0.0
        self._probing: set[asyncio.Task[None]] = set()
        self._placed: dict[str, float] = {}
        self._link = AmiLink(
            AmiConfig(
                host=ami.host,
                port=ami.port,
                username=ami.username,
                secret=settings.secret(ami.secret_file),
                event_filters=asterisk.EVENTS,
            ),
            on_event=self._on_ami_event,
            on_phase=self._on_phase,
            synchronise=self._synchronise,
            log=log,
        )
        broker = host.broker
        self._bus = Bus(
            Broker(broker.host, broker.port, broker.account, settings.secret(broker.password_file)),
            subscriptions=(
                self._topics.slice(self.site),
                self._topics.plan,
                self._topics.claim,
                self._topics.probe(self.site),
            ),
            on_message=self._on_message,
            on_link=self._on_bus,
            log=log,
            will=Will(self._topics.alive(self.site), b'{"link":"lost"}'),
        )

    async def run(self) -> None:
        try:
            await run_together(
                {
                    "ami": self._link.run(),
                    "bus": self._bus.run(),
                    "decide": self._decide(),
                    "look": self._look_regularly(),
                    "report": self._report_regularly(),
                    "calls": self._send_calls(),
                },
                self._log,
            )
        finally:
            for task in self._probing:
                task.cancel()
            await asyncio.gather(*self._probing, return_exceptions=True)

    # -- what comes in

    def _on_message(self, message: Arrived) -> None:
        try:
            if message.topic == self._topics.slice(self.site):
                self._put(core.SliceArrived(decode(message.payload, Slice)))
            elif message.topic == self._topics.plan:
                self._put(core.PlanArrived(decode(message.payload, Plan)))
            elif message.topic == self._topics.claim and not message.retained:
                self._put(core.ClaimArrived(decode(message.payload, Claim)))
            elif message.topic == self._topics.probe(self.site) and not message.retained:
                self._start_probe(decode(message.payload, Probe))
        except Unreadable as error:
            self._log.warning("message.unreadable", topic=message.topic, why=str(error))
            self._put(core.Unreadable(self._word_for(message.topic), str(error)))

    def _word_for(self, topic: str) -> str:
        """What a topic carries, in one word."""
        words = {
            self._topics.slice(self.site): "slice",
            self._topics.plan: "plan",
            self._topics.claim: "claim",
            self._topics.probe(self.site): "probe",
        }
        return words.get(topic, "message")

    def _put(self, event: core.Input) -> None:
        """Into the inbox; a full one loses the newest, which its sender's next message or our next look makes good."""
        try:
            self._inbox.put_nowait(event)
        except asyncio.QueueFull:
            self._log.warning("inbox.full", lost=type(event).__name__)

    def _on_bus(self, up: bool) -> None:
        if up:
            self._bus.publish(Message(self._topics.alive(self.site), b'{"link":"up"}', retain=True, keep_newest=True))
            self._send_report()

    def _on_phase(self, phase: Phase, detail: str) -> None:
        if phase is Phase.READY:
            self._ready.set()
        else:
            self._ready.clear()
        if phase is Phase.DOWN:
            # Their OriginateResponse went with the link.
            for call in tuple(self._placed):
                self._probe_answered(call, "link lost")
        if phase in (Phase.READY, Phase.DOWN):
            self._log.info("ami.phase", phase=str(phase), detail=detail)
            self._send_report()

    async def _synchronise(self, link: AmiLink) -> None:
        """After each connect a full look, before any event is believed."""
        self._version = await asterisk.version(link)
        self._health = await asterisk.health(link)
        self._healthy_at = clock.monotonic_s()
        self._look_wanted.set()

    def _on_ami_event(self, frame: Frame) -> None:
        name = frame.get("Event")
        if name == "UserEvent":
            event = read_call_event(dict(frame.items()), received_ms=clock.wall_ms())
            if event is not None:
                self._remember(event)
        elif name == "OriginateResponse":
            self._probe_answered(frame.get("Uniqueid"), frame.get("Response"))
        elif name in asterisk.CHANGES and not self._look_due:
            # Many come together (a reload, a wave of registrations): one look for all.
            self._look_due = True
            asyncio.get_running_loop().call_later(LOOK_AFTER_S, self._look_soon)

    def _look_soon(self) -> None:
        self._look_due = False
        self._look_wanted.set()

    def _remember(self, event: CallEvent) -> None:
        if len(self._events) >= MOST_EVENTS:
            self._events.popleft()
            self._dropped += 1
        self._events.append(event)
        if event.kind is CallEventKind.CORRUPT:
            self._look_wanted.set()

    # -- deciding and doing

    async def _decide(self) -> None:
        while True:
            event = await self._inbox.get()
            if not isinstance(event, _Look):
                await self._step(event)
            elif event.begun >= self._done_at:
                await self._step(event.looked)
            else:
                self._look_wanted.set()

    async def _step(self, event: core.Input) -> None:
        self._state, effects = core.step(self._state, event)
        for effect in effects:
            await self._carry_out(effect)

    async def _carry_out(self, effect: core.Effect) -> None:
        now = clock.wall()
        match effect:
            case core.SavePromise(authority):
                await self._journal.keep("promise", authority, kind="promise", id_=authority.label, at=now)
            case core.SaveSlice(piece):
                await self._journal.keep("slice", piece, kind="slice", id_=piece.key.label, at=now)
            case core.SavePlan(plan):
                await self._journal.keep("plan", plan, kind="plan", id_=plan.key.label, at=now)
            case core.SendPromise(promise):
                self._bus.publish(Message(self._topics.promise(self.site), encode(promise)))
            case core.Look():
                self._look_wanted.set()
            case core.Do(steps):
                await self._do(steps)
            case core.SendReport():
                self._send_report()
            case core.Note(kind, body):
                self._log.info("site." + kind, **body)
                if kind == "applied" and self._state.applied is not None:
                    applied = self._state.applied
                    await self._journal.keep("applied", applied, kind="applied", id_=applied.key.label, at=now)
                else:
                    await self._journal.note(kind, "", body, now)

    async def _do(self, steps: tuple[Step, ...]) -> None:
        try:
            failed = await asterisk.perform(self._link, steps)
        except ControlPlaneError as error:
            failed = (str(error),)
        finally:
            self._done_at = clock.monotonic_s()
        if failed:
            asyncio.get_running_loop().call_later(RETRY_S, self._look_wanted.set)
            await self._step(core.StepsFailed(failed))
        else:
            self._look_wanted.set()

    async def _look_regularly(self) -> None:
        while True:
            try:
                async with asyncio.timeout(LOOK_S):
                    await self._look_wanted.wait()
            except TimeoutError:
                pass
            self._look_wanted.clear()
            await self._ready.wait()
            at, begun = clock.wall(), clock.monotonic_s()
            try:
                observed = await asterisk.look(self._link)
            except ControlPlaneError as error:
                level = self._log.warning if isinstance(error, ActionRefused) else self._log.debug
                level("look.failed", why=str(error))
                await asyncio.sleep(RETRY_S)
                self._look_wanted.set()
                continue
            seats = asterisk.seats(observed)
            if seats != self._seats:
                self._seats = seats
                self._send_report()
            await self._inbox.put(_Look(core.Looked(observed, self._hold_file.exists(), at), begun))

    # -- what goes out

    async def _report_regularly(self) -> None:
        while True:
            if self._link.phase is Phase.READY:
                try:
                    self._health = await asterisk.health(self._link)
                    self._healthy_at = clock.monotonic_s()
                    if (await asterisk.is_held(self._link) or self._hold_file.exists()) != self._state.hands_off:
                        self._look_wanted.set()
                except ControlPlaneError as error:
                    self._log.debug("health.failed", why=str(error))
            self._send_report()
            await asyncio.sleep(REPORT_S)

    def _send_report(self) -> None:
        self._sequence += 1
        report = Report(
            site=self.site,
            incarnation=self._incarnation,
            sequence=self._sequence,
            sent_at=clock.wall(),
            age_ms=min(MOST_AGE_MS, round((clock.monotonic_s() - self._healthy_at) * 1000)),
            fleet_hash=self._fleet_hash,
            link=str(self._link.phase),
            applied=self._state.applied,
            promised=self._state.promised,
            hands_off=self._state.hands_off,
            trouble=self._state.trouble,
            repaired=self._state.repaired,
            asterisk=self._version,
            channels=self._health.channels,
            seats=self._seats,
        )
        self._bus.publish(Message(self._topics.report(self.site), encode(report), retain=True, keep_newest=True))

    async def _send_calls(self) -> None:
        while True:
            await asyncio.sleep(CALLS_S)
            while self._events:
                batch = tuple(self._events.popleft() for _ in range(min(EVENTS_A_BATCH, len(self._events))))
                self._batches += 1
                events = CallEvents(self.site, self._incarnation, self._batches, batch, self._dropped)
                self._bus.publish(Message(self._topics.calls(self.site), encode(events)))

    # -- synthetic calls

    def _start_probe(self, probe: Probe) -> None:
        if probe.expires_at <= clock.wall() or not 0 < probe.count <= MOST_PROBES or probe.rate <= 0:
            self._log.warning("probe.refused", call=probe.call)
            return
        task = asyncio.create_task(self._probe(probe), name=f"probe {probe.call}")
        self._probing.add(task)
        task.add_done_callback(self._probing.discard)

    async def _probe(self, probe: Probe) -> None:
        """Place the calls of a probe at its rate, until it expires."""
        start = clock.monotonic_s()
        for number in range(1, probe.count + 1):
            await asyncio.sleep(max(0.0, start + (number - 1) / probe.rate - clock.monotonic_s()))
            if probe.expires_at <= clock.wall():
                return
            self._await_answer(f"{probe.call}-{number}")
            try:
                why = await asterisk.place(self._link, probe, number)
            except ControlPlaneError as error:
                why = str(error)
            if why is not None:
                self._probe_answered(f"{probe.call}-{number}", why)

    def _await_answer(self, call: str) -> None:
        while len(self._placed) >= MOST_PLACED:
            self._probe_answered(next(iter(self._placed)), "given up")
        self._placed[call] = clock.monotonic_s()

    def _probe_answered(self, call: str, word: str) -> None:
        """The end of a synthetic call's setup, timed by this host's clock alone."""
        placed = self._placed.pop(call, None)
        if placed is not None:
            took_ms = round((clock.monotonic_s() - placed) * 1000)
            event = CallEvent(
                CallEventKind.SYNTHETIC, call, clock.wall_ms(), waited_ms=took_ms, synthetic=True, detail=word
            )
            self._remember(event)


async def load_state(site: str, journal: Journal) -> core.State:
    """The state that a site daemon starts from. What is on disk and cannot be read stops it: it holds a promise."""

    async def kept(name: str, form: type[msgspec.Struct]) -> msgspec.Struct | None:
        body = await journal.load(name)
        if body is None:
            return None
        try:
            return decode(body, form)
        except Unreadable as error:
            raise JournalError(f"what was kept as {name!r} cannot be read: {error}") from error

    promised = await kept("promise", Authority)
    piece = await kept("slice", Slice)
    plan = await kept("plan", Plan)
    applied = await kept("applied", Applied)
    return core.State(
        site=site,
        promised=promised if isinstance(promised, Authority) else None,
        piece=piece if isinstance(piece, Slice) else None,
        plan=plan if isinstance(plan, Plan) else None,
        applied=applied if isinstance(applied, Applied) else None,
    )
