"""The daemons on real servers: each verb of the first slice, seen in calls, registrations and the journal."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator

import msgspec
import pytest

from controlplane.cli.secrets import digest, new_password
from controlplane.contract import command as commands
from controlplane.contract.operation import Operation, OperationState
from controlplane.contract.plan import SiteMode
from tests.lab.commander import Commander
from tests.lab.lab import Lab
from tests.lab.layout import AGENT_LETTER, SERVICES
from tests.lab.shell import LabError
from tests.lab.world import tally

CLAIMS = SERVICES["claims"]


@pytest.fixture(scope="module")
async def desk(daemons: Lab) -> AsyncIterator[Commander]:
    commander = Commander(daemons)
    async with commander.listening():
        await commander.settled(within_s=30)
        yield commander


@pytest.fixture
async def calm(desk: Commander) -> AsyncIterator[Commander]:
    """A fleet at its first shares, nothing running; left so by each test."""
    await desk.settled(within_s=40)
    yield desk
    await desk.settled(within_s=40)
    plan = desk.plan
    assert plan is not None
    if plan.paused_at is not None:
        await desk.done(commands.Resume)
    for site in desk.settings.fleet.sites:
        if plan.sites[site].mode is not SiteMode.IN_SERVICE:
            await desk.done(commands.Restore, site=site)
    for service, configured in desk.settings.fleet.services.items():
        await desk.done(commands.Shift, service=service, shares=configured.shares)
    for group, configured_group in desk.settings.fleet.groups.items():
        await desk.done(commands.Trunks, group=group, shares=configured_group.shares)
    for agent in list(desk.plan.agents if desk.plan else ()):
        await desk.done(commands.AgentsRevoke, agent=agent)


def controlplane(lab: Lab, *argv: str, timeout_s: float = 60) -> tuple[int, str]:
    done = lab.exec("desk", ["controlplane", *argv], timeout_s=timeout_s, check=False)
    return done.code, done.out + done.err


# -- shares


async def test_a_shift_is_followed_by_the_next_calls(calm: Commander, daemons: Lab) -> None:
    done = await calm.done(commands.Shift, service="claims", shares={"nanchang": 25, "chengdu": 75})
    assert done.unproven == ()
    calls = await asyncio.to_thread(daemons.world.place, CLAIMS, count=20, rate=10.0, talk_ms=1000)
    assert tally(calls) == {"agent": 20}
    letters = Counter(call.talks[-1].agent[0] for call in calls)
    assert abs(letters[AGENT_LETTER["chengdu"]] - 15) <= 1


async def test_mosquitto_pub_works_as_well_as_the_command_line(calm: Commander, daemons: Lab) -> None:
    now = time.time()
    command = {
        "id": str(uuid.uuid4()),
        "kind": "shift",
        "issued_by": "wang",
        "issued_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now)),
        "expires_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now + 60)),
        "service": "claims",
        "shares": {"nanchang": 0, "chengdu": 100},
    }
    account = daemons.account("wang")
    host, port = daemons.broker_address()
    argv = ["mosquitto_pub", "-V", "mqttv5", "-h", host, "-p", str(port), "-u", account.user, "-P", account.password]
    await asyncio.to_thread(
        daemons.exec, "desk", [*argv, "-q", "1", "-t", calm.topics.command, "-m", json.dumps(command)]
    )
    await calm.wait_for(
        "the shift is in the plan",
        lambda: calm.plan is not None and calm.plan.services["claims"].shares == {"chengdu": 100},
        within_s=10,
    )
    await calm.settled()


async def test_outbound_calls_follow_the_trunk_shares(calm: Commander, daemons: Lab) -> None:
    await calm.done(commands.Trunks, group="national", shares={"nc-carrier": 30, "cd-carrier": 70})
    calls = await asyncio.to_thread(
        daemons.world.outbound, "n02", site="nanchang", number="02155550000", count=20, rate=10.0
    )
    assert tally(calls) == {"answered": 20}
    seen = Counter(call.site for call in calls)
    assert abs(seen["nanchang"] - 6) <= 1
    assert abs(seen["chengdu"] - 14) <= 1


async def test_undo_resets_a_shift_and_leaves_what_changed_since(calm: Commander) -> None:
    first = await calm.done(commands.Shift, service="claims", shares={"nanchang": 10, "chengdu": 90})
    await calm.done(commands.Undo, operation=first.id)
    await calm.settled()
    assert calm.plan is not None
    assert calm.plan.services["claims"].shares == {"nanchang": 60, "chengdu": 40}
    second = await calm.done(commands.Shift, service="claims", shares={"nanchang": 10, "chengdu": 90})
    await calm.done(commands.Shift, service="claims", shares={"nanchang": 11, "chengdu": 89})
    undone = await calm.done(commands.Undo, operation=second.id)
    assert any("changed by somebody since" in line for line in undone.unproven)
    await calm.settled()
    assert calm.plan.services["claims"].shares == {"nanchang": 11, "chengdu": 89}


async def test_a_dry_run_says_what_would_change_and_changes_nothing(calm: Commander) -> None:
    before = calm.plan
    said = await calm.command(commands.Failover, site="nanchang", to="chengdu", dry_run=True)
    assert said.state is OperationState.ACCEPTED
    assert said.predicted["changes"]
    await calm.settled()
    assert calm.plan == before


# -- failover


async def test_failover_of_a_living_site_forwards_and_restore_brings_it_back(calm: Commander, daemons: Lab) -> None:
    done = await calm.done(commands.Failover, site="nanchang", to="chengdu")
    assert done.unproven == ()
    calls = await asyncio.to_thread(daemons.world.place, CLAIMS, count=10, rate=10.0, talk_ms=500)
    assert tally(calls) == {"agent": 10}
    assert {call.talks[-1].agent[0] for call in calls} == {"c"}
    # The carrier still delivers at nanchang: the living site forwards.
    assert {call.ingress for call in calls} == {"nanchang"}
    await calm.done(commands.Restore, site="nanchang")
    await calm.settled()
    assert calm.plan is not None
    assert calm.plan.services["claims"].shares == {"nanchang": 60, "chengdu": 40}
    assert calm.plan.groups["national"].shares == {"nc-carrier": 100}


async def test_an_operation_goes_on_after_its_coordinator_was_killed(calm: Commander, daemons: Lab) -> None:
    """An enrolment that waits for its phone stands in for a long operation: the plan carries it over the kill."""
    password = new_password()
    body = {
        "kind": "agents.enrol", "agent": "home07", "name": "Wu", "site": "chengdu", "services": ["claims"],
        "digest": digest("home07", password), "wait_s": 60,
    }  # fmt: skip
    id_ = await _publish(calm, body)
    await calm.wait_for("it runs", lambda: calm.plan is not None and calm.plan.running is not None, within_s=10)
    assert calm.plan is not None
    epoch = calm.plan.key.epoch
    await asyncio.to_thread(daemons.kill, "coordinator")
    await asyncio.to_thread(daemons.start, "coordinator")
    await calm.wait_for("a new epoch", lambda: calm.plan is not None and calm.plan.key.epoch > epoch, within_s=20)
    assert calm.plan.running is not None
    assert calm.plan.running.id == id_
    await asyncio.to_thread(daemons.world.register, "home07", password=password, site="chengdu", within_s=20.0)
    try:
        await calm.wait_for("it ends", lambda: calm.plan is not None and calm.plan.running is None, within_s=40)
        assert calm.plan.past[-1].id == id_
        assert calm.plan.past[-1].state is OperationState.DONE
        assert calm.plan.past[-1].unproven == ()
    finally:
        await asyncio.to_thread(daemons.world.unregister, "home07")


# -- agents


async def test_a_home_agent_is_enrolled_rung_and_revoked(calm: Commander, daemons: Lab) -> None:
    password = new_password()
    world = daemons.world
    enrolling = asyncio.create_task(
        calm.done(
            commands.AgentsEnrol, agent="home02", name="O'Brien \"Wáng\" 王", site="chengdu", services=["enquiries"],
            digest=digest("home02", password), wait_s=40,
        )
    )  # fmt: skip
    await asyncio.to_thread(world.register, "home02", password=password, site="chengdu", within_s=20.0)
    try:
        done = await enrolling
        assert done.unproven == ()
        # Nothing but the digest is on the server, and no clear text anywhere.
        assert password not in daemons.asterisk_cli("chengdu", "database show cp")
        await calm.done(commands.Shift, service="enquiries", shares={"chengdu": 100})
        calls = await asyncio.to_thread(world.place, SERVICES["enquiries"], count=45, rate=15.0, talk_ms=2000)
        assert "home02" in {talk.agent for call in calls for talk in call.talks}
        revoked = await calm.done(commands.AgentsRevoke, agent="home02")
        assert revoked.unproven == ()
        assert "home02" not in daemons.asterisk_cli("chengdu", "queue show")
    finally:
        await asyncio.to_thread(world.unregister, "home02")
    again = await asyncio.to_thread(world.register, "home02", password=password, site="chengdu")
    await asyncio.to_thread(world.unregister, "home02")
    assert again.result != "registered"


async def test_a_wrong_password_does_not_register_and_the_enrolment_says_so(calm: Commander, daemons: Lab) -> None:
    enrolling = asyncio.create_task(
        calm.done(
            commands.AgentsEnrol, agent="home03", name="Chen", site="nanchang", services=["claims"],
            digest=digest("home03", "right"), wait_s=4,
        )
    )  # fmt: skip
    phone = await asyncio.to_thread(daemons.world.register, "home03", password="wrong", site="nanchang")
    await asyncio.to_thread(daemons.world.unregister, "home03")
    done = await enrolling
    assert phone.result != "registered"
    assert any("has not registered" in line for line in done.unproven)


async def test_an_id_that_the_sites_own_configuration_has_is_not_taken(calm: Commander, daemons: Lab) -> None:
    fields = {"name": "Wu", "services": ["claims"], "digest": digest("n01", "x"), "wait_s": 5}
    refused = await calm.command(commands.AgentsEnrol, agent="carrier", site="nanchang", **fields)
    assert {r.rule for r in refused.refusals} == {"reserved-name"}
    ended = await calm.command(commands.AgentsEnrol, agent="n01", site="nanchang", **fields)
    assert ended.state is OperationState.UNDONE
    assert any("pjsip.conf" in line for line in ended.unproven)
    assert "cp/endpoint/n01" not in daemons.asterisk_cli("nanchang", "database show cp")


# -- pause, cancel, takeover


async def test_pause_holds_a_running_operation_until_resume(calm: Commander) -> None:
    body = {
        "kind": "agents.enrol", "agent": "home04", "name": "Zhao", "site": "chengdu", "services": ["claims"],
        "digest": digest("home04", "x"), "wait_s": 3,
    }  # fmt: skip
    await _publish(calm, body)
    await calm.wait_for("it runs", lambda: calm.plan is not None and calm.plan.running is not None, within_s=10)
    await calm.done(commands.Pause, reason="test")

    def state() -> OperationState | None:
        return calm.plan.running.state if calm.plan and calm.plan.running else None

    await calm.wait_for("it waits", lambda: state() is OperationState.WAITING, within_s=10)
    await calm.done(commands.Resume)
    await calm.wait_for("it goes on", lambda: state() in (OperationState.RUNNING, None), within_s=10)
    await calm.wait_for("it ends", lambda: calm.plan is not None and calm.plan.running is None, within_s=60)


async def test_cancel_ends_an_enrolment_that_waits_and_takes_it_back(calm: Commander) -> None:
    body = {
        "kind": "agents.enrol", "agent": "home05", "name": "Sun", "site": "chengdu", "services": ["claims"],
        "digest": digest("home05", "x"), "wait_s": 600,
    }  # fmt: skip
    id_ = await _publish(calm, body)
    await calm.wait_for("it runs", lambda: calm.plan is not None and calm.plan.running is not None, within_s=10)
    await calm.done(commands.Cancel, operation=id_)
    await calm.settled()
    assert calm.plan is not None
    assert calm.plan.past[-1].state is OperationState.CANCELLED
    assert "home05" not in calm.plan.agents
    await calm.wait_for("its seat is gone", lambda: "home05" not in calm.reports["chengdu"].seats, within_s=10)


async def test_takeover_moves_authority_and_the_old_leader_stops(calm: Commander, daemons: Lab) -> None:
    await asyncio.to_thread(daemons.up, ["coordinator2"])
    try:
        await calm.settled()
        before = calm.plan
        assert before is not None
        done = await _until_answered(calm, "coordinator2")
        assert done.unproven == ()
        await calm.settled()
        assert calm.plan is not None
        assert calm.plan.key.holder == "coordinator2"
        assert calm.plan.services == before.services
        await calm.done(commands.Shift, service="claims", shares={"nanchang": 50, "chengdu": 50})
        await calm.settled()
        assert calm.plan.key.holder == "coordinator2"
        # The old leader, started again, does not take authority back by itself.
        await asyncio.to_thread(daemons.restart, "coordinator")
        await calm.wait_for(
            "it stands by",
            lambda: '"role":"standby"' in daemons.logs("coordinator").rsplit("bus.up", 1)[-1],
            within_s=20,
        )
        assert calm.plan.key.holder == "coordinator2"
        await _until_answered(calm, "coordinator")
        await calm.settled()
        assert calm.plan.key.holder == "coordinator"
    finally:
        await asyncio.to_thread(daemons.stop, "coordinator2")


async def _until_answered(desk: Commander, host: str) -> Operation:
    """A standby obeys when it has listened for a while: ask until it does."""
    for _ in range(5):
        try:
            return await desk.done(commands.Takeover, host=host)
        except LabError as error:  # nobody answered yet
            last = error
    raise AssertionError(f"{host} never took over: {last}")


# -- repair and hands off


async def test_a_change_by_hand_is_repaired_and_hands_off_is_kept(calm: Commander, daemons: Lab) -> None:
    def value() -> str:
        return daemons.asterisk_cli("nanchang", "database get cp/did 95556")

    daemons.asterisk_cli("nanchang", "database put cp/did 95556 nonsense")
    await asyncio.to_thread(daemons.wait_for, "the DID is repaired", lambda: "claims" in value(), within_s=40)
    daemons.asterisk_cli("nanchang", "database put cp hold engineer")
    try:
        await calm.wait_for("hands off is shown", lambda: calm.reports["nanchang"].hands_off, within_s=10)
        before = daemons.asterisk_cli("nanchang", "database show cp")
        shares = {"nanchang": 1, "chengdu": 99}
        refused = await calm.command(commands.Shift, service="claims", shares=shares)
        assert {r.rule for r in refused.refusals} == {"hands-off"}
        forced = await calm.done(commands.Shift, service="claims", shares=shares, override=["hands-off"])
        assert any("held by an engineer" in line for line in forced.unproven)
        assert daemons.asterisk_cli("nanchang", "database show cp") == before
    finally:
        daemons.asterisk_cli("nanchang", "database del cp hold")
    await calm.settled(within_s=40)


# -- bad input


def _wrong(desk: Commander, kind: str, **fields: object) -> dict[str, object]:
    now = time.time()
    return {
        "id": str(uuid.uuid4()), "kind": kind, "issued_by": "wang",
        "issued_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now - 120)),
        "expires_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now + 60)),
    } | fields  # fmt: skip


GOOD = {"service": "claims", "shares": {"nanchang": 50, "chengdu": 50}}
BAD: dict[str, tuple[str, dict[str, object]]] = {
    "unknown-kind": ("shfit", GOOD),
    "unknown-field": ("shift", GOOD | {"sharse": 1}),
    "missing-field": ("shift", {"service": "claims"}),
    "bad-field": ("shift", GOOD | {"service": "Claims\r\nX: y"}),
    "unknown-site": ("shift", {"service": "claims", "shares": {"nanchang": 50, "wuhan": 50}}),
    "unknown-service": ("shift", GOOD | {"service": "loans"}),
    "unknown-trunk": ("trunks", {"group": "national", "shares": {"nc-carrier": 50, "wh-carrier": 50}}),
    "shares-sum": ("shift", {"service": "claims", "shares": {"nanchang": 50, "chengdu": 49}}),
    "expired": ("shift", GOOD | {"expires_at": "2020-01-01T00:01:00Z", "issued_at": "2020-01-01T00:00:00Z"}),
    "from-the-future": (
        "shift", GOOD | {"issued_at": "2099-01-01T00:00:00Z", "expires_at": "2099-01-01T00:01:00Z"},
    ),
    "unknown-agent": ("agents.revoke", {"agent": "nobody"}),
    "unknown-operation": ("undo", {"operation": str(uuid.uuid4())}),
    "unknown-host": ("takeover", {"host": "elsewhere"}),
}  # fmt: skip


@pytest.mark.parametrize("rule", BAD)
async def test_bad_input_is_refused_by_name_and_changes_nothing(calm: Commander, daemons: Lab, rule: str) -> None:
    kind, fields = BAD[rule]
    before = calm.plan
    body = _wrong(calm, kind, **fields)
    said = await _answer_to(calm, msgspec.json.encode(body))
    assert said.state is OperationState.REFUSED
    assert [r.rule for r in said.refusals] == [rule]
    assert said.refusals[0].detail
    assert calm.plan == before
    rows = json.loads(
        daemons.exec("coordinator", ["controlplane", "history", "--local", "--json", "--limit", "20"]).out
    )
    assert any(row["kind"] == "refused" and row["id"] == body["id"] for row in rows)


async def test_what_is_not_json_is_refused(calm: Commander) -> None:
    said = await _answer_to(calm, b"shift claims 50 50 please")
    assert [r.rule for r in said.refusals] == ["not-json"]


async def test_a_repeated_command_is_refused_and_its_first_word_stays(calm: Commander) -> None:
    body = _wrong(calm, "shift", service="claims", shares={"nanchang": 55, "chengdu": 45})
    first = await _answer_to(calm, msgspec.json.encode(body), final=True)
    assert first.state is OperationState.DONE
    again = await _answer_to(calm, msgspec.json.encode(body))
    assert [r.rule for r in again.refusals] == ["repeated"]
    history = controlplane(calm.lab, "history", "--json")
    states = {o["id"]: o["state"] for o in json.loads(history[1])}
    assert states[body["id"]] == "done"


async def test_a_retained_command_is_refused_live_and_by_a_coordinator_that_comes(
    calm: Commander, daemons: Lab
) -> None:
    body = _wrong(calm, "shift", service="claims", shares={"nanchang": 0, "chengdu": 100})
    account = daemons.account("wang")
    host, port = daemons.broker_address()
    argv = ["mosquitto_pub", "-V", "mqttv5", "-h", host, "-p", str(port), "-u", account.user, "-P", account.password]
    put = [*argv, "-q", "1", "-r", "-t", calm.topics.command]
    before = calm.plan
    assert before is not None

    def refused() -> int:
        argv = ["controlplane", "history", "--local", "--json", "--limit", "200"]
        rows = json.loads(daemons.exec("coordinator", argv).out)
        rules = [
            r["rule"]
            for row in rows
            if row["kind"] == "refused" and row["id"] == body["id"]
            for r in row["body"]["refusals"]
        ]
        assert set(rules) <= {"retained"}
        return len(rules)

    await asyncio.to_thread(daemons.exec, "desk", [*put, "-m", json.dumps(body)])
    try:
        await asyncio.to_thread(daemons.wait_for, "refused live", lambda: refused() == 1, within_s=10)
        await asyncio.to_thread(daemons.restart, "coordinator")
        await asyncio.to_thread(daemons.wait_for, "refused on coming", lambda: refused() == 2, within_s=20)
        epoch = before.key.epoch
        await calm.wait_for("it leads", lambda: calm.plan is not None and calm.plan.key.epoch > epoch, within_s=20)
        await calm.settled()
        assert calm.plan is not None
        assert calm.plan.services == before.services
    finally:
        await asyncio.to_thread(daemons.exec, "desk", [*put, "-n"])


# -- the command line


async def test_the_command_line_says_how_it_went_by_its_exit_code(calm: Commander, daemons: Lab) -> None:
    code, said = await asyncio.to_thread(controlplane, daemons, "shift", "claims", "nanchang=45", "chengdu=55")
    assert code == 0, said
    code, said = await asyncio.to_thread(controlplane, daemons, "shift", "loans", "nanchang=45", "chengdu=55")
    assert code == 3, said
    assert "unknown-service" in said
    code, said = await asyncio.to_thread(controlplane, daemons, "shift", "claims", "nanchang=45")
    assert code == 2, said
    assert "add up to 45" in said
    code, said = await asyncio.to_thread(controlplane, daemons, "status", "--json")
    assert code == 0, said
    assert set(json.loads(said)["reports"]) == {"nanchang", "chengdu"}
    code, said = await asyncio.to_thread(
        controlplane, daemons, "call", "claims", "--count", "20", "--rate", "20", "--json"
    )
    assert code == 0, said
    calls = json.loads(said)["calls"]
    assert len(calls) == 20
    assert all(call["site"] == call["target"] and call["setup_ms"] is not None for call in calls)
    assert abs(sum(call["site"] == "nanchang" for call in calls) - 9) <= 1


async def test_check_finds_nothing_wrong_at_a_site(calm: Commander, daemons: Lab) -> None:
    done = await asyncio.to_thread(daemons.exec, "nanchang-daemon", ["controlplane", "check", "--json"], check=False)
    found = json.loads(done.out)
    assert done.code == 0, found
    assert {f["what"] for f in found if f["grade"] == "ok"} >= {"configuration", "broker", "AMI", "dialplan", "disk"}


WRONG_CONFIG = {
    "AMI secret": ("nanchang-daemon", "s/ami.secret/wrong.secret/", "login as controlplane"),
    "broker secret": ("nanchang-daemon", "s/mqtt.secret/wrong.secret/", "refuses account site-nanchang"),
    "AMI host": ("nanchang-daemon", "s/127.0.0.1/127.0.0.9/", "127.0.0.9"),
    "broker port": ("nanchang-daemon", "s/1883/1884/", "nothing listens there"),
}


@pytest.mark.parametrize("what", WRONG_CONFIG)
async def test_check_says_in_one_line_what_is_wrong(daemons: Lab, what: str) -> None:
    service, edit, words = WRONG_CONFIG[what]
    script = (
        "set -e; d=$(mktemp -d); cp /etc/controlplane/* $d; echo wrong > $d/wrong.secret; "
        f"sed -i '{edit}' $d/controlplane.toml; controlplane check --config $d/controlplane.toml --json"
    )
    done = await asyncio.to_thread(daemons.exec, service, ["sh", "-c", script], check=False, timeout_s=40)
    assert done.code == 1, done.out
    faults = [f["detail"] for f in json.loads(done.out) if f["grade"] == "fault"]
    assert len(faults) == 1, faults
    assert words in faults[0]
    assert "\n" not in faults[0]


# -- at rest


async def test_a_site_daemon_at_rest_is_small(calm: Commander, daemons: Lab) -> None:
    await calm.settled()
    before, begun = daemons.cpu_s("nanchang-daemon"), time.monotonic()
    await asyncio.to_thread(daemons.wait_for, "ten seconds", lambda: time.monotonic() - begun >= 10, within_s=12)
    share = (daemons.cpu_s("nanchang-daemon") - before) / (time.monotonic() - begun)
    status = daemons.exec("nanchang-daemon", ["sh", "-c", "cat /proc/[0-9]*/status"]).out
    resident_mb = max(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS")) / 1024
    assert resident_mb < 60, f"{resident_mb:.0f} MB"
    assert share < 0.01, f"{share:.2%} of a core"


# -- parts


async def _publish(desk: Commander, body: dict[str, object]) -> str:
    """Send a command and do not wait for it."""
    from controlplane.cli.desk import broker_of
    from controlplane.edge.mqtt import open_desk

    full = _wrong(desk, str(body["kind"])) | body
    async with open_desk(broker_of(desk.settings), (), lambda _: None) as publish:
        await publish(desk.topics.command, msgspec.json.encode(full), desk.topics.reply("wang", str(full["id"])))
    return str(full["id"])


async def _answer_to(desk: Commander, payload: bytes, *, final: bool = False) -> Operation:
    """The first (or last) word on the response topic of a payload sent to the command door."""
    from controlplane.cli.desk import broker_of
    from controlplane.contract.operation import FINAL
    from controlplane.edge.mqtt import Arrived, open_desk

    words: asyncio.Queue[Operation] = asyncio.Queue()

    def hear(message: Arrived) -> None:
        words.put_nowait(msgspec.json.decode(message.payload, type=Operation))

    reply = desk.topics.reply("wang", uuid.uuid4().hex)
    async with open_desk(broker_of(desk.settings), (reply,), hear) as publish:
        await publish(desk.topics.command, payload, reply)
        async with asyncio.timeout(30):
            word = await words.get()
            while final and word.state not in FINAL:
                word = await words.get()
    return word
