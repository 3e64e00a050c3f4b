"""`fleet.toml`: what is the same on every host. Sites, trunks, groups and services, and how calls reach them.

The file's content hash travels in each report, so that hosts that disagree are seen.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

import msgspec

from controlplane.contract.key import content_hash
from controlplane.contract.names import Name, Number, Percent, Prefix

Cap = Annotated[int, msgspec.Meta(ge=0, le=100_000)]
#: As many sites and trunks as one routing table can tell apart (one character a slot).
MOST_TARGETS = 62
#: Characters of all names of one division with their commas: the value must stay below 1000 (site.table).
MOST_NAMES = 780


class IngressRule(StrEnum):
    """How a carrier chooses among the trunks where it can deliver a DID."""

    ORDERED = "ordered"
    PERCENT = "percent"
    SINGLE = "single"


class Trigger(StrEnum):
    """What makes a carrier go on to the next trunk."""

    OPTIONS = "options"
    SIP_CODE = "sip_code"
    TIMEOUT = "timeout"
    REGISTRATION = "registration"
    HOOK = "hook"
    PERSON = "person"


class AuthorityRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who may write plans: `fixed` names the host; a person moves it to a standby by `controlplane takeover`."""

    mode: Literal["fixed"]
    host: Name
    standbys: tuple[Name, ...] = ()


class Site(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One PBX host. `link_cap` bounds the calls that any other site forwards to it at once; 0 is no bound."""

    link_cap: Cap = 0


class Trunk(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A carrier line at a site. `endpoint` is its PJSIP endpoint there, `cap` its channels (0: no bound of ours),
    `test_number` one that the carrier answers, for test calls."""

    site: Name
    endpoint: Name
    cap: Cap = 0
    test_number: Number | None = None


class Group(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An outbound trunk group: the prefixes it serves and the share of each trunk, in order of preference."""

    prefixes: tuple[Prefix, ...]
    shares: dict[Name, Percent]


class Ingress(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where the carrier can deliver a DID, and what makes it change."""

    trunks: tuple[Name, ...]
    rule: IngressRule = IngressRule.ORDERED
    triggers: tuple[Trigger, ...] = ()


class Service(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A business line; its queue at each site has its name. `home` orders the sites that can serve it, the order in
    which a call that one site cannot take goes on to the next."""

    dids: tuple[Number, ...]
    home: tuple[Name, ...]
    shares: dict[Name, Percent]


class Fleet(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole of `fleet.toml`."""

    fleet: Name
    authority: AuthorityRule
    sites: dict[Name, Site]
    services: dict[Name, Service]
    trunks: dict[Name, Trunk]
    groups: dict[Name, Group] = {}
    ingress: dict[Number, Ingress] = {}

    @property
    def hash(self) -> str:
        """Also of the order in which trunks stand in a group: it is the order in which they are tried."""
        orders = [tuple(group.shares) for _, group in sorted(self.groups.items())]
        return content_hash([self, orders])


def shares_fault(shares: dict[str, int]) -> str | None:
    """Why these shares are no division of calls, or None."""
    total = sum(shares.values())
    return None if total == 100 else f"the shares add up to {total}, not to 100"


def faults(fleet: Fleet) -> list[str]:
    """Every rule between the parts of a fleet that is broken, each with its path in `fleet.toml`."""
    found: list[str] = []
    found += _trunk_faults(fleet)
    found += _service_faults(fleet)
    found += _group_faults(fleet)
    found += _ingress_faults(fleet)
    if not fleet.sites:
        found.append("sites: no site is named; add a table [sites.NAME]")
    if len(fleet.sites) > MOST_TARGETS:
        found.append(f"sites: {len(fleet.sites)} sites; one routing table holds {MOST_TARGETS} at the most")
    return found


def warnings(fleet: Fleet) -> list[str]:
    """What is allowed and yet risks callers: DIDs with one way in, and DIDs of which no way in is known."""
    return [
        f"ingress.{did}: {warning}"
        for name, service in fleet.services.items()
        for did in service.dids
        if (warning := _ways_in_warning(fleet, name, fleet.ingress.get(did)))
    ]


def _ways_in_warning(fleet: Fleet, service: str, ways: Ingress | None) -> str | None:
    if ways is None:
        return f"no ingress is described for this DID of {service}; nobody can say how its calls reach another site"
    sites = {fleet.trunks[t].site for t in ways.trunks if t in fleet.trunks}
    if len(sites) < 2 or ways.rule is IngressRule.SINGLE:
        only = ", ".join(sorted(sites)) or "none"
        return f"one way in ({only}); if that site dies, the calls of {service} are with the carrier alone"
    if not ways.triggers:
        return "nothing is said to make the carrier change trunks (triggers)"
    return None


def _unknown(path: str, what: str, name: str, known: dict[str, object]) -> str:
    return f"{path}: {what} {name!r} is not defined; known: {', '.join(sorted(known)) or 'none'}"


def _trunk_faults(fleet: Fleet) -> list[str]:
    return [
        _unknown(f"trunks.{name}.site", "site", trunk.site, dict(fleet.sites))
        for name, trunk in fleet.trunks.items()
        if trunk.site not in fleet.sites
    ]


def _too_long(path: str, names: tuple[str, ...]) -> list[str]:
    """The routing value of a division goes into one AMI header: md5, label and table take 220 characters at the most."""
    length = len(",".join(names))
    if length <= MOST_NAMES:
        return []
    return [f"{path}: the names have {length} characters together; {MOST_NAMES} fit: use fewer or shorter names"]


def _service_faults(fleet: Fleet) -> list[str]:
    found: list[str] = []
    owners: dict[str, str] = {}
    for name, service in fleet.services.items():
        path = f"services.{name}"
        for site in service.home:
            if site not in fleet.sites:
                found.append(_unknown(f"{path}.home", "site", site, dict(fleet.sites)))
        found += _too_long(f"{path}.home", service.home)
        if len(set(service.home)) != len(service.home) or not service.home:
            found.append(f"{path}.home: name each site that can serve {name} once, at least one")
        found += [
            f"{path}.shares.{site}: this site is not in home; add it there or take it out here"
            for site in service.shares
            if site not in service.home
        ]
        if fault := shares_fault(service.shares):
            found.append(f"{path}.shares: {fault}")
        for did in service.dids:
            if did in owners:
                found.append(f"{path}.dids: {did} belongs to {owners[did]} already")
            owners[did] = name
    return found


def _group_faults(fleet: Fleet) -> list[str]:
    found: list[str] = []
    owners: dict[str, str] = {}
    for name, group in fleet.groups.items():
        path = f"groups.{name}"
        found += [
            _unknown(f"{path}.shares", "trunk", trunk, dict(fleet.trunks))
            for trunk in group.shares
            if trunk not in fleet.trunks
        ]
        if fault := shares_fault(group.shares):
            found.append(f"{path}.shares: {fault}")
        found += _too_long(f"{path}.shares", tuple(group.shares))
        if not group.prefixes:
            found.append(f"{path}.prefixes: name at least one prefix")
        for prefix in group.prefixes:
            if prefix in owners:
                found.append(f"{path}.prefixes: {prefix} belongs to {owners[prefix]} already")
            owners[prefix] = name
    return found


def _ingress_faults(fleet: Fleet) -> list[str]:
    known_dids = {did for service in fleet.services.values() for did in service.dids}
    found = []
    for did, ways in fleet.ingress.items():
        if did not in known_dids:
            found.append(f"ingress.{did}: no service has this DID")
        for trunk in ways.trunks:
            if trunk not in fleet.trunks:
                found.append(_unknown(f"ingress.{did}.trunks", "trunk", trunk, dict(fleet.trunks)))
        if not ways.trunks:
            found.append(f"ingress.{did}.trunks: name at least one trunk")
    return found
