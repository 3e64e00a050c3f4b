"""Forwarding between sites: every failure goes on, a silent site costs at most two seconds, nobody is split twice."""

import time

import pytest

from tests.system.dialplan_bench.ami import event
from tests.system.dialplan_bench.bench import ADDRESS, Bench, Site, docker, split_value, wait_until

pytestmark = pytest.mark.system

CARRIER_CALL = "95556@cp-from-carrier"
INBOUND = "s@cp-inbound"


def link(nanchang: Site, cap: int = 0, *, shares: dict[str, int] | None = None) -> None:
    """All of claims goes to chengdu by default, and nanchang is the next name."""
    nanchang.put("cp", "did/95556", "claims")
    nanchang.put("cp", "svc/claims", split_value(shares or {"chengdu": 100, "nanchang": 0}))
    nanchang.put("cp", "link/chengdu", f"site-chengdu:{cap}")


def caller(site: Site, call: str, *, born_ms: int | None = None, hops: int = 0, service: str = "claims") -> None:
    """A call as it stands after its entry, with a wait and hops of our choice."""
    born = born_ms if born_ms is not None else int(time.time() * 1000)
    variables = {"__CP_CALL": call, "CP_SYN": "0", "CP_FROM": "carrier", "CP_HOPS": str(hops), "CP_BORN": str(born)}
    site.call(INBOUND, variables | {"CP_SERVICE": service}, hold_s=60)


def test_a_moved_call_keeps_its_id_and_is_not_split_again(nanchang: Site, chengdu: Site) -> None:
    link(nanchang)
    chengdu.put("cp", "svc/claims", split_value({"nanchang": 100}))
    chengdu.put("cp", "link/nanchang", "site-nanchang:0")
    here, there = nanchang.ami.mark(), chengdu.ami.mark()
    nanchang.call(CARRIER_CALL)
    [arrive] = chengdu.ami.wait(1, event("CPArrive"), since=there)
    [route] = nanchang.ami.wait(1, event("CPRoute"), since=here)
    [answered] = nanchang.ami.wait(1, event("CPAnswered", Kind="svc"), since=here)
    assert (arrive["From"], arrive["Hops"], arrive["Id"], arrive["Syn"]) == ("nanchang", "1", "claims", "0")
    assert route["Call"] == arrive["Call"] == answered["Call"]
    assert answered["Target"] == "chengdu"
    assert 0 <= int(answered["At"]) - int(route["At"]) < 1000
    assert chengdu.events(event("CPRoute"), there) == []
    assert chengdu.database("cpstate") == {}


def test_the_wait_goes_on_at_the_other_site(nanchang: Site, chengdu: Site) -> None:
    link(nanchang)
    since = chengdu.ami.mark()
    caller(nanchang, "nanchang-w", born_ms=int(time.time() * 1000) - 60_000)
    [arrive] = chengdu.ami.wait(1, event("CPArrive", Call="nanchang-w"), since=since)
    assert 60_000 <= int(arrive["Waited"]) < 62_000


def test_a_site_that_can_not_queue_the_call_refuses_it_and_the_sender_goes_on(nanchang: Site, chengdu: Site) -> None:
    nanchang.put("cp", "did/95556", "unqueued")
    nanchang.put("cp", "svc/unqueued", split_value({"chengdu": 100}))
    nanchang.put("cp", "link/chengdu", "site-chengdu:0")
    here, there = nanchang.ami.mark(), chengdu.ami.mark()
    nanchang.call(CARRIER_CALL)
    [last] = nanchang.ami.wait(1, event("CPLast"), since=here)
    left = [(e["Target"], e["Status"], e["Cause"]) for e in nanchang.events(event("CPNext"), here)]
    assert left == [("chengdu", "CONGESTION", "34"), ("nanchang", "JOINEMPTY", "0")]
    assert last["Service"] == "unqueued"
    assert chengdu.events(event("CPArrive"), there) == []
    assert chengdu.events(event("CPLast"), there) == []


def test_a_name_without_a_link_is_passed_over(nanchang: Site) -> None:
    link(nanchang, shares={"elsewhere": 100, "nanchang": 0})
    since = nanchang.ami.mark()
    nanchang.call(CARRIER_CALL)
    nanchang.ami.wait(1, event("CPArrive"), since=since)
    [left] = nanchang.events(event("CPNext"), since)
    assert (left["Target"], left["Status"]) == ("elsewhere", "NOLINK")


def test_a_silent_site_costs_two_seconds_then_nothing_and_keeps_no_ghost(bench: Bench) -> None:
    nanchang, chengdu = bench.sites["nanchang"], bench.sites["chengdu"]
    link(nanchang)
    wait_until("chengdu is known as reachable", lambda: nanchang.contact_of("chengdu") == "Avail", within_s=15)
    docker("pause", chengdu.container)
    try:
        since = nanchang.ami.mark()
        nanchang.call(CARRIER_CALL, hold_s=30)
        [route] = nanchang.ami.wait(1, event("CPRoute"), since=since)
        [arrive] = nanchang.ami.wait(1, event("CPArrive", Call=route["Call"]), since=since)
        silent_ms = int(arrive["At"]) - int(route["At"])
        wait_until("chengdu is known as dead", lambda: nanchang.contact_of("chengdu") == "Unavail", within_s=8)
        since = nanchang.ami.mark()
        nanchang.call(CARRIER_CALL, hold_s=30)
        [route] = nanchang.ami.wait(1, event("CPRoute"), since=since)
        [arrive] = nanchang.ami.wait(1, event("CPArrive", Call=route["Call"]), since=since)
        known_ms = int(arrive["At"]) - int(route["At"])
    finally:
        docker("unpause", chengdu.container)
    print(f"silent {silent_ms} ms, known as dead {known_ms} ms")
    assert silent_ms < 2300
    assert known_ms < 300
    # The frozen site reads our INVITE only now; it must not keep a caller who went elsewhere.
    wait_until("chengdu is back", lambda: nanchang.contact_of("chengdu") == "Avail", within_s=15)
    wait_until(
        "no caller at chengdu", lambda: "0 active channels" in chengdu.rx("core show channels count"), within_s=5
    )


def test_a_caller_who_hangs_up_ends_the_way(bench: Bench) -> None:
    nanchang, chengdu = bench.sites["nanchang"], bench.sites["chengdu"]
    link(nanchang)
    wait_until("chengdu is known as reachable", lambda: nanchang.contact_of("chengdu") == "Avail", within_s=15)
    docker("pause", chengdu.container)
    try:
        since = nanchang.ami.mark()
        nanchang.call(CARRIER_CALL)
        [route] = nanchang.ami.wait(1, event("CPRoute"), since=since)
        nanchang.hangup_caller(route)
        told = nanchang.events(event("CPNext"), since) + nanchang.events(event("CPLast"), since)
    finally:
        docker("unpause", chengdu.container)
    assert told == []
    wait_until("chengdu is back", lambda: nanchang.contact_of("chengdu") == "Avail", within_s=15)


def test_hops_are_limited(nanchang: Site, chengdu: Site) -> None:
    link(nanchang)
    since = nanchang.ami.mark()
    caller(nanchang, "nanchang-h3", hops=2)
    chengdu.ami.wait(1, event("CPArrive", Call="nanchang-h3", Hops="3"))
    caller(nanchang, "nanchang-h4", hops=3)
    [left] = nanchang.ami.wait(1, event("CPNext", Call="nanchang-h4"), since=since)
    assert (left["Target"], left["Status"], left["Cause"]) == ("chengdu", "CONGESTION", "34")


def test_a_full_link_is_never_over_its_cap_and_the_next_name_takes_the_rest(nanchang: Site, chengdu: Site) -> None:
    link(nanchang, cap=5)
    here, there = nanchang.ami.mark(), chengdu.ami.mark()
    for _ in range(30):
        nanchang.call(CARRIER_CALL, hold_s=30)
    full = nanchang.ami.wait(25, event("CPNext", Status="FULL"), since=here)
    assert {(e["Target"], e["Cause"]) for e in full} == {("chengdu", "34")}
    moved = len(chengdu.events(event("CPArrive"), there))
    assert 1 <= moved <= 5
    # Those that met at the last places may both have left: one by one the link fills up to its cap.
    for _ in range(5 - moved):
        count = len(chengdu.events(event("CPArrive"), there))
        nanchang.call(CARRIER_CALL, hold_s=30)
        chengdu.ami.wait(count + 1, event("CPArrive"), since=there)
    nanchang.call(CARRIER_CALL, hold_s=30)
    nanchang.ami.wait(len(full) + 1, event("CPNext", Status="FULL"), since=here)
    assert len(chengdu.events(event("CPArrive"), there)) == 5


def test_a_leg_that_ended_leaves_its_place_on_the_link(nanchang: Site, chengdu: Site) -> None:
    link(nanchang, cap=1)
    for _ in range(3):
        since = chengdu.ami.mark()
        nanchang.call(CARRIER_CALL, hold_s=30)
        chengdu.ami.wait(1, event("CPArrive"), since=since)
        nanchang.hangup_all()


def test_the_older_wait_is_ahead_among_local_and_moved_callers(nanchang: Site, chengdu: Site) -> None:
    link(nanchang)
    now = int(time.time() * 1000)
    # Waits (in s) deliberately out of order; even ones begin at chengdu, odd ones are moved in from nanchang.
    waits = [3, 40, 17, 90, 1, 8, 55, 22, 64, 5, 300, 13]
    for wait_s in waits:
        since = chengdu.ami.mark()
        caller(nanchang if wait_s % 2 else chengdu, f"w-{wait_s}", born_ms=now - wait_s * 1000)
        chengdu.ami.wait(1, event("CPArrive", Call=f"w-{wait_s}"), since=since)
    wait_until(
        "all are in the queue",
        lambda: chengdu.rx("queue show claims").count("prio:") == len(waits),
    )
    uniqueid = {e["Uniqueid"]: e["Call"] for e in chengdu.events(event("CPArrive"))}
    since = chengdu.ami.mark()
    chengdu.ami.send("QueueStatus", Queue="claims")
    entries = chengdu.ami.wait(len(waits), lambda m: m.get("Event") == "QueueEntry", since=since)
    order = [uniqueid[e["Uniqueid"]] for e in sorted(entries, key=lambda e: int(e["Position"]))]
    assert order == [f"w-{wait_s}" for wait_s in sorted(waits, reverse=True)]


def test_the_caller_s_number_reaches_the_agent_s_phone_over_both_sites(
    bench: Bench, nanchang: Site, chengdu: Site
) -> None:
    link(nanchang)
    bench.sipp_in_background(
        "phones", "-sn", "uas", "-aa", "-p", "6000", "-trace_msg", "-message_file", "/tmp/phone.msg"
    )
    since = chengdu.ami.mark()
    done = bench.sipp(
        "carrier", ADDRESS["nanchang"], "-sf", "/sipp/uac.xml", "-s", "95556", "-key", "from", "13800000042", "-m", "1"
    )
    assert done.returncode == 0, done.stdout[-2000:]
    [answered] = chengdu.events(event("CPAnswered", Kind="agent"), since)
    assert answered["Call"] == chengdu.events(event("CPArrive"), since)[0]["Call"]
    invites = bench.read("phones", "/tmp/phone.msg").split("\nINVITE sip:")[1:]
    ours = [invite for invite in invites if "<sip:13800000042@" in invite.partition("\nFrom:")[2].partition("\n")[0]]
    assert ours
    assert all(invite.startswith(f"{answered['Target']}@") for invite in ours)


def test_the_last_announcement_is_unanswered_early_media_and_480(bench: Bench) -> None:
    bench.sites["nanchang"].put("cp", "did/95556", "unqueued")
    since = bench.sites["nanchang"].ami.mark()
    done = bench.sipp(
        "carrier", ADDRESS["nanchang"], "-sf", "/sipp/uac.xml", "-s", "95556", "-key", "from", "13800000001",
        "-m", "1", "-trace_logs", "-log_file", "/tmp/last.log",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:]
    assert bench.read("carrier", "/tmp/last.log").split("\n")[:2] == ["PROGRESS", "REFUSED 480"]
    [last] = bench.sites["nanchang"].events(event("CPLast"), since)
    assert last["Service"] == "unqueued"
