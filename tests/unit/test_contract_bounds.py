"""What travels is bounded when it is read: moments have a zone, numbers that count are no less than nothing."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from controlplane.contract.key import Authority, Key
from controlplane.contract.names import MOST_COUNT
from controlplane.contract.operation import OperationState
from controlplane.contract.plan import CommandResult, OperationRecord, Plan
from controlplane.contract.report import (
    MOST_AGE_MS,
    Applied,
    Beacon,
    CallEvent,
    CallEventKind,
    CallEvents,
    Claim,
    Probe,
    ProbeKind,
    Promise,
    Report,
    SeatState,
)
from controlplane.contract.topics import MOST_REPLY_TOPIC, Topics
from controlplane.fleet.slicing import first_plan
from controlplane.run.codec import Unreadable, decode, encode
from controlplane.site.calls import read_call_event
from tests.unit.test_fleet_driver import EPOCH, FLEET, command_of

KEY = Key(1, 2, "coordinator", 3)
NAIVE = "2026-03-01T09:00:00"
REPORT = Report(
    "nanchang", "i", 1, EPOCH, 0, "h", "ready", Applied(KEY, "h", EPOCH), KEY.authority, False,
    seats={"home01": SeatState(True, 1, ())},
)  # fmt: skip
PLAN = msgspec.structs.replace(
    first_plan(FLEET, KEY),
    paused_at=EPOCH,
    running=OperationRecord("o", command_of("shift"), OperationState.RUNNING, 0, EPOCH, EPOCH),
    commands={"o": CommandResult("shift", OperationState.DONE, EPOCH)},
)
EVENTS = CallEvents("nanchang", "i", 1, (CallEvent(CallEventKind.ROUTE, "c", 5, number=1, waited_ms=2),), 3)
ALL: list[msgspec.Struct] = [
    REPORT, PLAN, EVENTS, Claim(KEY.authority, EPOCH), Beacon(KEY.authority, KEY, EPOCH),
    Promise("nanchang", KEY.authority, PLAN), Probe("syn-1", ProbeKind.SERVICE, "claims", EPOCH), KEY, KEY.authority,
]  # fmt: skip
MOST = Key(MOST_COUNT, MOST_COUNT, "h", MOST_COUNT)


@pytest.mark.parametrize("value", [*ALL, MOST, msgspec.structs.replace(REPORT, age_ms=MOST_AGE_MS)])
def test_all_that_travels_comes_back(value: msgspec.Struct) -> None:
    assert decode(encode(value), type(value)) == value


def changed(value: msgspec.Struct, path: str, to: object) -> bytes:
    body = json.loads(encode(value))
    *way, last = path.split(".")
    at: Any = body
    for part in way:
        at = at[int(part)] if isinstance(at, list) else at[part]
    at[last] = to
    return json.dumps(body).encode()


@pytest.mark.parametrize(
    ("value", "path"),
    [
        (REPORT, "sent_at"), (REPORT, "applied.at"), (PLAN, "paused_at"), (PLAN, "running.started_at"),
        (PLAN, "running.since"), (PLAN, "commands.o.expires_at"), (ALL[3], "at"), (ALL[4], "at"), (ALL[6], "expires_at"),
    ],
)  # fmt: skip
def test_a_moment_without_a_zone_is_not_read(value: msgspec.Struct, path: str) -> None:
    with pytest.raises(Unreadable, match="timezone"):
        decode(changed(value, path, NAIVE), type(value))


@pytest.mark.parametrize(
    ("value", "path"),
    [
        (REPORT, "age_ms"), (REPORT, "sequence"), (REPORT, "channels"), (REPORT, "seats.home01.contacts"),
        (KEY, "generation"), (KEY, "epoch"), (KEY, "revision"), (KEY.authority, "generation"), (KEY.authority, "epoch"),
        (PLAN, "key.epoch"), (EVENTS, "sequence"), (EVENTS, "dropped"), (EVENTS, "events.0.at_ms"),
        (EVENTS, "events.0.number"), (EVENTS, "events.0.waited_ms"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("number", [-1, MOST_COUNT + 1, 10**30])
def test_a_number_out_of_its_bounds_is_not_read(value: msgspec.Struct, path: str, number: int) -> None:
    with pytest.raises(Unreadable):
        decode(changed(value, path, number), type(value))


def test_an_age_of_more_than_a_day_is_not_read() -> None:
    with pytest.raises(Unreadable, match="86400000"):
        decode(changed(REPORT, "age_ms", MOST_AGE_MS + 1), Report)


@pytest.mark.parametrize("holder", ["", "a.b", "a b", "Host", "a\n", "h" * 33, None])
@pytest.mark.parametrize("form", [Key, Authority, Plan])
def test_a_holder_is_a_name(holder: object, form: type[msgspec.Struct]) -> None:
    value, path = {Key: (KEY, "holder"), Authority: (KEY.authority, "holder"), Plan: (PLAN, "key.holder")}[form]
    with pytest.raises(Unreadable):
        decode(changed(value, path, holder), form)


def test_no_number_of_the_dialplan_makes_a_batch_unreadable() -> None:
    event = read_call_event({"UserEvent": "CPRoute", "Call": "c", "N": "9" * 18, "At": "9" * 16}, received_ms=5)
    assert event is not None
    assert decode(encode(event), CallEvent) == event


TOPICS = Topics("hotline")
REPLY = TOPICS.reply("wang", "1")


@pytest.mark.parametrize(
    ("topic", "allowed"),
    [
        (REPLY, True), (REPLY + "x" * (MOST_REPLY_TOPIC - 1 - len(REPLY)), True),
        (REPLY + "x" * (MOST_REPLY_TOPIC - len(REPLY)), False), (REPLY + "/+", False), (REPLY + "/#", False),
        (REPLY + "\0", False), (TOPICS.plan, False), (TOPICS.slice("nanchang"), False), ("reply/wang/1", False),
        ("controlplane/v1/other/reply/wang/1", False), ("", False), (TOPICS.prefix + "replyx/1", False),
    ],
)  # fmt: skip
def test_answers_go_to_reply_topics_of_the_fleet_alone(topic: str, allowed: bool) -> None:
    assert TOPICS.may_reply_on(topic) is allowed


@pytest.mark.parametrize(
    ("topic", "site"),
    [(TOPICS.report("nanchang"), "nanchang"), (TOPICS.calls("x"), "x"), (TOPICS.plan, None), (TOPICS.probe("x"), None),
     ("controlplane/v1/other/site/x/report", None), (TOPICS.prefix + "site/x", None),
     (TOPICS.prefix + "site//report", None)],
)  # fmt: skip
def test_the_site_of_a_topic(topic: str, site: str | None) -> None:
    assert TOPICS.site_in(topic) == site
