"""Who leads: start, restart, standby, takeover, two at once. One writer counts and nothing of the plan is lost."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from controlplane.contract.key import Authority, Key
from controlplane.contract.operation import OperationState
from controlplane.contract.plan import Plan
from controlplane.contract.report import Beacon, Claim, Promise
from controlplane.fleet import authority, core
from controlplane.fleet.authority import BEACON_S, CLAIM_S, LISTEN_S, REPEAT_S
from controlplane.fleet.slicing import first_plan
from controlplane.fleet.state import (
    BeaconSeen,
    ClaimCame,
    LinkLost,
    PlanSeen,
    PromiseCame,
    PublishBeacon,
    PublishClaim,
    PublishPlan,
    Role,
    SavePlan,
)
from controlplane.fleet.view import Evidence
from tests.unit.test_fleet_driver import FLEET, World, body_of, fields_of, led

BOTH = ("coordinator", "coordinator2")
TO_CHENGDU = {"service": "claims", "shares": {"nanchang": 20, "chengdu": 80}}


def test_it_listens_then_claims_then_leads_with_the_plan_of_the_file() -> None:
    world = World()
    world.pass_s(LISTEN_S - 0.5)
    assert world.hosts["coordinator"].role is Role.LISTENING
    assert world.log == []
    world.pass_s(1)
    assert world.leader().host == "coordinator"
    assert world.plan.key == Key(1, 1, "coordinator", 1)
    assert world.plan == first_plan(FLEET, world.plan.key)
    kinds = [type(e) for _, e in world.log]
    assert kinds.index(PublishClaim) < kinds.index(SavePlan) < kinds.index(PublishPlan)
    assert [s.state.promised for s in world.sites.values()] == [Authority(1, 1, "coordinator")] * 2


def test_a_site_that_does_not_answer_delays_the_claim_and_does_not_stop_it() -> None:
    world = World()
    world.sites["chengdu"].alive = False
    world.pass_s(LISTEN_S + CLAIM_S - 0.5)
    assert world.hosts["coordinator"].role is Role.CLAIMING
    world.pass_s(1)
    assert world.leader().host == "coordinator"
    [note] = world.notes("leads")
    assert note.body["silent"] == ["chengdu"]
    world.sites["chengdu"].alive = True
    world.pass_s(8)
    assert world.plans() == [world.plan] * len(world.plans())
    assert world.reports["chengdu"].applied is not None
    assert world.reports["chengdu"].applied.key == world.plan.key


def test_a_leader_says_so_regularly() -> None:
    world = led()
    here = len(world.log)
    world.pass_s(10)
    said = [e.beacon for _, e in world.log[here:] if isinstance(e, PublishBeacon)]
    assert len(said) == round(10 / BEACON_S)
    assert {b.authority for b in said} == {world.plan.key.authority}


def test_a_restart_goes_on_with_the_known_plan_unchanged_under_a_higher_epoch() -> None:
    world = led()
    world.send("shift", **TO_CHENGDU)
    world.send("pause")
    world.pass_s(6)
    before = world.plan
    world.stop("coordinator")
    world.start("coordinator")
    world.pass_s(6)
    assert world.plan.key == Key(1, 2, "coordinator", 1)
    assert msgspec.structs.replace(world.plan, key=before.key) == before
    assert {s.state.applied.key for s in world.sites.values() if s.state.applied} == {world.plan.key}


def test_a_restart_in_the_middle_of_an_operation_goes_on_with_it() -> None:
    world = led()
    world.lose_calls = True
    id_ = world.send("shift", **TO_CHENGDU)
    world.pass_s(1)
    world.stop("coordinator")
    world.lose_calls = False
    world.start("coordinator")
    world.pass_s(8)
    assert world.words(id_) == ["running", "done"]
    assert world.shares() == {"nanchang": 20, "chengdu": 80}


@pytest.mark.parametrize(("kind", "down_s"), [("shift", 600.0), ("call", 600.0), ("shift", 1.0), ("call", 1.0)])
def test_whoever_goes_on_asks_anew_and_has_the_whole_time_of_the_phase(kind: str, down_s: float) -> None:
    world = led()
    world.lose_calls = True
    id_ = world.send(kind)
    world.pass_s(1)
    world.stop("coordinator")
    world.mono += down_s
    asked = len(world.sites["nanchang"].probes)
    world.start("coordinator")
    world.pass_s(LISTEN_S + 2)
    assert world.words(id_) == ["running"]
    assert len(world.sites["nanchang"].probes) > asked
    world.lose_calls = False
    for site in world.sites.values():
        for probe in list(site.probes):
            site.probe(probe)
    world.pass_s(4)
    assert world.words(id_) == ["running", "done"]


def test_a_new_leader_says_again_how_the_newest_operations_and_the_running_one_stand() -> None:
    world = led(hosts=BOTH)
    past = []
    for _ in range(4):
        past.append(world.send("call", service="claims", count=1))
        world.pass_s(1)
    world.lose_calls = True
    running = world.send("shift", **TO_CHENGDU)
    world.stop("coordinator")
    here = len(world.said)
    takeover = world.send("takeover", host="coordinator2")
    world.pass_s(1)
    said = [(o.id, o.state.value) for o in world.said[here:]]
    assert said == [(takeover, "done"), *((i, "done") for i in past[-3:]), (running, "running")]


def test_what_a_standby_saw_of_calls_is_that_of_one_operation() -> None:
    world = led(hosts=BOTH)
    for _ in range(3):
        world.send("call", service="claims", count=4)
        world.pass_s(4)
    assert world.hosts["coordinator2"].view.evidence == Evidence()
    world.lose_calls = True
    world.send("shift", **TO_CHENGDU)
    assert len(world.hosts["coordinator2"].view.evidence.decided) == 2


# -- the link, and plans that do not come through


def test_a_leader_without_a_link_stops_and_claims_anew_when_it_hears_of_nobody_higher() -> None:
    world = led()
    world.lose_calls = True
    id_ = world.send("shift", **TO_CHENGDU)
    before = world.plan
    world.lose_link("coordinator")
    assert world.hosts["coordinator"].role is Role.LISTENING
    world.lose_calls = False
    world.pass_s(LISTEN_S + 6)
    assert world.leader().host == "coordinator"
    assert world.plan.key.authority == Authority(1, before.key.epoch + 1, "coordinator")
    assert world.words(id_) == ["running", "done"]


def test_commands_that_come_before_it_is_known_who_leads_wait_for_whoever_does() -> None:
    world = led(hosts=BOTH)
    world.lose_link("coordinator")
    good = world.send("pause")
    short = world.send("resume", life_s=1)
    retained = fields_of("shift", wall=world.wall, **TO_CHENGDU)
    world.send_raw(json.dumps(retained).encode(), retained=True)
    before = len(world.notes("command"))
    assert world.words(good) == world.words(short) == []
    world.pass_s(LISTEN_S + 2)
    assert world.leader().host == "coordinator"
    assert world.words(good) == ["done"]
    assert [r.rule for r in world.last(short).refusals] == ["expired"]
    assert {r.rule for r in world.last(retained["id"]).refusals} == {"retained"}
    assert world.plan.paused_at is not None
    assert len(world.notes("command")) == before + 1, "each is obeyed once"
    assert all(state.held == () for state in world.hosts.values())


def test_only_so_many_commands_wait_and_a_standby_forgets_them() -> None:
    world = World(hosts=("coordinator2",))
    for _ in range(core.MOST_HELD + 5):
        world.send("pause")
    assert len(world.hosts["coordinator2"].held) == core.MOST_HELD
    world.pass_s(LISTEN_S + 1)
    assert world.hosts["coordinator2"].role is Role.STANDBY
    assert world.hosts["coordinator2"].held == ()
    assert world.said == []


def test_a_takeover_that_came_too_early_is_obeyed_by_the_standby_that_it_names() -> None:
    world = World(hosts=("coordinator2",))
    id_ = world.send("takeover", host="coordinator2")
    world.pass_s(LISTEN_S + 2)
    assert world.leader().host == "coordinator2"
    assert world.words(id_) == ["done"]


def test_a_leader_whose_link_comes_back_to_another_leader_stands_by() -> None:
    world = led(hosts=BOTH)
    world.step("coordinator", LinkLost())
    world.posted.clear()
    cut = world.hosts.pop("coordinator")
    world.send("takeover", host="coordinator2")
    world.pass_s(4)
    world.hosts["coordinator"] = cut
    world.lose_link("coordinator")
    world.pass_s(LISTEN_S + 6)
    assert world.leader().host == "coordinator2"
    assert world.hosts["coordinator"].role is Role.STANDBY


def test_a_claimant_without_a_link_listens_again_and_a_standby_stays_one() -> None:
    world = World(hosts=BOTH)
    world.sites["chengdu"].alive = False
    world.pass_s(LISTEN_S + 0.5)
    assert world.hosts["coordinator"].role is Role.CLAIMING
    assert world.hosts["coordinator2"].role is Role.STANDBY
    for host in BOTH:
        world.step(host, LinkLost())
    assert world.hosts["coordinator"].role is Role.LISTENING
    assert world.hosts["coordinator"].claim is None
    assert world.hosts["coordinator2"].role is Role.STANDBY
    world.pass_s(LISTEN_S + CLAIM_S + 1)
    assert world.leader().host == "coordinator"
    assert world.plan.key.epoch == 2


def test_a_slice_that_was_lost_is_published_again_for_a_site_that_is_behind() -> None:
    world = led()
    world.sites["chengdu"].deaf = True
    world.send("pause")
    key, here = world.plan.key, len(world.plans())
    world.pass_s(20)
    again = world.plans()[here:]
    assert 3 <= len(again) <= 20 / REPEAT_S + 1
    assert {p.key for p in again} == {key}
    world.sites["chengdu"].deaf = False
    world.pass_s(REPEAT_S + 2)
    assert world.reports["chengdu"].applied is not None
    assert world.reports["chengdu"].applied.key == key
    here = len(world.plans())
    world.pass_s(20)
    assert len(world.plans()) == here, "nobody is behind"


@pytest.mark.parametrize("why", ["held", "out of reach"])
def test_nothing_is_repeated_for_a_site_that_cannot_take_it(why: str) -> None:
    world = led()
    if why == "held":
        world.sites["chengdu"].hold()
    else:
        world.sites["chengdu"].alive = False
    world.pass_s(10)
    world.send("pause")
    here = len(world.plans())
    world.pass_s(20)
    assert len(world.plans()) == here


@pytest.mark.parametrize(("holder", "times"), [("another", 1), ("coordinator", 0)])
def test_a_lower_plan_of_another_authority_on_the_bus_is_written_over_with_ours(holder: str, times: int) -> None:
    """Of our own authority a lower plan is an echo on its way."""
    world = led()
    world.send("pause")
    world.pass_s(6)
    epoch = 0 if holder == "another" else world.plan.key.epoch
    lower = msgspec.structs.replace(world.plan, key=Key(1, epoch, holder, 1))
    here = len(world.plans())
    world.step("coordinator", PlanSeen(lower))
    world.pass_s(20)
    assert world.plans()[here:] == [world.plan] * times


# -- another fleet.toml


def other_file(world: World) -> None:
    """coordinator2 starts with a fleet.toml without `enquiries`."""
    fleet = world.fleet
    world.fleet = msgspec.structs.replace(
        fleet,
        services={"claims": fleet.services["claims"]},
        ingress={"95556": fleet.ingress["95556"]},
    )
    world.start("coordinator2")
    world.fleet = fleet
    world.pass_s(4)
    assert world.hosts["coordinator2"].role is Role.STANDBY


def test_a_standby_with_another_file_does_not_take_over_unless_a_person_says_so() -> None:
    world = led()
    other_file(world)
    assert world.plan.fleet_hash == FLEET.hash
    world.stop("coordinator")
    id_ = world.send("takeover", host="coordinator2")
    world.pass_s(6)
    assert world.words(id_) == ["refused"]
    assert [r.rule for r in world.last(id_).refusals] == ["configuration-differs"]
    assert world.hosts["coordinator2"].role is Role.STANDBY
    id_ = world.send("takeover", host="coordinator2", override=["configuration-differs"])
    world.pass_s(6)
    assert world.leader().host == "coordinator2"
    assert set(world.plan.services) == {"claims"}
    assert world.plan.fleet_hash == world.leader().fleet.hash != FLEET.hash


def test_a_running_operation_on_what_the_file_lost_has_failed_and_that_is_said() -> None:
    world = led()
    other_file(world)
    world.lose_calls = True
    id_ = world.send("shift", service="enquiries", shares={"chengdu": 100})
    world.stop("coordinator")
    world.send("takeover", host="coordinator2", override=["configuration-differs"])
    world.pass_s(4)
    assert world.plan.running is None
    assert world.words(id_) == ["running", "failed"]
    assert "fleet.toml no longer names" in world.last(id_).unproven[-1]


def test_a_coordinator_that_lost_its_disk_gets_the_plan_from_the_sites() -> None:
    world = led()
    world.send("shift", **TO_CHENGDU)
    world.pass_s(4)
    before = world.plan
    world.stop("coordinator")
    world.disk.clear()
    world.retained = None
    world.start("coordinator")
    assert world.hosts["coordinator"].known is None
    world.pass_s(8)
    assert world.plan.key.authority > before.key.authority
    assert msgspec.structs.replace(world.plan, key=before.key) == before


def test_a_plan_on_the_bus_that_is_newer_than_those_of_the_sites_is_not_lost() -> None:
    """It was published in the last life of the leader, and no site has it yet."""
    world = led()
    world.stop("coordinator")
    newest = _next(world.disk["coordinator"])
    world.start("coordinator")
    world.pass_s(2.5)
    for site in world.sites.values():
        site.alive = False
    world.pass_s(1)
    assert world.hosts["coordinator"].role is Role.CLAIMING
    world.post_all(PlanSeen(newest))
    world.pass_s(4)
    assert world.shares() == {"chengdu": 100}


def _next(plan: Plan) -> Plan:
    claims = msgspec.structs.replace(plan.services["claims"], shares={"chengdu": 100})
    return msgspec.structs.replace(plan, key=plan.key.next_revision(), services=plan.services | {"claims": claims})


def test_a_standby_stands_by_and_learns_the_plan() -> None:
    world = led(hosts=BOTH)
    assert world.hosts["coordinator2"].role is Role.STANDBY
    assert world.hosts["coordinator2"].known == world.plan
    world.stop("coordinator")
    world.pass_s(60)
    assert world.hosts["coordinator2"].role is Role.STANDBY, "two alone never promote automatically"


def test_the_host_of_the_file_stands_by_where_the_newest_plan_is_anothers() -> None:
    world = led(hosts=BOTH)
    world.send("takeover", host="coordinator2")
    world.pass_s(4)
    world.stop("coordinator")
    world.start("coordinator")
    world.pass_s(10)
    assert world.hosts["coordinator"].role is Role.STANDBY
    assert world.leader().host == "coordinator2"


def test_a_takeover_moves_authority_and_the_old_leader_steps_down_on_the_claim() -> None:
    world = led(hosts=BOTH)
    world.send("shift", **TO_CHENGDU)
    world.pass_s(4)
    before = world.plan
    id_ = world.send("takeover", host="coordinator2")
    world.pass_s(6)
    assert world.leader().host == "coordinator2"
    assert world.hosts["coordinator"].role is Role.STANDBY
    assert world.words(id_) == ["done"]
    assert world.last(id_).observed == {"promised": ["chengdu", "nanchang"]}
    assert world.last(id_).unproven == ()
    assert (world.plan.key.epoch, world.plan.key.holder) == (before.key.epoch + 1, "coordinator2")
    assert world.plan.services == before.services
    assert world.plan.past == before.past
    assert world.plan.commands[id_].state is OperationState.DONE
    [note] = world.notes("stood-down")
    assert "higher than our" in str(note.body["why"])
    order = [(h, type(e)) for h, e in world.log]
    first_of_new = order.index(("coordinator2", PublishPlan))
    assert ("coordinator", PublishPlan) not in order[first_of_new:]


def test_a_takeover_while_an_operation_runs_goes_on_with_it() -> None:
    world = led(hosts=BOTH)
    world.lose_calls = True
    id_ = world.send("shift", **TO_CHENGDU)
    world.pass_s(1)
    world.send("takeover", host="coordinator2")
    world.lose_calls = False
    world.pass_s(4)
    assert world.leader().host == "coordinator2"
    assert world.words(id_) == ["running", "done"]


def test_a_takeover_with_the_old_leader_and_a_site_dead_lists_what_is_unproven() -> None:
    world = led(hosts=BOTH)
    world.stop("coordinator")
    world.sites["nanchang"].alive = False
    id_ = world.send("takeover", host="coordinator2")
    world.pass_s(6)
    assert world.leader().host == "coordinator2"
    assert world.last(id_).unproven == ("nanchang did not answer the claim",)


def test_a_takeover_for_a_standby_that_is_not_there_moves_nothing_and_nobody_says_done() -> None:
    world = led()
    before = world.plan
    id_ = world.send("takeover", host="coordinator2")
    world.pass_s(6)
    assert world.plan == before
    assert world.words(id_) == []


def test_a_takeover_is_obeyed_once() -> None:
    world = led(hosts=BOTH)
    world.send("takeover", host="coordinator2")
    world.pass_s(4)
    key = world.plan.key
    id_ = world.send("takeover", host="coordinator2")
    world.pass_s(4)
    assert world.words(id_) == ["done"]
    assert world.plan.key.authority == key.authority


@pytest.mark.parametrize(
    ("fields", "retained", "late_s"),
    [({}, False, 61), ({}, True, 0), ({"dry_run": True}, False, 0), ({"host": "other"}, False, 0)],
)
def test_a_standby_obeys_no_takeover_that_is_old_retained_a_trial_or_for_another(
    fields: dict[str, Any], retained: bool, late_s: float
) -> None:
    world = led(hosts=BOTH)
    world.stop("coordinator")
    payload = body_of("takeover", wall=world.wall, **({"host": "coordinator2"} | fields))
    world.mono += late_s
    world.send_raw(payload, retained=retained)
    world.pass_s(4)
    assert world.hosts["coordinator2"].role is Role.STANDBY


def test_a_standby_ignores_all_other_commands() -> None:
    world = led(hosts=BOTH)
    world.stop("coordinator")
    here = len(world.log)
    for kind in ("shift", "failover", "pause", "call"):
        world.send(kind)
    world.pass_s(3)
    assert world.log[here:] == []


@pytest.mark.parametrize("order", [BOTH, BOTH[::-1]])
def test_of_two_claims_at_once_the_higher_holder_wins_and_one_leads(order: tuple[str, str]) -> None:
    world = World(hosts=BOTH)
    for host in order:
        world.hosts[host], effects = authority.claim(world.hosts[host], world.now)
        for effect in effects:
            world.carry_out(host, effect)
    assert {s.role for s in world.hosts.values()} == {Role.CLAIMING}
    world.drain()
    assert world.leader().host == "coordinator2"
    world.pass_s(10)
    assert world.leader().host == "coordinator2"
    assert world.hosts["coordinator"].role is Role.STANDBY
    assert [s.state.promised for s in world.sites.values()] == [Authority(1, 1, "coordinator2")] * 2
    holders = [p.key.holder for p in world.plans()]
    assert holders == sorted(holders), "the lower one wrote after the higher one led"


def test_a_claim_is_given_up_when_a_site_promised_a_higher_one_and_the_next_is_above_it() -> None:
    world = World()
    world.pass_s(LISTEN_S - 0.5)
    for site in world.sites.values():
        site.state = msgspec.structs.replace(site.state, promised=Authority(1, 7, "coordinator2"))
    world.pass_s(0.5)
    assert len(world.notes("claim")) == 1
    assert world.hosts["coordinator"].role is Role.LISTENING
    assert world.plans() == []
    world.pass_s(LISTEN_S + 1)
    assert world.hosts["coordinator"].role is Role.STANDBY, "another was promised what we never heard of"
    world.send("takeover", host="coordinator")
    world.pass_s(1)
    assert world.plan.key.authority == Authority(1, 8, "coordinator")


@pytest.mark.parametrize(("holder", "role"), [("coordinator", Role.LEADING), ("coordinator2", Role.STANDBY)])
def test_without_a_plan_the_authority_that_was_heard_of_decides_who_leads(holder: str, role: Role) -> None:
    """Its disk is lost and no plan stands on the bus; the retained word of who leads does."""
    world = World()
    seen = Beacon(Authority(1, 4, holder), Key(1, 4, holder, 9), world.wall)
    world.step("coordinator", BeaconSeen(seen, retained=True))
    world.pass_s(LISTEN_S + 3)
    assert world.hosts["coordinator"].role is role
    if role is Role.LEADING:
        assert world.plan.key == Key(1, 5, "coordinator", 1)


@pytest.mark.parametrize("what", ["beacon", "plan", "claim", "promise"])
def test_a_writer_that_sees_a_higher_authority_stops_at_once(what: str) -> None:
    world = led()
    higher = Authority(1, world.plan.key.epoch + 3, "coordinator2")
    plan = msgspec.structs.replace(world.plan, key=Key.first(higher))
    event = {
        "beacon": BeaconSeen(Beacon(higher, plan.key, world.wall), retained=False),
        "plan": PlanSeen(plan),
        "claim": ClaimCame(Claim(higher, world.wall)),
        "promise": PromiseCame(Promise("nanchang", higher, None)),
    }[what]
    world.step("coordinator", event)
    assert world.hosts["coordinator"].role is Role.LISTENING
    here = len(world.log)
    id_ = world.send("shift", **TO_CHENGDU)
    assert world.words(id_) == []
    assert world.log[here:] == []
    world.pass_s(6)
    assert world.hosts["coordinator"].role is Role.STANDBY


def test_a_claimant_that_sees_a_plan_above_its_claim_stops() -> None:
    world = World()
    for site in world.sites.values():
        site.alive = False
    world.pass_s(LISTEN_S)
    assert world.hosts["coordinator"].role is Role.CLAIMING
    world.step("coordinator", PlanSeen(first_plan(FLEET, Key(1, 5, "coordinator2", 9))))
    assert world.hosts["coordinator"].role is Role.LISTENING


def test_its_own_claim_plan_and_beacon_come_back_and_change_nothing() -> None:
    world = led()
    state = world.hosts["coordinator"]
    authority = world.plan.key.authority
    for event in (
        ClaimCame(Claim(authority, world.wall)),
        PlanSeen(world.plan),
        BeaconSeen(Beacon(authority, world.plan.key, world.wall), retained=False),
        PlanSeen(msgspec.structs.replace(world.plan, key=Key(1, 0, "zzz", 99))),
        BeaconSeen(Beacon(Authority(1, 99, "zzz"), world.plan.key, world.wall), retained=True),
    ):
        world.step("coordinator", event)
        assert world.hosts["coordinator"].role is Role.LEADING
        assert world.hosts["coordinator"].known == state.known


def test_a_changed_file_is_fitted_under_the_next_key_after_the_plan_was_published_unchanged() -> None:
    world = led()
    world.send("shift", **TO_CHENGDU)
    world.pass_s(4)
    before = world.plan
    world.stop("coordinator")
    world.fleet = msgspec.structs.replace(
        FLEET, services=FLEET.services | {"loans": msgspec.structs.replace(FLEET.services["claims"], dids=("95558",))}
    )
    world.start("coordinator")
    world.pass_s(6)
    first, second = world.plans()[-2:]
    assert (first.key.revision, second.key.revision) == (1, 2)
    assert msgspec.structs.replace(first, key=before.key) == before
    assert second.services["claims"] == before.services["claims"]
    assert second.services["loans"].shares == {"nanchang": 60, "chengdu": 40}
    assert world.sites["nanchang"].astdb["cp/did/95558"] == "loans"
