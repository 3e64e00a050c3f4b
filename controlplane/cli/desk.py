"""What a person's command line does on the bus: send a command and follow its operation, or read the retained state."""

from __future__ import annotations

import asyncio
import datetime as dt
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

import msgspec
import structlog

from controlplane.contract.command import Command
from controlplane.contract.errors import ControlPlaneError, LinkDown, OutcomeUnknown
from controlplane.contract.operation import FINAL, Operation, OperationState
from controlplane.contract.plan import Plan
from controlplane.contract.report import Beacon, Report
from controlplane.contract.topics import Topics
from controlplane.edge import clock
from controlplane.edge.config import Settings
from controlplane.edge.mqtt import Arrived, Broker, check_broker, open_desk
from controlplane.run.codec import Unreadable, decode, encode

#: How long to wait for the first word of a coordinator.
FIRST_WORD_S = 5.0
#: How long retained state may take to come after a connect.
RETAINED_S = 1.0
T = TypeVar("T")


class FleetState(msgspec.Struct, frozen=True):
    """What the bus knows. `unreadable` names the topics whose retained message cannot be read: it is left out."""

    plan: Plan | None
    beacon: Beacon | None
    beacon_live: bool
    reports: dict[str, Report]
    operations: tuple[Operation, ...]
    unreadable: tuple[str, ...] = ()


def broker_of(settings: Settings) -> Broker:
    named = settings.host.broker
    return Broker(named.host, named.port, named.account, settings.secret(named.password_file))


def stamp(settings: Settings, life_s: int) -> dict[str, object]:
    """The fields that every command has."""
    now = clock.wall()
    return {
        "id": uuid.uuid4(),
        "issued_by": settings.host.broker.account,
        "issued_at": now,
        "expires_at": now + dt.timedelta(seconds=life_s),
    }


async def send(
    settings: Settings, command: Command, *, wait_s: float, on_progress: Callable[[Operation], None]
) -> Operation | None:
    """Send a command and follow it to its end, or to the deadline. Returns the last word heard, if any.

    LinkDown: nothing was sent. OutcomeUnknown: the command may have been sent, and no word of it came.
    """
    topics = Topics(settings.fleet.fleet)
    id_ = str(command.id)
    last: Operation | None = None
    begun = False
    words: asyncio.Queue[Operation] = asyncio.Queue()

    def hear(message: Arrived) -> None:
        try:
            words.put_nowait(decode(message.payload, Operation))
        except Unreadable:
            structlog.get_logger().warning("operation.unreadable", topic=message.topic)

    reply = topics.reply(settings.host.broker.account, id_)
    try:
        async with open_desk(broker_of(settings), (topics.operation(id_), reply), hear) as publish:
            begun = True
            await publish(topics.command, encode(command), reply)
            deadline = clock.monotonic_s() + wait_s
            while (left := deadline - clock.monotonic_s()) > 0:
                try:
                    async with asyncio.timeout(min(left, FIRST_WORD_S) if last is None else left):
                        word = await words.get()
                except TimeoutError:
                    break
                if word != last:
                    on_progress(word)
                last = word
                if word.state in FINAL or word.state is OperationState.ACCEPTED:
                    break
    except LinkDown as error:
        if not begun:
            raise
        if last is None:
            raise OutcomeUnknown(f"the command may have been sent ({error}); look at `controlplane history`") from error
    return last


async def read_state(settings: Settings) -> FleetState:
    """The retained state of the fleet."""
    topics = Topics(settings.fleet.fleet)
    found: dict[str, Arrived] = {}
    subscriptions = (topics.plan, topics.authority, topics.all_reports, topics.all_operations)

    def hear(message: Arrived) -> None:
        found[message.topic] = message

    async with open_desk(broker_of(settings), subscriptions, hear):
        await asyncio.sleep(RETAINED_S)
    return state_of(topics, {topic: message.payload for topic, message in found.items()})


def state_of(topics: Topics, payloads: dict[str, bytes]) -> FleetState:
    """The state in retained messages, by topic. One that cannot be read is left out and named."""
    unreadable: list[str] = []

    def read(topic: str, form: type[T]) -> T | None:
        payload = payloads.get(topic, b"")
        if not payload:
            return None  # An empty message is how a retained one is taken away.
        try:
            return decode(payload, form)
        except Unreadable:
            unreadable.append(topic)
            return None

    beacon = read(topics.authority, Beacon)
    reports = [read(topic, Report) for topic in sorted(payloads) if topic.endswith("/report")]
    operations = [read(topic, Operation) for topic in sorted(payloads) if "/operation/" in topic]
    return FleetState(
        plan=read(topics.plan, Plan),
        beacon=beacon,
        beacon_live=beacon is not None and clock.wall() - beacon.at < dt.timedelta(seconds=10),
        reports={report.site: report for report in reports if report is not None},
        operations=tuple(sorted((o for o in operations if o is not None), key=lambda o: o.at)),
        unreadable=tuple(sorted(unreadable)),
    )


@asynccontextmanager
async def listening(
    settings: Settings, subscriptions: tuple[str, ...], hear: Callable[[Arrived], None]
) -> AsyncIterator[None]:
    """Hear topics while something else is done."""
    async with open_desk(broker_of(settings), subscriptions, hear):
        yield


async def broker_fault(settings: Settings) -> str | None:
    """Why the broker cannot be used with this account, or None."""
    try:
        await check_broker(broker_of(settings))
    except ControlPlaneError as error:
        return str(error)
    return None
