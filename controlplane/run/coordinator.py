"""The coordinator: one loop that brings what happens on the bus to the fleet core and carries out what it wants.

It talks MQTT only. A plan is on disk before it is published; when the disk fails, the process ends and nothing new is
accepted.
"""

from __future__ import annotations

import asyncio

import msgspec
from structlog.typing import FilteringBoundLogger

from controlplane.contract.errors import InvariantBroken, JournalError
from controlplane.contract.plan import Plan
from controlplane.contract.report import Beacon, CallEvents, Claim, Promise, Report
from controlplane.contract.topics import Topics
from controlplane.edge import clock
from controlplane.edge.config import Settings
from controlplane.edge.journal import Journal
from controlplane.edge.mqtt import Arrived, Broker, Bus, Message
from controlplane.fleet import core
from controlplane.fleet import state as fleet
from controlplane.run.codec import Unreadable, decode, encode
from controlplane.run.supervise import run_together

TICK_S = 0.25
#: How long the last word on an operation stays on its topic.
OPERATION_KEPT_S = 7 * 24 * 3600
#: Topics whose dropped messages are told; of more than these only at DEBUG.
_MOST_TOLD = 100


class Coordinator:
    """One coordinator. `run` ends only with an error or a signal."""

    def __init__(self, settings: Settings, journal: Journal, known: Plan | None, log: FilteringBoundLogger) -> None:
        if settings.host.host is None:
            raise InvariantBroken("a coordinator was started without a host name")
        self._journal = journal
        self._log = log
        self._topics = Topics(settings.fleet.fleet)
        self._sites = frozenset(settings.fleet.sites)
        self._told: set[str] = set()
        self._state = fleet.State(fleet=settings.fleet, host=settings.host.host, known=known, since=clock.monotonic_s())
        self._inbox: asyncio.Queue[fleet.Input] = asyncio.Queue(10_000)
        broker = settings.host.broker
        self._bus = Bus(
            Broker(broker.host, broker.port, broker.account, settings.secret(broker.password_file)),
            subscriptions=(
                self._topics.command,
                self._topics.plan,
                self._topics.authority,
                self._topics.claim,
                self._topics.all_reports,
                self._topics.all_promises,
                self._topics.all_calls,
            ),
            on_message=self._on_message,
            on_link=self._on_link,
            log=log,
            as_published=frozenset({self._topics.command}),
        )

    async def run(self) -> None:
        await run_together({"bus": self._bus.run(), "decide": self._decide(), "tick": self._tick()}, self._log)

    def _on_link(self, up: bool) -> None:
        """A leader that lost its broker listens anew before it says anything: what it had to say may be old."""
        if not up:
            self._bus.forget_state()
            self._inbox.put_nowait(fleet.LinkLost())

    def _on_message(self, message: Arrived) -> None:
        try:
            event = self._read(message)
        except Unreadable as error:
            self._log.warning("message.unreadable", topic=message.topic, why=str(error))
            return
        if event is None:
            return
        try:
            self._inbox.put_nowait(event)
        except asyncio.QueueFull:
            self._log.warning("inbox.full", lost=type(event).__name__)

    def _read(self, message: Arrived) -> fleet.Input | None:
        topics, tail = self._topics, message.topic.rsplit("/", 1)[-1]
        if message.topic == topics.command:
            return fleet.CommandCame(message.payload, message.retained, self._reply_to(message))
        if message.topic == topics.plan:
            return fleet.PlanSeen(decode(message.payload, Plan))
        if message.topic == topics.authority:
            return fleet.BeaconSeen(decode(message.payload, Beacon), message.retained)
        if message.topic == topics.claim:
            return fleet.ClaimCame(decode(message.payload, Claim))
        site = topics.site_in(message.topic)
        return None if site is None else self._read_of_site(site, tail, message)

    def _read_of_site(self, site: str, tail: str, message: Arrived) -> fleet.Input | None:
        """What a site says. The broker lets each site write to its own topics alone, so the topic says who speaks."""
        if site not in self._sites:
            self._drop(message.topic, "this site is not in fleet.toml")
            return None
        event: fleet.Input
        if tail == "report":
            report = decode(message.payload, Report)
            event, said = fleet.ReportCame(report, message.retained), report.site
        elif tail == "promise" and not message.retained:
            promise = decode(message.payload, Promise)
            event, said = fleet.PromiseCame(promise), promise.site
        elif tail == "calls" and not message.retained:
            batch = decode(message.payload, CallEvents)
            event, said = fleet.EventsCame(batch), batch.site
        else:
            return None
        if said != site:
            self._drop(message.topic, f"it names {said[:40]!r} as its site")
            return None
        return event

    def _drop(self, topic: str, why: str) -> None:
        """Told once for a topic: what is wrong with a site is wrong with each of its messages."""
        level = self._log.debug if topic in self._told or len(self._told) >= _MOST_TOLD else self._log.warning
        if len(self._told) < _MOST_TOLD:
            self._told.add(topic)
        level("message.dropped", topic=topic, why=why)

    def _reply_to(self, message: Arrived) -> fleet.ReplyTo | None:
        topic = message.response_topic
        if not topic:
            return None
        if not self._topics.may_reply_on(topic):
            self._log.warning("reply.ignored", topic=topic[:80], why="a response topic begins with the fleet's reply/")
            return None
        return fleet.ReplyTo(topic, message.correlation)

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            # Without a broker nothing can be heard, so listening and claiming wait for it.
            if self._bus.connected:
                await self._inbox.put(fleet.Tick())
            elif self._state.role is fleet.Role.LISTENING:
                self._state = msgspec.structs.replace(self._state, since=clock.monotonic_s())

    async def _decide(self) -> None:
        while True:
            event = await self._inbox.get()
            role = self._state.role
            self._state, effects = core.step(self._state, event, fleet.Now(clock.monotonic_s(), clock.wall()))
            if self._state.role is not role:
                self._log.info("role", role=self._state.role.value)
            for effect in effects:
                await self._carry_out(effect)

    async def _carry_out(self, effect: fleet.Effect) -> None:
        match effect:
            case fleet.SavePlan(plan):
                await self._journal.keep("plan", plan, kind="plan", id_=plan.key.label, at=clock.wall())
            case fleet.PublishPlan():
                self._publish_plan(effect)
            case fleet.PublishOperation():
                self._publish_operation(effect)
            case fleet.PublishClaim(claim):
                self._bus.publish(Message(self._topics.claim, encode(claim)))
            case fleet.PublishBeacon(beacon):
                self._bus.publish(Message(self._topics.authority, encode(beacon), retain=True, keep_newest=True))
            case fleet.SendProbe(site, probe):
                self._bus.publish(Message(self._topics.probe(site), encode(probe), expiry_s=30))
            case fleet.Note(kind, id_, body):
                self._log.info("fleet." + kind, id=id_, **{k: v for k, v in body.items() if k != "command"})
                await self._journal.note(kind, id_, body, clock.wall())

    def _publish_plan(self, effect: fleet.PublishPlan) -> None:
        """Slices before the plan: sites act on the slice."""
        for site, piece in effect.slices.items():
            self._bus.publish(Message(self._topics.slice(site), encode(piece), retain=True, keep_newest=True))
        self._bus.publish(Message(self._topics.plan, encode(effect.plan), retain=True, keep_newest=True))

    def _publish_operation(self, effect: fleet.PublishOperation) -> None:
        body = encode(effect.operation)
        if effect.on_topic:
            known = effect.operation.id != fleet.NO_ID
            topic = self._topics.operation(effect.operation.id)
            self._bus.publish(Message(topic, body, retain=known, expiry_s=OPERATION_KEPT_S if known else None))
        if effect.reply_to is not None:
            self._bus.publish(Message(effect.reply_to.topic, body, correlation=effect.reply_to.correlation))


async def load_plan(journal: Journal) -> Plan | None:
    """The newest plan on this host's disk."""
    body = await journal.load("plan")
    if body is None:
        return None
    try:
        return decode(body, Plan)
    except Unreadable as error:
        raise JournalError(
            f"the plan on disk cannot be read: {error}; move the file away to start without it"
        ) from error
