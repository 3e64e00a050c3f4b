"""What a slice means for Asterisk, and the steps that bring it there: complete, ordered, repeatable, and only ours."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.contract.key import Key
from controlplane.contract.plan import LinkLine, Seat, SiteMode, Slice, Split, TrunkLine
from controlplane.site.compile import APPLIED, HOLD, Member, Wanted, applied_value, wanted
from controlplane.site.diff import (
    AddMember,
    Delete,
    Observed,
    Put,
    ReloadEndpoints,
    RemoveMember,
    SetPenalty,
    Step,
    difference,
)
from controlplane.site.table import split_value
from tests.unit.test_fleet_driver import DIGEST

KEY = Key(1, 3, "host", 42)
EVEN = Split(("nanchang", "chengdu"), {"nanchang": 60, "chengdu": 40}, "1.3.host.40")
PIECE = Slice(
    key=KEY,
    plan_hash="abc",
    site="nanchang",
    mode=SiteMode.IN_SERVICE,
    dids={"95556": "claims"},
    services={"claims": EVEN},
    groups={"national": Split(("nc-carrier",), {"nc-carrier": 100}, "1.3.host.1")},
    prefixes={"0": "national"},
    trunks={"nc-carrier": TrunkLine("nanchang", "carrier", 200)},
    links={"chengdu": LinkLine("site-chengdu", 0)},
    seats={"home01": Seat("王芳", ("claims", "enquiries"), 5, DIGEST)},
)


def test_a_slice_is_these_keys_and_members() -> None:
    want = wanted(PIECE)
    objects = {k: json.loads(want.astdb.pop(k)) for k in list(want.astdb) if k.endswith("/home01")}
    assert want.astdb == {
        "cp/did/95556": "claims",
        "cp/prefix/0": "national",
        "cp/trunk/nc-carrier": "nanchang:carrier:200",
        "cp/link/chengdu": "site-chengdu:0",
        "cp/svc/claims": split_value(EVEN),
        "cp/out/national": split_value(PIECE.groups["national"]),
        "cp/applied": f"1.3.host.42:{PIECE.hash}",
    }
    assert want.members == {
        ("claims", "PJSIP/home01"): Member("cp:home01", 5),
        ("enquiries", "PJSIP/home01"): Member("cp:home01", 5),
    }
    assert set(objects) == {"cp/endpoint/home01", "cp/auth/home01", "cp/aor/home01"}
    assert objects["cp/auth/home01"]["password_digest"] == f"MD5:{DIGEST}"
    assert objects["cp/auth/home01"]["realm"] == "controlplane"
    assert "password" not in objects["cp/auth/home01"]
    endpoint = objects["cp/endpoint/home01"]
    assert (endpoint["context"], endpoint["auth"], endpoint["aors"]) == ("cp-from-agent", "home01", "home01")
    for fields in objects.values():
        assert all(isinstance(v, str) for v in fields.values())
    assert applied_value(KEY, "h") == "1.3.host.42:h"


class Asterisk:
    """The part of an Asterisk that the steps touch."""

    def __init__(self, seen: Observed) -> None:
        self.astdb = dict(seen.astdb)
        self.members = dict(seen.members)
        self.contacts = dict(seen.contacts)

    def seen(self) -> Observed:
        return Observed(dict(self.astdb), dict(self.members), dict(self.contacts))

    def do(self, steps: tuple[Step, ...]) -> None:
        for step in steps:
            match step:
                case Put(key, value):
                    self.astdb[key] = value
                case Delete(key):
                    where = self.contacts if key in self.contacts else self.astdb
                    del where[key]
                case AddMember(queue, interface, member):
                    self.members[queue, interface] = member
                case SetPenalty(queue, interface, penalty):
                    self.members[queue, interface] = Member(self.members[queue, interface].name, penalty)
                case RemoveMember(queue, interface):
                    del self.members[queue, interface]
                case ReloadEndpoints():
                    pass


NAMES = st.sampled_from(["nanchang", "chengdu", "weifang", "a", "b-1"])
AGENTS = st.sampled_from(["home01", "home02", "home03"])
SERVICES = st.sampled_from(["claims", "enquiries", "x"])
DIVISIONS = st.tuples(st.lists(NAMES, min_size=2, max_size=5, unique=True), st.integers(0, 100)).map(
    lambda t: Split(tuple(t[0]), {t[0][0]: t[1], t[0][1]: 100 - t[1]}, "1.1.h.1")
)
PIECES = st.builds(
    Slice,
    key=st.builds(Key, st.just(1), st.integers(1, 3), st.just("h"), st.integers(1, 9)),
    plan_hash=st.just("p"),
    site=st.just("nanchang"),
    mode=st.just(SiteMode.IN_SERVICE),
    dids=st.dictionaries(st.sampled_from(["95556", "95557"]), SERVICES),
    services=st.dictionaries(SERVICES, DIVISIONS),
    groups=st.dictionaries(st.sampled_from(["national", "mobile"]), DIVISIONS),
    prefixes=st.dictionaries(st.sampled_from(["0", "00", "1"]), st.just("national")),
    trunks=st.dictionaries(NAMES, st.builds(TrunkLine, NAMES, st.just("carrier"), st.integers(0, 9))),
    links=st.dictionaries(NAMES, st.builds(LinkLine, NAMES, st.integers(0, 9))),
    seats=st.dictionaries(
        AGENTS,
        st.builds(Seat, st.just("n"), st.lists(SERVICES, unique=True).map(tuple), st.integers(0, 9), st.just("d")),
    ),
)
FOREIGN_KEYS = st.sampled_from(["cpstate/svc/claims", "registrar/x", "cpx/svc/claims", "CF/100", HOLD])
#: Of our family: what an older slice left, what somebody wrote by hand, what is corrupt.
OUR_KEYS = st.sampled_from(["cp/svc/claims", "cp/svc/gone", "cp/out/national", "cp/did/95556", "cp/did/1", "cp/trunk/a",
                            "cp/link/zz", "cp/endpoint/home01", "cp/aor/home01", "cp/auth/home01", "cp/endpoint/home09",
                            "cp/strange", "cp/prefix/0", APPLIED])  # fmt: skip
QUEUE_MEMBERS = st.dictionaries(
    st.tuples(SERVICES, AGENTS.map(lambda a: f"PJSIP/{a}")),
    st.builds(Member, AGENTS.map(lambda a: f"cp:{a}"), st.integers(0, 9)),
)
FOREIGN_MEMBERS = st.dictionaries(
    st.tuples(SERVICES, st.sampled_from(["PJSIP/n01", "PJSIP/n02"])),
    st.builds(Member, st.sampled_from(["n01", "", "cp", "CP:n01"]), st.integers(0, 9)),
)
SERVERS = st.builds(
    lambda ours, foreign, members, others, contacts: Observed(ours | foreign, members | others, contacts),
    st.dictionaries(OUR_KEYS, st.text(max_size=10)),
    st.dictionaries(FOREIGN_KEYS, st.text(max_size=10)),
    QUEUE_MEMBERS,
    FOREIGN_MEMBERS,
    st.dictionaries(AGENTS.map(lambda a: f"registrar/contact/{a};@1"), AGENTS | st.just("n01") | st.just("")),
)


def rank(step: Step) -> int:
    """Where a step belongs: additions, routing, removals, the mark."""
    match step:
        case Put(key="cp/applied"):
            return 3
        case Put(key=key) if key.split("/")[1] in {"svc", "out", "did", "prefix"}:
            return 1
        case Delete() | RemoveMember():
            return 2
        case _:
            return 0


def ours(key: str) -> bool:
    return key.startswith("cp/") and key != HOLD


@given(PIECES, SERVERS)
@settings(max_examples=150)
def test_the_steps_bring_any_server_to_the_slice_and_touch_nothing_else(piece: Slice, seen: Observed) -> None:
    want = wanted(piece)
    steps = difference(want, seen)
    assert [rank(s) for s in steps] == sorted(rank(s) for s in steps)
    if steps:
        assert steps[-1] == Put(APPLIED, want.astdb[APPLIED])
        assert sum(isinstance(s, Put) and s.key == APPLIED for s in steps) == 1
    server = Asterisk(seen)
    server.do(steps)
    assert {k: v for k, v in server.astdb.items() if ours(k)} == want.astdb
    assert {k: v for k, v in server.astdb.items() if not ours(k)} == {
        k: v for k, v in seen.astdb.items() if not ours(k)
    }
    assert {k: m for k, m in server.members.items() if m.name.startswith("cp:")} == want.members
    assert {k: m for k, m in server.members.items() if not m.name.startswith("cp:")} == {
        k: m for k, m in seen.members.items() if not m.name.startswith("cp:")
    }
    gone = {s.key.rsplit("/", 1)[1] for s in steps if isinstance(s, Delete) and s.key.startswith("cp/endpoint/")}
    assert server.contacts == {k: e for k, e in seen.contacts.items() if e not in gone}
    assert difference(want, server.seen()) == ()
    after = dict(server.astdb)
    server.do(steps[:0] + tuple(s for s in steps if isinstance(s, Put | AddMember | SetPenalty)))
    assert server.astdb == after


@given(PIECES, SERVERS, st.integers(0, 30))
def test_a_repair_that_was_cut_short_is_finished_by_the_next(piece: Slice, seen: Observed, done: int) -> None:
    want = wanted(piece)
    server = Asterisk(seen)
    steps = difference(want, seen)
    server.do(steps[:done])
    if done < len(steps):
        assert server.astdb.get(APPLIED) == seen.astdb.get(APPLIED), "the mark stood before the work was done"
        assert difference(want, server.seen()) != () or seen.astdb.get(APPLIED) == want.astdb[APPLIED]
    server.do(difference(want, server.seen()))
    assert {k: v for k, v in server.astdb.items() if ours(k)} == want.astdb


@given(PIECES, SERVERS)
def test_an_endpoint_is_whole_and_loaded_before_a_queue_may_ring_it(piece: Slice, seen: Observed) -> None:
    steps = difference(wanted(piece), seen)
    objects = [i for i, s in enumerate(steps) if isinstance(s, Put) and s.key.startswith(("cp/endpoint/", "cp/aor/"))]
    reloads = [i for i, s in enumerate(steps) if isinstance(s, ReloadEndpoints)]
    members = [i for i, s in enumerate(steps) if isinstance(s, AddMember | SetPenalty)]
    assert len(reloads) == (1 if objects else 0)
    for reload in reloads:
        assert max(objects) < reload < min(members, default=len(steps))


@given(PIECES, SERVERS)
def test_a_member_goes_before_its_endpoint(piece: Slice, seen: Observed) -> None:
    steps = difference(wanted(piece), seen)
    removed = [i for i, s in enumerate(steps) if isinstance(s, RemoveMember)]
    deleted = [i for i, s in enumerate(steps) if isinstance(s, Delete)]
    assert max(removed, default=-1) < min(deleted, default=len(steps))


EMPTY = Wanted({APPLIED: "k:h"}, {})


def test_contacts_of_a_revoked_agent_go_last_and_those_of_others_stay() -> None:
    seen = Observed(
        {"cp/endpoint/home01": "{}", "cp/aor/home01": "{}"},
        {},
        {"registrar/contact/home01;@1": "home01", "registrar/contact/n01;@1": "n01"},
    )
    assert difference(EMPTY, seen) == (
        Delete("cp/aor/home01"),
        Delete("cp/endpoint/home01"),
        Delete("registrar/contact/home01;@1"),
        Put(APPLIED, "k:h"),
    )


def test_a_wrong_mark_alone_is_put_right() -> None:
    assert difference(EMPTY, Observed({APPLIED: "other"}, {})) == (Put(APPLIED, "k:h"),)
    assert difference(EMPTY, Observed({APPLIED: "k:h"}, {})) == ()


def test_any_repair_writes_the_mark_again_last() -> None:
    seen = Observed({APPLIED: "k:h", "cp/svc/gone": "x"}, {})
    assert difference(EMPTY, seen) == (Delete("cp/svc/gone"), Put(APPLIED, "k:h"))


def test_a_wrong_penalty_is_put_right_without_taking_the_member_away() -> None:
    """A member that is taken away and added again has lost its pause."""
    at = ("claims", "PJSIP/home01")
    want = Wanted({APPLIED: "k:h"}, {at: Member("cp:home01", 5)})
    seen = Observed({APPLIED: "k:h"}, {at: Member("cp:home01", 6)})
    assert difference(want, seen) == (SetPenalty(*at, 5), Put(APPLIED, "k:h"))


@pytest.mark.parametrize("member", [Member("cp:other", 5), Member("cp:other", 6), None])
def test_a_missing_member_or_one_of_another_name_is_put_right(member: Member | None) -> None:
    at = ("claims", "PJSIP/home01")
    want = Wanted({APPLIED: "k:h"}, {at: Member("cp:home01", 5)})
    seen = Observed({APPLIED: "k:h"}, {at: member} if member else {})
    assert difference(want, seen)[0] == AddMember(*at, Member("cp:home01", 5))
