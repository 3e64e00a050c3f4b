"""A site's Asterisk as the site core wants it: one snapshot, steps, synthetic calls. Over the AMI link only.

Facts relied on (Asterisk 22.10, seen): DBGetTree of an absent family is an empty list, DBGet of an absent key the error
"Database entry not found"; dynamic members persist, their penalty does not until the next pause;
`registrar/contact/<aor>;@<hash>` holds the contacts as JSON.
"""

from __future__ import annotations

import json

import msgspec

from controlplane.contract.errors import ActionRefused, ControlPlaneError, OutcomeUnknown
from controlplane.contract.report import Probe, ProbeKind, SeatState
from controlplane.edge.ami import actions
from controlplane.edge.ami.link import AmiLink
from controlplane.site.compile import HOLD, OURS, Member
from controlplane.site.diff import AddMember, Delete, Observed, Put, ReloadEndpoints, RemoveMember, SetPenalty, Step

#: What the site daemon wants to hear of; everything else is filtered at the server.
EVENTS = (
    "UserEvent",
    "OriginateResponse",
    "QueueMemberAdded",
    "QueueMemberRemoved",
    "QueueMemberPenalty",
    "ContactStatus",
    "Reload",
)
#: Events after which the content of Asterisk may differ from the slice.
CHANGES = frozenset({"QueueMemberAdded", "QueueMemberRemoved", "QueueMemberPenalty", "ContactStatus", "Reload"})
_PROBE_ANSWER_MS = 10_000
#: Asterisk's words for a key or family that AstDB does not have; every other refusal says nothing of its content.
NOT_FOUND = "Database entry not found"


class Health(msgspec.Struct, frozen=True):
    """A light look: what Asterisk is and how busy."""

    startup: str
    channels: int


async def health(link: AmiLink) -> Health:
    frame = (await link.call(actions.CoreStatus())).frame
    startup = f"{frame.get('CoreStartupDate', '')} {frame.get('CoreStartupTime', '')}".strip()
    count = frame.get("CoreCurrentCalls", "0")
    return Health(startup, int(count) if count.isascii() and count.isdigit() and len(count) < 16 else 0)


async def is_held(link: AmiLink) -> bool:
    """Whether an engineer holds this site by AstDB."""
    family, key = HOLD.split("/", 1)
    try:
        await link.call(actions.DBGet(family=family, key=key))
    except ActionRefused as error:
        if error.message != NOT_FOUND:
            raise
        return False
    return True


async def version(link: AmiLink) -> str:
    return (await link.call(actions.CoreSettings())).frame.get("AsteriskVersion", "")


async def look(link: AmiLink) -> Observed:
    """The whole of what is ours in Asterisk."""
    astdb = await _tree(link, "cp")
    registrar = await _tree(link, "registrar")
    members = await link.call(actions.QueueStatus())
    endpoints = await link.call(actions.PJSIPShowEndpoints())
    contacts = {}
    for key, text in registrar.items():
        try:
            contacts[key] = str(json.loads(text).get("endpoint", ""))
        except (ValueError, AttributeError):
            contacts[key] = ""
    return Observed(
        astdb=astdb,
        members={
            (e.get("Queue"), e.get("Location")): Member(e.get("Name"), int(e.get("Penalty", "0")))
            for e in members.events
            if e.get("Event") == "QueueMember"
        },
        contacts=contacts,
        endpoints=frozenset(e.get("ObjectName") for e in endpoints.events if e.get("Event") == "EndpointList"),
    )


async def _tree(link: AmiLink, family: str) -> dict[str, str]:
    try:
        reply = await link.call(actions.DBGetTree(family=family))
    except ActionRefused as error:
        # An account without the right to read must not look like an empty AstDB, which would be written anew.
        if error.message != NOT_FOUND:
            raise
        return {}
    return {e.get("Key").removeprefix("/"): e.get("Val") for e in reply.events if e.get("Key")}


def seats(seen: Observed) -> dict[str, SeatState]:
    """Remote agents of ours as Asterisk has them, and contacts left over from such."""
    ours = {key.rsplit("/", 1)[1] for key in seen.astdb if key.startswith("cp/endpoint/")}
    queues: dict[str, list[str]] = {}
    for (queue, _), member in seen.members.items():
        if member.name.startswith(OURS):
            queues.setdefault(member.name.removeprefix(OURS), []).append(queue)
    registered = list(seen.contacts.values())
    left_over = {e for e in registered if e and e not in seen.endpoints}
    return {
        agent: SeatState(agent in seen.endpoints, registered.count(agent), tuple(sorted(queues.get(agent, []))))
        for agent in sorted(ours | set(queues) | left_over)
    }


async def perform(link: AmiLink, steps: tuple[Step, ...]) -> tuple[str, ...]:
    """Carry out steps in order; returns what failed. A removal of what is gone already has succeeded."""
    asked = [_action(step) for step in steps]
    failed = []
    start = 0
    # A reload is waited for alone: what follows relies on it.
    for end in [i for i, step in enumerate(steps) if isinstance(step, ReloadEndpoints)] + [len(steps)]:
        failed += await _batch(link, asked[start:end])
        if end < len(steps):
            failed += await _batch(link, asked[end : end + 1])
        start = end + 1
    return tuple(failed)


async def _batch(link: AmiLink, batch: list[list[actions.Action]]) -> list[str]:
    flat = [action for group in batch for action in group]
    outcomes = await link.call_many(flat) if flat else []
    return [
        f"{type(action).__name__}: {outcome}"
        for action, outcome in zip(flat, outcomes, strict=True)
        if isinstance(outcome, ControlPlaneError) and not _harmless(action, outcome)
    ]


def _harmless(action: actions.Action, outcome: ControlPlaneError) -> bool:
    """Removing what is not there, and removing before adding, may be refused."""
    return isinstance(outcome, ActionRefused) and isinstance(action, actions.DBDel | actions.QueueRemove)


def _action(step: Step) -> list[actions.Action]:
    match step:
        case Put(key, value):
            family, name = key.split("/", 1)
            return [actions.DBPut(family=family, key=name, val=value)]
        case Delete(key):
            family, name = key.split("/", 1)
            return [actions.DBDel(family=family, key=name)]
        case AddMember(queue, interface, member):
            # Removed first: QueueAdd of a member that is there is refused, and its name may be what differs.
            return [
                actions.QueueRemove(queue=queue, interface=interface),
                actions.QueueAdd(
                    queue=queue, interface=interface, member_name=member.name, penalty=member.penalty, paused=False
                ),
            ]
        case SetPenalty(queue, interface, penalty):
            return [actions.QueuePenalty(queue=queue, interface=interface, penalty=penalty)]
        case RemoveMember(queue, interface):
            return [actions.QueueRemove(queue=queue, interface=interface)]
        case ReloadEndpoints():
            return [actions.Reload(module="res_pjsip.so")]


async def place(link: AmiLink, probe: Probe, number: int) -> str | None:
    """Place one synthetic call; returns why it could not be placed. Its channel id is its call id, so that
    OriginateResponse can be told apart."""
    call = f"{probe.call}-{number}"
    channel = {
        ProbeKind.SERVICE: f"Local/{probe.id}@cp-syn-svc/n",
        ProbeKind.OUTBOUND: f"Local/{probe.id}*{probe.number}@cp-syn-out/n",
        ProbeKind.AGENT: f"Local/{probe.id}@cp-syn-agent/n",
    }[probe.kind]
    variables = [("__CP_CALL", call)]
    if probe.force:
        variables.append(("__CP_FORCE", probe.force))
    originate = actions.Originate(
        channel=channel,
        application="Wait",
        data="1",
        timeout=30_000 if probe.kind is ProbeKind.AGENT else _PROBE_ANSWER_MS,
        variable=tuple(variables),
        channel_id=call,
    )
    try:
        await link.call(originate)
    except (ActionRefused, OutcomeUnknown) as error:
        return str(error)
    return None
