"""The rules that look at the fleet before a command is obeyed. A rule returns why not, or nothing.

Law: a refusal names its rule; a person may override those in OVERRIDABLE by quoting the name. Health rules look at the
receiving sites.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from typing import assert_never

import msgspec

from controlplane.contract.command import (
    AgentsEnrol,
    AgentsRevoke,
    Call,
    Cancel,
    Command,
    Failover,
    Pause,
    Restore,
    Resume,
    Shift,
    Takeover,
    Trunks,
    Undo,
    kind_of,
)
from controlplane.contract.fleet import Fleet
from controlplane.contract.operation import Refusal
from controlplane.contract.plan import Footprint, OperationRecord, Plan, SiteMode
from controlplane.fleet.view import View

OVERRIDABLE = frozenset({"stale-figures", "receiving-site", "closed-site", "configuration-differs", "hands-off"})
#: How far the clock of who commands may be ahead of ours.
MOST_SKEW = dt.timedelta(seconds=60)
#: How long a command may stay valid, and how many unexpired ids are remembered: the ledger travels with the plan.
MOST_LIFE = dt.timedelta(hours=24)
MOST_COMMANDS = 1000
RETAINED = Refusal("retained", "it came as a retained message; send it with retain off, and clear the topic")


class Situation(msgspec.Struct, frozen=True):
    """All that a rule may look at. `mono` is monotonic seconds, `wall` the time of day, of the coordinator."""

    fleet: Fleet
    plan: Plan
    view: View
    mono: float
    wall: dt.datetime


def door(command: Command, at: Situation, *, retained: bool) -> Refusal | None:
    """The rules of the door: whether a command may be looked at at all."""
    if retained:
        return RETAINED
    here = f"the clock here says {at.wall.isoformat()}"
    if command.expires_at <= at.wall:
        return Refusal("expired", f"it expired at {command.expires_at.isoformat()}; {here}")
    if command.issued_at > at.wall + MOST_SKEW:
        return Refusal(
            "from-the-future", f"issued at {command.issued_at.isoformat()}; here it is {at.wall.isoformat()}"
        )
    if command.expires_at > at.wall + MOST_LIFE:
        return Refusal("expires-too-late", f"a command may be valid for {MOST_LIFE} at the most")
    known = at.plan.commands.get(str(command.id))
    if known is not None:
        return Refusal("repeated", f"this id was used by a command {known.kind}, which is {known.state}; use a new id")
    told = [r for r in (*at.plan.past, at.plan.running) if r is not None and r.id == str(command.id)]
    if told:
        # Its command has expired, but undo, cancel and its topic still name it by this id.
        return Refusal("repeated", f"this id was used by a command {kind_of(told[0].command)}; use a new id")
    if len(at.plan.commands) >= MOST_COMMANDS:
        return Refusal("too-many", f"{MOST_COMMANDS} commands have not expired yet; let them expire sooner")
    return None


def refusals(command: Command, at: Situation) -> tuple[Refusal, ...]:
    """Every rule that a command breaks and does not override."""
    found = [*_rules(command, at), *_busy(command, at)]
    return tuple(r for r in found if not (r.rule in OVERRIDABLE and r.rule in command.override))


def _rules(command: Command, at: Situation) -> Iterator[Refusal]:
    match command:
        case Shift():
            yield from _shift(command, at)
        case Trunks():
            yield from _trunks(command, at)
        case Failover():
            yield from _failover(command, at)
        case Restore():
            yield from _restore(command, at)
        case AgentsEnrol():
            yield from _enrol(command, at)
        case AgentsRevoke():
            if command.agent not in at.plan.agents:
                yield Refusal("unknown-agent", f"{command.agent} is not enrolled")
            else:
                yield from _seat_site(at.plan.agents[command.agent].site, at)
        case Undo():
            yield from _undo(command, at)
        case Pause():
            if at.plan.paused_at is not None:
                yield Refusal("already", f"paused since {at.plan.paused_at.isoformat()}")
        case Resume():
            if at.plan.paused_at is None:
                yield Refusal("already", "nothing is paused")
        case Takeover():
            hosts = (at.fleet.authority.host, *at.fleet.authority.standbys)
            if command.host not in hosts:
                yield Refusal("unknown-host", f"{command.host} is no coordinator; known: {', '.join(hosts)}")
        case Cancel():
            if at.plan.running is None or at.plan.running.id != str(command.operation):
                yield Refusal("unknown-operation", f"{command.operation} is not running")
            elif isinstance(at.plan.running.command, Failover):
                yield Refusal("not-cancellable", "a failover is not taken back half way; send restore when it is done")
        case Call():
            yield from _call(command, at)
        case _:
            assert_never(command)


def _call(command: Call, at: Situation) -> Iterator[Refusal]:
    service = at.fleet.services.get(command.service)
    if service is None:
        yield _unknown_service(command.service, at)
    elif command.site is not None and command.site not in at.fleet.sites:
        yield from _known_site(command.site, at)
    elif why := at.view.unreachable(command.site or service.home[0], at.mono):
        yield Refusal("stale-figures", why)


def _unknown_service(name: str, at: Situation) -> Refusal:
    return Refusal("unknown-service", f"{name} is not a service; known: {', '.join(at.fleet.services)}")


def _busy(command: Command, at: Situation) -> Iterator[Refusal]:
    """One operation in a fleet at first; a failover by a person pre-empts; pause, resume and cancel never wait."""
    running = at.plan.running
    if running is None or isinstance(command, Failover | Pause | Resume | Takeover | Cancel):
        return
    yield Refusal("operation-in-progress", f"operation {running.id} is running; wait for it, or cancel it")


def _known_site(site: str, at: Situation) -> Iterator[Refusal]:
    if site not in at.fleet.sites:
        yield Refusal("unknown-site", f"{site} is not a site; known: {', '.join(at.fleet.sites)}")


def _receives(site: str, at: Situation) -> Iterator[Refusal]:
    if why := at.view.unreachable(site, at.mono):
        yield Refusal("receiving-site", f"{why}, and it is to receive calls")
    elif why := held(site, at):
        yield Refusal("hands-off", why)


def held(site: str, at: Situation) -> str | None:
    """Why nothing is written at a site on purpose, or None."""
    report = at.view.report(site)
    return f"{site} is held by an engineer: nothing is written there" if report and report.hands_off else None


def _open(site: str, at: Situation) -> Iterator[Refusal]:
    if at.plan.sites[site].mode is SiteMode.CLOSED:
        yield Refusal("closed-site", f"{site} is closed; restore it first")


def _entries(at: Situation, giving: frozenset[str] = frozenset()) -> Iterator[Refusal]:
    """A planned change is only whole when every site that divides calls takes it, and by the same fleet.toml."""
    for site in at.fleet.sites:
        if site not in giving and (why := at.view.unreachable(site, at.mono)):
            yield Refusal("stale-figures", f"{why}: it would go on by the old plan")
        if site not in giving and (why := held(site, at)):
            yield Refusal("hands-off", why)
        if why := configuration_differs(site, at):
            yield Refusal("configuration-differs", why)


def configuration_differs(site: str, at: Situation) -> str | None:
    report = at.view.report(site)
    if report is None or report.fleet_hash == at.fleet.hash:
        return None
    return f"{site} runs with another fleet.toml (hash {report.fleet_hash}, here {at.fleet.hash}); make them equal"


def _shift(command: Shift, at: Situation) -> Iterator[Refusal]:
    service = at.fleet.services.get(command.service)
    if service is None:
        yield _unknown_service(command.service, at)
        return
    for site, share in command.shares.items():
        if site not in at.fleet.sites:
            yield from _known_site(site, at)
        elif site not in service.home:
            yield Refusal(
                "unknown-site", f"{site} does not serve {command.service}; its sites: {', '.join(service.home)}"
            )
        elif share:
            yield from _receives(site, at)
            yield from _open(site, at)
    yield from _entries(at, frozenset(s for s, share in command.shares.items() if share))


def _trunks(command: Trunks, at: Situation) -> Iterator[Refusal]:
    group = at.fleet.groups.get(command.group)
    if group is None:
        yield Refusal("unknown-group", f"{command.group} is not a group; known: {', '.join(at.fleet.groups) or 'none'}")
        return
    for trunk in command.shares:
        if trunk not in group.shares:
            yield Refusal("unknown-trunk", f"{trunk} is not in {command.group}; its trunks: {', '.join(group.shares)}")
    receiving = {at.fleet.trunks[t].site for t, share in command.shares.items() if share and t in group.shares}
    for site in sorted(receiving):
        yield from _receives(site, at)
        yield from _open(site, at)
    yield from _entries(at, frozenset(receiving))


def _failover(command: Failover, at: Situation) -> Iterator[Refusal]:
    yield from _known_site(command.site, at)
    if command.to not in at.fleet.sites:
        yield from _known_site(command.to, at)
        return
    yield from _receives(command.to, at)
    yield from _open(command.to, at)
    for name, plan in at.plan.services.items():
        if plan.shares.get(command.site, 0) and command.to not in at.fleet.services[name].home:
            yield Refusal(
                "cannot-serve", f"{command.to} does not serve {name}: shift {name} to one of its other sites first"
            )


def _restore(command: Restore, at: Situation) -> Iterator[Refusal]:
    yield from _known_site(command.site, at)
    if command.site not in at.fleet.sites:
        return
    if at.plan.sites[command.site].mode is SiteMode.IN_SERVICE:
        yield Refusal("already", f"{command.site} is in service; divide its calls with shift")
        return
    yield from _receives(command.site, at)
    yield from _entries(at, frozenset({command.site}))


def _enrol(command: AgentsEnrol, at: Situation) -> Iterator[Refusal]:
    yield from _known_site(command.site, at)
    for service in command.services:
        if service not in at.fleet.services:
            yield _unknown_service(service, at)
        elif command.site not in at.fleet.services[service].home:
            yield Refusal("unknown-site", f"{command.site} does not serve {service}")
    yield from _seat_site(command.site, at)
    if command.site in at.fleet.sites:
        yield from _open(command.site, at)
    if command.agent in at.plan.agents:
        yield Refusal(
            "already-enrolled", f"{command.agent} is enrolled at {at.plan.agents[command.agent].site}; revoke it first"
        )
    if command.agent.startswith("site-") or any(t.endpoint == command.agent for t in at.fleet.trunks.values()):
        yield Refusal("reserved-name", f"{command.agent} is the endpoint of a trunk or of a site; choose another id")


def _seat_site(site: str, at: Situation) -> Iterator[Refusal]:
    """An agent's seat is made and taken away at one site, which must be there."""
    if site in at.fleet.sites and (why := at.view.unreachable(site, at.mono) or held(site, at)):
        yield Refusal("stale-figures", why)


def _undo(command: Undo, at: Situation) -> Iterator[Refusal]:
    record = past_operation(at.plan, str(command.operation))
    if record is None:
        yield Refusal("unknown-operation", f"{command.operation} is not among the last {len(at.plan.past)} operations")
        return
    if not record.footprint:
        yield Refusal("not-undoable", "this operation changed no shares or modes; enrolments are never restored")
        return
    reopened = {mark.path for mark in record.footprint if mark.after == SiteMode.CLOSED.value}
    for site in receiving_sites(record, at.fleet):
        yield from _receives(site, at)
        if f"sites.{site}.mode" not in reopened:
            yield from _open(site, at)


def receiving_sites(record: OperationRecord, fleet: Fleet) -> list[str]:
    """The sites that get calls when an operation is undone."""
    found: set[str] = set()
    for mark in record.footprint:
        if isinstance(mark.before, dict) and isinstance(mark.after, dict):
            gains = {t for t, share in mark.before.items() if share > mark.after.get(t, 0)}
            found |= {fleet.trunks[t].site if t in fleet.trunks else t for t in gains}
    return sorted(s for s in found if s in fleet.sites)


def past_operation(plan: Plan, id_: str) -> OperationRecord | None:
    return next((r for r in reversed(plan.past) if r.id == id_), None)


def failover_marks(plan: Plan, site: str) -> tuple[tuple[Footprint, ...], ...]:
    """What the failovers that keep a site closed changed, newest first: a person may have sent more than one, and only
    the first of them closed it and took its shares. Empty where the site is open, or its closing is forgotten."""
    found: list[tuple[Footprint, ...]] = []
    if plan.sites[site].mode is not SiteMode.CLOSED:
        return ()
    for record in reversed(plan.past):
        if isinstance(record.command, Failover) and record.command.site == site:
            found.append(record.footprint)
            if any(mark.path == f"sites.{site}.mode" for mark in record.footprint):
                return tuple(found)
    return ()
