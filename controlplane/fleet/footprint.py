"""Which fields of the plan an operation changed, and how they are reset.

Law: undo resets only fields that still hold what the operation wrote. Enrolments, credentials and the pause are never
restored: only shares and modes can be reset.
"""

from __future__ import annotations

import msgspec

from controlplane.contract.plan import Footprint, GroupPlan, Plan, ServicePlan, SiteMode, SitePlan

_change = msgspec.structs.replace


def fields(plan: Plan) -> dict[str, object]:
    """The resettable fields of a plan by path, as plain JSON values."""
    found: dict[str, object] = {f"services.{n}.shares": dict(s.shares) for n, s in plan.services.items()}
    found |= {f"groups.{n}.shares": dict(g.shares) for n, g in plan.groups.items()}
    found |= {f"sites.{n}.mode": s.mode.value for n, s in plan.sites.items()}
    return found


def footprint(before: Plan, after: Plan) -> tuple[Footprint, ...]:
    """What a change did to the resettable fields."""
    old, new = fields(before), fields(after)
    return tuple(Footprint(path, old[path], value) for path, value in new.items() if path in old and old[path] != value)


def reset(plan: Plan, marks: tuple[Footprint, ...]) -> tuple[Plan, tuple[str, ...]]:
    """The plan with these fields as they were before, and the paths that others changed since and so stay."""
    now = fields(plan)
    kept = tuple(m.path for m in marks if now.get(m.path) != m.after)
    for mark in marks:
        if mark.path not in kept:
            plan = _write(plan, mark.path, mark.before)
    return plan, kept


def _write(plan: Plan, path: str, value: object) -> Plan:
    part, rest = path.split(".", 1)
    name, _ = rest.rsplit(".", 1)
    match part:
        case "services":
            shares = msgspec.convert(value, dict[str, int])
            new: ServicePlan = _change(plan.services[name], shares=shares)
            return _change(plan, services=plan.services | {name: new})
        case "groups":
            group: GroupPlan = _change(plan.groups[name], shares=msgspec.convert(value, dict[str, int]))
            return _change(plan, groups=plan.groups | {name: group})
        case _:
            site = SitePlan(msgspec.convert(value, SiteMode))
            return _change(plan, sites=plan.sites | {name: site})
