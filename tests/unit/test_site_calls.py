"""Call events out of UserEvents: what the dialplan says is read, whatever else comes does not raise."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.contract.report import CallEvent, CallEventKind
from controlplane.site.calls import USER_EVENTS, read_call_event


def test_a_decision_is_read_whole() -> None:
    fields = {"Event": "UserEvent", "UserEvent": "CPRoute", "Call": "nanchang-1.2", "Kind": "svc", "Id": "claims",
              "Plan": "1.3.host.42", "Target": "chengdu", "N": "17", "Syn": "1", "At": "1760000000123"}  # fmt: skip
    assert read_call_event(fields, received_ms=5) == CallEvent(
        CallEventKind.ROUTE, "nanchang-1.2", 1760000000123, "svc", "claims", "chengdu", "1.3.host.42", 17, True
    )


def test_an_arrival_a_failure_a_last_word_and_a_corrupt_value_are_read() -> None:
    def read(**fields: str) -> CallEvent:
        event = read_call_event(fields, received_ms=5)
        assert event is not None
        return event

    arrive = read(
        UserEvent="CPArrive", Call="c", Kind="svc", Id="claims", From="nanchang", Waited="1500", Syn="0", At="9"
    )
    assert (arrive.came_from, arrive.waited_ms, arrive.synthetic, arrive.at_ms) == ("nanchang", 1500, False, 9)
    gone = read(UserEvent="CPNext", Call="c", Target="chengdu", Status="CHANUNAVAIL", Cause="20")
    assert (gone.kind, gone.target, gone.detail, gone.at_ms) == (CallEventKind.NEXT, "chengdu", "CHANUNAVAIL 20", 5)
    last = read(UserEvent="CPLast", Call="c", Service="claims", At="9")
    assert (last.kind, last.id) == (CallEventKind.LAST, "claims")
    corrupt = read(UserEvent="CPCorrupt", Key="cp/svc/claims", Reason="md5")
    assert (corrupt.kind, corrupt.detail) == (CallEventKind.CORRUPT, "cp/svc/claims: md5")
    answered = read(UserEvent="CPAnswered", Call="syn-1", Kind="agent", Id="home01", Target="home01", Syn="1")
    assert (answered.kind, answered.call_kind, answered.synthetic) == (CallEventKind.ANSWERED, "agent", True)


@pytest.mark.parametrize("name", ["", "cproute", "CPRoute ", "Other"])
def test_events_of_others_are_none_of_ours(name: str) -> None:
    assert read_call_event({"UserEvent": name, "Call": "c"}, received_ms=5) is None


@pytest.mark.parametrize("number", ["", "-1", "1.5", "٣", "²", "9" * 19, "x", " 7"])
def test_a_number_that_is_none_is_as_if_absent(number: str) -> None:
    event = read_call_event({"UserEvent": "CPRoute", "N": number, "At": number, "Waited": number}, received_ms=5)
    assert event is not None
    assert (event.number, event.at_ms, event.waited_ms) == (0, 5, 0)


NAMES = [
    "UserEvent",
    "Call",
    "Kind",
    "Id",
    "Plan",
    "Target",
    "N",
    "Syn",
    "At",
    "From",
    "Waited",
    "Status",
    "Cause",
    "Key",
]
TEXTS = st.text(max_size=12) | st.sampled_from([*USER_EVENTS, "1", "0"])


@given(st.dictionaries(st.sampled_from(NAMES), TEXTS), st.sampled_from(USER_EVENTS))
def test_no_fields_raise_and_every_event_can_travel(fields: dict[str, str], name: str) -> None:
    assert read_call_event(fields, received_ms=5) is None or fields["UserEvent"] in USER_EVENTS
    event = read_call_event(fields | {"UserEvent": name}, received_ms=5)
    assert event is not None
    assert msgspec.json.decode(msgspec.json.encode(event), type=CallEvent) == event
