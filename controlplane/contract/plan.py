"""The plan: the wanted state of the whole fleet, and the slice of it that one site needs.

Law: one key never names two contents, so a plan travels with the hash of its content. Whoever takes over finds in the
plan all that the last writer knew: the running operation, the pause, the ids of unexpired commands with their results.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from controlplane.contract.command import Command
from controlplane.contract.key import Key, content_hash
from controlplane.contract.names import Moment
from controlplane.contract.operation import OperationState


class SiteMode(StrEnum):
    """`closed`: takes no call that another site can take."""

    IN_SERVICE = "in_service"
    DRAINING = "draining"
    CLOSED = "closed"
    STANDBY = "standby"


class Waiting(StrEnum):
    """What becomes of callers who already wait at a site that gives its share away."""

    KEEP = "keep"
    MOVE = "move"


class ServicePlan(msgspec.Struct, frozen=True):
    """How the calls of a service are divided over sites, in whole percent. `since` is the label of the key under which
    its division last changed: it stands in each routing decision, so that evidence can tell new from old."""

    shares: dict[str, int]
    waiting: Waiting = Waiting.KEEP
    since: str = ""


class GroupPlan(msgspec.Struct, frozen=True):
    """How the outbound calls of a group are divided over trunks, in whole percent; `since` as in ServicePlan."""

    shares: dict[str, int]
    since: str = ""


class SitePlan(msgspec.Struct, frozen=True):
    """The mode of one site."""

    mode: SiteMode = SiteMode.IN_SERVICE


class AgentPlan(msgspec.Struct, frozen=True):
    """A remote agent: the endpoint that the site makes, and the queues it serves. `digest` is MD5 of
    `agent:realm:password`; the password is never known here."""

    name: str
    site: str
    services: tuple[str, ...]
    penalty: int
    digest: str


class Footprint(msgspec.Struct, frozen=True):
    """A field of the plan that an operation changed: `path` as in `services.claims.shares`."""

    path: str
    before: object
    after: object


class OperationRecord(msgspec.Struct, frozen=True):
    """An operation as the plan carries it, enough to go on with it elsewhere. `phase` is its index in the phases of its
    kind; `since` the time its present phase began; `left_out` the sites that were out of reach when it began, of which
    nothing can be proven."""

    id: str
    command: Command
    state: OperationState
    phase: int
    started_at: Moment
    since: Moment
    footprint: tuple[Footprint, ...] = ()
    left_out: tuple[str, ...] = ()
    unproven: tuple[str, ...] = ()


class CommandResult(msgspec.Struct, frozen=True):
    """What became of a command, kept until it expires, so that it is never obeyed twice."""

    kind: str
    state: OperationState
    expires_at: Moment


class Plan(msgspec.Struct, frozen=True):
    """The wanted state of the fleet. `past` holds the latest ended operations, newest last, for undo and restore;
    `fleet_hash` is that of the `fleet.toml` it was made for."""

    key: Key
    services: dict[str, ServicePlan]
    groups: dict[str, GroupPlan]
    sites: dict[str, SitePlan]
    agents: dict[str, AgentPlan] = {}
    fleet_hash: str = ""
    paused_at: Moment | None = None
    running: OperationRecord | None = None
    past: tuple[OperationRecord, ...] = ()
    commands: dict[str, CommandResult] = {}

    @property
    def hash(self) -> str:
        return content_hash(self)


class Split(msgspec.Struct, frozen=True):
    """A division of calls: shares in whole percent that add up to 100, and the order in which a call that its first
    target cannot take goes on. Targets with no share may stand in `order`: they are asked last. `since` labels it."""

    order: tuple[str, ...]
    shares: dict[str, int]
    since: str = ""


class TrunkLine(msgspec.Struct, frozen=True):
    """Where a trunk is and how it is dialled there."""

    site: str
    endpoint: str
    cap: int = 0


class LinkLine(msgspec.Struct, frozen=True):
    """How another site is dialled from here."""

    endpoint: str
    cap: int = 0


class Seat(msgspec.Struct, frozen=True):
    """A remote agent at this site."""

    name: str
    services: tuple[str, ...]
    penalty: int
    digest: str


class Slice(msgspec.Struct, frozen=True):
    """What one site needs of a plan; `plan_hash` is the hash of that plan."""

    key: Key
    plan_hash: str
    site: str
    mode: SiteMode
    dids: dict[str, str]
    services: dict[str, Split]
    groups: dict[str, Split]
    prefixes: dict[str, str]
    trunks: dict[str, TrunkLine]
    links: dict[str, LinkLine]
    seats: dict[str, Seat]

    @property
    def hash(self) -> str:
        return content_hash(self)
