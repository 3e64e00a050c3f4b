"""Keys are ordered, have one label each, and one content has one hash."""

from __future__ import annotations

import datetime as dt
import uuid

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.contract.command import Command
from controlplane.contract.key import Authority, Key, content_hash, parse_label
from controlplane.contract.operation import Operation, OperationState, Refusal
from controlplane.contract.plan import (
    AgentPlan,
    CommandResult,
    Footprint,
    OperationRecord,
    Plan,
    Slice,
)
from controlplane.contract.report import Applied, Promise, Report, SeatState
from controlplane.fleet.slicing import first_plan, slices
from tests.unit.test_fleet_driver import DIGEST, EPOCH, FIELDS, FLEET, command_of

NUMBERS = st.integers(0, 10**18 - 1)
HOLDERS = st.from_regex(r"[a-z][a-z0-9_.-]{0,31}", fullmatch=True)
KEYS = st.builds(Key, NUMBERS, NUMBERS, HOLDERS, NUMBERS)
KEY = Key(1, 2, "coordinator", 3)


@given(KEYS)
def test_a_key_comes_back_from_its_label(key: Key) -> None:
    assert parse_label(key.label) == key
    assert not set(key.label) & set(":, \r\n")


@given(KEYS, KEYS)
def test_two_keys_have_two_labels_and_one_order(a: Key, b: Key) -> None:
    assert (a.label == b.label) == (a == b)
    written = [(k.generation, k.epoch, k.holder, k.revision) for k in (a, b)]
    assert (a < b) == (written[0] < written[1])
    assert not (a.authority > b.authority and a < b)


def test_generation_then_epoch_then_holder_then_revision_decide() -> None:
    rising = [Key(1, 1, "a", 9), Key(1, 1, "b", 1), Key(1, 2, "a", 1), Key(2, 1, "a", 0)]
    assert sorted([rising[2], rising[0], rising[3], rising[1]]) == rising
    assert KEY.next_revision() > KEY
    assert KEY.next_revision().authority == KEY.authority
    assert Key.first(Authority(3, 4, "x")) == Key(3, 4, "x", 1)


@pytest.mark.parametrize(
    "label",
    ["", "1", "1.2", "1.2.3", "1.2..3", "a.2.host.3", "1.b.host.3", "1.2.host.c", "1.2.host.", "-1.2.host.3",
     "1.2.host.3 ", "1.2.host.٣", "1.2.host." + "9" * 19, "corrupt"],
)  # fmt: skip
def test_what_is_no_label_names_no_key(label: str) -> None:
    assert parse_label(label) is None


@given(st.text(max_size=30))
def test_no_text_raises_as_a_label(text: str) -> None:
    assert parse_label(text) is None or text.count(".") >= 3


@given(st.dictionaries(st.text(max_size=5), st.integers(), min_size=2, max_size=6))
def test_the_hash_does_not_know_the_order_of_fields(content: dict[str, int]) -> None:
    turned = dict(reversed(content.items()))
    assert content_hash(content) == content_hash(turned)
    some = next(iter(content))
    assert content_hash(content | {some: content[some] + 1}) != content_hash(content)


def record(kind: str) -> OperationRecord:
    marks = (
        Footprint("services.claims.shares", {"nanchang": 60, "chengdu": 40}, {"chengdu": 100}),
        Footprint("sites.nanchang.mode", "in_service", "closed"),
    )
    return OperationRecord(
        "id-1", command_of(kind), OperationState.RUNNING, 1, EPOCH, EPOCH, marks, ("nanchang",), ("x", "ÿ")
    )


def full_plan(kind: str) -> Plan:
    plan = first_plan(FLEET, KEY)
    return msgspec.structs.replace(
        plan,
        agents={"home01": AgentPlan("王芳", "chengdu", ("claims", "enquiries"), 5, DIGEST)},
        paused_at=EPOCH,
        running=record(kind),
        past=(record("shift"), record(kind)),
        commands={str(uuid.UUID(int=1)): CommandResult(kind, OperationState.RUNNING, EPOCH + dt.timedelta(hours=1))},
    )


@pytest.mark.parametrize("kind", FIELDS)
def test_a_plan_that_runs_any_operation_travels_whole(kind: str) -> None:
    plan = full_plan(kind)
    there = msgspec.json.decode(msgspec.json.encode(plan), type=Plan)
    assert there == plan
    assert there.hash == plan.hash
    assert there.running is not None
    assert type(there.running.command) is type(command_of(kind))


def test_a_slice_travels_whole_and_keeps_the_order_of_its_targets() -> None:
    for piece in slices(FLEET, full_plan("shift")).values():
        there = msgspec.json.decode(msgspec.json.encode(piece), type=Slice)
        assert (there, there.hash) == (piece, piece.hash)
        assert there.services["claims"].order == ("nanchang", "chengdu")


def test_two_plans_of_one_key_are_told_apart() -> None:
    plan = full_plan("shift")
    other = msgspec.structs.replace(plan, paused_at=None)
    assert plan.hash != other.hash
    assert {s.plan_hash for s in slices(FLEET, plan).values()} == {plan.hash}


def test_reports_promises_and_operations_travel_whole_and_tolerate_new_fields() -> None:
    key_report = Report(
        "nanchang", "inc", 7, EPOCH, 12, "hash", "ready", Applied(KEY, "h", EPOCH), KEY.authority, True, ("t",), ("r",),
        "22.10", 3, {"home01": SeatState(True, 1, ("claims",))}, ("f",),
    )  # fmt: skip
    operation = Operation(
        "id", "shift", OperationState.DONE, "prove", 1.0, (Refusal("expired", "x"),), ("u",), {"changes": {"a": 1}},
        {"claims": {"nanchang": 3}}, KEY.label, EPOCH.isoformat(),
    )  # fmt: skip
    promise = Promise("nanchang", KEY.authority, full_plan("call"))
    for value in (key_report, operation, promise):
        body = msgspec.json.encode(value)
        assert msgspec.json.decode(body, type=type(value)) == value
        assert msgspec.json.decode(b'{"not_yet_known":[1],' + body[1:], type=type(value)) == value


def test_a_command_inside_of_a_plan_keeps_its_rules() -> None:
    body = msgspec.json.encode(command_of("shift")).replace(b'"claims"', b'"claims\\n"')
    assert b"claims\\n" in body
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(body, type=Command)
