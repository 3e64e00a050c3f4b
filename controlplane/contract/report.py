"""What a site says of itself: promise, report, and the events of calls. Readers tolerate unknown fields.

Law: a report says how old it was when it was sent; its reader ages it further by its own monotonic clock. A retained
report is stale by definition.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import msgspec

from controlplane.contract.key import Authority, Key, content_hash
from controlplane.contract.names import Count, Moment
from controlplane.contract.plan import Plan

#: How old a report may say that it is: an observation of yesterday tells nothing.
MOST_AGE_MS = 24 * 3600 * 1000
Age = Annotated[int, msgspec.Meta(ge=0, le=MOST_AGE_MS)]


class Claim(msgspec.Struct, frozen=True):
    """A coordinator asks for authority."""

    authority: Authority
    at: Moment


class Promise(msgspec.Struct, frozen=True):
    """A site's answer to a claim: the authority it keeps to from now on (already on its disk), and the newest plan that
    it holds. Where `promised` is higher than the claim, the claim was refused."""

    site: str
    promised: Authority
    plan: Plan | None


class Beacon(msgspec.Struct, frozen=True):
    """Who leads, said regularly on `authority`."""

    authority: Authority
    key: Key
    at: Moment


class Applied(msgspec.Struct, frozen=True):
    """The slice that a site's Asterisk was seen to hold in full, and when that was seen."""

    key: Key
    hash: str
    at: Moment


class SeatState(msgspec.Struct, frozen=True):
    """A remote agent as its site sees it. `endpoint`: Asterisk has it; `contacts`: how many phones are registered."""

    endpoint: bool
    contacts: Count
    queues: tuple[str, ...]


class Report(msgspec.Struct, frozen=True):
    """What a site observes. `incarnation` changes at each start of the daemon, `sequence` counts its reports;
    `age_ms` is how old the observation was when it was sent. `trouble` names what keeps the slice from being
    applied."""

    site: str
    incarnation: str
    sequence: Count
    sent_at: Moment
    age_ms: Age
    fleet_hash: str
    link: str
    applied: Applied | None
    promised: Authority | None
    hands_off: bool
    trouble: tuple[str, ...] = ()
    repaired: tuple[str, ...] = ()
    asterisk: str = ""
    channels: Count = 0
    seats: dict[str, SeatState] = {}
    features: tuple[str, ...] = ()


class CallEventKind(StrEnum):
    """The events that the dialplan raises (docs/reference.md)."""

    ROUTE = "route"
    NEXT = "next"
    ARRIVE = "arrive"
    ANSWERED = "answered"
    LAST = "last"
    CORRUPT = "corrupt"
    SYNTHETIC = "synthetic"


class CallEvent(msgspec.Struct, frozen=True, omit_defaults=True):
    """One thing that happened to one call at one site. `at_ms` is the site's clock, epoch milliseconds. For `route` it
    was taken before the plan was read. `call_kind` is `svc`, `out` or `agent`; `id` the service, group or agent."""

    kind: CallEventKind
    call: str
    at_ms: Count
    call_kind: str = ""
    id: str = ""
    target: str = ""
    plan: str = ""
    number: Count = 0
    synthetic: bool = False
    came_from: str = ""
    waited_ms: Count = 0
    detail: str = ""


class CallEvents(msgspec.Struct, frozen=True):
    """A batch of call events; `sequence` shows a gap, `dropped` counts what a full buffer lost since the start."""

    site: str
    incarnation: str
    sequence: Count
    events: tuple[CallEvent, ...]
    dropped: Count = 0


class ProbeKind(StrEnum):
    """What a synthetic call proves: a service's way to a site, a trunk, or an agent's phone."""

    SERVICE = "svc"
    OUTBOUND = "out"
    AGENT = "agent"


def synthetic_prefix(operation: str) -> str:
    """How the ids of an operation's synthetic calls begin. Of the whole id: ids made at the same time may begin alike.
    The dialplan tells synthetic calls by `syn-`."""
    return f"syn-{content_hash(operation)[:12]}-"


class Probe(msgspec.Struct, frozen=True):
    """A coordinator or the command line asks a site for synthetic calls. `call` is the prefix of their ids; `force`
    names the target, else the table decides; `rate` is calls a second."""

    call: str
    kind: ProbeKind
    id: str
    expires_at: Moment
    number: str = ""
    force: str = ""
    count: int = 1
    rate: float = 10.0
