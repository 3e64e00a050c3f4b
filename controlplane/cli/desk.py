"""What a person's command line does on the bus: send a command and follow its operation, or read the retained state."""

from __future__ import annotations

import asyncio
import datetime as dt
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import msgspec
import structlog

from controlplane.contract.command import Command
from controlplane.contract.errors import ControlPlaneError
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


class FleetState(msgspec.Struct, frozen=True):
    """What the bus knows. `heard` holds the sites whose report came live, not retained."""

    plan: Plan | None
    beacon: Beacon | None
    beacon_live: bool
    reports: dict[str, Report]
    operations: tuple[Operation, ...]


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
    """Send a command and follow it to its end, or to the deadline. Returns the last word heard, if any."""
    topics = Topics(settings.fleet.fleet)
    id_ = str(command.id)
    last: Operation | None = None
    words: asyncio.Queue[Operation] = asyncio.Queue()

    def hear(message: Arrived) -> None:
        try:
            words.put_nowait(decode(message.payload, Operation))
        except Unreadable:
            structlog.get_logger().warning("operation.unreadable", topic=message.topic)

    reply = topics.reply(settings.host.broker.account, id_)
    async with open_desk(broker_of(settings), (topics.operation(id_), reply), hear) as publish:
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
    plan = found.get(topics.plan)
    beacon = found.get(topics.authority)
    return FleetState(
        plan=decode(plan.payload, Plan) if plan else None,
        beacon=decode(beacon.payload, Beacon) if beacon else None,
        beacon_live=bool(beacon and clock.wall() - decode(beacon.payload, Beacon).at < dt.timedelta(seconds=10)),
        reports={
            r.site: r for r in (decode(m.payload, Report) for t, m in sorted(found.items()) if t.endswith("/report"))
        },
        operations=tuple(
            sorted((decode(m.payload, Operation) for t, m in found.items() if "/operation/" in t), key=lambda o: o.at)
        ),
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
