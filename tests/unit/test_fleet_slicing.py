"""Plans out of the file, labels that change with the division alone, slices, footprints and what is reset."""

from __future__ import annotations

import uuid
from typing import Any

import msgspec
import pytest

from controlplane.contract.fleet import Fleet, Site, Trunk
from controlplane.contract.key import Key
from controlplane.contract.operation import OperationState
from controlplane.contract.plan import (
    AgentPlan,
    CommandResult,
    Footprint,
    GroupPlan,
    LinkLine,
    OperationRecord,
    Plan,
    Seat,
    ServicePlan,
    SiteMode,
    SitePlan,
    TrunkLine,
)
from controlplane.contract.report import ProbeKind, synthetic_prefix
from controlplane.fleet.footprint import fields, footprint, reset
from controlplane.fleet.operations import change
from controlplane.fleet.proof import Path
from controlplane.fleet.slicing import first_plan, fit_to_fleet, group_split, relabel, service_split, slices
from tests.unit.test_fleet_driver import DIGEST, EPOCH, FLEET, command_of

KEY = Key(1, 1, "coordinator", 1)
PLAN = first_plan(FLEET, KEY)
_change = msgspec.structs.replace


def changed(plan: Plan = PLAN, *, mode: SiteMode | None = None, shares: dict[str, int] | None = None) -> Plan:
    if mode is not None:
        plan = _change(plan, sites=plan.sites | {"nanchang": SitePlan(mode)})
    if shares is not None:
        plan = _change(plan, services=plan.services | {"claims": _change(plan.services["claims"], shares=shares)})
    return _change(plan, key=plan.key.next_revision())


def labels(plan: Plan) -> dict[str, str]:
    return {n: d.since for n, d in (plan.services | plan.groups).items()}  # type: ignore[operator]


def test_the_first_plan_is_the_file() -> None:
    assert PLAN.services["claims"] == ServicePlan({"nanchang": 60, "chengdu": 40}, since=KEY.label)
    assert PLAN.groups["national"] == GroupPlan({"nc-carrier": 100, "cd-carrier": 0}, since=KEY.label)
    assert {s.mode for s in PLAN.sites.values()} == {SiteMode.IN_SERVICE}


@pytest.mark.parametrize(
    ("after", "expected"),
    [
        (changed(), set()),
        (changed(shares={"chengdu": 40, "nanchang": 60}), set()),
        (changed(shares={"nanchang": 61, "chengdu": 39}), {"claims"}),
        (changed(shares={"nanchang": 100}), {"claims"}),
        # Both divisions hold shares of the site: it stays in their order whatever its mode. enquiries has no share at
        # chengdu, so the order changes with the mode of chengdu only.
        (changed(mode=SiteMode.DRAINING), set()),
    ],
)
def test_a_label_changes_when_and_only_when_the_division_does(after: Plan, expected: set[str]) -> None:
    new = labels(relabel(FLEET, PLAN, after))
    assert {n for n, label in new.items() if label != KEY.label} == expected
    assert {new[n] for n in expected} <= {"1.1.coordinator.2"}


@pytest.mark.parametrize("mode", [SiteMode.CLOSED, SiteMode.DRAINING, SiteMode.STANDBY])
def test_a_site_that_is_not_in_service_stays_in_the_order_as_the_last(mode: SiteMode) -> None:
    """Its label changes where its place in the order does, and only there."""
    trunks = _change(PLAN.groups["national"], shares={"cd-carrier": 100})
    elsewhere = relabel(FLEET, PLAN, _change(changed(shares={"chengdu": 100}), groups={"national": trunks}))
    before = labels(elsewhere)
    shut = _change(changed(elsewhere, mode=mode), key=elsewhere.key.next_revision())
    new = relabel(FLEET, elsewhere, shut)
    assert {n for n, label in labels(new).items() if label != before[n]} == {"claims", "national"}
    assert service_split(FLEET, new, "claims").order == ("chengdu", "nanchang")
    assert group_split(FLEET, new, "national").order == ("cd-carrier", "nc-carrier")
    assert service_split(FLEET, new, "enquiries").order == ("nanchang", "chengdu"), "it has shares: it stays first"
    assert service_split(FLEET, elsewhere, "claims").order == ("nanchang", "chengdu")


def test_a_label_goes_through_a_change_back_and_forth() -> None:
    there = relabel(FLEET, PLAN, changed(shares={"chengdu": 100}))
    back = relabel(FLEET, there, changed(there, shares={"nanchang": 60, "chengdu": 40}))
    assert [p.services["claims"].since for p in (PLAN, there, back)] == [f"1.1.coordinator.{n}" for n in (1, 2, 3)]


def test_each_site_gets_its_slice() -> None:
    plan = _change(PLAN, agents={"home01": AgentPlan("n", "chengdu", ("claims",), 5, DIGEST)})
    pieces = slices(FLEET, plan)
    assert set(pieces) == {"nanchang", "chengdu"}
    nanchang, chengdu = pieces["nanchang"], pieces["chengdu"]
    assert nanchang.links == {"chengdu": LinkLine("site-chengdu", 100)}
    assert nanchang.dids == {"95556": "claims", "95557": "enquiries"}
    assert nanchang.prefixes == {"0": "national"}
    assert nanchang.trunks["cd-carrier"] == TrunkLine("chengdu", "carrier", 200)
    assert (nanchang.seats, chengdu.seats) == ({}, {"home01": Seat("n", ("claims",), 5, DIGEST)})
    assert nanchang.services == chengdu.services
    assert nanchang.services["enquiries"].shares == {"nanchang": 100}
    assert nanchang.services["enquiries"].order == ("nanchang", "chengdu")
    assert {p.plan_hash for p in pieces.values()} == {plan.hash}
    assert nanchang.hash != chengdu.hash


def with_(**changes: Any) -> Fleet:
    return _change(FLEET, **changes)


def test_a_plan_is_fitted_to_a_file_with_more_and_with_less() -> None:
    plan = changed(shares={"nanchang": 1, "chengdu": 99})
    assert plan.fleet_hash == FLEET.hash
    assert fit_to_fleet(FLEET, _change(plan, fleet_hash="")) == plan
    more = with_(services=FLEET.services | {"loans": _change(FLEET.services["claims"], dids=("95558",))})
    grown = fit_to_fleet(more, plan)
    assert grown.services["claims"] == plan.services["claims"]
    assert grown.services["loans"] == ServicePlan({"nanchang": 60, "chengdu": 40}, since=plan.key.label)
    less = with_(services={"claims": FLEET.services["claims"]}, groups={})
    shrunk = fit_to_fleet(less, plan)
    assert (set(shrunk.services), shrunk.groups) == ({"claims"}, {})
    assert shrunk.fleet_hash == less.hash


def test_a_division_with_a_target_that_is_gone_becomes_the_configured_one() -> None:
    claims = _change(FLEET.services["claims"], home=("chengdu",), shares={"chengdu": 100})
    less = with_(
        sites={"chengdu": FLEET.sites["chengdu"]},
        services={"claims": claims},
        groups={"national": _change(FLEET.groups["national"], shares={"cd-carrier": 100})},
    )
    plan = _change(PLAN, agents={"home01": AgentPlan("n", "nanchang", ("claims",), 5, DIGEST)})
    fitted = fit_to_fleet(less, plan)
    assert fitted.services["claims"].shares == {"chengdu": 100}
    assert fitted.groups["national"].shares == {"cd-carrier": 100}
    assert set(fitted.sites) == {"chengdu"}
    assert fitted.agents == {}


def test_a_footprint_is_what_changed_of_shares_and_modes() -> None:
    after, _ = change(command_of("failover"), PLAN, FLEET)
    marks = {m.path: (m.before, m.after) for m in footprint(PLAN, after)}
    assert marks == {
        "services.claims.shares": ({"nanchang": 60, "chengdu": 40}, {"chengdu": 100}),
        "services.enquiries.shares": ({"nanchang": 100, "chengdu": 0}, {"chengdu": 100}),
        "groups.national.shares": ({"nc-carrier": 100, "cd-carrier": 0}, {"cd-carrier": 100}),
        "sites.nanchang.mode": ("in_service", "closed"),
    }
    agent, _ = change(command_of("agents.enrol"), PLAN, FLEET)
    assert footprint(PLAN, agent) == ()
    assert agent.agents["home01"].digest == DIGEST


def test_reset_brings_back_only_what_nobody_changed_since() -> None:
    after, _ = change(command_of("failover"), PLAN, FLEET)
    marks = footprint(PLAN, after)
    assert reset(after, marks) == (PLAN, ())
    touched = changed(after, shares={"nanchang": 1, "chengdu": 99})
    plan, kept = reset(touched, marks)
    assert kept == ("services.claims.shares",)
    assert plan.services["claims"].shares == {"nanchang": 1, "chengdu": 99}
    assert plan.services["enquiries"] == PLAN.services["enquiries"]
    assert plan.sites == PLAN.sites


def test_reset_after_a_trip_through_json_and_of_a_field_that_is_gone() -> None:
    after, _ = change(command_of("failover"), PLAN, FLEET)
    marks = msgspec.json.decode(msgspec.json.encode(footprint(PLAN, after)), type=tuple[Footprint, ...])
    assert reset(after, marks) == (PLAN, ())
    gone = _change(after, services={"claims": after.services["claims"]})
    plan, kept = reset(gone, marks)
    assert kept == ("services.enquiries.shares",)
    assert set(fields(plan)) == set(fields(gone))


#: Three sites; weifang serves the same and has a trunk too.
THREE = with_(
    sites=FLEET.sites | {"weifang": Site()},
    trunks=FLEET.trunks | {"wf-one": Trunk("weifang", "carrier"), "wf-two": Trunk("weifang", "other")},
)


@pytest.mark.parametrize(
    ("shares", "closed", "expected"),
    [
        ({"nc-carrier": 60, "wf-one": 10, "cd-carrier": 30}, (), {"wf-one": 10, "cd-carrier": 90}),
        ({"nc-carrier": 100, "wf-one": 0, "wf-two": 0}, (), {"wf-one": 100, "wf-two": 0}),
        ({"nc-carrier": 70, "wf-one": 0, "wf-two": 30}, (), {"wf-one": 70, "wf-two": 30}),
        ({"nc-carrier": 100, "wf-one": 0}, ("weifang",), None),
        ({"nc-carrier": 100}, (), None),
    ],
)
def test_a_group_goes_to_the_receiving_site_else_to_any_open_one_else_it_stays_and_that_is_said(
    shares: dict[str, int], closed: tuple[str, ...], expected: dict[str, int] | None
) -> None:
    fleet = _change(THREE, groups={"national": _change(FLEET.groups["national"], shares=shares)})
    before = first_plan(fleet, KEY)
    before = _change(before, sites=before.sites | {s: SitePlan(SiteMode.CLOSED) for s in closed})
    after, could_not = change(command_of("failover"), before, fleet)
    assert after.groups["national"].shares == (shares if expected is None else expected)
    assert any("national has no trunk at another open site" in line for line in could_not) == (expected is None)


def test_agents_of_a_site_that_fails_over_stay_there_and_that_is_said() -> None:
    agents = {n: AgentPlan("n", s, ("claims",), 5, DIGEST) for n, s in (("b", "nanchang"), ("a", "nanchang"))}
    plan = _change(PLAN, agents=agents | {"c": AgentPlan("n", "chengdu", ("claims",), 5, DIGEST)})
    after, could_not = change(command_of("failover"), plan, FLEET)
    assert after.agents == plan.agents
    assert could_not == ("agents enrolled at nanchang stay there: a, b",)


# -- a running operation and what is remembered, under another fleet.toml

ONLY_CHENGDU = with_(
    services=FLEET.services | {"claims": _change(FLEET.services["claims"], home=("chengdu",), shares={"chengdu": 100})},
)


def record(kind: str, *, running: bool = False, id_: int = 7, plan: Plan = PLAN, **fields_: Any) -> OperationRecord:
    command = command_of(kind, **fields_)
    after, _ = change(command, plan, FLEET)
    state = OperationState.RUNNING if running else OperationState.DONE
    return OperationRecord(
        str(uuid.UUID(int=id_)), command, state, 0, EPOCH, EPOCH, footprint(plan, after), unproven=("before",)
    )


def busy(of: OperationRecord) -> Plan:
    result = CommandResult("x", OperationState.RUNNING, EPOCH)
    after, _ = change(of.command, PLAN, FLEET)
    return _change(after, running=of, commands={of.id: result})


@pytest.mark.parametrize(
    ("kind", "fields_", "fleet"),
    [
        ("shift", {}, with_(services={"enquiries": FLEET.services["enquiries"]})),
        ("call", {}, with_(services={"enquiries": FLEET.services["enquiries"]})),
        ("trunks", {}, with_(groups={})),
        ("agents.enrol", {}, with_(services={"enquiries": FLEET.services["enquiries"]})),
        ("failover", {"site": "nanchang", "to": "chengdu"}, with_(sites={"chengdu": FLEET.sites["chengdu"]})),
        ("failover", {"site": "chengdu", "to": "nanchang"}, with_(sites={"chengdu": FLEET.sites["chengdu"]})),
        # The site is there, and serves this no more: the division is the configured one, not what was asked.
        ("shift", {}, ONLY_CHENGDU),
        ("shift", {"service": "claims", "shares": {"chengdu": 100}}, ONLY_CHENGDU),
    ],
)
def test_a_running_operation_on_what_is_gone_has_failed(kind: str, fields_: dict[str, Any], fleet: Fleet) -> None:
    running = record(kind, running=True, **fields_)
    fitted = fit_to_fleet(fleet, busy(running))
    assert fitted.running is None
    [ended] = fitted.past
    assert (ended.id, ended.state, ended.unproven[0]) == (running.id, OperationState.FAILED, "before")
    assert "fleet.toml no longer names" in ended.unproven[1]
    assert fitted.commands[running.id].state is OperationState.FAILED


def test_a_running_operation_on_what_is_still_there_goes_on() -> None:
    for kind, fleet in (("shift", with_(groups={})), ("failover", ONLY_CHENGDU), ("pause", with_(groups={}))):
        running = record(kind, running=True)
        fitted = fit_to_fleet(fleet, busy(running))
        assert fitted.running is not None
        assert (fitted.running.id, fitted.past) == (running.id, ())


def test_no_undo_brings_back_a_target_that_is_gone() -> None:
    old = record("failover")
    assert len(old.footprint) == 4
    fitted = fit_to_fleet(ONLY_CHENGDU, _change(PLAN, past=(old,)))
    paths = {m.path for m in fitted.past[0].footprint}
    assert paths == {"services.enquiries.shares", "groups.national.shares", "sites.nanchang.mode"}
    gone = fit_to_fleet(with_(sites={"chengdu": FLEET.sites["chengdu"]}, groups={}), _change(PLAN, past=(old,)))
    assert {m.path for m in gone.past[0].footprint} == {"services.claims.shares", "services.enquiries.shares"}


def test_a_group_without_a_trunk_at_the_receiving_site_keeps_its_shares() -> None:
    alone = with_(groups={"national": _change(FLEET.groups["national"], shares={"nc-carrier": 100})})
    after, _ = change(command_of("failover"), first_plan(alone, KEY), alone)
    assert after.groups["national"].shares == {"nc-carrier": 100}


def test_no_two_paths_share_the_id_of_their_calls_and_the_dialplan_keeps_it_whole() -> None:
    """The dialplan keeps 80 characters of letters, digits, dot, underscore and hyphen (cp-syn-begin)."""
    sites = ["a", "a-a", "a-a-a", "b" * 32, "b" * 31 + "c"]
    operation = "0b6c1a52-0000-4000-8000-000000000000"
    paths = [Path(o, kind, s, t) for o in sites for t in sites for s in ("a", "x" * 32) for kind in ProbeKind]
    assert synthetic_prefix(operation).startswith("syn-")
    sibling = "0b6c1a52-0000-4000-8000-000000000001"
    assert synthetic_prefix(operation) != synthetic_prefix(sibling), "ids made at the same time begin alike"
    calls = [f"{path.call(operation)}-1000" for path in paths]
    assert len(set(calls)) == len(paths)
    for call in calls:
        assert len(call) <= 80
        assert call.startswith(synthetic_prefix(operation))
        assert call.replace("-", "").replace(".", "").replace("_", "").isalnum()
