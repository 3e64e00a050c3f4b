"""What may come in as a command: each bad form is refused by the name of its rule, and nothing raises."""

from __future__ import annotations

import json
import uuid
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.contract.command import KIND_NAMES, KINDS, MOST_BYTES, id_in, kind_of, read
from controlplane.contract.operation import Refusal
from tests.unit.test_fleet_driver import FIELDS, body_of, fields_of


def rule(payload: bytes) -> str | None:
    answer = read(payload)
    return answer.rule if isinstance(answer, Refusal) else None


def changed(kind: str, **fields: Any) -> bytes:
    return json.dumps(fields_of(kind) | fields).encode()


@pytest.mark.parametrize("kind", FIELDS)
def test_a_good_command_is_read_and_round_trips(kind: str) -> None:
    command = read(body_of(kind))
    assert isinstance(command, KINDS)
    assert kind_of(command) == kind
    assert read(msgspec.json.encode(command)) == command


@pytest.mark.parametrize("kind", FIELDS)
def test_an_unknown_field_is_refused_by_name(kind: str) -> None:
    answer = read(changed(kind, sharse={"nanchang": 100}))
    assert isinstance(answer, Refusal)
    assert answer.rule == "unknown-field"
    assert "sharse" in answer.detail
    assert kind in answer.detail


@pytest.mark.parametrize("kind", FIELDS)
def test_each_missing_required_field_is_refused(kind: str) -> None:
    form = next(k for k in KINDS if k.__struct_config__.tag == kind)
    required = [f.encode_name for f in msgspec.structs.fields(form) if f.required]
    assert {"id", "issued_by", "issued_at", "expires_at"} <= set(required)
    for name in required:
        body = fields_of(kind)
        del body[name]
        answer = read(json.dumps(body).encode())
        assert isinstance(answer, Refusal)
        assert (answer.rule, name in answer.detail) == ("missing-field", True)


@pytest.mark.parametrize("kind", ["drain", "", None, 7, ["shift"], {"kind": "shift"}, "Shift", "shift\n"])
def test_an_unknown_kind_is_refused_with_those_known(kind: object) -> None:
    answer = read(json.dumps(fields_of("pause") | {"kind": kind}).encode())
    assert isinstance(answer, Refusal)
    assert answer.rule == "unknown-kind"
    assert all(name in answer.detail for name in KIND_NAMES)


def test_no_kind_at_all_is_an_unknown_kind() -> None:
    body = fields_of("pause")
    del body["kind"]
    assert rule(json.dumps(body).encode()) == "unknown-kind"


@pytest.mark.parametrize(
    "payload",
    [b"", b"\x00", b"shift claims", b"\xff\xfe", b"{", b'{"kind":"shift"', b"{'kind':'pause'}", b"\xef\xbb\xbf{}"],
)
def test_what_is_not_json_is_refused(payload: bytes) -> None:
    assert rule(payload) == "not-json"


@pytest.mark.parametrize("payload", [b"[]", b"null", b"7", b'"shift"', b"true", b"{}"])
def test_json_that_is_no_command_is_refused(payload: bytes) -> None:
    assert rule(payload) == "unknown-kind"


DEEP = b"[" * 5000 + b"]" * 5000
NINES = b"9" * 5000


@pytest.mark.parametrize(
    ("payload", "refused_as"),
    [
        (b"1e400", "not-json"),
        (NINES, "not-json"),
        (b'{"x":' + DEEP + b',"kind":"pause"}', "not-json"),
        (b'{"a":' * 1500 + b"1" + b"}" * 1500, "not-json"),
        (b'{"kind":1e400}', "bad-field"),
        (b'{"kind":' + NINES + b"}", "bad-field"),
    ],
)
def test_what_cannot_be_decoded_is_not_said_to_have_no_kind(payload: bytes, refused_as: str) -> None:
    answer = read(payload)
    assert isinstance(answer, Refusal)
    assert answer.rule == refused_as
    assert "None" not in answer.detail


@pytest.mark.parametrize("value", [b"1e400", NINES])
def test_a_number_that_cannot_be_read_is_the_fault_of_its_field(value: bytes) -> None:
    body = fields_of("call") | {"count": "HERE"}
    payload = json.dumps(body).encode().replace(b'"HERE"', value)
    answer = read(payload)
    assert isinstance(answer, Refusal)
    assert (answer.rule, "of kind call" in answer.detail) == ("bad-field", True)
    assert id_in(payload) == body["id"]


def test_what_has_no_kind_is_told_so() -> None:
    for payload, words in ((b"[]", "no JSON object"), (b"{}", "has no kind"), (b'{"kind":"drain"}', "'drain'")):
        answer = read(payload)
        assert isinstance(answer, Refusal)
        assert words in answer.detail


@pytest.mark.parametrize(
    ("count", "rate", "fits"), [(120, 1.0, True), (121, 1.0, False), (12, 0.1, True), (1000, 8.0, False)]
)
def test_synthetic_calls_end_within_two_minutes(count: int, rate: float, fits: bool) -> None:
    answer = read(changed("call", count=count, rate=rate))
    if fits:
        assert not isinstance(answer, Refusal)
    else:
        assert isinstance(answer, Refusal)
        assert answer.rule == "bad-field"
        assert "120 s are allowed: give a smaller count or a higher rate" in answer.detail


def test_nan_infinity_and_lone_surrogates_are_no_json() -> None:
    assert rule(json.dumps(fields_of("call") | {"rate": float("nan")}).encode()) == "not-json"
    assert rule(json.dumps(fields_of("call") | {"rate": float("inf")}).encode()) == "not-json"
    assert rule(json.dumps(fields_of("pause") | {"reason": "\ud800"}).encode()) == "not-json"
    assert rule(json.dumps(fields_of("pause")).encode().replace(b"anna", b"\xed\xa0\x80")) == "not-json"


@pytest.mark.parametrize("opening", [b"[", b'{"a":', b'{"kind":"pause","x":' + b"["])
def test_a_bomb_of_nesting_is_refused_and_not_a_crash(opening: bytes) -> None:
    payload = opening + b"[" * (MOST_BYTES - len(opening))
    assert rule(payload) in {"not-json", "unknown-kind"}
    assert id_in(payload) is None
    repeated = opening * (MOST_BYTES // len(opening))
    assert rule(repeated) in {"not-json", "unknown-kind"}
    assert id_in(repeated) is None


def test_the_size_is_limited_to_the_byte() -> None:
    body = body_of("pause")
    assert rule(body + b" " * (MOST_BYTES - len(body))) is None
    answer = read(body + b" " * (MOST_BYTES - len(body) + 1))
    assert isinstance(answer, Refusal)
    assert (answer.rule, str(MOST_BYTES + 1) in answer.detail) == ("too-large", True)


BAD_NAMES = ["", "Claims", "cl aims", "1claims", "claims\n", "claims\r", "\nclaims", "claims\r\nAction: Originate",
             "claims:1", "cl/aims", "cl,aims", "cl#", "cl+", "ｃlaims", "c" * 33, "claims\x00"]  # fmt: skip


@pytest.mark.parametrize("name", BAD_NAMES)
@pytest.mark.parametrize(
    ("kind", "field"),
    [("shift", "service"), ("trunks", "group"), ("failover", "site"), ("failover", "to"), ("restore", "site"),
     ("agents.enrol", "agent"), ("agents.enrol", "site"), ("agents.revoke", "agent"), ("takeover", "host"),
     ("call", "service"), ("call", "site"), ("pause", "issued_by")],
)  # fmt: skip
def test_a_name_that_is_none_is_refused(kind: str, field: str, name: str) -> None:
    assert rule(changed(kind, **{field: name})) == "bad-field"


@pytest.mark.parametrize("name", BAD_NAMES)
def test_a_bad_name_inside_of_a_field_is_refused(name: str) -> None:
    assert rule(changed("shift", shares={name: 100})) == "bad-field"
    assert rule(changed("agents.enrol", services=[name])) == "bad-field"
    assert rule(changed("pause", override=[name])) == "bad-field"


@pytest.mark.parametrize(
    "digest", ["", "a" * 31, "a" * 33, "A" * 32, "g" * 32, "a" * 32 + "\n", " " + "a" * 31, 7, None]
)
def test_a_digest_that_is_none_is_refused(digest: object) -> None:
    assert rule(changed("agents.enrol", digest=digest)) == "bad-field"


@pytest.mark.parametrize("name", ["", "x" * 81, "a\r\nb", "a\n", "\x00", "\x7f", "\n"])
def test_a_persons_name_is_bounded_and_has_no_control_characters(name: str) -> None:
    assert rule(changed("agents.enrol", name=name)) == "bad-field"


@pytest.mark.parametrize("name", ["王芳", "Zoë O'Neil-Ñandú", "x" * 80])
def test_a_persons_name_may_be_of_any_script(name: str) -> None:
    assert rule(changed("agents.enrol", name=name)) is None


@pytest.mark.parametrize("kind", ["shift", "trunks"])
@pytest.mark.parametrize("shares", [{}, {"a": 99}, {"a": 100, "b": 1}, {"a": 50, "b": 49}, {"a": 0, "b": 0}])
def test_shares_that_do_not_add_up_are_refused(kind: str, shares: dict[str, int]) -> None:
    answer = read(changed(kind, shares=shares))
    assert isinstance(answer, Refusal)
    assert (answer.rule, f" {sum(shares.values())}," in answer.detail) == ("shares-sum", True)


@pytest.mark.parametrize("share", [-1, 101, 99.5, "100", True, None, 10**30])
def test_a_share_that_is_no_whole_percent_is_refused(share: object) -> None:
    assert rule(changed("shift", shares={"a": share})) == "bad-field"


@pytest.mark.parametrize("field", ["issued_at", "expires_at"])
@pytest.mark.parametrize("moment", ["2026-03-01T09:00:30", "yesterday", "", 0, None, "2026-13-01T00:00:00Z"])
def test_a_time_without_a_zone_is_refused(field: str, moment: object) -> None:
    assert rule(changed("pause", **{field: moment})) == "bad-field"


def test_an_end_before_the_beginning_is_refused() -> None:
    now = fields_of("pause")["issued_at"]
    assert rule(changed("pause", expires_at=now)) == "bad-field"
    assert rule(changed("pause", issued_at="0001-01-01T00:00:00+23:59", expires_at="9999-12-31T23:59:59-23:59")) is None


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("failover", {"to": "nanchang"}),
        ("agents.enrol", {"services": []}),
        ("agents.enrol", {"penalty": 101}),
        ("agents.enrol", {"wait_s": -1}),
        ("agents.enrol", {"wait_s": 3601}),
        ("call", {"count": 0}),
        ("call", {"count": 1001}),
        ("call", {"rate": 0}),
        ("call", {"rate": 1e-310}),
        ("call", {"rate": 0.0999}),
        ("call", {"rate": 101}),
        ("undo", {"operation": "the last one"}),
        ("pause", {"id": "1"}),
        ("pause", {"reason": "x" * 501}),
        ("pause", {"dry_run": "yes"}),
    ],
)
def test_each_field_keeps_its_own_rule(kind: str, fields: dict[str, Any]) -> None:
    assert rule(changed(kind, **fields)) == "bad-field"


def test_the_id_is_found_in_what_is_no_command() -> None:
    id_ = str(uuid.uuid4())
    assert id_in(json.dumps({"id": id_, "kind": "dance"}).encode()) == id_
    assert id_in(json.dumps({"id": id_.upper()}).encode()) == id_
    for payload in (b"", b"[]", b'{"id":7}', b'{"id":"x"}', b'{"id":null}', b"\xff"):
        assert id_in(payload) is None


@given(st.binary(max_size=200))
def test_no_bytes_raise(payload: bytes) -> None:
    assert isinstance(read(payload), Refusal)
    assert id_in(payload) is None


ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.sampled_from(KIND_NAMES),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@given(st.sampled_from(sorted(FIELDS)), st.data())
def test_no_value_of_any_field_raises(kind: str, data: st.DataObject) -> None:
    body = fields_of(kind)
    name = data.draw(st.sampled_from(sorted(body)))
    body[name] = data.draw(ANY)
    answer = read(json.dumps(body).encode("utf-8", "surrogatepass"))
    assert isinstance(answer, (Refusal, *KINDS))
    if not isinstance(answer, Refusal):
        assert read(msgspec.json.encode(answer)) == answer
