"""Gates: what was seen of an operation, and the synthetic calls that make it seen.

Law: success from AMI and a value read back are not evidence about calls. A division is proven by a call from each entry
site that arrives at each of its targets; a seat by a registration and a phone that answers.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator

import msgspec

from controlplane.contract.command import AgentsEnrol, AgentsRevoke, Call
from controlplane.contract.fleet import Fleet
from controlplane.contract.key import content_hash
from controlplane.contract.plan import OperationRecord, Plan
from controlplane.contract.report import Probe, ProbeKind, synthetic_prefix
from controlplane.fleet.guards import Situation
from controlplane.fleet.operations import Gate, Phase

_PROBE_LIFE = dt.timedelta(seconds=30)
_MOST_WAY = 60


class Verdict(msgspec.Struct, frozen=True):
    """What a gate says: `missing` is empty when it is met, `progress` goes from 0 to 1."""

    missing: tuple[str, ...]
    progress: float = 0.0

    @property
    def met(self) -> bool:
        return not self.missing


class Path(msgspec.Struct, frozen=True):
    """A way that a synthetic call must have gone: from a site, by a division, to a target. Without a target the division
    itself must have chosen one, under the label `since`."""

    origin: str
    kind: ProbeKind
    id: str
    target: str
    number: str = ""
    since: str = ""

    def call(self, operation: str) -> str:
        """The prefix of its calls' ids. A dot stands in no name, so that two paths never share an id; the dialplan keeps
        80 characters of an id, so that long names are hashed."""
        way = f"{self.kind}.{self.id}.{self.origin}.{self.target}"
        return f"{synthetic_prefix(operation)}{way if len(way) <= _MOST_WAY else content_hash(way)}"


def judge(phase: Phase, record: OperationRecord, at: Situation) -> Verdict:
    """The verdict on the gate of a phase."""
    match phase.gate:
        case Gate.APPLIED:
            return _verdict(len(_concerned(record, at.fleet)), list(_not_applied(record, at)))
        case Gate.CALLS:
            paths = list(call_paths(record, at))
            return _verdict(len(paths), [_unseen(p) for p in paths if not _seen(p, record, at)])
        case Gate.REGISTERED:
            return _verdict(1, list(_not_registered(record, at)))
        case Gate.RINGS:
            rings = agent_path(record)
            return _verdict(1, [_unseen(rings)] if rings and not _seen(rings, record, at) else [])
        case Gate.GONE:
            return _verdict(1, list(_not_gone(record, at)))
        case Gate.ARRIVED:
            return _arrivals(record, at)


def _verdict(of: int, missing: list[str]) -> Verdict:
    return Verdict(tuple(missing), 1.0 if not missing else max(0.0, 1 - len(missing) / max(of, 1)))


def _arrivals(record: OperationRecord, at: Situation) -> Verdict:
    command = record.command
    if not isinstance(command, Call):
        return Verdict(())
    arrived = len(_placed(record, at))
    if arrived >= command.count:
        return Verdict(())
    missing = f"{command.count - arrived} of {command.count} synthetic calls were not seen to arrive"
    return Verdict((missing,), arrived / command.count)


def _placed(record: OperationRecord, at: Situation) -> list[str]:
    """The sites at which the synthetic calls of a `call` arrived."""
    head = synthetic_prefix(record.id)
    return [site for call, site in at.view.evidence.arrived.items() if call.startswith(head)]


def probes(phase: Phase, record: OperationRecord, at: Situation) -> tuple[tuple[str, Probe], ...]:
    """The synthetic calls that a phase asks of sites and that were not seen yet, as (site, probe)."""
    command = record.command
    if isinstance(command, Call):
        origin = command.site or at.fleet.services[command.service].home[0]
        life = dt.timedelta(seconds=command.count / command.rate) + _PROBE_LIFE
        probe = Probe(
            call=f"{synthetic_prefix(record.id)}call",
            kind=ProbeKind.SERVICE,
            id=command.service,
            count=command.count,
            rate=command.rate,
            expires_at=at.wall + life,
        )
        return ((origin, probe),) if not _placed(record, at) else ()
    rings = agent_path(record)
    wanted = {Gate.CALLS: list(call_paths(record, at)), Gate.RINGS: [rings] if rings else []}.get(phase.gate, [])
    return tuple(
        (
            path.origin,
            Probe(
                call=path.call(record.id),
                kind=path.kind,
                id=path.id,
                number=path.number,
                force=path.target if path.kind is not ProbeKind.AGENT else "",
                expires_at=at.wall + _PROBE_LIFE,
            ),
        )
        for path in wanted
        if not _seen(path, record, at)
    )


def observed(record: OperationRecord, at: Situation) -> dict[str, object]:
    """What calls showed: decisions of real calls by target for divisions that were changed; arrivals by site."""
    found: dict[str, object] = {}
    if isinstance(record.command, Call):
        placed = _placed(record, at)
        return {site: placed.count(site) for site in sorted(set(placed))}
    for part, divisions in (("svc", changed_services(record, at.plan)), ("out", changed_groups(record, at.plan))):
        for name in divisions:
            since = (at.plan.services[name] if part == "svc" else at.plan.groups[name]).since
            head = f"{since} {part} {name} "
            counts = {k[len(head) :]: n for k, n in at.view.evidence.routed.items() if k.startswith(head)}
            if counts:
                found[name] = counts
    return found


def changed_services(record: OperationRecord, plan: Plan) -> list[str]:
    """The services whose division an operation changed: by their shares, or by the mode of a site."""
    if any(mark.path.startswith("sites.") for mark in record.footprint):
        return list(plan.services)
    return [n for n in plan.services if any(m.path == f"services.{n}.shares" for m in record.footprint)]


def changed_groups(record: OperationRecord, plan: Plan) -> list[str]:
    return [n for n in plan.groups if any(m.path == f"groups.{n}.shares" for m in record.footprint)]


def unprovable(record: OperationRecord, fleet: Fleet, plan: Plan) -> Iterator[str]:
    """What no synthetic call of ours can show."""
    for name in changed_groups(record, plan):
        for trunk in plan.groups[name].shares:
            if fleet.trunks[trunk].test_number is None:
                yield f"trunk {trunk} has no test_number in fleet.toml: nobody called through it"


def call_paths(record: OperationRecord, at: Situation) -> Iterator[Path]:
    """What must be seen of the new divisions, from each site that can be asked: one call that the division itself sends,
    and one forced to each of its targets, however small the share."""
    for origin in _entry_sites(record, at.fleet):
        for name in changed_services(record, at.plan):
            service = at.plan.services[name]
            yield Path(origin, ProbeKind.SERVICE, name, "", since=service.since)
            for target in service.shares:
                yield Path(origin, ProbeKind.SERVICE, name, target)
        for name in changed_groups(record, at.plan):
            group = at.plan.groups[name]
            numbers = {t: number for t in group.shares if (number := at.fleet.trunks[t].test_number)}
            if numbers and len(numbers) == len(group.shares):
                yield Path(origin, ProbeKind.OUTBOUND, name, "", next(iter(numbers.values())), group.since)
            for target, number in numbers.items():
                yield Path(origin, ProbeKind.OUTBOUND, name, target, number)


def agent_path(record: OperationRecord) -> Path | None:
    command = record.command
    if not isinstance(command, AgentsEnrol):
        return None
    return Path(command.site, ProbeKind.AGENT, command.agent, command.agent)


def _concerned(record: OperationRecord, fleet: Fleet) -> list[str]:
    """The sites whose word an operation waits for: an agent's own site, else all that can be asked."""
    if isinstance(record.command, AgentsEnrol):
        return [record.command.site]
    return _entry_sites(record, fleet)


def _entry_sites(record: OperationRecord, fleet: Fleet) -> list[str]:
    return [site for site in fleet.sites if site not in record.left_out]


def _seen(path: Path, record: OperationRecord, at: Situation) -> bool:
    evidence, call = at.view.evidence, f"{path.call(record.id)}-1"
    if path.since and not evidence.decided.get(call, "").startswith(f"{path.since} "):
        return False
    if path.kind is ProbeKind.SERVICE:
        return call in evidence.arrived if path.since else evidence.arrived.get(call) == path.target
    return call in evidence.answered


def _unseen(path: Path) -> str:
    if path.since:
        return f"no synthetic call for {path.id} at {path.origin} was seen to follow plan {path.since}"
    match path.kind:
        case ProbeKind.SERVICE:
            return f"no synthetic call for {path.id} from {path.origin} was seen to arrive at {path.target}"
        case ProbeKind.OUTBOUND:
            return f"no synthetic call of {path.id} from {path.origin} was answered through {path.target}"
        case ProbeKind.AGENT:
            return f"the phone of {path.id} at {path.origin} did not answer a test call"


def _not_applied(record: OperationRecord, at: Situation) -> Iterator[str]:
    for site in _concerned(record, at.fleet):
        report = at.view.report(site)
        if report is None or report.applied is None or report.applied.key < at.plan.key:
            trouble = f" ({'; '.join(report.trouble)})" if report and report.trouble else ""
            yield f"{site} has not applied plan {at.plan.key.label}{trouble}"
    command = record.command
    if isinstance(command, AgentsEnrol):
        made = at.view.report(command.site)
        seat = made.seats.get(command.agent) if made else None
        if made is None or seat is None or not seat.endpoint or set(seat.queues) != set(command.services):
            trouble = f" ({'; '.join(made.trouble)})" if made and made.trouble else ""
            yield f"{command.site} does not show the endpoint of {command.agent} in its queues{trouble}"


def _not_registered(record: OperationRecord, at: Situation) -> Iterator[str]:
    command = record.command
    if isinstance(command, AgentsEnrol):
        report = at.view.report(command.site)
        seat = report.seats.get(command.agent) if report else None
        if seat is None or not seat.contacts:
            yield f"the phone of {command.agent} has not registered at {command.site}"


def _not_gone(record: OperationRecord, at: Situation) -> Iterator[str]:
    command = record.command
    if isinstance(command, AgentsRevoke):
        for site in _entry_sites(record, at.fleet):
            report = at.view.report(site)
            if report is None or command.agent in report.seats:
                yield f"{site} still shows {command.agent}"
