"""The world proves itself before it judges others: its carrier, callers, phones and ledger, on sites without any plan."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import pytest

from tests.lab.credentials import sip_digest
from tests.lab.lab import Lab
from tests.lab.world import Outcome, tally

CLAIMS = "95556"
NUMBER = "02112345678"
#: The carrier waits 3 s for a first response; the rest is for a machine under load.
LEFT_WITHIN_MS = 4_500


def test_without_a_plan_a_call_is_answered_by_an_agent_of_the_first_ingress(bare: Lab) -> None:
    calls = bare.world.place(CLAIMS, count=5, rate=5, talk_ms=1000)

    assert tally(calls) == {"agent": 5}
    assert {call.ingress for call in calls} == {"nanchang"}
    assert all(call.agent.startswith("n") for call in calls)
    assert len({call.number for call in calls}) == 5
    for call in calls:
        assert call.placed_ms is not None
        assert call.answered_ms is not None
        assert call.phone_answered_ms is not None
        assert call.ended_ms is not None
        assert call.placed_ms <= call.answered_ms <= call.phone_answered_ms <= call.ended_ms
        assert call.ended_by == "caller"


def test_carrier_leaves_a_killed_site(bare: Lab) -> None:
    bare.kill("nanchang")
    calls = bare.world.place(CLAIMS, count=9, rate=3, talk_ms=500)

    assert tally(calls) == {"agent": 9}
    assert {call.ingress for call in calls} == {"chengdu"}
    assert {attempt.ingress for call in calls for attempt in call.attempts} == {"nanchang", "chengdu"}
    assert max(call.attempts[0].took_ms or 0 for call in calls) < LEFT_WITHIN_MS

    bare.start("nanchang")
    assert {call.ingress for call in bare.world.place(CLAIMS, count=3, rate=3, talk_ms=500)} == {"nanchang"}


def test_carrier_leaves_a_frozen_site_and_no_ghost_call_wakes_up_there(bare: Lab) -> None:
    bare.pause("nanchang")
    try:
        calls = bare.world.place(CLAIMS, count=9, rate=3, talk_ms=500)
    finally:
        bare.unpause("nanchang")

    assert tally(calls) == {"agent": 9}
    assert {call.ingress for call in calls} == {"chengdu"}
    assert max(call.attempts[0].took_ms or 0 for call in calls) < LEFT_WITHIN_MS
    bare.wait_for(
        "no call of a caller who is gone is left at nanchang",
        lambda: "\n0 active calls" in bare.asterisk_cli("nanchang", "core show channels"),
        within_s=10,
    )


def test_caller_who_gives_up_in_the_queue_is_not_lost(bare: Lab) -> None:
    busy = bare.world.begin(CLAIMS, count=40, rate=20, talk_ms=15_000)
    bare.wait_for(
        "all 40 agents of nanchang talk",
        lambda: (
            tally(bare.world.ledger(busy)).get("open") == 40 and all(call.talks for call in bare.world.ledger(busy))
        ),
        within_s=15,
    )
    impatient = bare.world.place(CLAIMS, count=3, rate=10, talk_ms=1000)

    assert tally(impatient) == {"queue": 3}
    assert all(call.answered_ms and not call.talks and call.ended_by == "caller" for call in impatient)
    assert tally(bare.world.wait(busy, within_s=60)) == {"agent": 40}


def test_caller_who_hangs_up_while_a_phone_rings_leaves_it_fit_for_the_next(bare: Lab) -> None:
    # The phone rings for 200 ms: these callers go before.
    short = bare.world.place(CLAIMS, count=10, rate=10, talk_ms=100)
    assert tally(short) == {"queue": 10}
    assert tally(bare.world.place(CLAIMS, count=10, rate=10, talk_ms=500)) == {"agent": 10}


def test_caller_who_gives_up_before_anything_answered_counts_as_lost(bare: Lab) -> None:
    bare.pause("nanchang")
    try:
        calls = bare.world.place(CLAIMS, count=2, rate=5, ring_ms=1000)
    finally:
        bare.unpause("nanchang")
    assert tally(calls) == {"lost": 2}
    assert all(call.ended_by == "caller" and call.attempts[-1].status == "CANCEL" for call in calls)


def test_last_announcement_is_told_from_a_loss(bare: Lab) -> None:
    # A service without a queue anywhere: nothing is left but the last announcement.
    bare.asterisk_cli("nanchang", "database put cp did/95556 nowhere")
    calls = bare.world.place(CLAIMS, count=3, rate=5, talk_ms=500)

    assert tally(calls) == {"announcement": 3}
    for call in calls:
        assert call.answered_ms is None
        assert [(attempt.sip, attempt.progress) for attempt in call.attempts] == [("480", True)]


def test_call_that_no_site_takes_is_lost(bare: Lab) -> None:
    calls = bare.world.place("12345", count=2, rate=5, talk_ms=500)

    assert tally(calls) == {"lost": 2}
    assert all("nanchang" in call.reason and "404" in call.reason for call in calls)


@pytest.mark.parametrize(
    ("site", "agent", "trunk"), [("nanchang", "n01", "nc-carrier"), ("chengdu", "c01", "cd-carrier")]
)
def test_outbound_call_is_seen_with_the_trunk_it_came_by(bare: Lab, site: str, agent: str, trunk: str) -> None:
    _let_out(bare, site, trunk)
    calls = bare.world.outbound(agent, site=site, number=NUMBER, count=5)

    assert tally(calls) == {"answered": 5}
    assert {(call.site, call.agent) for call in calls} == {(site, agent)}
    assert [call.number for call in calls] == [str(int(NUMBER) + i).zfill(11) for i in range(5)]
    assert all(call.ended_by == "carrier" for call in calls)


def test_outbound_call_that_does_not_leave_is_lost(bare: Lab) -> None:
    _let_out(bare, "nanchang", "nc-carrier")

    assert tally(bare.world.outbound("n01", site="nanchang", number=NUMBER, password="wrong")) == {"lost": 1}
    assert tally(bare.world.outbound("n01", site="nanchang", number="99912345678")) == {"lost": 1}


def test_home_agent_registers_with_a_digest_refreshes_and_answers(bare: Lab) -> None:
    password = "a-password-of-the-test"
    _enrol(bare, "chengdu", "home01", password)
    refused = bare.world.register("home01", password="not-it", site="chengdu")
    assert refused.result == "refused"

    accepted = bare.world.register("home01", password=password, site="chengdu", refresh_ms=500)
    try:
        assert accepted.result == "registered"
        bare.wait_for(
            "the phone registers again",
            lambda: bare.world.registration_words("home01")[:3] == ["registered"] * 3,
            within_s=10,
        )
        # Rung straight by the site, with a caller number that the ledger does not know: the phone's own log counts.
        bare.asterisk_cli("chengdu", "channel originate PJSIP/home01 application Wait 1")
        bare.wait_for(
            "the home agent's phone answers",
            lambda: "answered" in bare.exec("world", ["sh", "-c", "cat /var/lib/world/phones/home01-*/sipp.log"]).out,
            within_s=10,
        )
    finally:
        bare.world.unregister("home01")


@pytest.mark.timeout(300)
def test_ten_calls_a_second_for_twenty_seconds_lose_nothing(
    bare: Lab, record_property: Callable[[str, object], None]
) -> None:
    services = ("nanchang", "world")
    before = {service: bare.cpu_s(service) for service in services}
    calls = bare.world.place(CLAIMS, count=200, rate=10, talk_ms=3000)
    used = {service: bare.cpu_s(service) - before[service] for service in services}

    assert tally(calls) == {"agent": 200}
    placed = [call.placed_ms for call in calls if call.placed_ms is not None]
    took_s = (max(placed) - min(placed)) / 1000
    assert 19 < took_s < 22
    for service, cpu_s in used.items():
        record_property(f"cpu_s_{service}", round(cpu_s, 2))
        print(f"{service}: {cpu_s:.2f} s of processor for 200 calls")


def test_load_in_the_background_accounts_for_every_call_through_a_kill(bare: Lab) -> None:
    with bare.world.load(CLAIMS, rate=5, talk_ms=2000) as batch:
        bare.wait_for("calls are answered", lambda: tally(bare.world.ledger(batch)).get("agent", 0) >= 2, within_s=15)
        cut = {call.number for call in bare.world.ledger(batch) if call.outcome is Outcome.OPEN and call.answered_ms}
        bare.kill("nanchang")
        bare.wait_for(
            "calls are answered at chengdu",
            lambda: any(call.ingress == "chengdu" and call.talks for call in bare.world.ledger(batch)),
            within_s=20,
        )
    calls = bare.world.ledger(batch)

    outcomes = tally(calls)
    assert outcomes.get("open", 0) == 0
    assert outcomes.get("lost", 0) == 0
    assert cut, "the kill met no call in progress: the test proves nothing"
    assert {call.ingress for call in calls} == {"nanchang", "chengdu"}


def _let_out(lab: Lab, site: str, trunk: str) -> None:
    """The smallest plan that lets calls out: one group, one trunk of this site."""
    body = f"1:1.0.1:{trunk}:{'a' * 100}"
    value = f"{hashlib.md5(body.encode()).hexdigest()}:{body}"
    for key, text in (("out/national", value), (f"trunk/{trunk}", f"{site}:carrier:0"), ("prefix/0", "national")):
        lab.asterisk_cli(site, f"database put cp {key} {text}")


def _enrol(lab: Lab, site: str, agent: str, password: str) -> None:
    objects = {
        "cp/auth": {"auth_type": "digest", "username": agent, "password_digest": sip_digest(agent, password)},
        "cp/aor": {"max_contacts": "1", "remove_existing": "yes"},
        "cp/endpoint": {"context": "cp-from-agent", "aors": agent, "auth": agent, "disallow": "all", "allow": "ulaw"},
    }
    for family, fields in objects.items():
        value = "{" + ",".join(f'\\"{key}\\":\\"{text}\\"' for key, text in fields.items()) + "}"
        lab.asterisk_cli(site, f'database put {family} {agent} "{value}"')
    lab.asterisk_cli(site, "module reload res_pjsip.so")
