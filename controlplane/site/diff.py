"""The difference between what a site should hold and what it was seen to hold, as ordered steps.

Law: additions first, then routing, then removals, then `cp/applied`; doing it twice changes nothing. Only family `cp`
and members named `cp:…` are ours; `cp/hold` belongs to the engineer at the host.
"""

from __future__ import annotations

import msgspec

from controlplane.site.compile import APPLIED, HOLD, OURS, Member, Wanted

#: Routing is what decides where a call goes; all else must be there before it and go after it.
_ROUTING = ("cp/svc/", "cp/out/", "cp/did/", "cp/prefix/")
_SORCERY = ("cp/endpoint/", "cp/auth/", "cp/aor/")


class Observed(msgspec.Struct, frozen=True):
    """What an Asterisk was seen to hold. `contacts` maps the AstDB key of each registered contact to its endpoint;
    `endpoints` are those PJSIP endpoints that Asterisk itself shows."""

    astdb: dict[str, str]
    members: dict[tuple[str, str], Member]
    contacts: dict[str, str] = {}
    endpoints: frozenset[str] = frozenset()


class Put(msgspec.Struct, frozen=True, tag=True):
    """Write one AstDB key."""

    key: str
    value: str


class Delete(msgspec.Struct, frozen=True, tag=True):
    """Remove one AstDB key."""

    key: str


class AddMember(msgspec.Struct, frozen=True, tag=True):
    """Add a queue member, in the place of one of another name."""

    queue: str
    interface: str
    member: Member


class SetPenalty(msgspec.Struct, frozen=True, tag=True):
    """Put the penalty of a member right. It stays a member all the time, so an agent who paused stays paused."""

    queue: str
    interface: str
    penalty: int


class RemoveMember(msgspec.Struct, frozen=True, tag=True):
    """Take a queue member of ours away."""

    queue: str
    interface: str


class ReloadEndpoints(msgspec.Struct, frozen=True, tag=True):
    """One reload of res_pjsip: endpoints made in AstDB stay Unavailable until then (seen on Asterisk 22.10)."""


Step = Put | Delete | AddMember | SetPenalty | RemoveMember | ReloadEndpoints


def difference(want: Wanted, seen: Observed) -> tuple[Step, ...]:
    """The steps that turn `seen` into `want`; empty where nothing differs."""
    puts = [Put(k, v) for k, v in sorted(want.astdb.items()) if seen.astdb.get(k) != v and k != APPLIED]
    gone = sorted(k for k in seen.astdb if k.startswith("cp/") and k not in want.astdb and k not in (HOLD, APPLIED))
    objects = [p for p in puts if p.key.startswith(_SORCERY)]
    additions: list[Step] = [p for p in puts if not p.key.startswith(_ROUTING)]
    # A seat is made whole before its endpoint is switched on, and before a queue may ring it.
    if any(p.key.startswith(("cp/endpoint/", "cp/aor/")) for p in objects):
        additions.append(ReloadEndpoints())
    additions += [
        _membership(queue, interface, member, seen.members.get((queue, interface)))
        for (queue, interface), member in sorted(want.members.items())
        if seen.members.get((queue, interface)) != member
    ]
    routing: list[Step] = [p for p in puts if p.key.startswith(_ROUTING)]
    steps = additions + routing + _removals(want, seen, gone)
    if steps or seen.astdb.get(APPLIED) != want.astdb[APPLIED]:
        steps.append(Put(APPLIED, want.astdb[APPLIED]))
    return tuple(steps)


def _membership(queue: str, interface: str, member: Member, present: Member | None) -> Step:
    if present is not None and present.name == member.name:
        return SetPenalty(queue, interface, member.penalty)
    return AddMember(queue, interface, member)


def taken_ids(want: Wanted, seen: Observed) -> frozenset[str]:
    """Ids of remote agents that this Asterisk's own configuration already gives to an endpoint: never made by us."""
    ids = {key.rsplit("/", 1)[1] for key in want.astdb if key.startswith("cp/endpoint/")}
    return frozenset(i for i in ids if i in seen.endpoints and f"cp/endpoint/{i}" not in seen.astdb)


def without(want: Wanted, ids: frozenset[str]) -> Wanted:
    """What is wanted, but for these remote agents."""
    astdb = {k: v for k, v in want.astdb.items() if not (k.startswith(_SORCERY) and k.rsplit("/", 1)[1] in ids)}
    return Wanted(astdb, {k: m for k, m in want.members.items() if m.name.removeprefix(OURS) not in ids})


def _removals(want: Wanted, seen: Observed, gone: list[str]) -> list[Step]:
    """Members first, so that no queue rings a phone whose endpoint is going; contacts last, when none can come back."""
    steps: list[Step] = [
        RemoveMember(queue, interface)
        for (queue, interface), member in sorted(seen.members.items())
        if member.name.startswith(OURS) and (queue, interface) not in want.members
    ]
    steps += [Delete(key) for key in gone]
    lost = {key.rsplit("/", 1)[1] for key in gone if key.startswith("cp/endpoint/")}
    steps += [
        Delete(key)
        for key, endpoint in sorted(seen.contacts.items())
        if endpoint in lost or (endpoint not in seen.endpoints and f"cp/endpoint/{endpoint}" in gone)
    ]
    return steps
