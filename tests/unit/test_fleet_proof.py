"""What counts as seen: batches of call events, the state of a seat, and what of a failover is the carrier's."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from controlplane.contract.fleet import Ingress, IngressRule, Trigger
from controlplane.contract.key import Key
from controlplane.contract.operation import OperationState
from controlplane.contract.plan import OperationRecord
from controlplane.contract.report import Applied, CallEvent, CallEventKind, CallEvents, Report, SeatState
from controlplane.fleet.guards import Situation
from controlplane.fleet.ingress import by_carrier
from controlplane.fleet.operations import phases
from controlplane.fleet.proof import judge
from controlplane.fleet.slicing import first_plan
from controlplane.fleet.view import SiteView, View, with_events
from tests.unit.test_fleet_driver import EPOCH, FLEET, command_of

PLAN = first_plan(FLEET, Key(1, 1, "coordinator", 2))


# -- batches


def batch(sequence: int, *, incarnation: str = "one", site: str = "nanchang", synthetic: bool = False) -> CallEvents:
    route = CallEvent(
        CallEventKind.ROUTE, "syn-x-1", 0, call_kind="svc", id="claims", target="chengdu", plan="p", synthetic=synthetic
    )
    return CallEvents(site, incarnation, sequence, (route,))


def counted(*batches: CallEvents, collect: bool = True) -> dict[str, int]:
    view = View()
    for one in batches:
        view = with_events(view, one, collect=collect)
    return view.evidence.routed


@pytest.mark.parametrize(
    ("batches", "expected"),
    [
        ((batch(0),), 1),
        ((batch(1), batch(2)), 2),
        ((batch(1), batch(1)), 1),
        ((batch(2), batch(1)), 1),
        ((batch(7), batch(1, incarnation="two")), 2),
        ((batch(7), batch(1, incarnation="two"), batch(1, incarnation="two")), 2),
        ((batch(1), batch(1, site="chengdu")), 2),
    ],
)
def test_a_batch_counts_once(batches: tuple[CallEvents, ...], expected: int) -> None:
    assert counted(*batches) == {"p svc claims chengdu": expected}


def test_evidence_is_collected_only_while_an_operation_runs_and_a_batch_from_before_does_not_come_back() -> None:
    before = with_events(View(), batch(3), collect=False)
    assert before.evidence == View().evidence
    assert with_events(before, batch(3), collect=True) == before
    assert with_events(before, batch(4), collect=True).evidence.routed == {"p svc claims chengdu": 1}


def test_a_decision_about_a_synthetic_call_is_told_apart_from_those_about_real_ones() -> None:
    evidence = with_events(View(), batch(1, synthetic=True), collect=True).evidence
    assert (evidence.routed, evidence.decided) == ({}, {"syn-x-1": "p chengdu"})


# -- seats


def seen(seat: SeatState | None, *, key: Key = PLAN.key, **changes: Any) -> View:
    def report(site: str, applied: Applied | None, **more: Any) -> Report:
        plain = Report(site, "one", 1, EPOCH, 0, FLEET.hash, "ready", applied, None, False)
        return msgspec.structs.replace(plain, **more)

    seats = {} if seat is None else {"home01": seat}
    chengdu = report("chengdu", Applied(key, "h", EPOCH), seats=seats, **changes)
    return View({s: SiteView(r, 1000.0) for s, r in (("chengdu", chengdu), ("nanchang", report("nanchang", None)))})


def verdict(view: View) -> tuple[str, ...]:
    command = command_of("agents.enrol")
    record = OperationRecord("x", command, OperationState.RUNNING, 0, EPOCH, EPOCH)
    return judge(phases(command)[0], record, Situation(FLEET, PLAN, view, 1000.0, EPOCH)).missing


@pytest.mark.parametrize(
    "seat",
    [
        None,
        SeatState(False, 0, ("claims",)),
        SeatState(True, 0, ()),
        SeatState(True, 0, ("enquiries",)),
        SeatState(True, 0, ("claims", "enquiries")),
    ],
)
def test_a_seat_is_not_there_without_its_endpoint_and_exactly_its_queues(seat: SeatState | None) -> None:
    assert verdict(seen(seat, trouble=("no room",))) == (
        "chengdu does not show the endpoint of home01 in its queues (no room)",
    )


def test_a_seat_is_there_when_its_own_site_shows_it_under_the_present_plan() -> None:
    there = SeatState(True, 0, ("claims",))
    assert verdict(seen(there)) == ()
    [line] = verdict(seen(there, key=Key(1, 1, "coordinator", 1)))
    assert "chengdu has not applied" in line


# -- the carrier


@pytest.mark.parametrize(
    ("ways", "words"),
    [
        (None, "waiting_for_carrier: no ingress of 95556 is described"),
        (Ingress(("nc-carrier",)), "waiting_for_carrier: 95556 has no way in but nanchang"),
        (
            Ingress(("nc-carrier", "cd-carrier"), IngressRule.SINGLE),
            "waiting_for_carrier: 95556 has no way in but nanchang",
        ),
        (
            Ingress(("nc-carrier", "cd-carrier"), triggers=(Trigger.OPTIONS, Trigger.PERSON)),
            "waiting_for_carrier: calls of 95556 come in by cd-carrier when the carrier changes by options or person",
        ),
        (Ingress(("nc-carrier", "cd-carrier")), "by a rule that nobody described"),
        (Ingress(("cd-carrier",)), None),
    ],
)
def test_what_the_carrier_has_to_do_for_each_number_of_a_dead_site(ways: Ingress | None, words: str | None) -> None:
    fleet = msgspec.structs.replace(
        FLEET, services={"claims": FLEET.services["claims"]}, ingress={} if ways is None else {"95556": ways}
    )
    at = Situation(fleet, first_plan(fleet, PLAN.key), seen(None), 1000.0, EPOCH)
    lines = by_carrier(command_of("failover", site="nanchang", to="chengdu", confirm_dead=True), at)
    assert len(lines) == (words is not None)
    assert all(str(words) in line for line in lines)
    assert by_carrier(command_of("failover", site="nanchang", to="chengdu"), at) == (), "it lives"
    gone = msgspec.structs.replace(at, mono=2000.0)
    unconfirmed = by_carrier(command_of("failover", site="nanchang", to="chengdu"), gone)
    assert unconfirmed[:-1] == lines
    assert unconfirmed[-1].startswith("nobody confirmed that nanchang is dead")
    assert by_carrier(command_of("shift"), gone) == ()
