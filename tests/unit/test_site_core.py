"""The decisions of a site daemon: which plans and claims it takes, in which order it acts, what it says of itself."""

from __future__ import annotations

import datetime as dt
from typing import Any

import msgspec
import pytest

from controlplane.contract.key import Authority, Key
from controlplane.contract.plan import Plan, Seat, Slice, Split
from controlplane.contract.report import Claim
from controlplane.fleet.slicing import first_plan, slices
from controlplane.site import core
from controlplane.site.compile import APPLIED, HOLD, wanted
from controlplane.site.core import (
    MOST_PASSES,
    ClaimArrived,
    Do,
    Look,
    Looked,
    Note,
    PlanArrived,
    SavePlan,
    SavePromise,
    SaveSlice,
    SendPromise,
    SendReport,
    SliceArrived,
    State,
    StepsFailed,
    Unreadable,
    step,
)
from controlplane.site.diff import Observed
from tests.unit.test_fleet_driver import EPOCH, FLEET

LATER = EPOCH + dt.timedelta(seconds=30)


def key(epoch: int, revision: int = 1, holder: str = "host") -> Key:
    return Key(1, epoch, holder, revision)


def plan(at: Key, **changes: Any) -> Plan:
    return msgspec.structs.replace(first_plan(FLEET, at), **changes)


def piece(at: Key, site: str = "nanchang", **changes: Any) -> Slice:
    return msgspec.structs.replace(slices(FLEET, plan(at))[site], **changes)


def held(of: Slice, **more: str) -> Observed:
    """An Asterisk that holds the whole of a slice."""
    return Observed(dict(wanted(of).astdb) | more, {})


def looked(observed: Observed, *, hold_file: bool = False, at: dt.datetime = EPOCH) -> Looked:
    return Looked(observed, hold_file, at)


def kinds(effects: tuple[core.Effect, ...]) -> list[type]:
    return [type(e) for e in effects]


EMPTY = Observed({}, {})
MINE = piece(key(2, 5))
BUSY = State("nanchang", promised=key(2).authority, piece=MINE)


# -- claims


def test_the_first_claim_is_promised_on_disk_before_it_is_answered() -> None:
    state, effects = step(State("nanchang"), ClaimArrived(Claim(Authority(1, 1, "host"), EPOCH)))
    assert state.promised == Authority(1, 1, "host")
    assert kinds(effects) == [SavePromise, Note, SendPromise]
    assert effects[0] == SavePromise(Authority(1, 1, "host"))
    answer = effects[-1]
    assert isinstance(answer, SendPromise)
    assert (answer.promise.site, answer.promise.promised, answer.promise.plan) == ("nanchang", state.promised, None)


@pytest.mark.parametrize("claim", [Authority(1, 3, "a"), Authority(2, 1, "a"), Authority(1, 2, "i")])
def test_a_higher_claim_gets_the_newest_plan(claim: Authority) -> None:
    known = plan(key(2, 5))
    state, effects = step(msgspec.structs.replace(BUSY, plan=known), ClaimArrived(Claim(claim, EPOCH)))
    assert state.promised == claim
    assert kinds(effects) == [SavePromise, Note, SendPromise]
    assert isinstance(effects[-1], SendPromise)
    assert effects[-1].promise.plan == known


def test_the_same_claim_again_is_answered_again_and_not_saved_again() -> None:
    state, effects = step(BUSY, ClaimArrived(Claim(Authority(1, 2, "host"), EPOCH)))
    assert state == BUSY
    assert kinds(effects) == [SendPromise]


@pytest.mark.parametrize("claim", [Authority(1, 1, "z"), Authority(0, 9, "z"), Authority(1, 2, "a")])
def test_a_lower_claim_learns_of_the_higher_promise_and_changes_nothing(claim: Authority) -> None:
    state, effects = step(BUSY, ClaimArrived(Claim(claim, EPOCH)))
    assert state == BUSY
    [answer] = effects
    assert isinstance(answer, SendPromise)
    assert answer.promise.promised == Authority(1, 2, "host")
    assert answer.promise.plan is None


def test_what_was_taken_binds_like_a_promise() -> None:
    state, _ = step(State("nanchang", promised=key(1).authority), SliceArrived(piece(key(5))))
    after, effects = step(state, ClaimArrived(Claim(Authority(1, 4, "z"), EPOCH)))
    assert after == state
    assert isinstance(effects[0], SendPromise)
    assert effects[0].promise.promised == key(5).authority


# -- slices and plans


def test_a_slice_is_on_disk_before_anything_else_happens() -> None:
    state, effects = step(State("nanchang"), SliceArrived(MINE))
    assert state.piece == MINE
    assert kinds(effects) == [SaveSlice, Note, Look]


def test_a_newer_slice_is_taken_and_starts_over() -> None:
    newer = piece(key(2, 6))
    tired = msgspec.structs.replace(BUSY, passes=MOST_PASSES, trouble=("x",))
    state, effects = step(tired, SliceArrived(newer))
    assert (state.piece, state.passes, state.trouble) == (newer, 0, ())
    assert kinds(effects) == [SaveSlice, Note, Look]


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (piece(key(2, 4)), "is below 1.2.host.5"),
        (piece(key(1, 9)), "below the promise"),
        (piece(key(2, 9, "aaa")), "below the promise"),
        (piece(key(9), "chengdu"), "this slice is for chengdu"),
        (piece(key(2, 5), dids={}), "two contents"),
    ],
)
def test_a_slice_that_must_not_be_applied_is_refused_and_journaled(bad: Slice, why: str) -> None:
    state, effects = step(BUSY, SliceArrived(bad))
    assert state == BUSY
    assert kinds(effects) == [Note, SendReport]
    assert isinstance(effects[0], Note)
    assert effects[0].kind == "slice-refused"
    assert why in str(effects[0].body["why"])


def test_a_promise_refuses_the_old_writer_even_where_no_slice_came_since() -> None:
    state, _ = step(BUSY, ClaimArrived(Claim(Authority(1, 3, "other"), EPOCH)))
    after, effects = step(state, SliceArrived(piece(key(2, 6))))
    assert after == state
    assert kinds(effects) == [Note, SendReport]


def test_the_same_slice_again_changes_nothing() -> None:
    assert step(BUSY, SliceArrived(MINE)) == (BUSY, ())


def test_the_newest_plan_is_kept_and_an_older_or_foreign_one_is_not() -> None:
    first = plan(key(2, 5))
    state, effects = step(BUSY, PlanArrived(first))
    assert effects == (SavePlan(first),)
    for old in (first, plan(key(2, 4)), plan(key(1, 9))):
        assert step(state, PlanArrived(old)) == (state, ())
    newer = plan(key(2, 6))
    assert step(state, PlanArrived(newer))[1] == (SavePlan(newer),)


def test_what_cannot_be_read_is_said_and_not_applied() -> None:
    state, effects = step(BUSY, Unreadable("slice", "no JSON"))
    assert (state.piece, state.trouble) == (MINE, ("slice cannot be read and was not applied: no JSON",))
    assert kinds(effects) == [Note, SendReport]


# -- looking and repairing


def test_applied_is_said_once_and_only_after_a_look_that_shows_no_difference() -> None:
    state, effects = step(BUSY, looked(EMPTY))
    assert kinds(effects) == [Do]
    assert state.applied is None
    state, effects = step(state, looked(held(MINE), at=LATER))
    assert kinds(effects) == [SendReport, Note]
    assert state.applied is not None
    assert (state.applied.key, state.applied.hash, state.applied.at) == (MINE.key, MINE.hash, LATER)
    assert (state.passes, state.trouble) == (0, ())
    assert step(state, looked(held(MINE))) == (state, ())


def test_a_mark_that_stands_there_already_is_not_believed_without_the_rest() -> None:
    state, effects = step(BUSY, looked(Observed({APPLIED: wanted(MINE).astdb[APPLIED]}, {})))
    assert kinds(effects) == [Do]
    assert state.applied is None


def test_drift_from_an_applied_slice_is_repaired_and_journaled() -> None:
    state, _ = step(BUSY, looked(held(MINE)))
    state, effects = step(state, looked(held(MINE, **{"cp/svc/claims": "corrupt", "cp/svc/odd": "x"})))
    assert kinds(effects) == [Note, Do]
    assert "cp/svc/claims" in state.repaired[-1]
    for _ in range(9):
        state, _ = step(state, looked(held(MINE)))
        state, _ = step(state, looked(held(MINE, **{"cp/svc/odd": "x"})))
    assert len(state.repaired) == 5


def test_a_repair_that_does_not_hold_is_given_up_and_then_started_over() -> None:
    state = BUSY
    for number in range(1, MOST_PASSES + 1):
        state, effects = step(state, looked(EMPTY))
        assert (kinds(effects), state.passes) == ([Do], number)
    state, effects = step(state, looked(EMPTY))
    assert kinds(effects) == [Note, SendReport]
    assert "cp/did/95556" in state.trouble[0]
    assert f"after {MOST_PASSES} repairs" in state.trouble[0]
    state, effects = step(state, looked(EMPTY))
    assert kinds(effects) == [Do]


def test_a_look_that_shows_it_right_forgets_the_passes_before() -> None:
    state = BUSY
    for _ in range(MOST_PASSES * 3):
        state, effects = step(state, looked(EMPTY))
        assert kinds(effects)[-1] is Do
        state, _ = step(state, looked(held(MINE)))


def test_failed_steps_are_trouble_until_a_look_shows_it_right() -> None:
    state, effects = step(BUSY, StepsFailed(("DBPut: no",)))
    assert (state.trouble, kinds(effects)) == (("DBPut: no",), [Note, SendReport])
    state, _ = step(state, looked(held(MINE)))
    assert state.trouble == ()


@pytest.mark.parametrize("by_file", [True, False])
def test_hands_off_stops_every_write_and_is_said_until_it_ends(by_file: bool) -> None:
    hold = looked(EMPTY if by_file else Observed({HOLD: ""}, {}), hold_file=by_file)
    state, effects = step(BUSY, hold)
    assert state.hands_off
    assert kinds(effects) == [Note, SendReport]
    assert isinstance(effects[0], Note)
    assert effects[0].kind == "hands-off"
    assert state.trouble[0].startswith("hands off")
    state, effects = step(state, hold)
    assert kinds(effects) == [SendReport]
    newer = piece(key(2, 6))
    state, effects = step(state, SliceArrived(newer))
    assert SaveSlice(newer) in effects
    state, effects = step(state, hold)
    assert Do not in kinds(effects)
    state, effects = step(state, looked(EMPTY))
    assert not state.hands_off
    assert kinds(effects) == [Note, Do]
    assert isinstance(effects[0], Note)
    assert effects[0].kind == "hands-on"


def test_hands_off_with_the_right_content_is_not_applied() -> None:
    state, effects = step(BUSY, looked(held(MINE, **{HOLD: "anna"})))
    assert state.applied is None
    assert Do not in kinds(effects)


def test_without_a_slice_nothing_is_written() -> None:
    state, effects = step(State("nanchang"), looked(Observed({"cp/svc/claims": "by hand"}, {})))
    assert kinds(effects) == [SendReport]
    assert state.trouble == ("no slice was ever received",)


def test_a_slice_that_astdb_cannot_hold_is_trouble_and_no_crash() -> None:
    names = tuple(f"{'s' * 29}{n}" for n in range(60))
    bad = msgspec.structs.replace(MINE, services={"claims": Split(names, {names[0]: 100}, "1.1.h.1")})
    state, effects = step(msgspec.structs.replace(BUSY, piece=bad), looked(EMPTY))
    assert kinds(effects) == [SendReport]
    assert "cannot be written" in state.trouble[0]


def test_an_agent_whose_id_this_asterisk_has_already_is_said_and_keeps_nothing_else_from_being_applied() -> None:
    seat = Seat("n", ("claims",), 0, "0123456789abcdef0123456789abcdef")
    mine = msgspec.structs.replace(MINE, seats={"reception": seat})
    without_seat = {k: v for k, v in wanted(mine).astdb.items() if not k.endswith("/reception")}
    state, effects = step(
        msgspec.structs.replace(BUSY, piece=mine),
        looked(Observed(without_seat, {}, endpoints=frozenset({"reception"}))),
    )
    assert kinds(effects) == [SendReport, Note]
    assert state.applied is not None
    assert (state.applied.key, state.applied.hash) == (mine.key, mine.hash)
    assert "reception: an endpoint of this name is in pjsip.conf" in state.trouble[0]
    again = step(state, looked(Observed(without_seat, {}, endpoints=frozenset({"reception"}))))
    assert again == (state, ()), "it is said when it changes, not at each look"
