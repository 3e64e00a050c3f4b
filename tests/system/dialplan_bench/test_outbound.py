"""Outbound: shares over a local and a remote trunk by the same code, longest prefix, caps, and nothing else to dial."""

import time

import pytest

from tests.system.dialplan_bench.ami import event
from tests.system.dialplan_bench.bench import ADDRESS, SLOTS, Bench, Site, docker, split_value, table, wait_until

pytestmark = pytest.mark.system

NUMBER = "013800000001"
SHARES = {"nc-carrier": 60, "cd-carrier": 40}
TRUNKS = {"nc-carrier": "nanchang:carrier", "cd-carrier": "chengdu:carrier"}


def outbound(bench: Bench, *, shares: dict[str, int] | None = None, cap: int = 0) -> None:
    for site in bench.sites.values():
        site.put("cp", "prefix/0", "national")
        site.put("cp", "out/national", split_value(shares or SHARES))
        for trunk, record in TRUNKS.items():
            site.put("cp", f"trunk/{trunk}", f"{record}:{cap}")
        other = "chengdu" if site.name == "nanchang" else "nanchang"
        site.put("cp", f"link/{other}", f"site-{other}:0")


def carrier_answers(bench: Bench, scenario: tuple[str, ...] = ("-sn", "uas", "-aa")) -> None:
    """The carrier takes calls, and both sites know it."""
    bench.sipp_in_background("carrier", "-p", "5060", *scenario)
    for site in bench.sites.values():
        wait_until(f"the carrier lives for {site.name}", CarrierLives(site), within_s=15)


class CarrierLives:
    """True once the carrier has been Avail for longer than an OPTIONS of the time before it can still take to fail (1 s)."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._since: float | None = None

    def __call__(self) -> bool:
        lines = [line.split() for line in self._site.rx("pjsip show contacts").splitlines() if "carrier/" in line]
        if lines[0][-2] != "Avail":
            self._since = None
            # Asked at once instead of with the next of the regular OPTIONS.
            self._site.rx("pjsip qualify carrier")
            return False
        self._since = self._since or time.monotonic()
        return time.monotonic() - self._since > 1.2


def agent_dials(bench: Bench, number: str, *, agent: str = "n01") -> str:
    """An agent's phone dials, with forged headers; what came of it."""
    done = bench.sipp(
        "phones", ADDRESS["nanchang"], "-sf", "/sipp/agent_uac.xml", "-s", number, "-key", "agent", agent,
        "-au", agent, "-ap", f"pw-{agent}", "-m", "1", "-trace_logs", "-log_file", "/tmp/agent.log",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr
    return bench.read("phones", "/tmp/agent.log").strip()


def test_an_agent_s_calls_follow_the_table_over_a_local_and_a_remote_trunk(
    bench: Bench, nanchang: Site, chengdu: Site
) -> None:
    outbound(bench)
    carrier_answers(bench)
    here, there = nanchang.ami.mark(), chengdu.ami.mark()
    for _ in range(5):
        assert agent_dials(bench, NUMBER) == "ANSWERED"
    routes = nanchang.events(event("CPRoute"), here)
    slots = table(list(SHARES.values()))
    assert [r["Target"] for r in routes] == [list(SHARES)[SLOTS.index(slots[n])] for n in range(5)]
    assert {(r["Kind"], r["Id"], r["Syn"]) for r in routes} == {("out", "national", "0")}
    for site, since, trunk, source, hops in (
        (nanchang, here, "nc-carrier", "agent", "0"),
        (chengdu, there, "cd-carrier", "nanchang", "1"),
    ):
        arrived = site.events(event("CPArrive"), since)
        assert [a["Call"] for a in arrived] == [r["Call"] for r in routes if r["Target"] == trunk]
        assert {(a["Kind"], a["Id"], a["From"], a["Hops"]) for a in arrived} == {("out", "national", source, hops)}
    answered = nanchang.events(event("CPAnswered"), here)
    assert [(a["Call"], a["Target"]) for a in answered] == [(r["Call"], r["Target"]) for r in routes]
    assert chengdu.events(event("CPAnswered"), there) == []
    assert not any(r["Call"].startswith("forged") for r in routes)


def test_a_hundred_calls_at_once_share_the_trunks_exactly(bench: Bench, nanchang: Site) -> None:
    outbound(bench)
    since = nanchang.ami.mark()
    for _ in range(100):
        nanchang.call(f"{NUMBER}@cp-from-agent", hold_s=0.2)
    routes = nanchang.ami.wait(100, event("CPRoute"), since=since, within_s=30)
    assert sorted(int(r["N"]) for r in routes) == list(range(100))
    assert [sum(r["Target"] == t for r in routes) for t in SHARES] == [60, 40]


@pytest.mark.parametrize(
    ("number", "refusal"),
    [
        ("svc-claims", "404"),
        ("trk*nc-carrier*013800000001", "404"),
        ("n02", "404"),
        ("site-chengdu", "404"),
        ("s", "404"),
        ("95556", "404"),
        ("0138&PJSIP", "484"),
        ("0138*1", "484"),
        ("0" + "1" * 20, "484"),
    ],
)
def test_an_agent_can_dial_nothing_but_numbers_with_a_prefix(bench: Bench, number: str, refusal: str) -> None:
    outbound(bench)
    assert agent_dials(bench, number) == f"REFUSED {refusal}"


def test_the_longest_prefix_wins(bench: Bench, nanchang: Site) -> None:
    outbound(bench)
    nanchang.put("cp", "prefix/010", "beijing")
    nanchang.put("cp", "out/beijing", split_value({"nc-carrier": 100}))
    since = nanchang.ami.mark()
    for number in ("01012345678", "0791123456", "01"):
        nanchang.call(f"{number}@cp-from-agent", hold_s=0.2)
    routes = nanchang.ami.wait(3, event("CPRoute"), since=since)
    assert sorted(r["Id"] for r in routes) == ["beijing", "national", "national"]


def test_a_full_trunk_is_never_over_its_cap_wherever_the_call_came_from(
    bench: Bench, nanchang: Site, chengdu: Site
) -> None:
    outbound(bench, shares={"cd-carrier": 100, "nc-carrier": 0}, cap=3)
    carrier_answers(bench)
    here, there = nanchang.ami.mark(), chengdu.ami.mark()
    for _ in range(3):
        count = len(chengdu.events(event("CPArrive"), there))
        nanchang.call(f"{NUMBER}@cp-from-agent", hold_s=30)
        chengdu.ami.wait(count + 1, event("CPArrive"), since=there)
    for _ in range(5):
        nanchang.call(f"{NUMBER}@cp-from-agent", hold_s=30)
    left = nanchang.ami.wait(7, event("CPNext"), since=here)
    assert len(chengdu.events(event("CPArrive"), there)) == 3
    # Five come back from chengdu; three of them find room on the local trunk, or fewer when they met at the last place.
    back = [e for e in left if e["Target"] == "cd-carrier"]
    assert {(e["Status"], e["Cause"]) for e in back} == {("CONGESTION", "34")}
    assert len(nanchang.events(event("CPArrive"), here)) <= 3


@pytest.mark.parametrize("first", list(TRUNKS))
@pytest.mark.parametrize(
    ("code", "tried", "agent_hears"),
    [("486", 1, "486"), ("600", 1, "486"), ("480", 1, "480"), ("404", 2, "503"), ("503", 2, "503"), ("603", 2, "503")],
)
def test_busy_and_no_answer_are_the_last_word_and_other_refusals_are_not(
    bench: Bench, nanchang: Site, first: str, code: str, tried: int, agent_hears: str
) -> None:
    second = next(trunk for trunk in TRUNKS if trunk != first)
    outbound(bench, shares={first: 100, second: 0})
    scenario = f"/tmp/refuse_{code}.xml"
    docker("exec", bench.name("carrier"), "sh", "-c", f"sed 's/ 486 / {code} /' /sipp/uas_refuse.xml > {scenario}")
    carrier_answers(bench, ("-sf", scenario, "-aa"))
    since = nanchang.ami.mark()
    assert agent_dials(bench, NUMBER) == f"REFUSED {agent_hears}"
    left = [e["Target"] for e in nanchang.events(event("CPNext"), since)]
    assert left == ([] if tried == 1 else [first, second])


def test_without_a_plan_for_the_group_the_call_is_refused(bench: Bench, nanchang: Site) -> None:
    outbound(bench)
    nanchang.put("cp", "out/national", "broken")
    since = nanchang.ami.mark()
    assert agent_dials(bench, NUMBER) == "REFUSED 503"
    [corrupt] = nanchang.events(event("CPCorrupt"), since)
    assert corrupt["Key"] == "cp/out/national"
