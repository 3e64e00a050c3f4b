"""The ledger's verdicts: whatever is not clearly an agent, a queue or the last announcement is lost."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import pytest

_PATH = Path(__file__).resolve().parents[2] / "docker" / "world" / "ledger.py"
_SPEC = importlib.util.spec_from_file_location("lab_world_ledger", _PATH)
assert _SPEC is not None
assert _SPEC.loader is not None
ledger = importlib.util.module_from_spec(_SPEC)
sys.modules[_SPEC.name] = ledger
_SPEC.loader.exec_module(ledger)

PLACED = {"e": "placed", "call": "c1", "number": "138", "did": "95556", "t": 1000}
ATTEMPT = {"e": "attempt", "call": "c1", "ingress": "nanchang", "t": 1001}
ANSWERED = {"e": "answered", "call": "c1", "ingress": "nanchang", "t": 1010}


def attempt_end(status: str, sip: str, progress_ms: str) -> dict[str, Any]:
    return {
        "e": "attempt_end",
        "call": "c1",
        "ingress": "nanchang",
        "status": status,
        "cause": "0",
        "sip": sip,
        "progress_ms": progress_ms,
        "t": 1900,
    }


def ended(by: str) -> dict[str, Any]:
    return {"e": "ended", "call": "c1", "by": by, "status": "", "t": 2000}


def outcome(*said: dict[str, Any], phones: tuple[str, ...] = ()) -> str:
    (call,) = ledger.read_carrier([json.dumps(line) + "\n" for line in said])
    ledger.add_talks([call], phones)
    ledger.judge(call, now_ms=10_000, batch_over=True)
    return str(call.outcome)


TALK = "answered 1.000000 200000.000000 n01 138"


@pytest.mark.parametrize(
    ("said", "phones", "expected"),
    [
        ([PLACED, ATTEMPT, ANSWERED, ended("caller")], (TALK,), "agent"),
        ([PLACED, ATTEMPT, ANSWERED, ended("site")], (TALK,), "agent"),
        ([PLACED, ATTEMPT, ANSWERED, ended("caller")], (), "queue"),
        ([PLACED, ATTEMPT, attempt_end("NOANSWER", "480", "12"), ended("site")], (), "announcement"),
        ([PLACED, ATTEMPT, ANSWERED], (), "open"),
        ([PLACED, ATTEMPT, ANSWERED, ended("site")], (), "lost"),
        ([PLACED, ATTEMPT, attempt_end("NOANSWER", "480", ""), ended("site")], (), "lost"),
        ([PLACED, ATTEMPT, attempt_end("CONGESTION", "503", "12"), ended("carrier")], (), "lost"),
        ([PLACED, ATTEMPT, attempt_end("CANCEL", "487", "12"), ended("caller")], (), "lost"),
        ([PLACED, ATTEMPT, attempt_end("BUSY", "486", ""), ended("site")], (), "lost"),
        ([PLACED, ended("caller")], (), "lost"),
        # Another caller's talk proves nothing for this one.
        ([PLACED, ATTEMPT, ANSWERED, ended("site")], ("answered 1.0 2.0 n01 139",), "lost"),
    ],
)
def test_outcome(said: list[dict[str, Any]], phones: tuple[str, ...], expected: str) -> None:
    assert outcome(*said, phones=phones) == expected


@pytest.mark.parametrize(
    ("dialled_ms", "batch_over", "expected"),
    [(9_000, False, "open"), (9_000, True, "lost"), (1_000, False, "lost"), (None, True, "lost")],
)
def test_caller_whom_the_carrier_never_heard(dialled_ms: int | None, batch_over: bool, expected: str) -> None:
    call = ledger.Call("138", "in", dialled_ms=dialled_ms)
    ledger.judge(call, now_ms=10_000, batch_over=batch_over)
    assert call.outcome == expected


def test_outbound_is_answered_or_lost() -> None:
    said = {"e": "out", "call": "c1", "site": "chengdu", "from": "c01", "number": "021", "t": 1}
    assert outcome(said, {"e": "out_answered", "call": "c1", "t": 2}, ended("carrier")) == "answered"
    assert outcome(said, ended("site")) == "lost"


def test_line_that_is_still_being_written_is_left_for_later() -> None:
    whole = json.dumps(PLACED) + "\n"
    assert len(ledger.read_carrier([whole, '{"e":"attempt","call":"c1","ingr'])) == 1


def test_talks_keep_every_agent_of_a_moved_call() -> None:
    (call,) = ledger.read_carrier([json.dumps(PLACED) + "\n"])
    phones = [TALK, "ended 2.000000 0.000000 n01 138", "answered 3.000000 0.000000 c02 138"]
    ledger.add_talks([call], phones)
    assert [(talk.agent, talk.answered_ms, talk.ended_ms) for talk in call.talks] == [
        ("n01", 1200, 2000),
        ("c02", 3000, None),
    ]
    assert (call.agent, call.phone_answered_ms) == ("c02", 1200)
