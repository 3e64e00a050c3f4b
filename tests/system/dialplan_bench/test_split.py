"""The exact split: the table is followed slot by slot, whatever happens at the same time."""

import pytest

from tests.system.dialplan_bench.ami import event
from tests.system.dialplan_bench.bench import SLOTS, Bench, Site, sealed, split_value, table

pytestmark = pytest.mark.system

CARRIER_CALL = "95556@cp-from-carrier"
TEN_SITES = dict(zip([f"site{i}" for i in range(10)], [5, 1, 5, 1, 1, 5, 31, 31, 1, 19], strict=True))


def within_one(shares: dict[str, int], targets: list[str]) -> bool:
    """After every decision each name has had its share of the calls, give or take one."""
    return all(
        abs(targets[:n].count(name) - share * n / 100) <= 1
        for n in range(1, len(targets) + 1)
        for name, share in shares.items()
    )


@pytest.mark.parametrize("shares", [{"nanchang": 60, "elsewhere": 40}, {"nanchang": 1, "elsewhere": 99}, TEN_SITES])
def test_every_prefix_is_within_one_of_every_share_under_concurrent_calls(
    nanchang: Site, shares: dict[str, int]
) -> None:
    # A service without a queue here: the split alone is under load, not the queue.
    nanchang.put("cp", "did/95556", "unqueued")
    nanchang.put("cp", "svc/unqueued", split_value(shares))
    since = nanchang.ami.mark()
    for _ in range(130):
        nanchang.call(CARRIER_CALL, hold_s=0.2)
    routed = nanchang.ami.wait(130, event("CPRoute"), since=since, within_s=40)
    by_number = {int(r["N"]): r for r in routed}
    assert sorted(by_number) == list(range(130)), "a decision was lost or taken twice"
    names = list(shares)
    slots = table(list(shares.values()))
    targets = [by_number[n]["Target"] for n in range(130)]
    assert targets == [names[SLOTS.index(slots[n % 100])] for n in range(130)]
    assert within_one(shares, targets)
    assert {r["Plan"] for r in routed} == {"1.1.1"}
    assert nanchang.database("cpstate")["/cpstate/svc/unqueued"].endswith(":130")


def test_another_table_starts_again_and_another_plan_key_does_not(nanchang: Site) -> None:
    def route(count: int) -> list[int]:
        since = nanchang.ami.mark()
        for _ in range(count):
            nanchang.call(CARRIER_CALL, hold_s=0.2)
        return sorted(int(r["N"]) for r in nanchang.ami.wait(count, event("CPRoute"), since=since))

    nanchang.put("cp", "svc/claims", split_value({"nanchang": 60, "elsewhere": 40}, "1.1.1"))
    assert route(3) == [0, 1, 2]
    nanchang.put("cp", "svc/claims", split_value({"nanchang": 60, "elsewhere": 40}, "1.1.2"))
    assert route(2) == [3, 4]
    nanchang.put("cp", "svc/claims", split_value({"nanchang": 20, "elsewhere": 80}, "1.1.3"))
    assert route(2) == [0, 1]
    nanchang.put("cp", "svc/claims", split_value({"elsewhere": 20, "nanchang": 80}, "1.1.4"))
    assert route(1) == [0]


def test_no_lock_outlives_its_channel(nanchang: Site) -> None:
    nanchang.put("cp", "svc/claims", split_value({"nanchang": 60, "elsewhere": 40}))
    for _ in range(60):
        nanchang.call(CARRIER_CALL, hold_s=0.2)
    nanchang.hangup_all()
    since = nanchang.ami.mark()
    nanchang.call(CARRIER_CALL)
    nanchang.ami.wait(1, event("CPRoute"), since=since, within_s=2)
    assert "cp-svc-claims" not in nanchang.rx("core show locks")


def test_the_event_of_a_decision_names_call_plan_target_and_a_time_before_the_read(nanchang: Site) -> None:
    nanchang.put("cp", "did/95556", "claims")
    nanchang.put("cp", "svc/claims", split_value({"nanchang": 100}, "2.7.3"))
    since = nanchang.ami.mark()
    nanchang.call(CARRIER_CALL)
    [route] = nanchang.ami.wait(1, event("CPRoute"), since=since)
    [arrive] = nanchang.ami.wait(1, event("CPArrive"), since=since)
    assert (route["Kind"], route["Id"], route["Plan"], route["Target"]) == ("svc", "claims", "2.7.3", "nanchang")
    assert (route["N"], route["Syn"]) == ("0", "0")
    assert route["Call"] == arrive["Call"]
    assert route["Call"].startswith("nanchang-")
    assert (arrive["From"], arrive["Hops"], arrive["Syn"], arrive["Kind"]) == ("carrier", "0", "0", "svc")
    assert len(route["At"]) == 13
    assert 0 <= int(arrive["At"]) - int(route["At"]) < 1000
    assert 0 <= int(arrive["Waited"]) < 1000


GOOD_TABLE = table([60, 40])


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("0" * 32 + f":1:1.1.1:nanchang,chengdu:{GOOD_TABLE}", "md5"),
        (split_value({"nanchang": 60, "chengdu": 40})[:90], "md5"),
        ("x", "md5"),
        ('"$[1/0]" ${EVAL(x)} ) | "', "md5"),
        (sealed(f"1:1.1.1:nanchang,chengdu:{GOOD_TABLE[:99]}"), "table"),
        (sealed(f"1:1.1.1:nanchang,chengdu:{GOOD_TABLE}a"), "table"),
        (sealed(f"1:1.1.1:nanchang,chengdu:{'*' * 100}"), "table"),
        (sealed(f"2:1.1.1:nanchang,chengdu:{GOOD_TABLE}"), "version"),
        (sealed(f"1:1.1.1:nanchang,chengdu:{'c' * 100}"), "slot"),
        (sealed(f"1:1.1.1:nanchang,,chengdu:{'b' * 100}"), "slot"),
    ],
)
def test_a_corrupt_plan_means_the_local_queue_and_says_so(bench: Bench, value: str, reason: str) -> None:
    nanchang = bench.sites["nanchang"]
    nanchang.put("cp", "svc/claims", value)
    since = nanchang.ami.mark()
    nanchang.call(CARRIER_CALL)
    [arrive] = nanchang.ami.wait(1, event("CPArrive"), since=since)
    assert arrive["Id"] == "claims"
    [corrupt] = nanchang.events(event("CPCorrupt"), since)
    assert (corrupt["Key"], corrupt["Reason"]) == ("cp/svc/claims", reason)
    assert nanchang.events(event("CPRoute"), since) == []
    assert nanchang.database("cpstate") == {}


def test_without_any_plan_the_static_service_of_the_did_is_queued_here(nanchang: Site) -> None:
    since = nanchang.ami.mark()
    nanchang.call("95557@cp-from-carrier")
    [arrive] = nanchang.ami.wait(1, event("CPArrive"), since=since)
    assert arrive["Id"] == "enquiries"
    assert nanchang.events(event("CPRoute"), since) + nanchang.events(event("CPCorrupt"), since) == []
