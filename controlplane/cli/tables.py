"""Tables for people."""

from __future__ import annotations

import datetime as dt

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from controlplane.cli.desk import FleetState
from controlplane.contract.operation import Operation, OperationState
from controlplane.contract.plan import Plan
from controlplane.edge import clock

_COLOURS = {
    OperationState.DONE: "green",
    OperationState.REFUSED: "red",
    OperationState.FAILED: "red",
    OperationState.UNDONE: "yellow",
    OperationState.WAITING: "yellow",
}


def age(then: dt.datetime) -> str:
    seconds = (clock.wall() - then).total_seconds()
    return (
        f"{seconds:.0f} s"
        if seconds < 120
        else f"{seconds / 60:.0f} min"
        if seconds < 7200
        else f"{seconds / 3600:.0f} h"
    )


def show_operation(console: Console, operation: Operation) -> None:
    """One line for the state, then what a person has to know."""
    colour = _COLOURS.get(operation.state, "cyan")
    phase = f" {operation.phase}" if operation.phase else ""
    what = escape(f"{operation.kind}{phase} {operation.progress:.0%}  {operation.id}")
    console.print(f"[{colour}]{operation.state}[/] {what}")
    for refusal in operation.refusals:
        console.print(f"  [red]{escape(refusal.rule)}[/]: {escape(refusal.detail)}")
    for line in operation.unproven:
        console.print(f"  [yellow]unproven[/]: {escape(line)}")
    for title, facts in (("predicted", operation.predicted), ("observed", operation.observed)):
        for name, fact in facts.items():
            console.print(f"  {title} {escape(f'{name}: {fact}')}")


def show_status(console: Console, state: FleetState) -> None:
    """Sites, divisions and what runs."""
    leader = state.beacon.authority.label if state.beacon else "nobody"
    if not state.beacon_live:
        leader = f"[red]{leader} (silent: no beacon for 10 s; calls go on by the last plan)[/]"
    console.print(f"leader {leader}   plan {state.plan.key.label if state.plan else 'none'}")
    if state.plan is not None and state.plan.paused_at is not None:
        console.print(f"[yellow]paused since {state.plan.paused_at.isoformat()}[/]")
    for topic in state.unreadable:
        console.print(f"[yellow]left out[/]: what is retained on {escape(topic)} cannot be read", highlight=False)
    table = Table("site", "mode", "link", "report", "applied", "channels", "remote agents", "trouble")
    for site in sorted(set(state.reports) | set(state.plan.sites if state.plan else {})):
        report = state.reports.get(site)
        mode = state.plan.sites[site].mode if state.plan and site in state.plan.sites else "?"
        if report is None:
            table.add_row(site, mode, "[red]no report[/]", "", "", "", "", "")
            continue
        trouble = escape("; ".join((*(["HANDS OFF"] if report.hands_off else []), *report.trouble)))
        registered = sum(1 for seat in report.seats.values() if seat.contacts)
        behind = state.plan is not None and (report.applied is None or report.applied.key < state.plan.key)
        applied = report.applied.key.label if report.applied else "nothing"
        table.add_row(
            site, mode, report.link, f"{age(report.sent_at)} ago", f"[yellow]{applied}[/]" if behind else applied,
            str(report.channels), f"{registered}/{len(report.seats)}", f"[red]{trouble}[/]" if trouble else "",
        )  # fmt: skip
    console.print(table)
    if state.plan is not None:
        show_plan(console, state.plan)


def show_plan(console: Console, plan: Plan) -> None:
    """The divisions and seats of a plan."""
    table = Table("division", "shares", "since plan")
    for name, service in plan.services.items():
        table.add_row(f"service {name}", _shares(service.shares), service.since)
    for name, group in plan.groups.items():
        table.add_row(f"trunks {name}", _shares(group.shares), group.since)
    console.print(table)
    if plan.agents:
        agents = Table("agent", "name", "site", "services", "penalty")
        for id_, agent in plan.agents.items():
            agents.add_row(id_, escape(agent.name), agent.site, ", ".join(agent.services), str(agent.penalty))
        console.print(agents)
    if plan.running is not None:
        console.print(f"running: operation {plan.running.id}, {plan.running.state}")


def show_history(console: Console, operations: tuple[Operation, ...]) -> None:
    table = Table("at", "kind", "state", "id", "said")
    for o in operations:
        said = "; ".join((*(f"{r.rule}: {r.detail}" for r in o.refusals), *o.unproven))
        state = f"[{_COLOURS.get(o.state, 'cyan')}]{o.state}[/]"
        table.add_row(escape(o.at[:19]), escape(o.kind), state, escape(o.id), escape(said))
    console.print(table)


def _shares(shares: dict[str, int]) -> str:
    return "  ".join(f"{name} {share} %" for name, share in shares.items() if share)
