"""The 24 faults of bare panoramisk 1.4: the link has none of them. Where it is easy, the bare one is shown to fail.

When a `bare` test fails after an upgrade of panoramisk, that fault was repaired there: look whether our way round is
still needed.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import time
from collections.abc import Iterator

import pytest
from panoramisk.actions import Action as BareAction

from controlplane.contract.errors import ActionRefused, LinkDown, OutcomeUnknown, PayloadError
from controlplane.edge.ami.actions import (
    CoreStatus,
    DBGet,
    DBPut,
    Originate,
    Ping,
    QueueAdd,
    QueueStatus,
    encode,
)
from controlplane.edge.ami.frames import Frame, FrameParser
from controlplane.edge.ami.link import Phase
from tests.contract.test_ami_peer import SECRET, Linked, PeerConnection, Sent, bare, linked, peer, settings, until

FIVE = b"".join(b"Event: UserEvent\r\nN: %d\r\n\r\n" % n for n in range(5))


@pytest.fixture
def _quiet() -> Iterator[None]:
    """The faults of the bare one end in asyncio's exception handler: that is part of the fault, not of the test."""
    log = logging.getLogger("asyncio")
    before, log.disabled = log.disabled, True
    yield
    log.disabled = before


def numbers(it: Linked) -> list[int]:
    return [int(frame.get("N")) for frame in it.events if frame.name == "UserEvent"]


async def test_fault_01_exception_in_a_callback_costs_neither_the_link_nor_other_events() -> None:
    async with peer() as server, linked(server) as it:

        def fails_on_two(frame: Frame) -> None:
            it.events.append(frame)
            if frame.get("N") == "2":
                raise ValueError("fold")

        it.on_event = fails_on_two
        server.now.raw(FIVE)
        await until(lambda: len(it.events) >= 5)
        assert numbers(it) == [0, 1, 2, 3, 4]
        assert (await it.link.call(CoreStatus())).frame.get("Response") == "Success"
        assert it.link.counters.callback_errors == 1


@pytest.mark.usefixtures("_quiet")
async def test_fault_01_bare() -> None:
    async with peer() as server, bare(server) as manager:
        seen: list[str] = []

        def fails_on_one(_manager: object, event: object) -> None:
            seen.append(event.n)  # type: ignore[attr-defined]
            if len(seen) == 2:
                raise ValueError("fold")

        manager.register_event("UserEvent", fails_on_one)
        server.now.raw(FIVE)
        await until(manager.protocol.transport.is_closing)
        assert seen == ["0", "1"]


async def test_fault_02_events_stay_in_order_and_make_no_tasks() -> None:
    async with peer() as server, linked(server) as it:
        before = len(asyncio.all_tasks())
        most = 0

        def slow(frame: Frame) -> None:
            nonlocal most
            it.events.append(frame)
            if len(it.events) % 500 == 0:
                most = max(most, len(asyncio.all_tasks()))

        it.on_event = slow
        for n in range(20_000):
            server.now.event("UserEvent", f"N: {n}")
        await until(lambda: len(it.events) >= 20_000)
        assert numbers(it) == list(range(20_000))
        assert most <= before


async def test_fault_03_error_in_a_callback_is_logged_first_loud_then_low() -> None:
    async with peer() as server, linked(server) as it:

        def fails(frame: Frame) -> None:
            it.events.append(frame)
            raise ValueError("fold")

        it.on_event = fails
        server.now.raw(FIVE)
        await until(lambda: len(it.events) >= 5)
        said = [entry["level"] for entry in it.logged if entry["event"] == "ami.event_callback_failed"]
        assert said == ["error", "debug", "debug", "debug", "debug"]


async def test_fault_04_list_action_in_flight_when_link_drops_ends_at_once() -> None:
    async with peer() as server, linked(server) as it:

        def half(at: PeerConnection, sent: Sent) -> None:
            at.ok(sent, "EventList: start")
            at.send("Event: QueueParams", f"ActionID: {sent.id}")
            at.writer.close()

        server.rules["QueueStatus"] = half
        began = time.monotonic()
        with pytest.raises(OutcomeUnknown, match="QueueStatus"):
            await it.link.call(QueueStatus(), timeout_s=30)
        assert time.monotonic() - began < 5


async def test_fault_04_bare() -> None:
    async with peer() as server, bare(server) as manager:

        def half(at: PeerConnection, sent: Sent) -> None:
            at.ok(sent, "EventList: start")
            at.send("Event: QueueParams", f"ActionID: {sent.id}")
            at.writer.close()

        server.rules["QueueStatus"] = half
        answer = manager.send_action({"Action": "QueueStatus"})
        await until(lambda: manager.protocol.closed)
        assert not answer.done()


async def test_fault_05_unanswered_action_is_never_sent_again() -> None:
    async with peer() as server, linked(server) as it:
        server.rules["Originate"] = lambda at, sent: at.drop()
        with pytest.raises(OutcomeUnknown):
            await it.link.call(Originate(channel="Local/1@exp", application="Wait", data="1"))
        await it.ready(times=2)
        await it.link.call(CoreStatus())
        assert len(server.named("Originate")) == 1


async def test_fault_05_bare() -> None:
    async with peer() as server, bare(server) as manager:
        server.rules["Originate"] = lambda at, sent: at.drop()
        manager.send_action({"Action": "Originate", "Channel": "Local/1@exp", "Async": "true"})
        await until(lambda: manager.protocol.closed)
        await manager.connect()
        await until(lambda: len(server.named("Originate")) == 2)


async def test_fault_06_without_fully_booted_it_says_so_and_waits() -> None:
    async with peer() as server, linked(server, started=False, boot_notice_s=0.02) as it:
        server.boots = False
        it.start()
        await until(lambda: any(entry["event"] == "ami.still_booting" for entry in it.logged))
        assert it.link.phase is Phase.AUTHENTICATING
        server.now.event("FullyBooted")
        await it.ready()


async def test_fault_07_action_while_not_connected_fails_at_once() -> None:
    it = Linked(settings(1))
    with pytest.raises(LinkDown, match="nothing was sent"):
        await it.link.call(Ping())
    assert [type(o) for o in await it.link.call_many([Ping(), Ping()])] == [LinkDown, LinkDown]
    async with peer() as server, linked(server, backoff_min_s=5, backoff_max_s=5) as it:
        server.now.drop()
        await it.down()
        with pytest.raises(LinkDown, match="nothing was sent"):
            await it.link.call(Ping())


async def test_fault_08_originate_is_always_asynchronous_and_ends() -> None:
    async with peer() as server, linked(server) as it:
        server.rules["Originate"] = lambda at, sent: at.ok(sent, "Message: Originate successfully queued")
        reply = await it.link.call(Originate(channel="Local/1@exp", context="exp", exten="1", priority=1))
        assert reply.events == ()
        assert server.named("Originate")[0].get("Async") == "true"


async def test_fault_09_queue_add_ends_with_its_answer() -> None:
    async with peer() as server, linked(server) as it:
        server.rules["QueueAdd"] = lambda at, sent: at.ok(sent, "Message: Added interface to queue")
        reply = await it.link.call(QueueAdd(queue="claims", interface="PJSIP/n01"))
        assert reply.frame.get("Message") == "Added interface to queue"


async def test_fault_09_bare() -> None:
    async with peer() as server, bare(server) as manager:
        server.rules["QueueAdd"] = lambda at, sent: at.ok(sent, "Message: Added interface to queue")
        answer = manager.send_action({"Action": "QueueAdd", "Queue": "claims", "Interface": "PJSIP/n01"})
        await manager.send_action({"Action": "Ping"})
        assert not answer.done()


async def test_fault_10_error_reply_to_a_list_action_ends_it() -> None:
    async with peer() as server, linked(server) as it:
        server.rules["DBGet"] = lambda at, sent: at.refuse(sent, "Database entry not found")
        with pytest.raises(ActionRefused, match="DBGet: Database entry not found"):
            await it.link.call(DBGet(family="cp", key="no"), timeout_s=30)


async def test_fault_10_bare() -> None:
    async with peer() as server, bare(server) as manager:
        server.rules["DBGet"] = lambda at, sent: at.refuse(sent, "Database entry not found")
        answer = manager.send_action({"Action": "DBGet", "Family": "cp", "Key": "no"}, as_list=True)
        await manager.send_action({"Action": "Ping"})
        assert not answer.done()


async def test_fault_11_timed_out_and_cancelled_actions_are_forgotten() -> None:
    async with peer() as server, linked(server) as it:
        server.rules["QueueStatus"] = lambda at, sent: None
        calls = [asyncio.create_task(it.link.call(QueueStatus(), timeout_s=0.05)) for _ in range(100)]
        cancelled = [asyncio.create_task(it.link.call(QueueStatus())) for _ in range(100)]
        await until(lambda: len(server.named("QueueStatus")) == 200)
        assert it.link.in_flight >= 100
        for task in cancelled:
            task.cancel()
        outcomes = await asyncio.gather(*calls, *cancelled, return_exceptions=True)
        assert {type(outcome) for outcome in outcomes[:100]} == {OutcomeUnknown}
        assert {type(outcome) for outcome in outcomes[100:]} == {asyncio.CancelledError}
        assert it.link.in_flight == 0


async def test_fault_11_answers_that_come_too_late_are_dropped() -> None:
    async with peer() as server, linked(server) as it:
        server.rules["QueueStatus"] = lambda at, sent: None
        server.rules["CoreStatus"] = lambda at, sent: None
        for action in (QueueStatus(), CoreStatus()):
            with pytest.raises(OutcomeUnknown, match="no answer in time"):
                await it.link.call(action, timeout_s=0.02)
        late = server.named("QueueStatus")[0]
        server.now.items(late, "QueueStatusComplete", [("Event: QueueParams", "Queue: claims")] * 3)
        server.now.ok(server.named("CoreStatus")[0])
        await it.link.call(Ping())
        assert [frame.name for frame in it.events if frame.name != "FullyBooted"] == []
        assert it.link.counters.late_dropped == 6


async def test_fault_12_refused_login_is_said_once_and_waits_the_maximum() -> None:
    async with peer() as server:
        it = Linked(settings(server.port, secret="wrong-one", backoff_min_s=0.001, backoff_max_s=0.1))
        it.start()
        began = time.monotonic()
        await it.down(times=3)
        assert time.monotonic() - began >= 0.19
        await it.stop()
        said = [entry for entry in it.logged if entry["level"] != "debug"]
        assert [(entry["level"], entry["event"]) for entry in said] == [("error", "ami.login_refused")]
        for part in ("controlplane", f"127.0.0.1:{server.port}", "secret file", "manager.conf"):
            assert part in said[0]["reason"]
        assert "wrong-one" not in repr(it.logged)
        assert Phase.SYNCING not in it.phases


async def test_fault_12_account_that_may_not_filter_is_said() -> None:
    async with peer() as server:
        server.rules["Filter"] = lambda at, sent: at.refuse(sent, "Permission denied")
        it = Linked(settings(server.port, event_filters=("UserEvent",)))
        it.start()
        await it.down()
        await it.stop()
        assert any("class system in write=" in detail for detail in it.details)


async def test_fault_13_silent_login_has_a_deadline() -> None:
    async with peer() as server:
        server.greets = False
        server.rules["Challenge"] = lambda at, sent: None
        it = Linked(settings(server.port, connect_timeout_s=0.05))
        it.start()
        await it.down(times=2)
        await it.stop()
        assert any("no answer in time" in detail and "manager.conf" in detail for detail in it.details)


async def test_fault_13_connect_has_a_deadline() -> None:
    """A listener whose backlog is full drops what comes: connect() hangs as it does towards a host that is not there."""
    with contextlib.ExitStack() as stack:
        deaf = stack.enter_context(socket.socket())
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(deaf.getsockname())
        it = Linked(settings(deaf.getsockname()[1], connect_timeout_s=0.05))
        it.start()
        await it.down(times=1)
        await it.stop()
        assert it.details[1] == f"no connection to 127.0.0.1:{deaf.getsockname()[1]} within 0.05 s"


async def test_fault_14_silent_peer_is_noticed() -> None:
    async with peer() as server, linked(server, ping_interval_s=0.05, ping_timeout_s=0.3) as it:
        await until(lambda: len(server.named("Ping")) >= 2)
        assert it.link.phase is Phase.READY
        server.rules["Ping"] = lambda at, sent: None
        began = time.monotonic()
        await it.down()
        assert time.monotonic() - began < 2
        assert "no answer to a ping" in " ".join(it.details)


async def test_fault_14_peer_that_sends_but_is_late_with_its_answer_is_alive() -> None:
    async with peer() as server, linked(server, ping_interval_s=0.02, ping_timeout_s=0.2) as it:

        async def late(at: PeerConnection, sent: Sent) -> None:
            for _ in range(15):
                at.event("UserEvent")
                await asyncio.sleep(0.02)
            at.ok(sent, "Ping: Pong")

        server.rules["Ping"] = late
        await until(lambda: len(server.named("Ping")) >= 3)
        assert it.phases.count(Phase.DOWN) == 0


async def test_fault_15_line_break_in_a_value_sends_nothing() -> None:
    async with peer() as server, linked(server) as it:
        with pytest.raises(PayloadError, match=r"DBPut\.val"):
            await it.link.call(DBPut("cp", "k", "v\r\n\r\nAction: Command\r\nCommand: core stop now"))
        await it.link.call(Ping())
        assert not server.named("DBPut")
        assert not server.named("Command")


def test_fault_15_bare() -> None:
    async def text() -> str:
        return str(BareAction({"Action": "DBPut", "Val": "v\r\n\r\nAction: Command"}))

    assert "\r\n\r\nAction: Command" in asyncio.run(text())


async def test_fault_16_letter_split_over_two_reads_survives() -> None:
    async with peer() as server, linked(server) as it:
        whole = "Event: UserEvent\r\nName: Müller\r\n\r\n".encode()
        cut = whole.index(b"\xc3") + 1
        base = it.link.counters.bytes_received
        server.now.raw(whole[:cut])
        await until(lambda: it.link.counters.bytes_received >= base + cut)
        server.now.raw(whole[cut:])
        await until(lambda: any(frame.name == "UserEvent" for frame in it.events))
        assert it.events[-1].get("Name") == "Müller"


async def test_fault_17_duplicate_headers_are_kept_and_harmless() -> None:
    async with peer() as server, linked(server) as it:
        server.now.send("Event: UserEvent", "Event: Other", "ActionID: a", "ActionID: b", "ChanVariable: X=1", "N: 9")
        server.rules["CoreStatus"] = lambda at, sent: at.ok(sent, "ActionID: other", "Response: Error")
        assert (await it.link.call(CoreStatus())).frame.all("ActionID")[1] == "other"
        frame = it.events[-1]
        assert (frame.name, frame.action_id, frame.all("Event")) == ("UserEvent", "a", ("UserEvent", "Other"))
        assert it.link.phase is Phase.READY


@pytest.mark.usefixtures("_quiet")
async def test_fault_17_bare() -> None:
    async with peer() as server, bare(server) as manager:
        server.now.send("Event: UserEvent", "Event: Other")
        await until(manager.protocol.transport.is_closing)


async def test_fault_18_headers_are_taken_as_they_are() -> None:
    async with peer() as server, linked(server) as it:
        server.now.send("Event: UserEvent", "A:without space", "Result: 100%25", "Name: one", "NAME: two", "Empty:")
        await until(lambda: any(frame.name == "UserEvent" for frame in it.events))
        frame = it.events[-1]
        assert (frame.get("a"), frame.get("Result"), frame.get("Empty")) == ("without space", "100%25", "")
        assert frame.all("name") == ("one", "two")


async def test_fault_19_frame_beyond_the_cap_is_dropped_and_the_link_lives_on() -> None:
    async with peer() as server, linked(server) as it:
        server.now.raw(b"Event: UserEvent\r\nN: 1\r\nX: " + b"x" * (4 << 20) + b"\r\n\r\n")
        server.now.event("UserEvent", "N: 2")
        await until(lambda: any(frame.name == "UserEvent" for frame in it.events))
        assert numbers(it) == [2]
        assert it.link.counters.oversized == 1
        assert it.phases.count(Phase.DOWN) == 0
        assert [entry["event"] for entry in it.logged if entry["level"] == "warning"] == ["ami.frame_too_long"]


async def test_fault_20_writing_stops_when_the_peer_takes_nothing() -> None:
    async with peer() as server, linked(server) as it:
        server.now.writer.transport.pause_reading()
        server.reads.clear()
        count, size = 40_000, 1000
        outcomes = await it.link.call_many(
            [DBPut("cp", str(n), "v" * size) for n in range(count)], window=count, timeout_s=0.3
        )
        kinds = [type(outcome) for outcome in outcomes]
        sent = kinds.count(OutcomeUnknown)
        assert sent + kinds.count(LinkDown) == count
        # Our 256 KiB and what the kernel holds for loopback (a few MiB), not the 40 MB that were asked for.
        assert sent * size < 20_000_000
        server.reads.set()


async def test_fault_20_reading_stops_when_our_callback_is_slow() -> None:
    async with peer() as server, linked(server, queue_size=100) as it:
        most = 0

        def slow(frame: Frame) -> None:
            nonlocal most
            it.events.append(frame)
            most = max(most, it.link.backlog)
            time.sleep(0.00002)

        it.on_event = slow
        chunk = b"".join(b"Event: UserEvent\r\nX: %s\r\nN: %d\r\n\r\n" % (b"x" * 900, n) for n in range(100))
        for _ in range(100):
            server.now.raw(chunk)
            await server.now.writer.drain()
        await until(lambda: len(it.events) >= 10_000)
        assert it.link.counters.reading_paused > 0
        assert most < 100 + 400  # the queue and one read of the socket
        assert numbers(it) == list(range(100)) * 100


async def test_fault_21_cancelled_while_waiting_to_reconnect_it_stays_away() -> None:
    async with peer() as server, linked(server, backoff_min_s=0.03, backoff_max_s=0.03) as it:
        server.now.drop()
        await it.down()
        await it.stop()
        assert it.link.phase is Phase.DOWN
        await asyncio.sleep(0.1)  # longer than the back-off: what must not happen would have happened
        assert len(server.connections) == 1


async def test_fault_21_cancelled_in_any_phase_it_leaves_nothing() -> None:
    for silent in ("Challenge", "Login", "Events", "QueueStatus"):
        async with peer() as server, linked(server, started=False) as it:
            server.rules[silent] = lambda at, sent: None

            async def snapshot(link: object, it: Linked = it) -> None:
                await it.link.call(QueueStatus())

            it.synchronise = snapshot
            it.start()
            await until(lambda server=server, silent=silent: bool(server.named(silent)))  # type: ignore[misc]
            await it.stop()
            assert it.link.phase is Phase.DOWN
            assert it.task is not None
            assert it.task.cancelled()


async def test_fault_22_event_with_the_id_of_a_pending_action_reaches_the_callback() -> None:
    async with peer() as server, linked(server) as it:

        def early_and_late(at: PeerConnection, sent: Sent) -> None:
            at.send("Event: OriginateResponse", f"ActionID: {sent.id}", "Response: Failure", "Reason: 1")
            at.ok(sent, "Message: Originate successfully queued")
            at.send("Event: OriginateResponse", f"ActionID: {sent.id}", "Response: Success", "Reason: 4")

        server.rules["Originate"] = early_and_late
        reply = await it.link.call(Originate(channel="Local/1@exp", application="Wait", data="1"))
        await until(lambda: len([frame for frame in it.events if frame.name == "OriginateResponse"]) == 2)
        assert [frame.get("Reason") for frame in it.events[-2:]] == ["1", "4"]
        assert it.events[-1].action_id == reply.frame.action_id


async def test_fault_23_no_value_of_an_action_is_logged() -> None:
    async with peer() as server, linked(server) as it:
        server.rules["DBPut"] = lambda at, sent: at.drop()
        with pytest.raises(OutcomeUnknown) as caught:
            await it.link.call(DBPut("cp/auth", "agent-pin", "pin-4711"))
        await it.ready(times=2)
        with pytest.raises(PayloadError) as refused:
            await it.link.call(DBPut("cp/auth", "agent-pin", "pin-4711\r\n"))
        told = repr(it.logged) + repr(it.details) + str(caught.value) + str(refused.value)
        assert it.logged
        for value in ("4711", "agent-pin", SECRET):
            assert value not in told


def test_fault_24_cost_does_not_grow_with_the_number_of_names_wanted() -> None:
    data = b"".join(b"Event: Newexten\r\nPrivilege: dialplan,all\r\nN: %d\r\n\r\n" % n for n in range(5000))

    def cost_s(names: int) -> float:
        wanted = frozenset(f"Wanted{n}" for n in range(names))
        best = 10.0
        for _ in range(5):
            parser = FrameParser(wanted=wanted)
            began = time.perf_counter()
            assert parser.feed(data) == []
            best = min(best, time.perf_counter() - began)
        return best

    assert cost_s(500) < 3 * cost_s(5)


def test_encoded_action_is_one_frame_for_our_own_parser() -> None:
    frames = FrameParser().feed(encode(DBPut("cp/did", "95556", "claims"), "cp/1"))
    assert [(key, value) for key, value in frames[0].items()] == [
        ("Action", "DBPut"),
        ("ActionID", "cp/1"),
        ("Family", "cp/did"),
        ("Key", "95556"),
        ("Val", "claims"),
    ]
