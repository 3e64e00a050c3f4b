"""What a coordinator knows of the sites, and how old it is.

Law: automation refuses stale figures; a retained report is stale by definition. Ages are by the coordinator's monotonic
clock, never by comparing the clocks of two hosts.
"""

from __future__ import annotations

import msgspec

from controlplane.contract.report import CallEventKind, CallEvents, Report

#: Sites report every 2 s and at each change; after this long without one, nothing is known of a site.
FRESH_S = 8.0
#: The link phase in which a site daemon and its Asterisk agree.
READY = "ready"


class SiteView(msgspec.Struct, frozen=True):
    """The newest report of a site. `heard_at`: monotonic seconds of this host; None for a retained one."""

    report: Report
    heard_at: float | None


class Evidence(msgspec.Struct, frozen=True):
    """What calls showed since the running operation began. `routed` counts decisions of real calls by
    `label kind id target`; `decided` maps synthetic calls to the `label target` that a division gave them, `arrived` to
    the site where they arrived; `answered` names those whose far end answered."""

    routed: dict[str, int] = {}
    decided: dict[str, str] = {}
    arrived: dict[str, str] = {}
    answered: frozenset[str] = frozenset()


class View(msgspec.Struct, frozen=True):
    """All sites as this coordinator sees them. `batches`: the newest batch of call events of each site."""

    sites: dict[str, SiteView] = {}
    evidence: Evidence = Evidence()
    batches: dict[str, tuple[str, int]] = {}

    def report(self, site: str) -> Report | None:
        known = self.sites.get(site)
        return known.report if known else None

    def unreachable(self, site: str, now: float) -> str | None:
        """Why nothing can be expected of a site now, or None."""
        known = self.sites.get(site)
        if known is None or known.heard_at is None:
            return f"{site} has not reported since this coordinator started"
        age = now - known.heard_at + known.report.age_ms / 1000
        if age > FRESH_S:
            return f"{site} last reported {age:.0f} s ago"
        if known.report.link != READY:
            return f"the daemon at {site} has no Asterisk: its AMI link is {known.report.link}"
        return None


def with_report(view: View, report: Report, *, heard_at: float | None) -> View:
    """The view after a report; one that is older than what is known changes nothing."""
    known = view.sites.get(report.site)
    if known is not None and heard_at is None:
        return view
    if (
        known is not None
        and known.heard_at is not None
        and known.report.incarnation == report.incarnation
        and report.sequence <= known.report.sequence
    ):
        return view
    return msgspec.structs.replace(view, sites=view.sites | {report.site: SiteView(report, heard_at)})


def with_events(view: View, batch: CallEvents, *, collect: bool) -> View:
    """The view after a batch of call events of one site. A batch that came before is passed over: the bus may repeat
    one. Evidence is only collected while an operation runs, so that it is bounded by one operation."""
    incarnation, sequence = view.batches.get(batch.site, ("", -1))
    if incarnation == batch.incarnation and batch.sequence <= sequence:
        return view
    view = msgspec.structs.replace(view, batches=view.batches | {batch.site: (batch.incarnation, batch.sequence)})
    if not collect:
        return view
    routed, decided = dict(view.evidence.routed), dict(view.evidence.decided)
    arrived, answered = dict(view.evidence.arrived), set(view.evidence.answered)
    for event in batch.events:
        if event.kind is CallEventKind.ROUTE and event.synthetic:
            decided[event.call] = f"{event.plan} {event.target}"
        elif event.kind is CallEventKind.ROUTE:
            name = f"{event.plan} {event.call_kind} {event.id} {event.target}"
            routed[name] = routed.get(name, 0) + 1
        elif event.synthetic and event.kind is CallEventKind.ARRIVE:
            arrived[event.call] = batch.site
        elif event.synthetic and event.kind is CallEventKind.ANSWERED:
            answered.add(event.call)
    return msgspec.structs.replace(view, evidence=Evidence(routed, decided, arrived, frozenset(answered)))


def new_evidence(view: View) -> View:
    """The view with its evidence forgotten, as an operation begins: what it counts is bounded by one operation."""
    return msgspec.structs.replace(view, evidence=Evidence())
