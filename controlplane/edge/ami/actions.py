"""The AMI actions that the control plane uses, as types, and their encoding.

Invariant: what `encode` gives is exactly one action with exactly the headers named here. A CR, LF or NUL in a value
would start a header or an action of the caller's choosing (fault 15), so it is refused before anything is sent. Must
not know: connections, and whether an action is wise. `Command` is missing on purpose: the account has no right to it.

A field's header is its name in capitals (`member_name` is `MemberName`); AMI ignores the case of header names. A field
that is None is not sent, a tuple is sent as one header for each item.
"""

from __future__ import annotations

import re
from typing import ClassVar, Final

import msgspec

from controlplane.contract.errors import PayloadError

# Seen on Asterisk 22.10: a header line of 1022 bytes (1024 with its CR LF) is taken, one of 1023 is refused ("Failed to
# parse message: line too long"). An action has at most 128 headers (AST_MAX_MANHEADERS).
MAX_LINE_BYTES: Final = 1022
MAX_HEADERS: Final = 128

_FORBIDDEN: Final = re.compile(r"[\r\n\0]")
_VARIABLE_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_VARIABLE_BREAKERS: Final = re.compile(r"[,\"\\]")


class Action(msgspec.Struct, frozen=True, rename="pascal"):
    """Base of all actions. `COMPLETE` is the event that ends the list it answers with; "" for a single answer."""

    COMPLETE: ClassVar[str] = ""
    EMPTY: ClassVar[str] = "-"  # the error by which some actions say that their list is empty


# -- the session itself


class Challenge(Action, frozen=True, rename="pascal"):
    """Ask for the number that is hashed together with the secret, so that the secret never travels."""

    auth_type: str = "MD5"


class Login(Action, frozen=True, rename="pascal"):
    """Log in with the lower-case hex MD5 of challenge + secret. `events` as in `Events.event_mask`."""

    username: str
    key: str
    events: str = "on"
    auth_type: str = "MD5"


class Ping(Action, frozen=True, rename="pascal"):
    """Answered at once by a living session."""


class Events(Action, frozen=True, rename="pascal"):
    """Which classes of events this session gets: `on`, `off`, or names of classes separated by commas."""

    event_mask: str


class Filter(Action, frozen=True, rename="pascal"):
    """Add an event filter to this session, e.g. `action(include),name(Newchannel)`. Needs the class system."""

    match_criteria: str
    operation: str = "Add"


# -- AstDB


class DBPut(Action, frozen=True, rename="pascal"):
    """Write one key. Not on disk at once: after a SIGKILL the puts of the last second were gone (seen on 22.10)."""

    family: str
    key: str
    val: str


class DBGet(Action, frozen=True, rename="pascal"):
    """Read one key; refused when it is absent. The value is `Val` of the one event of the reply."""

    COMPLETE: ClassVar[str] = "DBGetComplete"
    family: str
    key: str


class DBGetTree(Action, frozen=True, rename="pascal"):
    """Read all keys below a family (and key); each event of the reply has `Key` (with a leading /) and `Val`."""

    COMPLETE: ClassVar[str] = "DBGetTreeComplete"
    family: str
    key: str | None = None


class DBDel(Action, frozen=True, rename="pascal"):
    """Remove one key; refused when it is absent."""

    family: str
    key: str


class DBDelTree(Action, frozen=True, rename="pascal"):
    """Remove all keys below a family (and key)."""

    family: str
    key: str | None = None


# -- queues


class QueueAdd(Action, frozen=True, rename="pascal"):
    """Make an interface a dynamic member of a queue; refused when it is one already."""

    queue: str
    interface: str
    member_name: str | None = None
    penalty: int | None = None
    paused: bool | None = None
    state_interface: str | None = None


class QueueRemove(Action, frozen=True, rename="pascal"):
    """Take a dynamic member out of a queue."""

    queue: str
    interface: str


class QueuePause(Action, frozen=True, rename="pascal"):
    """Pause or unpause a member, in one queue or (None) in all."""

    interface: str
    paused: bool
    queue: str | None = None
    reason: str | None = None


class QueuePenalty(Action, frozen=True, rename="pascal"):
    """Give a member another penalty, in one queue or (None) in all; a pause stays. Refused where it is no member. AstDB
    learns of it at the member's next pause only (seen on 22.10)."""

    interface: str
    penalty: int
    queue: str | None = None


class QueueStatus(Action, frozen=True, rename="pascal"):
    """Queues (QueueParams), members (QueueMember) and waiting callers (QueueEntry)."""

    COMPLETE: ClassVar[str] = "QueueStatusComplete"
    queue: str | None = None
    member: str | None = None


class QueueSummary(Action, frozen=True, rename="pascal"):
    """One QueueSummary event for each queue."""

    COMPLETE: ClassVar[str] = "QueueSummaryComplete"
    queue: str | None = None


class QueueWithdrawCaller(Action, frozen=True, rename="pascal"):
    """Have a waiting caller leave Queue() with QUEUESTATUS=WITHDRAW; `caller` is the channel."""

    queue: str
    caller: str
    withdraw_info: str | None = None


# -- calls


class Originate(Action, frozen=True, rename="pascal"):
    """Start a call, always asynchronously: the answer says only that it was taken, OriginateResponse (an event with
    the same ActionID) how it ended. Either `application` (and `data`) or `context`, `exten` and `priority`.
    """

    channel: str
    application: str | None = None
    data: str | None = None
    context: str | None = None
    exten: str | None = None
    priority: int | None = None
    timeout: int | None = None  # milliseconds
    caller_id: str | None = msgspec.field(default=None, name="CallerID")
    variable: tuple[tuple[str, str], ...] = ()  # name and value; sent as one `Variable` header each
    channel_id: str | None = None


class Redirect(Action, frozen=True, rename="pascal"):
    """Send a living channel to another place of the dialplan."""

    channel: str
    context: str
    exten: str
    priority: int = 1


class Hangup(Action, frozen=True, rename="pascal"):
    """End a channel with a Q.850 cause."""

    channel: str
    cause: int | None = None


class CoreShowChannels(Action, frozen=True, rename="pascal"):
    """All channels, one CoreShowChannel event each."""

    COMPLETE: ClassVar[str] = "CoreShowChannelsComplete"


# -- PJSIP


class PJSIPShowEndpoints(Action, frozen=True, rename="pascal"):
    """All endpoints, one EndpointList event each."""

    COMPLETE: ClassVar[str] = "EndpointListComplete"
    EMPTY: ClassVar[str] = "No endpoints found"


class PJSIPShowEndpoint(Action, frozen=True, rename="pascal"):
    """One endpoint in full: EndpointDetail, AuthDetail, AorDetail, ContactStatusDetail …; refused when unknown."""

    COMPLETE: ClassVar[str] = "EndpointDetailComplete"
    endpoint: str


class PJSIPShowContacts(Action, frozen=True, rename="pascal"):
    """Registered contacts (ContactList); static contacts of trunks are not among them."""

    COMPLETE: ClassVar[str] = "ContactListComplete"
    EMPTY: ClassVar[str] = "No Contacts found"


class PJSIPQualify(Action, frozen=True, rename="pascal"):
    """Ask an endpoint by OPTIONS now; the result comes as ContactStatus events."""

    endpoint: str


class PJSIPSetMaintenance(Action, frozen=True, rename="pascal"):
    """Have an endpoint answer 503 to new requests (or end that). In memory only: a restart forgets it."""

    endpoint: str
    state: str  # on, off


# -- the server


class Reload(Action, frozen=True, rename="pascal"):
    """Reload one module. Also activates half-finished edits of its files."""

    module: str


class CoreStatus(Action, frozen=True, rename="pascal"):
    """Current calls, and CoreStartupDate/CoreStartupTime: these tell a restart."""


class CoreSettings(Action, frozen=True, rename="pascal"):
    """Versions and limits of the server."""


class ShowDialPlan(Action, frozen=True, rename="pascal"):
    """The priorities of one context; refused where Asterisk has none of that name."""

    COMPLETE: ClassVar[str] = "ShowDialPlanComplete"

    context: str


class ListCommands(Action, frozen=True, rename="pascal"):
    """What this account may do: one header for each action, in a single answer."""


def encode(action: Action, action_id: str) -> bytes:
    """The bytes of one action. PayloadError names action and field when a value cannot be sent as it is."""
    name = type(action).__name__
    lines = [f"Action: {name}", f"ActionID: {action_id}"]
    for field, header in zip(action.__struct_fields__, action.__struct_encode_fields__, strict=True):
        value = getattr(action, field)
        if value is None:
            continue
        for text in _texts(name, field, value):
            lines.append(_line(name, field, header, text))
    if isinstance(action, Originate):
        _check_destination(action)
        lines.append("Async: true")
    if len(lines) > MAX_HEADERS:
        raise PayloadError(f"{name}: {len(lines)} headers, Asterisk takes {MAX_HEADERS}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def _texts(name: str, field: str, value: object) -> list[str]:
    match value:
        case bool():
            return ["true" if value else "false"]
        case int():
            return [str(value)]
        case str():
            return [value]
        case tuple():
            return [_variable(name, field, item) for item in value]
        case _:
            raise PayloadError(f"{name}.{field}: {type(value).__name__} cannot be sent")


def _line(name: str, field: str, header: str, text: str) -> str:
    if _FORBIDDEN.search(text):
        raise PayloadError(f"{name}.{field}: CR, LF and NUL are not allowed")
    line = f"{header}: {text}"
    try:
        size = len(line.encode())
    except UnicodeEncodeError as error:
        raise PayloadError(f"{name}.{field}: not valid text (lone surrogate)") from error
    if size > MAX_LINE_BYTES:
        raise PayloadError(f"{name}.{field}: header line of {size} bytes, at most {MAX_LINE_BYTES} can be sent")
    return line


def _variable(name: str, field: str, item: tuple[str, str]) -> str:
    """Asterisk splits a Variable header at commas, and a name like SHELL(x) would be a function: refuse both."""
    variable, value = item
    if not _VARIABLE_NAME.fullmatch(variable):
        raise PayloadError(f"{name}.{field}: a variable's name is letters, digits and _")
    if _VARIABLE_BREAKERS.search(value):
        raise PayloadError(f"{name}.{field}: comma, quote and backslash are not allowed in a variable's value")
    return f"{variable}={value}"


def _check_destination(action: Originate) -> None:
    place = (action.context, action.exten, action.priority)
    if (action.application is None) == (action.context is None) or (action.context is not None and None in place):
        raise PayloadError("Originate.application: give either application or context, exten and priority")
    if action.application is None and action.data is not None:
        raise PayloadError("Originate.data: only with application")
