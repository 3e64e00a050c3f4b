"""Plans out of `fleet.toml`, changes of plans, and the slice that each site needs of one.

Law: one place gives a division its label (`relabel`), so that the label changes when, and only when, what the dialplan
does with the next call changes.
"""

from __future__ import annotations

import msgspec

from controlplane.contract.fleet import Fleet
from controlplane.contract.key import Key
from controlplane.contract.plan import (
    GroupPlan,
    LinkLine,
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
    )


def service_split(fleet: Fleet, plan: Plan, service: str) -> Split:
    """How a service's calls are divided: sites in home order that are in service, or hold a share."""
    wanted = plan.services[service]
    order = [
        site for site in fleet.services[service].home if wanted.shares.get(site, 0) or plan.sites[site].mode in _OPEN
    ]
    return Split(tuple(order), {s: p for s, p in wanted.shares.items() if p}, wanted.since)


def group_split(fleet: Fleet, plan: Plan, group: str) -> Split:
    """How a group's calls are divided: trunks in the file's order whose site is in service, or that hold a share."""
    wanted = plan.groups[group]
    order = [
        trunk
        for trunk in fleet.groups[group].shares
        if wanted.shares.get(trunk, 0) or plan.sites[fleet.trunks[trunk].site].mode in _OPEN
    ]
    return Split(tuple(order), {t: p for t, p in wanted.shares.items() if p}, wanted.since)


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
    with its configured shares, what is gone goes. A division with a target that is gone becomes the configured one."""
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
    agents = {name: a for name, a in plan.agents.items() if a.site in fleet.sites}
    return _change(plan, services=services, groups=groups, sites=sites, agents=agents)
