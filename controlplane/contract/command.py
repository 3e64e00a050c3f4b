"""Commands: what persons and programs may ask, each kind with its own fields. Unknown fields and kinds are refused.

The rules here need nothing but the command itself; rules that look at the fleet are in `fleet.guards`.
"""

from __future__ import annotations

import uuid
from typing import Annotated

import msgspec

from controlplane.contract.fleet import shares_fault
from controlplane.contract.names import Md5Digest, Moment, Name, Percent, PersonName, Text
from controlplane.contract.operation import Refusal

#: A larger payload is refused unread; the largest command of a fleet of 62 sites is below 4 KB.
MOST_BYTES = 16_384
#: How long the synthetic calls of one command may take to place.
MOST_CALLING_S = 120


class _Common(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind"):
    """The fields of every command. `override` names the rules that a person breaks on purpose."""

    id: uuid.UUID
    issued_by: Name
    issued_at: Moment
    expires_at: Moment
    reason: Text = ""
    dry_run: bool = False
    override: tuple[Name, ...] = ()


class Shift(_Common, frozen=True, kw_only=True, tag="shift"):
    """Divide the calls of a service over sites."""

    service: Name
    shares: dict[Name, Percent]


class Trunks(_Common, frozen=True, kw_only=True, tag="trunks"):
    """Divide the outbound calls of a group over trunks."""

    group: Name
    shares: dict[Name, Percent]


class Failover(_Common, frozen=True, kw_only=True, tag="failover"):
    """Take `site` out of service at once; its shares go to `to`. `confirm_dead`: a person saw that it is dead."""

    site: Name
    to: Name
    confirm_dead: bool = False


class Restore(_Common, frozen=True, kw_only=True, tag="restore"):
    """Bring a site back: its mode, and the shares that the failover took from it."""

    site: Name


class AgentsEnrol(_Common, frozen=True, kw_only=True, tag="agents.enrol"):
    """Make the endpoint of one remote agent and put it into the queues of services. The operation waits `wait_s`
    seconds for the phone to register."""

    agent: Name
    name: PersonName
    site: Name
    services: tuple[Name, ...]
    digest: Md5Digest
    penalty: Annotated[int, msgspec.Meta(ge=0, le=100)] = 0
    wait_s: Annotated[int, msgspec.Meta(ge=0, le=3600)] = 120


class AgentsRevoke(_Common, frozen=True, kw_only=True, tag="agents.revoke"):
    """Take a remote agent's membership, endpoint and registration away."""

    agent: Name


class Undo(_Common, frozen=True, kw_only=True, tag="undo"):
    """Reset the fields that an operation changed and that still hold its values."""

    operation: uuid.UUID


class Cancel(_Common, frozen=True, kw_only=True, tag="cancel"):
    """End the running operation and take back what it changed."""

    operation: uuid.UUID


class Pause(_Common, frozen=True, kw_only=True, tag="pause"):
    """Nothing starts by itself, and a running operation holds at its next gate; repair goes on."""


class Resume(_Common, frozen=True, kw_only=True, tag="resume"):
    """End a pause."""


class Takeover(_Common, frozen=True, kw_only=True, tag="takeover"):
    """Authority moves to the coordinator on `host`."""

    host: Name


class Call(_Common, frozen=True, kw_only=True, tag="call"):
    """Place synthetic calls for a service at one site's entry (`site`; its first home site by default), `rate` a
    second, for at most 120 s. They follow the service's division with a counter of their own, and are answered where
    they arrive."""

    service: Name
    count: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 10
    rate: Annotated[float, msgspec.Meta(ge=0.1, le=100)] = 5.0
    site: Name | None = None


Command = (
    Shift | Trunks | Failover | Restore | AgentsEnrol | AgentsRevoke | Undo | Cancel | Pause | Resume | Takeover | Call
)
KINDS: tuple[type[_Common], ...] = (
    Shift, Trunks, Failover, Restore, AgentsEnrol, AgentsRevoke, Undo, Cancel, Pause, Resume, Takeover, Call,
)  # fmt: skip
KIND_NAMES = tuple(str(k.__struct_config__.tag) for k in KINDS)

_decoder = msgspec.json.Decoder(Command)
#: The fields of an object, each still unread: one that cannot be read does not hide the others.
_fields_decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])


def kind_of(command: Command) -> str:
    """The kind as it is written, for instance `agents.enrol`."""
    return str(type(command).__struct_config__.tag)


def read(payload: bytes) -> Command | Refusal:
    """The command in a payload, or the rule that it breaks. Never raises."""
    if len(payload) > MOST_BYTES:
        return Refusal("too-large", f"the command has {len(payload)} bytes; {MOST_BYTES} are allowed")
    try:
        command = _decoder.decode(payload)
    except msgspec.ValidationError as error:
        return _refusal_for(payload, str(error))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return Refusal("not-json", f"the command is not JSON in UTF-8: {error}")
    return _own_rules(command) or command


def id_in(payload: bytes) -> str | None:
    """The id in a payload that may be no command, so that a refusal can name what it refuses."""
    try:
        return str(msgspec.json.decode(_fields_in(payload[:MOST_BYTES])["id"], type=uuid.UUID))
    except (KeyError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _fields_in(payload: bytes) -> dict[str, msgspec.Raw]:
    """The fields of the object in a payload. Raises what msgspec raises."""
    return _fields_decoder.decode(payload)


def _refusal_for(payload: bytes, error: str) -> Refusal:
    """The refusal of JSON that is no command. It says of a kind only what stands in the payload."""
    known = f"known: {', '.join(KIND_NAMES)}"
    try:
        fields = _fields_in(payload)
    except msgspec.ValidationError as fault:
        if "Expected `object`" in str(fault):
            return Refusal("unknown-kind", f"the command is no JSON object, so it has no kind; {known}")
        return Refusal("not-json", f"the command is no JSON object that can be read: {fault}")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as fault:
        return Refusal("not-json", f"the command cannot be read as JSON: {fault}")
    if "kind" not in fields:
        return Refusal("unknown-kind", f"the command has no kind; {known}")
    try:
        kind = msgspec.json.decode(fields["kind"])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as fault:
        return Refusal("bad-field", f"the value of kind cannot be read: {fault}; {known}")
    if kind not in KIND_NAMES:
        return Refusal("unknown-kind", f"kind {str(kind)[:100]!r} is not known; {known}")
    if "unknown field" in error:
        return Refusal("unknown-field", f"{error} in a command of kind {kind}; take it out")
    if "missing required field" in error:
        return Refusal("missing-field", f"{error} in a command of kind {kind}")
    return Refusal("bad-field", f"{error} in a command of kind {kind}")


def _own_rules(command: Command) -> Refusal | None:
    if command.expires_at <= command.issued_at:
        return Refusal("bad-field", "expires_at must be later than issued_at")
    if isinstance(command, Shift | Trunks) and (fault := shares_fault(command.shares)):
        return Refusal("shares-sum", f"{fault}; give whole percents that do, 0 for a place that gets none")
    if isinstance(command, Failover) and command.site == command.to:
        return Refusal("bad-field", "a site cannot fail over to itself; name another in `to`")
    if isinstance(command, AgentsEnrol) and not command.services:
        return Refusal("bad-field", "services: name at least one service that the agent serves")
    if isinstance(command, Call) and command.count / command.rate > MOST_CALLING_S:
        seconds = f"{command.count} calls at {command.rate:g} a second take {command.count / command.rate:.0f} s"
        return Refusal("bad-field", f"{seconds}; {MOST_CALLING_S} s are allowed: give a smaller count or a higher rate")
    return None
