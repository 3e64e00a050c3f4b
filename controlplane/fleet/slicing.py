"""Plans out of `fleet.toml`, changes of plans, and the slice that each site needs of one.

Law: one place gives a division its label (`relabel`), so that the label changes when, and only when, what the dialplan
does with the next call changes.
"""

from __future__ import annotations

import msgspec

from controlplane.contract.command import Command, Failover
from controlplane.contract.fleet import Fleet
from controlplane.contract.key import Key
from controlplane.contract.operation import OperationState
from controlplane.contract.plan import (
    Footprint,
    GroupPlan,
    LinkLine,
    OperationRecord,
    Plan,
    Seat,
    ServicePlan,
    SiteMode,
    SitePlan,
    Slice,
    Split,
    TrunkLine,
)

_change = msgspec.structs.replace
#: Modes in which a site is offered calls.
_OPEN = frozenset({SiteMode.IN_SERVICE})


def first_plan(fleet: Fleet, key: Key) -> Plan:
    """The plan of a fleet that never had one: the shares of `fleet.toml`, all sites in service."""
    return Plan(
        key=key,
        services={n: ServicePlan(dict(s.shares), since=key.label) for n, s in fleet.services.items()},
        groups={n: GroupPlan(dict(g.shares), since=key.label) for n, g in fleet.groups.items()},
        sites={n: SitePlan() for n in fleet.sites},
        fleet_hash=fleet.hash,
    )


def service_split(fleet: Fleet, plan: Plan, service: str) -> Split:
    """How a service's calls are divided, and the order in which a call goes on: sites in home order, closed ones last, so
    that they take only what no other site can."""
    wanted = plan.services[service]
    home = fleet.services[service].home
    order = sorted(home, key=lambda site: (not _offers(wanted.shares, site, plan.sites[site]), home.index(site)))
    return Split(tuple(order), {s: p for s, p in wanted.shares.items() if p}, wanted.since)


def group_split(fleet: Fleet, plan: Plan, group: str) -> Split:
    """The same for a group's trunks, in the order of the file; those of closed sites last."""
    wanted = plan.groups[group]
    trunks = list(fleet.groups[group].shares)
    order = sorted(
        trunks,
        key=lambda t: (not _offers(wanted.shares, t, plan.sites[fleet.trunks[t].site]), trunks.index(t)),
    )
    return Split(tuple(order), {t: p for t, p in wanted.shares.items() if p}, wanted.since)


def _offers(shares: dict[str, int], target: str, site: SitePlan) -> bool:
    return bool(shares.get(target, 0)) or site.mode in _OPEN


def relabel(fleet: Fleet, before: Plan, after: Plan) -> Plan:
    """`after`, with its own key as the label of each division that differs from `before`."""

    def changed(old: Split, new: Split) -> bool:
        return (old.order, old.shares) != (new.order, new.shares)

    label = after.key.label
    services = {
        name: _change(s, since=label)
        if changed(service_split(fleet, before, name), service_split(fleet, after, name))
        else s
        for name, s in after.services.items()
    }
    groups = {
        name: _change(g, since=label)
        if changed(group_split(fleet, before, name), group_split(fleet, after, name))
        else g
        for name, g in after.groups.items()
    }
    return _change(after, services=services, groups=groups)


def slices(fleet: Fleet, plan: Plan) -> dict[str, Slice]:
    """The slice of every site."""
    services = {name: service_split(fleet, plan, name) for name in plan.services}
    groups = {name: group_split(fleet, plan, name) for name in plan.groups}
    plan_hash = plan.hash
    return {
        site: Slice(
            key=plan.key,
            plan_hash=plan_hash,
            site=site,
            mode=plan.sites[site].mode,
            dids={did: name for name, service in fleet.services.items() for did in service.dids},
            services=services,
            groups=groups,
            prefixes={prefix: name for name, group in fleet.groups.items() for prefix in group.prefixes},
            trunks={n: TrunkLine(t.site, t.endpoint, t.cap) for n, t in fleet.trunks.items()},
            links={n: LinkLine(f"site-{n}", s.link_cap) for n, s in fleet.sites.items() if n != site},
            seats={
                agent: Seat(a.name, a.services, a.penalty, a.digest)
                for agent, a in plan.agents.items()
                if a.site == site
            },
        )
        for site in fleet.sites
    }


def fit_to_fleet(fleet: Fleet, plan: Plan) -> Plan:
    """The plan for a `fleet.toml` that names other services, groups or sites than the plan does: what is new starts
    with its configured shares, what is gone goes. A division with a target that is gone becomes the configured one, and
    no undo can bring the old one back. A running operation on what is gone has failed."""
    base = first_plan(fleet, plan.key)
    services = {
        name: s if (s := plan.services.get(name)) and set(s.shares) <= set(fleet.services[name].home) else fresh
        for name, fresh in base.services.items()
    }
    groups = {
        name: g if (g := plan.groups.get(name)) and set(g.shares) <= set(fleet.groups[name].shares) else fresh
        for name, fresh in base.groups.items()
    }
    sites = {name: plan.sites.get(name, fresh) for name, fresh in base.sites.items()}
    agents = {
        name: a for name, a in plan.agents.items() if a.site in fleet.sites and set(a.services) <= set(fleet.services)
    }
    past, running, commands = [_fitted(fleet, r) for r in plan.past], plan.running, dict(plan.commands)
    if running is not None and not _can_go_on(fleet, running):
        why = "fleet.toml no longer names what this operation works on"
        ended = _change(running, state=OperationState.FAILED, unproven=(*running.unproven, why))
        past.append(_fitted(fleet, ended))
        if known := commands.get(running.id):
            commands[running.id] = _change(known, state=OperationState.FAILED)
        running = None
    elif running is not None:
        running = _fitted(fleet, running)
    return _change(
        plan, services=services, groups=groups, sites=sites, agents=agents, past=tuple(past), running=running,
        commands=commands, fleet_hash=fleet.hash,
    )  # fmt: skip


def _can_go_on(fleet: Fleet, record: OperationRecord) -> bool:
    """Whether all that a running operation works on is still there. A failover keeps what it reached; of another, a
    division that was put back to the configured one would be taken for what was asked."""
    if not _names(record.command) <= _known(fleet):
        return False
    marks = record.footprint
    return isinstance(record.command, Failover) or all(
        _fits(fleet, mark, mark.before) and _fits(fleet, mark, mark.after) for mark in marks
    )


def _known(fleet: Fleet) -> set[str]:
    return {*fleet.sites, *fleet.services, *fleet.groups}


def _names(command: Command) -> set[str]:
    """The sites, services and groups that a command names, but for its shares."""
    single = {getattr(command, field, None) for field in ("site", "to", "service", "group")} - {None}
    return {str(name) for name in single} | set(getattr(command, "services", ()))


def _fitted(fleet: Fleet, record: OperationRecord) -> OperationRecord:
    """The record without marks that would bring back a target which its division no longer has."""
    return _change(record, footprint=tuple(m for m in record.footprint if _fits(fleet, m, m.before)))


def _fits(fleet: Fleet, mark: Footprint, value: object) -> bool:
    """Whether the field of a mark is still there, and can hold this value of it."""
    part, rest = mark.path.split(".", 1)
    name = rest.rsplit(".", 1)[0]
    if part == "sites":
        return name in fleet.sites
    targets: set[str] = set()
    if part == "services" and name in fleet.services:
        targets = set(fleet.services[name].home)
    elif part == "groups" and name in fleet.groups:
        targets = set(fleet.groups[name].shares)
    return isinstance(value, dict) and bool(targets) and set(value) <= targets
