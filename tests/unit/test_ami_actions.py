"""Actions: what is encoded is exactly what is typed; nothing else can be smuggled in."""

from __future__ import annotations

import inspect

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.contract.errors import PayloadError
from controlplane.edge.ami import actions
from controlplane.edge.ami.actions import (
    Action,
    DBPut,
    Originate,
    PJSIPSetMaintenance,
    QueueAdd,
    QueuePause,
    QueuePenalty,
    encode,
)
from controlplane.edge.ami.frames import FrameParser
from controlplane.edge.ami.phases import LEGAL_MOVES, Phase

ALL = [
    kind for _, kind in inspect.getmembers(actions, inspect.isclass) if issubclass(kind, Action) and kind is not Action
]


def fields(action: Action) -> list[tuple[str, str]]:
    [frame] = FrameParser().feed(encode(action, "id/1"))
    pairs = list(frame.items())
    assert pairs[:2] == [("Action", type(action).__name__), ("ActionID", "id/1")]
    return pairs[2:]


def test_headers_are_spelled_as_asterisk_documents_them() -> None:
    added = QueueAdd(
        queue="claims",
        interface="PJSIP/n01",
        member_name="Müller",
        penalty=0,
        paused=False,
        state_interface="PJSIP/n01",
    )
    assert fields(added) == [
        ("Queue", "claims"),
        ("Interface", "PJSIP/n01"),
        ("MemberName", "Müller"),
        ("Penalty", "0"),
        ("Paused", "false"),
        ("StateInterface", "PJSIP/n01"),
    ]
    assert fields(QueuePause(interface="PJSIP/n01", paused=True)) == [("Interface", "PJSIP/n01"), ("Paused", "true")]
    assert fields(QueuePenalty(interface="PJSIP/n01", penalty=0, queue="claims")) == [
        ("Interface", "PJSIP/n01"),
        ("Penalty", "0"),
        ("Queue", "claims"),
    ]
    assert fields(PJSIPSetMaintenance(endpoint="n01", state="on")) == [("Endpoint", "n01"), ("State", "on")]


def test_originate_is_asynchronous_and_sends_each_variable_alone() -> None:
    call = Originate(
        channel="Local/claims@cp-syn-svc/n",
        context="cp",
        exten="s",
        priority=1,
        timeout=20_000,
        caller_id='"Syn" <1>',
        variable=(("__CP_CALL", "syn-1"), ("__CP_FORCE", "nanchang")),
        channel_id="syn-1",
    )
    assert fields(call) == [
        ("Channel", "Local/claims@cp-syn-svc/n"),
        ("Context", "cp"),
        ("Exten", "s"),
        ("Priority", "1"),
        ("Timeout", "20000"),
        ("CallerID", '"Syn" <1>'),
        ("Variable", "__CP_CALL=syn-1"),
        ("Variable", "__CP_FORCE=nanchang"),
        ("ChannelId", "syn-1"),
        ("Async", "true"),
    ]


@pytest.mark.parametrize(
    "call",
    [
        Originate(channel="Local/1@x"),
        Originate(channel="Local/1@x", application="Wait", context="x", exten="1", priority=1),
        Originate(channel="Local/1@x", context="x", exten="1"),
        Originate(channel="Local/1@x", context="x", exten="1", priority=1, data="1"),
    ],
)
def test_originate_wants_one_destination(call: Originate) -> None:
    with pytest.raises(PayloadError, match="Originate"):
        encode(call, "1")


@pytest.mark.parametrize(
    "variable", [("A", "1,B=2"), ("A", '"'), ("A", "\\"), ("SHELL(id)", "1"), ("", "1"), ("A=1,B", "2")]
)
def test_variable_cannot_set_another_or_call_a_function(variable: tuple[str, str]) -> None:
    with pytest.raises(PayloadError, match=r"Originate\.variable"):
        encode(Originate(channel="Local/1@x", application="Wait", data="1", variable=(variable,)), "1")


@pytest.mark.parametrize("breaker", ["\r", "\n", "\0", "\r\n", "\r\n\r\nAction: Logoff"])
@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
def test_cr_lf_and_nul_are_refused_in_every_text_of_every_action(kind: type[Action], breaker: str) -> None:
    hints = inspect.get_annotations(kind)
    texts = [name for name in kind.__struct_fields__ if "str" in str(hints[name])]
    for bad in texts:
        values: dict[str, object] = {}
        for name in kind.__struct_fields__:
            hint = str(hints[name])
            text = f"a{breaker}b" if name == bad else "a"
            if "tuple" in hint:
                values[name] = (("A", text),)
            elif "str" in hint:
                values[name] = text
            elif "bool" in hint:
                values[name] = True
            else:
                values[name] = 1
        with pytest.raises(PayloadError, match=rf"{kind.__name__}\.{bad}: CR, LF and NUL"):
            encode(kind(**values), "1")


@given(st.text(max_size=200))
def test_whatever_the_value_it_is_one_frame_with_it_or_refused(value: str) -> None:
    try:
        pairs = fields(DBPut("cp", "k", value))
    except PayloadError:
        return
    assert pairs == [("Family", "cp"), ("Key", "k"), ("Val", value)]


def test_line_is_limited_in_bytes() -> None:
    assert fields(DBPut("cp", "k", "x" * 1017))
    for value in ("x" * 1018, "ü" * 509, "x" * 5000):
        with pytest.raises(PayloadError, match=r"DBPut\.val: header line of \d+ bytes"):
            encode(DBPut("cp", "k", value), "1")


def test_lone_surrogate_is_refused() -> None:
    with pytest.raises(PayloadError, match=r"DBPut\.val"):
        encode(DBPut("cp", "k", "\ud800"), "1")


def test_headers_are_limited_in_number() -> None:
    many = tuple((f"V{n}", "1") for n in range(130))
    with pytest.raises(PayloadError, match="headers"):
        encode(Originate(channel="Local/1@x", application="Wait", data="1", variable=many), "1")


def test_refusal_does_not_repeat_the_value() -> None:
    with pytest.raises(PayloadError) as caught:
        encode(DBPut("cp", "k", "pin-4711\r\n"), "1")
    assert "4711" not in str(caught.value)


def test_every_phase_has_its_moves_and_can_fall() -> None:
    assert set(LEGAL_MOVES) == set(Phase)
    assert all(Phase.DOWN in LEGAL_MOVES[phase] for phase in Phase if phase is not Phase.DOWN)
    assert [phase for phase in Phase if Phase.READY in LEGAL_MOVES[phase]] == [Phase.SYNCING]
