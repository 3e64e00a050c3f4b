"""The life of operations in a whole fleet: from a command to what was seen of it, with sites and calls that fail."""

from __future__ import annotations

import json
import uuid
from typing import Any

import msgspec
import pytest

from controlplane.contract.fleet import Trunk
from controlplane.contract.operation import OperationState
from controlplane.contract.plan import SiteMode
from controlplane.contract.report import CallEventKind
from controlplane.fleet.engine import ASK_AGAIN_S, MOST_PAST
from controlplane.fleet.state import NO_ID, CommandCame, Note, PublishOperation, PublishPlan, SavePlan, SendProbe
from controlplane.site.table import split_value
from tests.unit.test_fleet_driver import DIGEST, FLEET, World, body_of, fields_of, led

TO_CHENGDU = {"service": "claims", "shares": {"nanchang": 20, "chengdu": 80}}
ENROL = {"agent": "home01", "name": "王芳", "site": "chengdu", "services": ["claims"], "digest": DIGEST, "wait_s": 20}


def unchanged(world: World) -> Any:
    """What a command that is not obeyed must leave alone."""
    return (world.plan, len(world.plans()), {n: s.astdb.copy() for n, s in world.sites.items()})


# -- shift and trunks


def test_a_shift_is_done_when_a_call_from_each_site_arrived_at_each_target() -> None:
    world = led()
    id_ = world.send("shift", **TO_CHENGDU)
    world.pass_s(3)
    assert world.words(id_) == ["running", "done"]
    assert world.shares() == {"nanchang": 20, "chengdu": 80}
    assert world.last(id_).unproven == ()
    assert world.last(id_).progress == 1.0
    asked = {(site.state.site, p.force) for site in world.sites.values() for p in site.probes}
    assert asked == {(a, b) for a in FLEET.sites for b in (*FLEET.sites, "")}, "one that nobody forces, from each site"
    for site in world.sites.values():
        assert site.state.piece is not None
        assert site.astdb["cp/svc/claims"] == split_value(site.state.piece.services["claims"])
    assert world.plan.running is None
    assert world.plan.past[-1].id == id_
    assert world.plan.commands[id_].state is OperationState.DONE


def test_a_command_is_journaled_before_its_plan_is_saved_and_published_and_asked_for() -> None:
    world = led()
    here = len(world.log)
    id_ = world.send("shift", **TO_CHENGDU)
    effects = [e for _, e in world.log[here:]]
    assert isinstance(effects[0], Note)
    assert (effects[0].kind, effects[0].id) == ("command", id_)
    kinds = [type(e) for e in effects]
    assert kinds.index(SavePlan) < kinds.index(PublishPlan) < kinds.index(PublishOperation) < kinds.index(SendProbe)


def test_a_shift_that_a_site_does_not_apply_is_undone_with_its_shares_back() -> None:
    world = led()
    world.sites["chengdu"].deaf = True
    id_ = world.send("shift", **TO_CHENGDU)
    world.pass_s(8)
    assert world.words(id_) == ["running"]
    assert world.shares() == {"nanchang": 20, "chengdu": 80}
    world.pass_s(4)
    assert world.words(id_) == ["running", "undone"]
    assert world.shares() == {"nanchang": 60, "chengdu": 40}
    assert any("chengdu has not applied" in line for line in world.last(id_).unproven)


def test_a_shift_whose_calls_do_not_arrive_is_undone() -> None:
    world = led()
    world.lose_calls = True
    id_ = world.send("shift", **TO_CHENGDU)
    world.pass_s(14)
    assert world.words(id_) == ["running", "undone"]
    assert world.last(id_).phase == "prove"
    assert world.shares() == {"nanchang": 60, "chengdu": 40}
    assert len(world.last(id_).unproven) == 6


def stale(world: World, site: str, key: str) -> None:
    """The dialplan of a site goes on by the value it has now, whatever is written and read back."""
    world.sites[site].stale[key] = world.sites[site].astdb[key]


@pytest.mark.parametrize(
    ("kind", "fields", "key", "name"),
    [
        ("shift", TO_CHENGDU, "cp/svc/claims", "claims"),
        (
            "trunks",
            {"group": "national", "shares": {"nc-carrier": 30, "cd-carrier": 70}},
            "cp/out/national",
            "national",
        ),
    ],
)
def test_forced_calls_that_arrive_do_not_prove_a_division_that_a_site_does_not_follow(
    kind: str, fields: dict[str, Any], key: str, name: str
) -> None:
    world = led()
    stale(world, "chengdu", key)
    id_ = world.send(kind, **fields)
    since = (world.plan.services | world.plan.groups)[name].since
    world.pass_s(14)
    assert world.words(id_) == ["running", "undone"]
    assert world.last(id_).unproven == (f"no synthetic call for {name} at chengdu was seen to follow plan {since}",)
    assert (world.plan.services | world.plan.groups)[name].shares == (FLEET.services | FLEET.groups)[name].shares


def test_a_call_that_followed_the_new_division_and_arrived_nowhere_proves_nothing() -> None:
    world = led()
    world.lose_calls = True
    id_ = world.send("shift", **TO_CHENGDU)
    world.pass_s(1)
    for site in world.sites.values():
        for probe in site.probes:
            if probe.force:
                world.events(probe.force, CallEventKind.ARRIVE, f"{probe.call}-1")
    world.pass_s(1)
    assert world.words(id_) == ["running"]
    decided = world.leader().view.evidence.decided
    assert {d.split()[0] for d in decided.values()} == {world.plan.services["claims"].since}
    for call in decided:
        world.events("nanchang", CallEventKind.ARRIVE, call)
    world.pass_s(1)
    assert world.words(id_) == ["running", "done"]


def test_the_undo_of_a_missed_gate_leaves_what_somebody_changed_since() -> None:
    world = led()
    world.lose_calls = True
    first = world.send("shift", **TO_CHENGDU)
    state = world.hosts["coordinator"]
    assert state.known is not None
    other = msgspec.structs.replace(state.known.services["claims"], shares={"chengdu": 100})
    plan = msgspec.structs.replace(state.known, services=state.known.services | {"claims": other})
    world.hosts["coordinator"] = msgspec.structs.replace(state, known=plan)
    world.contents.clear()
    world.pass_s(25)
    assert world.words(first)[-1] == "undone"
    assert world.shares() == {"chengdu": 100}
    assert any("changed by somebody since" in line for line in world.last(first).unproven)


def test_lost_calls_are_asked_for_again_and_those_seen_are_not() -> None:
    world = led()
    world.lose_calls = True
    id_ = world.send("shift", **TO_CHENGDU)
    world.pass_s(1)
    first = len(world.sites["nanchang"].probes)
    call = next(p.call for p in world.sites["nanchang"].probes if p.force == "nanchang")
    world.events("nanchang", CallEventKind.ARRIVE, f"{call}-1")
    world.lose_calls = False
    world.pass_s(ASK_AGAIN_S)
    assert world.words(id_) == ["running", "done"]
    again = [p.call for p in world.sites["nanchang"].probes[first:]]
    assert again
    assert call not in again


def test_a_call_that_arrives_elsewhere_proves_nothing() -> None:
    world = led()
    world.lose_calls = True
    id_ = world.send("shift", **TO_CHENGDU)
    world.pass_s(1)
    for site in world.sites.values():
        for probe in site.probes:
            if not probe.force:
                continue  # Where the division itself sends a call is not for us to say.
            wrong = "chengdu" if probe.force == "nanchang" else "nanchang"
            world.events(wrong, CallEventKind.ARRIVE, f"{probe.call}-1")
    world.pass_s(1)
    assert world.words(id_) == ["running"]


def test_real_calls_on_the_new_division_are_counted_and_those_on_the_old_are_not() -> None:
    world = led()
    old = world.plan.services["claims"].since
    world.lose_calls = True
    id_ = world.send("shift", **TO_CHENGDU)
    new = world.plan.services["claims"].since
    for since, target in ((old, "nanchang"), (new, "chengdu"), (new, "chengdu"), (new, "nanchang")):
        world.events(
            "nanchang",
            CallEventKind.ROUTE,
            "c",
            synthetic=False,
            plan=since,
            call_kind="svc",
            id="claims",
            target=target,
        )
    world.lose_calls = False
    world.pass_s(4)
    assert world.last(id_).state is OperationState.DONE
    assert world.last(id_).observed == {"claims": {"chengdu": 2, "nanchang": 1}}


def test_trunks_are_proven_by_a_call_that_the_carrier_answers() -> None:
    world = led()
    id_ = world.send("trunks", group="national", shares={"nc-carrier": 30, "cd-carrier": 70})
    world.pass_s(3)
    assert world.words(id_) == ["running", "done"]
    assert world.plan.groups["national"].shares == {"nc-carrier": 30, "cd-carrier": 70}
    assert {(p.force, p.number) for p in world.sites["nanchang"].probes} == {
        ("nc-carrier", "02100000000"),
        ("cd-carrier", "02100000000"),
        ("", "02100000000"),
    }


def test_a_trunk_that_nobody_can_call_through_is_unproven() -> None:
    blind = msgspec.structs.replace(FLEET, trunks=FLEET.trunks | {"cd-carrier": Trunk("chengdu", "carrier")})
    world = led(fleet=blind)
    id_ = world.send("trunks", group="national", shares={"cd-carrier": 100})
    world.pass_s(3)
    assert world.words(id_) == ["running", "done"]
    assert "cd-carrier has no test_number" in world.last(id_).unproven[0]
    assert world.sites["nanchang"].probes == [], "a call that is not forced may go where nobody answers"


@pytest.mark.parametrize(
    ("kind", "fields"),
    [("shift", {"service": "claims", "shares": {"chengdu": 40, "nanchang": 60}}),
     ("trunks", {"group": "national", "shares": {"nc-carrier": 100}})],
)  # fmt: skip
def test_the_shares_that_are_there_already_keep_their_label(kind: str, fields: dict[str, Any]) -> None:
    world = led()
    before = (world.plan.services["claims"].since, world.plan.groups["national"].since)
    id_ = world.send(kind, **fields)
    world.pass_s(3)
    assert world.words(id_) == ["running", "done"]
    assert (world.plan.services["claims"].since, world.plan.groups["national"].since) == before


# -- failover and restore


def test_a_failover_of_a_dead_site_is_done_with_what_is_unproven() -> None:
    world = led()
    world.sites["nanchang"].alive = False
    world.pass_s(10)
    id_ = world.send("failover", site="nanchang", to="chengdu")
    world.pass_s(3)
    assert world.words(id_) == ["running", "done"]
    assert any("nanchang last reported" in line for line in world.last(id_).unproven)
    assert world.shares("claims") == world.shares("enquiries") == {"chengdu": 100}
    assert world.plan.groups["national"].shares == {"cd-carrier": 100}
    assert world.plan.sites["nanchang"].mode is SiteMode.CLOSED


def test_a_failover_keeps_what_it_reached_when_a_site_stays_silent_that_was_just_there() -> None:
    world = led()
    world.sites["nanchang"].alive = False
    id_ = world.send("failover", site="nanchang", to="chengdu")
    world.pass_s(25)
    assert world.words(id_) == ["running", "done"]
    assert any("nanchang has not applied" in line for line in world.last(id_).unproven)
    assert world.shares() == {"chengdu": 100}


def test_a_failover_pre_empts_a_shift() -> None:
    world = led()
    world.lose_calls = True
    shift = world.send("shift", **TO_CHENGDU)
    here = len(world.log)
    world.lose_calls = False
    failover = world.send("failover", site="nanchang", to="chengdu")
    effects = [e for _, e in world.log[here:]]
    saved = next(i for i, e in enumerate(effects) if isinstance(e, SavePlan))
    said = next(i for i, e in enumerate(effects) if isinstance(e, PublishOperation))
    assert saved < said, "an end was said that is not on disk"
    world.pass_s(4)
    assert world.words(shift) == ["running", "superseded"]
    assert world.words(failover) == ["running", "done"]
    assert [r.id for r in world.plan.past[-2:]] == [shift, failover]
    assert world.plan.commands[shift].state is OperationState.SUPERSEDED
    verdicts = [n.body["state"] for n in world.notes("verdict")]
    assert verdicts == ["superseded", "done"]
    missing = world.last(shift).unproven
    assert len(missing) == 6, "what it had not proven when it was superseded"
    assert any("was seen to arrive at chengdu" in line for line in missing)


def test_every_other_operation_waits_for_the_running_one() -> None:
    world = led()
    world.lose_calls = True
    world.send("shift", **TO_CHENGDU)
    for kind in ("shift", "trunks", "call"):
        id_ = world.send(kind)
        assert [r.rule for r in world.last(id_).refusals] == ["operation-in-progress"]


def failed_over(world: World) -> str:
    id_ = world.send("failover", site="nanchang", to="chengdu")
    world.pass_s(4)
    assert world.last(id_).state is OperationState.DONE
    return id_


def test_restore_takes_back_exactly_what_the_failover_took() -> None:
    world = led()
    world.send("shift", service="claims", shares={"nanchang": 30, "chengdu": 70})
    world.pass_s(4)
    before = (world.shares("claims"), world.shares("enquiries"), world.plan.groups["national"].shares)
    failed_over(world)
    id_ = world.send("restore", site="nanchang")
    world.pass_s(4)
    assert world.last(id_).state is OperationState.DONE
    assert (world.shares("claims"), world.shares("enquiries"), world.plan.groups["national"].shares) == before
    assert world.plan.sites["nanchang"].mode is SiteMode.IN_SERVICE


def test_restore_after_a_failover_that_was_sent_twice_takes_back_what_the_first_took() -> None:
    world = led()
    failed_over(world)
    failed_over(world)
    id_ = world.send("restore", site="nanchang")
    world.pass_s(4)
    assert world.last(id_).state is OperationState.DONE
    assert world.shares("claims") == {"nanchang": 60, "chengdu": 40}
    assert world.shares("enquiries") == {"nanchang": 100}


def test_restore_leaves_what_somebody_changed_since() -> None:
    world = led()
    failed_over(world)
    shift = world.send(
        "shift", service="claims", shares={"nanchang": 5, "chengdu": 95}, override=["closed-site"], reason="trial"
    )
    world.pass_s(4)
    assert world.last(shift).state is OperationState.DONE
    id_ = world.send("restore", site="nanchang")
    world.pass_s(4)
    assert world.shares("claims") == {"nanchang": 5, "chengdu": 95}
    assert world.shares("enquiries") == {"nanchang": 100}
    assert any("services.claims.shares was changed" in line for line in world.last(id_).unproven)


def test_restore_of_a_site_in_service_is_refused_and_brings_no_configured_shares() -> None:
    world = led()
    world.send("shift", service="claims", shares={"chengdu": 100})
    world.pass_s(4)
    id_ = world.send("restore", site="nanchang")
    assert [r.rule for r in world.last(id_).refusals] == ["already"]
    world.pass_s(4)
    assert world.shares("claims") == {"chengdu": 100}


def test_restore_does_not_touch_another_site_that_is_closed() -> None:
    world = led()
    failed_over(world)
    id_ = world.send("restore", site="chengdu")
    assert [r.rule for r in world.last(id_).refusals] == ["already"]
    assert world.shares("claims") == {"chengdu": 100}
    assert world.plan.sites["nanchang"].mode is SiteMode.CLOSED


def test_where_it_is_forgotten_what_closed_a_site_restore_only_opens_it_and_says_so() -> None:
    world = led()
    failed_over(world)
    state = world.hosts["coordinator"]
    assert state.known is not None
    world.hosts["coordinator"] = msgspec.structs.replace(state, known=msgspec.structs.replace(state.known, past=()))
    id_ = world.send("restore", site="nanchang")
    world.pass_s(4)
    assert world.last(id_).state is OperationState.DONE
    assert world.plan.sites["nanchang"].mode is SiteMode.IN_SERVICE
    assert world.shares("claims") == world.shares("enquiries") == {"chengdu": 100}
    assert world.plan.groups["national"].shares == {"cd-carrier": 100}
    [line] = world.last(id_).unproven
    assert "has no shares until you shift some" in line


def test_the_failover_of_a_site_that_is_still_closed_is_never_forgotten() -> None:
    world = led()
    failover = failed_over(world)
    calls = []
    for _ in range(MOST_PAST + 3):
        calls.append(world.send("call", service="claims", count=1))
        world.pass_s(1)
    assert [r.id for r in world.plan.past] == [failover, *calls[-MOST_PAST:]]
    world.send("restore", site="nanchang")
    world.pass_s(4)
    assert world.shares("claims") == {"nanchang": 60, "chengdu": 40}
    assert failover not in [r.id for r in world.plan.past], "an open site needs it no more"


# -- a failover and what it does not reach


def test_nothing_is_asked_of_a_site_that_a_person_says_is_dead_even_if_it_reports() -> None:
    world = led()
    world.sites["nanchang"].deaf = True
    id_ = world.send("failover", site="nanchang", to="chengdu", confirm_dead=True)
    world.pass_s(4)
    assert world.plan.past[-1].left_out == ("nanchang",)
    assert world.words(id_) == ["running", "done"]
    assert world.sites["nanchang"].probes == []
    lines = world.last(id_).unproven
    assert any("as a person confirmed" in line for line in lines)
    assert sum(line.startswith("waiting_for_carrier") for line in lines) == 2
    assert not any("has not applied" in line or "nobody confirmed" in line for line in lines)


def test_a_failover_of_a_site_out_of_reach_says_what_the_carrier_has_to_do_and_that_nobody_confirmed() -> None:
    world = led()
    world.sites["nanchang"].alive = False
    world.pass_s(10)
    id_ = failed_over(world)
    lines = world.last(id_).unproven
    assert [line for line in lines if line.startswith("waiting_for_carrier")] == [
        f"waiting_for_carrier: calls of {did} come in by cd-carrier when the carrier changes by options or timeout"
        for did in ("95556", "95557")
    ]
    assert any("nobody confirmed that nanchang is dead" in line for line in lines)


def test_a_failover_of_a_living_site_says_nothing_of_the_carrier() -> None:
    world = led()
    assert world.last(failed_over(world)).unproven == ()


def test_a_failover_says_which_agents_stay_behind() -> None:
    world = led()
    world.sites["nanchang"].phones.add("home01")
    world.send("agents.enrol", **ENROL | {"site": "nanchang"})
    world.pass_s(5)
    id_ = failed_over(world)
    assert world.last(id_).unproven == ("agents enrolled at nanchang stay there: home01",)
    assert "home01" in world.plan.agents


# -- sites that are held, and files that differ


def test_a_held_site_refuses_a_shift_and_is_left_out_of_one_that_a_person_forces() -> None:
    world = led()
    world.sites["nanchang"].hold()
    world.drain()
    id_ = world.send("shift", service="claims", shares={"chengdu": 100})
    assert [r.rule for r in world.last(id_).refusals] == ["hands-off"]
    id_ = world.send("shift", service="claims", shares={"chengdu": 100}, override=["hands-off"])
    world.pass_s(4)
    assert world.plan.past[-1].left_out == ("nanchang",)
    assert world.words(id_) == ["running", "done"]
    assert world.sites["nanchang"].probes == []
    assert world.last(id_).unproven == ("nanchang is held by an engineer: nothing is written there",)


def test_another_fleet_toml_at_a_site_refuses_a_shift_and_is_said_of_one_that_a_person_forces() -> None:
    world = led()
    world.sites["chengdu"].fleet_hash = "other"
    world.pass_s(2)
    id_ = world.send("shift", **TO_CHENGDU)
    assert [r.rule for r in world.last(id_).refusals] == ["configuration-differs"]
    id_ = world.send("shift", **TO_CHENGDU, override=["configuration-differs"])
    world.pass_s(4)
    assert world.words(id_) == ["running", "done"]
    [line] = world.last(id_).unproven
    assert line.startswith("chengdu runs with another fleet.toml (hash other")


# -- clocks


@pytest.mark.parametrize("jump_s", [7200.0, -7200.0])
def test_a_jump_of_the_wall_clock_neither_ends_a_phase_nor_holds_it(jump_s: float) -> None:
    world = led()
    world.lose_calls = True
    id_ = world.send("shift", **TO_CHENGDU)
    world.pass_s(1)
    asked = len(world.sites["nanchang"].probes)
    world.jump_s = jump_s
    world.pass_s(ASK_AGAIN_S + 0.5)
    assert world.words(id_) == ["running"]
    assert len(world.sites["nanchang"].probes) == 2 * asked, "it asks again as if nothing had happened"
    world.pass_s(9)
    assert world.words(id_) == ["running", "undone"]


# -- cancel


def test_cancel_takes_back_what_the_running_operation_changed_at_once() -> None:
    world = led()
    world.lose_calls = True
    shift = world.send("shift", **TO_CHENGDU)
    world.pass_s(1)
    here = len(world.log)
    trial = world.send("cancel", operation=shift, dry_run=True)
    assert world.last(trial).predicted["changes"] == {
        "services.claims.shares": {"from": TO_CHENGDU["shares"], "to": {"nanchang": 60, "chengdu": 40}}
    }
    assert world.shares() == TO_CHENGDU["shares"]
    cancel = world.send("cancel", operation=shift)
    assert world.plan.running is None
    assert world.shares() == {"nanchang": 60, "chengdu": 40}
    assert world.words(cancel)[-1] == "done"
    assert world.words(shift) == ["running", "cancelled"]
    assert world.plan.past[-1].state is OperationState.CANCELLED
    assert world.plan.commands[shift].state is OperationState.CANCELLED
    assert world.plan.commands[cancel].state is OperationState.DONE
    effects = [e for _, e in world.log[here:]]
    saved = next(i for i, e in enumerate(effects) if isinstance(e, SavePlan))
    ends = [i for i, e in enumerate(effects) if isinstance(e, PublishOperation) and e.operation.id == shift]
    assert saved < min(ends), "an end was said that is not on disk"
    assert [n.body["state"] for n in world.notes("verdict")] == ["cancelled"]
    world.lose_calls = False
    world.pass_s(30)
    assert world.words(shift) == ["running", "cancelled"]
    again = world.send("shift", **TO_CHENGDU)
    world.pass_s(4)
    assert world.words(again) == ["running", "done"]


def test_cancel_of_an_enrolment_leaves_no_agent_and_of_one_that_waits_ends_it() -> None:
    world = led()
    enrol = world.send("agents.enrol", **ENROL)
    world.pass_s(2)
    world.send("pause")
    world.pass_s(1)
    assert world.words(enrol) == ["running", "waiting"]
    world.send("cancel", operation=enrol)
    world.pass_s(2)
    assert world.words(enrol) == ["running", "waiting", "cancelled"]
    assert world.plan.agents == {}
    assert not any("home01" in key for key in world.sites["chengdu"].astdb)


def test_cancel_leaves_what_it_cannot_take_back_and_says_so() -> None:
    world = led()
    world.sites["chengdu"].phones.add("home01")
    world.send("agents.enrol", **ENROL)
    world.pass_s(5)
    world.sites["chengdu"].deaf = True
    revoke = world.send("agents.revoke", agent="home01")
    world.send("cancel", operation=revoke)
    assert world.plan.agents == {}
    assert world.last(revoke).unproven == ("home01 stays revoked: enrolments are never restored",)


def test_what_cancel_does_not_take() -> None:
    world = led()
    id_ = world.send("cancel", operation=str(uuid.UUID(int=1)))
    assert [r.rule for r in world.last(id_).refusals] == ["unknown-operation"]
    world.lose_calls = True
    failover = world.send("failover", site="nanchang", to="chengdu")
    id_ = world.send("cancel", operation=failover)
    assert [r.rule for r in world.last(id_).refusals] == ["not-cancellable"]
    assert world.plan.running is not None


# -- undo


def test_undo_resets_what_the_operation_changed() -> None:
    world = led()
    shift = world.send("shift", **TO_CHENGDU)
    world.pass_s(4)
    undo = world.send("undo", operation=shift)
    world.pass_s(4)
    assert world.words(undo) == ["running", "done"]
    assert world.shares() == {"nanchang": 60, "chengdu": 40}
    assert world.plan.services["claims"].since == next(
        p.services["claims"].since for p in world.plans() if p.running and p.running.id == undo
    )


def test_undo_of_an_older_shift_leaves_the_newer_one() -> None:
    world = led()
    shift = world.send("shift", **TO_CHENGDU)
    world.pass_s(4)
    world.send("shift", service="claims", shares={"nanchang": 50, "chengdu": 50})
    world.pass_s(4)
    undo = world.send("undo", operation=shift)
    world.pass_s(4)
    assert world.shares() == {"nanchang": 50, "chengdu": 50}
    assert any("changed by somebody since" in line for line in world.last(undo).unproven)


def test_undo_of_a_failover_opens_the_site_again() -> None:
    world = led()
    id_ = failed_over(world)
    undo = world.send("undo", operation=id_)
    world.pass_s(4)
    assert world.last(undo).state is OperationState.DONE
    assert world.plan.sites["nanchang"].mode is SiteMode.IN_SERVICE
    assert world.shares() == {"nanchang": 60, "chengdu": 40}


def test_undo_does_not_give_calls_to_a_closed_site() -> None:
    world = led()
    shift = world.send("shift", service="claims", shares={"chengdu": 100})
    world.pass_s(4)
    failed_over(world)
    undo = world.send("undo", operation=shift)
    assert [r.rule for r in world.last(undo).refusals] == ["closed-site"]
    assert world.shares() == {"chengdu": 100}


def test_only_so_many_operations_are_remembered() -> None:
    world = led()
    first = world.send("shift", **TO_CHENGDU)
    world.pass_s(2)
    for _ in range(MOST_PAST):
        world.send("call", service="claims", count=1)
        world.pass_s(1)
    assert len(world.plan.past) == MOST_PAST
    undo = world.send("undo", operation=first)
    assert [r.rule for r in world.last(undo).refusals] == ["unknown-operation"]


# -- agents


def test_an_agent_is_enrolled_when_the_phone_registered_and_answered() -> None:
    world = led()
    id_ = world.send("agents.enrol", **ENROL)
    world.pass_s(3)
    assert world.words(id_) == ["running"]
    assert world.last(id_).phase == "register"
    chengdu = world.sites["chengdu"]
    assert ("claims", "PJSIP/home01") in chengdu.members
    assert f"MD5:{DIGEST}" in chengdu.astdb["cp/auth/home01"]
    assert "cp/auth/home01" not in world.sites["nanchang"].astdb
    assert chengdu.probes == []
    chengdu.phones.add("home01")
    world.pass_s(3)
    assert world.words(id_) == ["running", "done"]
    assert world.last(id_).unproven == ()
    assert [p.id for p in chengdu.probes] == ["home01"], "a phone is rung once"


def test_a_phone_that_never_registers_is_unproven_and_stays_enrolled() -> None:
    world = led()
    id_ = world.send("agents.enrol", **ENROL)
    world.pass_s(60)
    assert world.words(id_) == ["running", "done"]
    assert len(world.last(id_).unproven) == 1
    assert "has not registered" in world.last(id_).unproven[0]
    assert world.sites["chengdu"].probes == [], "a phone that is not there is not rung"
    assert "home01" in world.plan.agents


def test_an_enrolment_that_the_site_does_not_apply_leaves_no_agent() -> None:
    world = led()
    world.sites["chengdu"].deaf = True
    id_ = world.send("agents.enrol", **ENROL)
    world.pass_s(18)
    assert world.words(id_) == ["running", "undone"]
    assert world.plan.agents == {}


def test_an_enrolment_waits_for_the_site_of_the_agent_alone() -> None:
    world = led()
    world.sites["nanchang"].deaf = True
    world.sites["chengdu"].phones.add("home01")
    id_ = world.send("agents.enrol", **ENROL)
    world.pass_s(5)
    assert world.words(id_) == ["running", "done"]
    assert world.last(id_).unproven == ()


def test_an_enrolment_whose_endpoint_asterisk_does_not_show_is_undone() -> None:
    world = led()
    world.sites["chengdu"].no_endpoint = True
    id_ = world.send("agents.enrol", **ENROL)
    world.pass_s(18)
    assert world.words(id_) == ["running", "undone"]
    assert world.last(id_).unproven == ("chengdu does not show the endpoint of home01 in its queues",)
    assert world.plan.agents == {}


def test_a_revocation_is_refused_while_the_site_of_the_agent_is_out_of_reach() -> None:
    world = led()
    world.sites["chengdu"].phones.add("home01")
    world.send("agents.enrol", **ENROL)
    world.pass_s(5)
    world.sites["chengdu"].alive = False
    world.pass_s(10)
    id_ = world.send("agents.revoke", agent="home01")
    assert [r.rule for r in world.last(id_).refusals] == ["stale-figures"]
    assert "home01" in world.plan.agents


def test_a_phone_that_does_not_answer_is_rung_once_and_told() -> None:
    world = led()
    world.lose_calls = True
    world.sites["chengdu"].phones.add("home01")
    id_ = world.send("agents.enrol", **ENROL)
    world.pass_s(40)
    assert [p.id for p in world.sites["chengdu"].probes] == ["home01"]
    assert world.words(id_) == ["running", "done"]
    assert "did not answer a test call" in world.last(id_).unproven[0]


def test_revoke_takes_everything_away_and_sees_it_gone() -> None:
    world = led()
    world.sites["chengdu"].phones.add("home01")
    world.send("agents.enrol", **ENROL)
    world.pass_s(5)
    id_ = world.send("agents.revoke", agent="home01")
    world.pass_s(5)
    assert world.words(id_) == ["running", "done"]
    assert world.last(id_).unproven == ()
    assert world.plan.agents == {}
    assert world.sites["chengdu"].members == {}
    assert not any("home01" in key for key in world.sites["chengdu"].astdb)


def test_an_enrolment_is_never_undone_by_a_person() -> None:
    world = led()
    world.sites["chengdu"].phones.add("home01")
    enrol = world.send("agents.enrol", **ENROL)
    world.pass_s(5)
    undo = world.send("undo", operation=enrol)
    assert [r.rule for r in world.last(undo).refusals] == ["not-undoable"]


# -- synthetic calls


def test_a_call_is_done_when_all_of_them_arrived() -> None:
    world = led()
    id_ = world.send("call", service="claims", count=5, rate=5)
    world.pass_s(2)
    assert world.words(id_) == ["running", "done"]
    assert world.last(id_).observed == {"nanchang": 3, "chengdu": 2}, "by the division, 60 to 40"
    assert [p.count for p in world.sites["nanchang"].probes] == [5]


def test_calls_of_an_operation_whose_id_begins_alike_are_not_counted() -> None:
    world = led()
    world.lose_calls = True
    first, second = (f"0b6c1a52-0000-4000-8000-00000000000{n}" for n in (1, 2))
    world.send("call", id=first, service="claims", count=1, rate=5)
    [probe] = world.sites["nanchang"].probes
    world.pass_s(12)
    assert world.words(first) == ["running", "failed"]
    world.send("call", id=second, service="claims", count=1, rate=5)
    world.events("nanchang", CallEventKind.ARRIVE, f"{probe.call}-1")
    world.pass_s(1)
    assert world.words(second) == ["running"]


def test_calls_that_do_not_arrive_fail_it() -> None:
    world = led()
    world.lose_calls = True
    id_ = world.send("call", service="claims", count=5, rate=5)
    world.pass_s(10)
    assert world.words(id_) == ["running"]
    world.pass_s(3)
    assert world.words(id_) == ["running", "failed"]
    assert "5 of 5 synthetic calls" in world.last(id_).unproven[0]


# -- pause and resume


def test_a_pause_holds_a_running_operation_and_resume_goes_on_with_what_was_seen() -> None:
    world = led()
    world.lose_calls = True
    shift = world.send("shift", **TO_CHENGDU)
    world.pass_s(1)
    for probe in world.sites["nanchang"].probes:
        world.events(probe.force or "nanchang", CallEventKind.ARRIVE, f"{probe.call}-1")
    world.drain()
    pause = world.send("pause")
    world.pass_s(30)
    assert world.words(pause) == ["done"]
    assert world.words(shift) == ["running", "waiting"]
    assert world.shares() == {"nanchang": 20, "chengdu": 80}
    world.lose_calls = False
    asked = len(world.sites["nanchang"].probes)
    resume = world.send("resume")
    world.pass_s(3)
    assert world.words(resume) == ["done"]
    assert world.words(shift) == ["running", "waiting", "running", "done"]
    assert len(world.sites["nanchang"].probes) == asked, "calls that were seen before the pause were placed again"


def test_what_a_person_starts_during_a_pause_goes_on() -> None:
    world = led()
    world.send("pause")
    world.pass_s(1)
    shift = world.send("shift", **TO_CHENGDU)
    world.pass_s(4)
    assert world.words(shift) == ["running", "done"]
    assert world.plan.paused_at is not None


def test_a_failover_pre_empts_an_operation_that_waits() -> None:
    world = led()
    world.lose_calls = True
    shift = world.send("shift", **TO_CHENGDU)
    world.pass_s(1)
    world.send("pause")
    world.pass_s(1)
    world.lose_calls = False
    failover = world.send("failover", site="nanchang", to="chengdu")
    world.pass_s(5)
    assert world.words(shift) == ["running", "waiting", "superseded"]
    assert world.words(failover) == ["running", "done"]


# -- the door


def refused(world: World, payload: bytes, *, retained: bool = False) -> PublishOperation:
    """Send what must be refused; nothing may change by it, and the journal must know."""
    before = unchanged(world)
    notes, said = len(world.notes("refused")), len(world.replies)
    world.send_raw(payload, retained=retained)
    assert unchanged(world) == before
    assert len(world.notes("refused")) == notes + 1
    [answer] = world.replies[said:]
    assert answer.operation.state is OperationState.REFUSED
    assert answer.reply_to is not None
    assert (answer.reply_to.topic, answer.reply_to.correlation) == ("reply", b"corr")
    return answer


@pytest.mark.parametrize(
    ("rule", "payload"),
    [
        ("not-json", b"shift claims"),
        ("unknown-kind", b"{}"),
        ("too-large", b" " * 20_000),
    ],
)
def test_what_has_no_id_is_refused_without_one(rule: str, payload: bytes) -> None:
    answer = refused(led(), payload)
    assert [r.rule for r in answer.operation.refusals] == [rule]
    assert answer.operation.id == NO_ID


def test_a_bad_command_with_an_id_is_refused_on_its_topic() -> None:
    world = led()
    body = fields_of("shift", wall=world.wall, service="claims", shares={"nanchang": 60, "chengdu": 41})
    answer = refused(world, json.dumps(body).encode())
    assert (answer.operation.id, answer.on_topic) == (body["id"], True)
    assert [r.rule for r in answer.operation.refusals] == ["shares-sum"]


def test_retained_and_expired_commands_are_refused() -> None:
    world = led()
    good = body_of("shift", wall=world.wall, **TO_CHENGDU)
    assert refused(world, good, retained=True).operation.refusals[0].rule == "retained"
    old = body_of("shift", wall=world.wall, life_s=1, **TO_CHENGDU)
    world.pass_s(1)
    assert refused(world, old).operation.refusals[0].rule == "expired"


def test_a_command_from_the_future_or_valid_for_too_long_is_refused() -> None:
    world = led()
    ahead = fields_of("pause", wall=world.wall, life_s=300)
    ahead["issued_at"] = fields_of("pause", wall=world.wall, life_s=61)["expires_at"]
    assert refused(world, json.dumps(ahead).encode()).operation.refusals[0].rule == "from-the-future"
    long = body_of("pause", wall=world.wall, life_s=24 * 3600 + 1)
    assert refused(world, long).operation.refusals[0].rule == "expires-too-late"
    ahead["issued_at"] = fields_of("pause", wall=world.wall, life_s=59)["expires_at"]
    world.send_raw(json.dumps(ahead).encode())
    assert world.words(ahead["id"]) == ["refused", "done"]


def test_a_repeated_id_is_refused_and_the_words_about_the_first_stay_on_its_topic() -> None:
    world = led()
    body = fields_of("shift", wall=world.wall, **TO_CHENGDU)
    payload = json.dumps(body).encode()
    world.send_raw(payload)
    world.pass_s(4)
    answer = refused(world, payload)
    assert [r.rule for r in answer.operation.refusals] == ["repeated"]
    assert not answer.on_topic
    assert world.on_topic[str(body["id"])].state is OperationState.DONE


def test_a_delivery_twice_while_it_runs_does_not_disturb_it() -> None:
    world = led()
    world.lose_calls = True
    body = fields_of("shift", wall=world.wall, **TO_CHENGDU)
    world.send_raw(json.dumps(body).encode())
    assert refused(world, json.dumps(body).encode()).operation.refusals[0].rule == "repeated"
    world.lose_calls = False
    world.pass_s(4)
    assert world.on_topic[str(body["id"])].state is OperationState.DONE


@pytest.mark.parametrize("readable", [True, False])
@pytest.mark.parametrize("where", ["running", "past", "commands"])
def test_no_refusal_stands_on_the_topic_of_an_id_that_is_known(where: str, readable: bool) -> None:
    """Also where its command has expired and is out of the ledger, and where nobody can read what came."""
    world = led()
    if where == "commands":
        id_ = world.send("pause", life_s=3600)
    else:
        world.lose_calls = where == "running"
        fields = ENROL | {"wait_s": 600} if where == "running" else TO_CHENGDU
        id_ = world.send("agents.enrol" if where == "running" else "shift", life_s=20, **fields)
        world.pass_s(5)
        for kind in ("pause", "resume"):
            world.pass_s(10)
            world.send(kind)  # Each new plan forgets what has expired.
        world.pass_s(1)
        assert id_ not in world.plan.commands
    body = fields_of("shift", id=id_, wall=world.wall, **TO_CHENGDU)
    answer = refused(world, json.dumps(body if readable else {"id": id_, "kind": "shift"}).encode())
    assert answer.operation.id == id_
    assert not answer.on_topic
    assert world.on_topic[id_].state is not OperationState.REFUSED


@pytest.mark.parametrize(
    ("kind", "fields", "predicted"),
    [
        ("shift", TO_CHENGDU, {"services.claims.shares"}),
        ("failover", {"site": "nanchang", "to": "chengdu"},
         {"services.claims.shares", "services.enquiries.shares", "groups.national.shares", "sites.nanchang.mode"}),
        ("agents.enrol", ENROL, set()),
        ("pause", {}, set()),
        ("takeover", {"host": "coordinator2"}, set()),
        ("call", {"service": "claims"}, set()),
    ],
)  # fmt: skip
def test_a_dry_run_says_what_would_change_and_changes_nothing(
    kind: str, fields: dict[str, Any], predicted: set[str]
) -> None:
    world = led(hosts=("coordinator", "coordinator2"))
    before = unchanged(world)
    id_ = world.send(kind, dry_run=True, **fields)
    assert unchanged(world) == before
    assert world.words(id_) == ["accepted"]
    changes = world.last(id_).predicted["changes"]
    assert isinstance(changes, dict)
    assert set(changes) == predicted
    assert all(site.probes == [] for site in world.sites.values())
    world.pass_s(5)
    assert unchanged(world) == before
    assert world.leader().host == "coordinator"


def test_ids_of_expired_commands_are_forgotten() -> None:
    world = led()
    first = world.send("pause", life_s=10)
    assert first in world.plan.commands
    world.pass_s(11)
    second = world.send("resume")
    assert set(world.plan.commands) == {second}
    assert uuid.UUID(second)


def test_a_command_to_a_host_that_does_not_lead_changes_nothing() -> None:
    world = World()
    world.post_all(CommandCame(body_of("shift", wall=world.wall, **TO_CHENGDU), False, None))
    world.drain()
    assert world.log == []
