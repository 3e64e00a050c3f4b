"""Synthetic calls touch nothing real; a home agent put into AstDB registers and can be rung."""

import hashlib
import json

import pytest

from tests.system.dialplan_bench.ami import event
from tests.system.dialplan_bench.bench import ADDRESS, Bench, Site, split_value, wait_until
from tests.system.dialplan_bench.test_outbound import NUMBER, carrier_answers, outbound

pytestmark = pytest.mark.system

# What the daemon writes for a home agent: cp/endpoint/<id>, cp/auth/<id>, cp/aor/<id>, flat JSON objects of strings.
ENDPOINT = {
    "context": "cp-from-agent",
    "aors": "h01",
    "auth": "h01",
    "identify_by": "username,auth_username",
    "disallow": "all",
    "allow": "alaw,ulaw",
    "direct_media": "no",
    "force_rport": "yes",
    "rewrite_contact": "yes",
    "rtp_symmetric": "yes",
}
AUTH = {
    "auth_type": "digest",
    "username": "h01",
    "password_digest": f"MD5:{hashlib.md5(b'h01:controlplane:pw-h01').hexdigest()}",
}
AOR = {"max_contacts": "1", "remove_existing": "yes", "qualify_frequency": "0"}


def enrol(site: Site) -> None:
    for kind, value in (("endpoint", ENDPOINT), ("auth", AUTH), ("aor", AOR)):
        site.put("cp", f"{kind}/h01", json.dumps(value, separators=(",", ":")))
    assert site.ami.action("Reload", Module="res_pjsip.so")["Response"] == "Success"


def register(bench: Bench, password: str) -> int:
    return bench.sipp(
        "phones", ADDRESS["nanchang"], "-sf", "/sipp/register.xml", "-s", "h01", "-key", "agent", "h01",
        "-au", "h01", "-ap", password, "-p", "6001", "-m", "1",
    ).returncode  # fmt: skip


def revoke(site: Site) -> None:
    for kind in ("endpoint", "auth", "aor"):
        site.delete("cp", f"{kind}/h01")
    for key in site.database("registrar/contact"):
        if key.startswith("/registrar/contact/h01"):
            site.delete("registrar", key.removeprefix("/registrar/"))


def test_a_home_agent_in_astdb_registers_and_can_be_rung(bench: Bench, nanchang: Site) -> None:
    enrol(nanchang)
    try:
        assert register(bench, "wrong") != 0
        assert register(bench, "pw-h01") == 0
        # From the same port: rewrite_contact takes the address that the REGISTER came from.
        bench.sipp_in_background("phones", "-sn", "uas", "-p", "6001")
        wait_until("h01 is idle", lambda: "Not in use" in nanchang.rx("pjsip show endpoint h01"))
        since = nanchang.ami.mark()
        nanchang.call("h01@cp-syn-agent", {"__CP_CALL": "syn-agent-1"}, hold_s=5)
        [answered] = nanchang.ami.wait(1, event("CPAnswered"), since=since)
        told = (answered["Call"], answered["Kind"], answered["Id"], answered["Target"], answered["Syn"])
        assert told == ("syn-agent-1", "agent", "h01", "h01", "1")
        wait_until("the call has ended", lambda: "0 active channels" in nanchang.rx("core show channels count"))

        # A caller of the queue reaches the home agent, and the event names it.
        added = nanchang.ami.action(
            "QueueAdd", Queue="enquiries", Interface="PJSIP/h01", MemberName="h01", StateInterface="PJSIP/h01"
        )
        assert added["Response"] == "Success", added
        pause_others(nanchang, "true")
        since = nanchang.ami.mark()
        nanchang.call("95557@cp-from-carrier")
        [answered] = nanchang.ami.wait(1, event("CPAnswered", Kind="agent"), since=since)
        [arrive] = nanchang.events(event("CPArrive"), since)
        assert (answered["Call"], answered["Target"], answered["Syn"]) == (arrive["Call"], "h01", "0")
    finally:
        nanchang.ami.action("QueueRemove", Queue="enquiries", Interface="PJSIP/h01")
        pause_others(nanchang, "false")
        revoke(nanchang)
        nanchang.ami.action("Reload", Module="res_pjsip.so")


def pause_others(site: Site, paused: str) -> None:
    for k in range(1, 41):
        site.ami.action("QueuePause", Queue="enquiries", Interface=f"PJSIP/n{k:02d}", Paused=paused)


def queue_line(site: Site) -> str:
    """The totals of the queue: completed, abandoned, hold time."""
    return next(line for line in site.rx("queue show claims").splitlines() if line.startswith("claims "))


def test_only_agents_can_be_rung_by_a_synthetic_call(nanchang: Site) -> None:
    since = nanchang.ami.mark()
    for name in ("carrier", "site-chengdu", "nobody"):
        nanchang.call(f"{name}@cp-syn-agent", {"__CP_CALL": f"syn-{name}"})
    refused = nanchang.ami.wait(3, lambda m: m.get("Event") == "OriginateResponse", since=since)
    assert {m["Response"] for m in refused} == {"Failure"}
    assert nanchang.events(event("CPArrive"), since) == []


def test_synthetic_calls_take_the_same_way_and_touch_no_counter_queue_or_agent(
    bench: Bench, nanchang: Site, chengdu: Site
) -> None:
    nanchang.put("cp", "svc/claims", split_value({"nanchang": 60, "chengdu": 40}))
    nanchang.put("cp", "link/chengdu", "site-chengdu:0")
    queues = {site.name: queue_line(site) for site in (nanchang, chengdu)}
    here, there = nanchang.ami.mark(), chengdu.ami.mark()
    for n in range(50):
        nanchang.call("claims@cp-syn-svc", {"__CP_CALL": f"syn-{n}"}, hold_s=0.2)
    routes = nanchang.ami.wait(50, event("CPRoute", Syn="1"), since=here, within_s=20)
    answered = nanchang.ami.wait(50, event("CPAnswered", Kind="svc", Syn="1"), since=here, within_s=20)
    assert sorted(int(r["N"]) for r in routes) == list(range(50))
    assert {a["Call"]: a["Target"] for a in answered} == {r["Call"]: r["Target"] for r in routes}
    at = {r["Call"]: int(r["At"]) for r in routes}
    took = sorted(int(a["At"]) - at[a["Call"]] for a in answered if a["Target"] == "chengdu")
    print(f"moved to chengdu, answered after ms: median {took[len(took) // 2]}, longest {took[-1]}")
    for site, since, source in ((nanchang, here, "syn"), (chengdu, there, "nanchang")):
        arrived = site.events(event("CPArrive", Syn="1"), since)
        assert {a["Call"] for a in arrived} == {r["Call"] for r in routes if r["Target"] == site.name}
        assert {a["From"] for a in arrived} == {source}
        assert queue_line(site) == queues[site.name]
        assert site.events(lambda m: m.get("Event", "").startswith(("QueueCaller", "AgentCalled")), since) == []
    assert list(nanchang.database("cpstate")) == ["/cpstate/synsvc/claims"]
    assert chengdu.database("cpstate") == {}


@pytest.mark.parametrize("target", ["nanchang", "chengdu"])
def test_a_forced_synthetic_call_tries_that_site_alone_and_takes_no_decision(
    bench: Bench, nanchang: Site, target: str
) -> None:
    nanchang.put("cp", "svc/claims", split_value({"nanchang": 60, "chengdu": 40}))
    nanchang.put("cp", "link/chengdu", "site-chengdu:0")
    since = nanchang.ami.mark()
    nanchang.call("claims@cp-syn-svc", {"__CP_CALL": "syn-f", "__CP_FORCE": target})
    [answered] = nanchang.ami.wait(1, event("CPAnswered", Call="syn-f"), since=since)
    assert answered["Target"] == target
    assert nanchang.events(event("CPRoute"), since) == []
    assert nanchang.database("cpstate") == {}


def test_a_synthetic_call_that_nobody_can_take_ends_without_an_announcement(nanchang: Site) -> None:
    nanchang.put("cp", "svc/unqueued", split_value({"nanchang": 60, "elsewhere": 40}))
    since = nanchang.ami.mark()
    nanchang.call("unqueued@cp-syn-svc", {"__CP_CALL": "syn-u"})
    [ended] = nanchang.ami.wait(1, lambda m: m.get("Event") == "OriginateResponse", since=since)
    assert ended["Response"] == "Failure"
    assert nanchang.events(event("CPLast"), since) == []


def test_a_call_id_that_does_not_begin_with_syn_is_no_synthetic_call(nanchang: Site) -> None:
    nanchang.put("cp", "svc/claims", split_value({"nanchang": 100}))
    since = nanchang.ami.mark()
    nanchang.call("claims@cp-syn-svc", {"__CP_CALL": "nanchang-1"})
    nanchang.ami.wait(1, lambda m: m.get("Event") == "OriginateResponse", since=since)
    assert nanchang.events(event("CPRoute"), since) == []


@pytest.mark.parametrize("trunk", ["nc-carrier", "cd-carrier"])
def test_a_synthetic_outbound_call_leaves_by_the_trunk_it_is_told(
    bench: Bench, nanchang: Site, chengdu: Site, trunk: str
) -> None:
    outbound(bench)
    carrier_answers(bench)
    owner = nanchang if trunk == "nc-carrier" else chengdu
    here, there = nanchang.ami.mark(), owner.ami.mark()
    nanchang.call(f"national*{NUMBER}@cp-syn-out", {"__CP_CALL": "syn-o", "__CP_FORCE": trunk})
    [answered] = nanchang.ami.wait(1, event("CPAnswered", Kind="out"), since=here)
    [arrive] = owner.events(event("CPArrive", Kind="out"), there)
    assert (answered["Target"], answered["Syn"], arrive["Call"], arrive["Syn"]) == (trunk, "1", "syn-o", "1")
    nanchang.hangup_all()
    nanchang.call(f"national*{NUMBER}@cp-syn-out", {"__CP_CALL": "syn-p"})
    nanchang.ami.wait(1, event("CPAnswered", Call="syn-p"), since=here)
    assert list(nanchang.database("cpstate")) == ["/cpstate/synout/national"]
