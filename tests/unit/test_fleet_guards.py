"""Every rule by its name, and which of them a person may override."""

from __future__ import annotations

import datetime as dt
import uuid
from typing import Any

import msgspec
import pytest

from controlplane.contract.command import Command
from controlplane.contract.fleet import Service, Site, Trunk
from controlplane.contract.key import Key
from controlplane.contract.operation import OperationState
from controlplane.contract.plan import AgentPlan, CommandResult, Footprint, OperationRecord, Plan, SiteMode, SitePlan
from controlplane.contract.report import Report
from controlplane.fleet.guards import MOST_COMMANDS, MOST_LIFE, MOST_SKEW, OVERRIDABLE, Situation, door, refusals
from controlplane.fleet.slicing import first_plan
from controlplane.fleet.view import FRESH_S, SiteView, View, with_report
from tests.unit.test_fleet_driver import DIGEST, EPOCH, FLEET, command_of

#: A third site that serves nothing of `claims`.
WIDE = msgspec.structs.replace(
    FLEET,
    sites=FLEET.sites | {"weifang": Site()},
    services=FLEET.services | {"loans": Service(("95558",), ("weifang",), {"weifang": 100})},
    trunks=FLEET.trunks | {"wf-carrier": Trunk("weifang", "carrier")},
)
PLAN = first_plan(WIDE, Key(1, 1, "coordinator", 1))


def report(site: str, **changes: Any) -> Report:
    plain = Report(site, "one", 1, EPOCH, 0, WIDE.hash, "ready", None, None, False)
    return msgspec.structs.replace(plain, **changes)


def view(
    *, age_s: dict[str, float] | None = None, absent: tuple[str, ...] = (), only: str | None = None, **changes: Any
) -> View:
    """All sites heard of `age_s` ago (0 by default), at 1000 s. `changes` of their reports, or of that of `only` one."""
    return View(
        {
            s: SiteView(report(s, **(changes if only in (None, s) else {})), 1000.0 - (age_s or {}).get(s, 0.0))
            for s in WIDE.sites
            if s not in absent
        }
    )


def at(*, plan: Plan = PLAN, seen: View | None = None) -> Situation:
    return Situation(WIDE, plan, view() if seen is None else seen, 1000.0, EPOCH)


def rules(command: Command, situation: Situation) -> list[str]:
    return [r.rule for r in refusals(command, situation)]


def closed(*sites: str) -> Plan:
    return msgspec.structs.replace(PLAN, sites=PLAN.sites | {s: SitePlan(SiteMode.CLOSED) for s in sites})


def past(*marks: Footprint, id_: int = 7) -> Plan:
    record = OperationRecord(
        str(uuid.UUID(int=id_)), command_of("shift"), OperationState.DONE, 1, EPOCH, EPOCH, tuple(marks)
    )
    return msgspec.structs.replace(PLAN, past=(record,))


ENROLLED = msgspec.structs.replace(PLAN, agents={"home01": AgentPlan("n", "chengdu", ("claims",), 0, DIGEST)})
PAUSED = msgspec.structs.replace(PLAN, paused_at=EPOCH)
UNDO = command_of("undo", operation=str(uuid.UUID(int=7)))
MARK = Footprint("services.claims.shares", {"nanchang": 60, "chengdu": 40}, {"chengdu": 100})
CANCEL = command_of("cancel", operation=str(uuid.UUID(int=7)))
RUNNING = msgspec.structs.replace(past(MARK), running=past(MARK).past[0], past=())
FAILING_OVER = msgspec.structs.replace(
    RUNNING, running=msgspec.structs.replace(past(MARK).past[0], command=command_of("failover"))
)
TO_NANCHANG = command_of("shift", service="claims", shares={"nanchang": 100})
TO_CHENGDU = command_of("shift", service="claims", shares={"chengdu": 100})
CD_CARRIER = command_of("trunks", group="national", shares={"cd-carrier": 100})
ENROL: dict[str, Any] = {"agent": "home01", "name": "n", "site": "chengdu", "services": ["claims"], "digest": DIGEST}

GOOD: list[tuple[Command, Plan]] = [
    (command_of("shift"), PLAN),
    (command_of("trunks"), PLAN),
    (command_of("failover"), PLAN),
    (command_of("restore"), closed("nanchang")),
    (command_of("agents.enrol"), PLAN),
    (command_of("agents.revoke"), ENROLLED),
    (UNDO, past(MARK)),
    (CANCEL, RUNNING),
    (command_of("pause"), PLAN),
    (command_of("resume"), PAUSED),
    (command_of("takeover"), PLAN),
    (command_of("call"), PLAN),
]
OLD = {"nanchang": FRESH_S + 1}
HELD = view(only="nanchang", hands_off=True)
HELD_CHENGDU = view(only="chengdu", hands_off=True)
OTHER = view(only="nanchang", fleet_hash="other")
BAD: list[tuple[str, Command, Situation]] = [
    ("unknown-service", command_of("shift", service="x", shares={"nanchang": 100}), at()),
    ("unknown-service", command_of("call", service="x"), at()),
    ("unknown-service", command_of("agents.enrol", **ENROL | {"services": ["x"]}), at()),
    ("unknown-site", command_of("shift", service="claims", shares={"x": 100}), at()),
    ("unknown-site", command_of("shift", service="claims", shares={"x": 0, "nanchang": 100}), at()),
    ("unknown-site", command_of("shift", service="claims", shares={"weifang": 100}), at()),
    ("unknown-site", command_of("failover", site="x", to="chengdu"), at()),
    ("unknown-site", command_of("failover", site="nanchang", to="x"), at()),
    ("unknown-site", command_of("restore", site="x"), at()),
    ("unknown-site", command_of("call", service="claims", site="x"), at()),
    ("unknown-site", command_of("agents.enrol", **ENROL | {"site": "weifang"}), at()),
    ("unknown-group", command_of("trunks", group="x", shares={"nc-carrier": 100}), at()),
    ("unknown-trunk", command_of("trunks", group="national", shares={"wf-carrier": 100}), at()),
    ("unknown-agent", command_of("agents.revoke"), at()),
    ("unknown-host", command_of("takeover", host="nanchang"), at()),
    ("unknown-operation", UNDO, at()),
    ("unknown-operation", UNDO, at(plan=past(MARK, id_=8))),
    ("not-undoable", UNDO, at(plan=past())),
    ("cannot-serve", command_of("failover", site="nanchang", to="weifang"), at()),
    ("already-enrolled", command_of("agents.enrol", **ENROL | {"site": "nanchang"}), at(plan=ENROLLED)),
    ("already-enrolled", command_of("agents.enrol", **ENROL), at(plan=ENROLLED)),
    ("reserved-name", command_of("agents.enrol", **ENROL | {"agent": "carrier"}), at()),
    ("reserved-name", command_of("agents.enrol", **ENROL | {"agent": "site-nanchang"}), at()),
    ("unknown-operation", CANCEL, at()),
    ("unknown-operation", CANCEL, at(plan=past(MARK))),
    ("unknown-operation", command_of("cancel", operation=str(uuid.UUID(int=8))), at(plan=RUNNING)),
    ("not-cancellable", CANCEL, at(plan=FAILING_OVER)),
    ("already", command_of("restore", site="nanchang"), at()),
    ("already", command_of("pause"), at(plan=PAUSED)),
    ("already", command_of("resume"), at()),
    ("closed-site", TO_NANCHANG, at(plan=closed("nanchang"))),
    ("closed-site", command_of("failover", site="nanchang", to="chengdu"), at(plan=closed("chengdu"))),
    ("closed-site", CD_CARRIER, at(plan=closed("chengdu"))),
    ("closed-site", command_of("agents.enrol", **ENROL), at(plan=closed("chengdu"))),
    ("receiving-site", TO_NANCHANG, at(seen=view(age_s=OLD))),
    ("receiving-site", command_of("failover", site="chengdu", to="nanchang"), at(seen=view(age_s=OLD))),
    ("receiving-site", command_of("restore", site="nanchang"), at(plan=closed("nanchang"), seen=view(age_s=OLD))),
    ("receiving-site", UNDO, at(plan=past(MARK), seen=view(age_s=OLD))),
    ("receiving-site", command_of("trunks", group="national", shares={"nc-carrier": 100}), at(seen=view(age_s=OLD))),
    ("hands-off", TO_NANCHANG, at(seen=HELD)),
    ("hands-off", TO_CHENGDU, at(seen=HELD)),
    ("hands-off", CD_CARRIER, at(seen=HELD)),
    ("hands-off", command_of("trunks", group="national", shares={"nc-carrier": 100}), at(seen=HELD)),
    ("hands-off", command_of("failover", site="chengdu", to="nanchang"), at(seen=HELD)),
    ("hands-off", command_of("restore", site="nanchang"), at(plan=closed("nanchang"), seen=HELD)),
    ("hands-off", command_of("restore", site="nanchang"), at(plan=closed("nanchang"), seen=HELD_CHENGDU)),
    ("hands-off", UNDO, at(plan=past(MARK), seen=HELD)),
    ("configuration-differs", TO_NANCHANG, at(seen=OTHER)),
    ("configuration-differs", TO_CHENGDU, at(seen=OTHER)),
    ("configuration-differs", CD_CARRIER, at(seen=OTHER)),
    ("configuration-differs", command_of("restore", site="nanchang"), at(plan=closed("nanchang"), seen=OTHER)),
    ("stale-figures", TO_CHENGDU, at(seen=view(age_s=OLD))),
    ("stale-figures", CD_CARRIER, at(seen=view(age_s=OLD))),
    ("stale-figures", command_of("call", service="claims"), at(seen=view(age_s=OLD))),
    ("stale-figures", command_of("call", service="claims", site="nanchang"), at(seen=view(age_s=OLD))),
    ("stale-figures", command_of("agents.enrol", **ENROL), at(seen=view(absent=("chengdu",)))),
    ("stale-figures", command_of("agents.enrol", **ENROL), at(seen=HELD_CHENGDU)),
    ("stale-figures", command_of("agents.revoke"), at(plan=ENROLLED, seen=HELD_CHENGDU)),
    ("stale-figures", command_of("agents.revoke"), at(plan=ENROLLED, seen=view(absent=("chengdu",)))),
]  # fmt: skip


@pytest.mark.parametrize(("command", "plan"), GOOD)
def test_a_command_that_breaks_no_rule_is_not_refused(command: Command, plan: Plan) -> None:
    assert refusals(command, at(plan=plan)) == ()


@pytest.mark.parametrize(("rule", "command", "situation"), BAD)
def test_each_rule_refuses_by_its_name_and_says_what_it_saw(rule: str, command: Command, situation: Situation) -> None:
    found = refusals(command, situation)
    assert {r.rule for r in found} == {rule}
    assert all(len(r.detail) > 10 for r in found)


@pytest.mark.parametrize(("rule", "command", "situation"), BAD)
def test_only_the_rules_that_a_person_may_break_are_overridden_and_only_by_name(
    rule: str, command: Command, situation: Situation
) -> None:
    every = tuple({r for r, _, _ in BAD} | {"operation-in-progress"})
    with_all = msgspec.structs.replace(command, override=every)
    assert rules(with_all, situation) == ([] if rule in OVERRIDABLE else rules(command, situation))
    others = tuple(r for r in every if r != rule)
    assert rules(msgspec.structs.replace(command, override=others), situation) == rules(command, situation)


def test_the_rules_that_may_be_overridden_are_these() -> None:
    assert {"stale-figures", "receiving-site", "closed-site", "configuration-differs", "hands-off"} == OVERRIDABLE


def test_one_operation_at_a_time_and_who_may_come_between() -> None:
    running = past(MARK).past[0]
    for command, plan in GOOD:
        past_ones = plan.past if type(command).__name__ == "Undo" else ()
        busy = msgspec.structs.replace(plan, running=running, past=past_ones, paused_at=None)
        if type(command).__name__ == "Resume":
            busy = msgspec.structs.replace(busy, paused_at=EPOCH)
        if type(command).__name__ in {"Failover", "Pause", "Resume", "Takeover", "Cancel"}:
            assert rules(command, at(plan=busy)) == []
        else:
            assert rules(command, at(plan=busy)) == ["operation-in-progress"]


def test_a_failover_and_a_revocation_do_not_wait_for_sites_that_they_do_not_need() -> None:
    """A failover is for the day on which nothing is as it should be; only who receives must be there."""
    odd = view(only="nanchang", hands_off=True, fleet_hash="other")
    assert rules(command_of("failover", site="nanchang", to="chengdu"), at(seen=odd)) == []
    assert rules(command_of("agents.revoke"), at(plan=ENROLLED, seen=odd)) == []
    assert rules(command_of("agents.enrol"), at(seen=odd)) == []


def test_several_broken_rules_are_all_told() -> None:
    command = command_of("shift", service="claims", shares={"x": 50, "nanchang": 50})
    found = rules(command, at(plan=closed("nanchang"), seen=view(age_s=OLD)))
    assert found == ["unknown-site", "receiving-site", "closed-site"]


@pytest.mark.parametrize(
    ("seen", "words"),
    [
        (View(), "has not reported since"),
        (view(age_s=OLD), "last reported 9 s ago"),
        (view(age_ms=8001), "last reported 8 s ago"),
        (view(link="down"), "its AMI link is down"),
        (with_report(View(), report("nanchang"), heard_at=None), "has not reported since"),
    ],
)
def test_why_a_site_is_out_of_reach(seen: View, words: str) -> None:
    assert words in str(seen.unreachable("nanchang", 1000.0))
    assert view(age_s={"nanchang": FRESH_S}).unreachable("nanchang", 1000.0) is None


def test_a_report_that_is_older_than_what_is_known_changes_nothing() -> None:
    first = with_report(View(), report("nanchang", sequence=5), heard_at=10.0)
    assert with_report(first, report("nanchang", sequence=5, link="down"), heard_at=11.0) == first
    assert with_report(first, report("nanchang", sequence=9, link="down"), heard_at=None) == first
    reborn = with_report(first, report("nanchang", incarnation="two", sequence=1), heard_at=11.0)
    assert reborn.sites["nanchang"].heard_at == 11.0
    retained = with_report(View(), report("nanchang", sequence=5), heard_at=None)
    assert with_report(retained, report("nanchang", sequence=5), heard_at=11.0).sites["nanchang"].heard_at == 11.0


# -- the door

SECOND = dt.timedelta(seconds=1)


def lived(issued: dt.timedelta, expires: dt.timedelta) -> Command:
    return msgspec.structs.replace(command_of("pause"), issued_at=EPOCH + issued, expires_at=EPOCH + expires)


@pytest.mark.parametrize(
    ("command", "rule"),
    [
        (lived(-SECOND, SECOND), None),
        (lived(-SECOND, 0 * SECOND), "expired"),
        (lived(MOST_SKEW, MOST_SKEW + SECOND), None),
        (lived(MOST_SKEW + SECOND, MOST_SKEW + 2 * SECOND), "from-the-future"),
        (lived(-SECOND, MOST_LIFE), None),
        (lived(-SECOND, MOST_LIFE + SECOND), "expires-too-late"),
    ],
)
def test_the_times_of_a_command_to_the_second(command: Command, rule: str | None) -> None:
    found = door(command, at(), retained=False)
    assert (found.rule if found else None) == rule
    told = door(command, at(), retained=True)
    assert told is not None
    assert told.rule == "retained"


def test_a_known_id_and_too_many_of_them() -> None:
    command = command_of("pause")
    done = CommandResult("shift", OperationState.DONE, EPOCH + SECOND)
    known = msgspec.structs.replace(PLAN, commands={str(command.id): done})
    found = door(command, at(plan=known), retained=False)
    assert found is not None
    assert (found.rule, "shift" in found.detail, "done" in found.detail) == ("repeated", True, True)
    record = past(MARK).past[0]
    again = msgspec.structs.replace(command, id=uuid.UUID(int=7))
    for plan in (past(MARK), msgspec.structs.replace(PLAN, running=record)):
        # Its command has expired and is out of the ledger; its operation is still told of under this id.
        found = door(again, at(plan=plan), retained=False)
        assert found is not None
        assert (found.rule, "shift" in found.detail) == ("repeated", True)
    full = msgspec.structs.replace(PLAN, commands={str(uuid.UUID(int=n)): done for n in range(MOST_COMMANDS)})
    many = door(command, at(plan=full), retained=False)
    assert many is not None
    assert many.rule == "too-many"
