"""The state of a coordinator, what can happen to it, and what it can want done."""

from __future__ import annotations

import datetime as dt
from enum import StrEnum

import msgspec

from controlplane.contract.fleet import Fleet
from controlplane.contract.key import Authority, Key
from controlplane.contract.operation import Operation, OperationState
from controlplane.contract.plan import Plan, Slice
from controlplane.contract.report import Beacon, CallEvents, Claim, Probe, Promise, Report
from controlplane.fleet.view import View

#: Stands for the id of a command that has none that can be read.
NO_ID = "unreadable"


class Role(StrEnum):
    """LISTENING: hears who leads before it does anything. CLAIMING: asks the sites for their promises. STANDBY: another
    leads. LEADING: writes plans."""

    LISTENING = "listening"
    CLAIMING = "claiming"
    STANDBY = "standby"
    LEADING = "leading"


class Now(msgspec.Struct, frozen=True):
    """Monotonic seconds of this host, and the time of day (UTC)."""

    mono: float
    wall: dt.datetime


class ReplyTo(msgspec.Struct, frozen=True):
    """Where the sender of a command wants its answers."""

    topic: str
    correlation: bytes | None


class Claiming(msgspec.Struct, frozen=True):
    """A claim under way. `promises` are the sites that promised; `takeover` the command that asked for it."""

    authority: Authority
    since: float
    promises: frozenset[str] = frozenset()
    best: Plan | None = None
    takeover: str | None = None
    takeover_expires_at: dt.datetime | None = None


class State(msgspec.Struct, frozen=True):
    """All that a coordinator decides from. `known` is the newest plan it holds or saw; `floor` the highest authority it
    heard of. `asked_at`: when synthetic calls were last asked for; `phase_at`: when the running operation's phase began
    here; `repeated_at`: when the plan was last published again. All in monotonic seconds: a jump of the wall clock must
    not end an operation. `overwritten`: a lower plan was seen to stand on the bus in the place of ours.
    `held`: commands that came while it was not known yet who leads."""

    fleet: Fleet
    host: str
    role: Role = Role.LISTENING
    since: float = 0.0
    known: Plan | None = None
    floor: Authority | None = None
    claim: Claiming | None = None
    view: View = View()
    replies: dict[str, ReplyTo] = {}
    beacon_at: float = 0.0
    asked_at: float | None = None
    phase_at: float = 0.0
    repeated_at: float = 0.0
    held: tuple[CommandCame, ...] = ()
    overwritten: bool = False


class CommandCame(msgspec.Struct, frozen=True):
    payload: bytes
    retained: bool
    reply_to: ReplyTo | None


class ReportCame(msgspec.Struct, frozen=True):
    report: Report
    retained: bool


class EventsCame(msgspec.Struct, frozen=True):
    batch: CallEvents


class PromiseCame(msgspec.Struct, frozen=True):
    promise: Promise


class ClaimCame(msgspec.Struct, frozen=True):
    claim: Claim


class PlanSeen(msgspec.Struct, frozen=True):
    """A plan on the bus: our own come back, and those of others."""

    plan: Plan


class BeaconSeen(msgspec.Struct, frozen=True):
    beacon: Beacon
    retained: bool


class LinkLost(msgspec.Struct, frozen=True):
    """The connection to the broker is gone."""


class Tick(msgspec.Struct, frozen=True):
    """Time has passed."""


Input = CommandCame | ReportCame | EventsCame | PromiseCame | ClaimCame | PlanSeen | BeaconSeen | LinkLost | Tick


class SavePlan(msgspec.Struct, frozen=True):
    """Write the plan to disk, durably, before anything that follows."""

    plan: Plan


class PublishPlan(msgspec.Struct, frozen=True):
    plan: Plan
    slices: dict[str, Slice]


class PublishOperation(msgspec.Struct, frozen=True):
    """Say how an operation stands: on its topic (retained when it has an id of its own), and to who asked."""

    operation: Operation
    reply_to: ReplyTo | None
    on_topic: bool = True


class PublishClaim(msgspec.Struct, frozen=True):
    claim: Claim


class PublishBeacon(msgspec.Struct, frozen=True):
    beacon: Beacon


class SendProbe(msgspec.Struct, frozen=True):
    site: str
    probe: Probe


class Note(msgspec.Struct, frozen=True):
    """Write a row to the journal."""

    kind: str
    id: str
    body: dict[str, object]


Effect = SavePlan | PublishPlan | PublishOperation | PublishClaim | PublishBeacon | SendProbe | Note
Result = tuple[State, tuple[Effect, ...]]


def operation_at(
    state: OperationState, *, id_: str, kind: str, key: Key | None, wall: dt.datetime, **more: object
) -> Operation:
    """An operation message. `more` are further fields of Operation."""
    message = Operation(id=id_, kind=kind, state=state, key=key.label if key else "", at=wall.isoformat())
    return msgspec.structs.replace(message, **more)
