"""What each kind of command does to the plan, and the phases in which it is proven.

A phase has a gate (what must be seen), a deadline, and what to do when the gate is missed. Law: accepted is not
effective; planned operations are undone when they cannot be proven, a failover keeps what it reached and lists the
rest.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from controlplane.contract.command import (
    AgentsEnrol,
    AgentsRevoke,
    Call,
    Command,
    Failover,
    Restore,
    Shift,
    Trunks,
    Undo,
)
from controlplane.contract.fleet import Fleet
from controlplane.contract.plan import AgentPlan, Footprint, OperationRecord, Plan, SiteMode, SitePlan
from controlplane.fleet.footprint import reset
from controlplane.fleet.guards import failover_marks, past_operation

_change = msgspec.structs.replace


class Missed(StrEnum):
    """What becomes of an operation whose gate was not met in time. FINISH: it ends as done with this unproven, for what
    comes after could not be seen either."""

    UNDO = "undo"
    FAIL = "fail"
    GO_ON = "go_on"
    FINISH = "finish"


class Gate(StrEnum):
    """What must be seen before a phase is over."""

    APPLIED = "applied"
    CALLS = "calls"
    REGISTERED = "registered"
    RINGS = "rings"
    GONE = "gone"
    ARRIVED = "arrived"


class Phase(msgspec.Struct, frozen=True):
    """One phase. `deadline_s` counts from its beginning; None: the command itself says how long."""

    name: str
    gate: Gate
    deadline_s: float | None
    missed: Missed


_PLANNED = (Phase("apply", Gate.APPLIED, 10.0, Missed.UNDO), Phase("prove", Gate.CALLS, 10.0, Missed.UNDO))
_FORCED = (Phase("apply", Gate.APPLIED, 10.0, Missed.GO_ON), Phase("prove", Gate.CALLS, 10.0, Missed.GO_ON))
_ENROL = (
    Phase("provision", Gate.APPLIED, 15.0, Missed.UNDO),
    Phase("register", Gate.REGISTERED, None, Missed.FINISH),
    Phase("ring", Gate.RINGS, 30.0, Missed.GO_ON),
)
_CALL = (Phase("call", Gate.ARRIVED, None, Missed.FAIL),)
#: How long the last of several synthetic calls may take to arrive.
_ARRIVAL_S = 10.0
_REVOKE = (Phase("remove", Gate.APPLIED, 10.0, Missed.GO_ON), Phase("verify", Gate.GONE, 10.0, Missed.GO_ON))


def phases(command: Command) -> tuple[Phase, ...]:
    """The phases of a command; none for those that take effect in the coordinator itself."""
    match command:
        case Shift() | Trunks() | Restore():
            return _PLANNED
        case Failover() | Undo():
            return _FORCED
        case AgentsEnrol():
            return _ENROL
        case AgentsRevoke():
            return _REVOKE
        case Call():
            return _CALL
        case _:
            return ()


def deadline_s(command: Command, phase: Phase) -> float:
    if phase.deadline_s is not None:
        return phase.deadline_s
    match command:
        case AgentsEnrol():
            return float(command.wait_s)
        case Call():
            return command.count / command.rate + _ARRIVAL_S
        case _:
            return 0.0


def change(command: Command, plan: Plan, fleet: Fleet) -> tuple[Plan, tuple[str, ...]]:
    """The plan that a command asks for (under the old key), and what of it could not be done."""
    match command:
        case Shift():
            shares = {s: p for s, p in command.shares.items() if p}
            new = _change(plan.services[command.service], shares=shares)
            return _change(plan, services=plan.services | {command.service: new}), ()
        case Trunks():
            shares = {t: p for t, p in command.shares.items() if p}
            group = _change(plan.groups[command.group], shares=shares)
            return _change(plan, groups=plan.groups | {command.group: group}), ()
        case Failover():
            return _failover(command, plan, fleet)
        case Restore():
            return _restore(command, plan)
        case AgentsEnrol():
            agent = AgentPlan(command.name, command.site, command.services, command.penalty, command.digest)
            return _change(plan, agents=plan.agents | {command.agent: agent}), ()
        case AgentsRevoke():
            return _change(plan, agents={n: a for n, a in plan.agents.items() if n != command.agent}), ()
        case Undo():
            record = past_operation(plan, str(command.operation))
            return _reset(plan, record.footprint if record else ())
        case _:
            return plan, ()


def undone(record: OperationRecord, plan: Plan) -> tuple[Plan, tuple[str, ...]]:
    """The plan without what an operation did. A failed enrolment leaves no agent: older credentials never come back."""
    plan, kept = _reset(plan, record.footprint)
    if isinstance(record.command, AgentsEnrol):
        agent = record.command.agent
        plan = _change(plan, agents={n: a for n, a in plan.agents.items() if n != agent})
    if isinstance(record.command, AgentsRevoke):
        kept += (f"{record.command.agent} stays revoked: enrolments are never restored",)
    return plan, kept


def _reset(plan: Plan, marks: tuple[Footprint, ...]) -> tuple[Plan, tuple[str, ...]]:
    plan, kept = reset(plan, marks)
    return plan, tuple(f"{path} was changed by somebody since; it stays as it is" for path in kept)


def _failover(command: Failover, plan: Plan, fleet: Fleet) -> tuple[Plan, tuple[str, ...]]:
    """The site is closed, and what it had goes to the other: shares of services, and shares of trunks at the site to
    the first trunk of the other site, else to any open one. What has no trunk elsewhere is said."""
    could_not: list[str] = []
    services = {n: _change(s, shares=_moved(s.shares, {command.site}, command.to)) for n, s in plan.services.items()}
    groups = {}
    for name, group in plan.groups.items():
        giving = {t for t in group.shares if fleet.trunks[t].site == command.site}
        elsewhere = [t for t in fleet.groups[name].shares if _is_open(plan, fleet.trunks[t].site, command.site)]
        there = [t for t in elsewhere if fleet.trunks[t].site == command.to] or elsewhere
        if there:
            groups[name] = _change(group, shares=_moved(group.shares, giving, there[0]))
            continue
        groups[name] = group
        could_not.append(f"outbound group {name} has no trunk at another open site: its calls stay with {command.site}")
    stay = sorted(n for n, agent in plan.agents.items() if agent.site == command.site)
    if stay:
        could_not.append(f"agents enrolled at {command.site} stay there: {', '.join(stay)}")
    sites = plan.sites | {command.site: SitePlan(SiteMode.CLOSED)}
    return _change(plan, services=services, groups=groups, sites=sites), tuple(could_not)


def _moved(shares: dict[str, int], giving: set[str], receiving: str) -> dict[str, int]:
    amount = sum(p for t, p in shares.items() if t in giving)
    rest = {t: p for t, p in shares.items() if t not in giving}
    return rest | {receiving: rest.get(receiving, 0) + amount} if amount else shares


def _is_open(plan: Plan, site: str, closing: str) -> bool:
    return site != closing and plan.sites[site].mode is SiteMode.IN_SERVICE


def _restore(command: Restore, plan: Plan) -> tuple[Plan, tuple[str, ...]]:
    """The failovers that closed the site are taken back, the newest first, as far as nobody changed their fields since.
    Where they are forgotten, the site is only opened."""
    kept: tuple[str, ...] = ()
    marks = failover_marks(plan, command.site)
    for footprint in marks:
        plan, left = _reset(plan, footprint)
        kept += left
    if not marks:
        kept = (
            f"what closed {command.site} is not known any more: it is open, and has no shares until you shift some",
        )
    return _change(plan, sites=plan.sites | {command.site: SitePlan(SiteMode.IN_SERVICE)}), kept
