"""The life of the link: login, phases, reconnecting, order of delivery, what callers learn."""

from __future__ import annotations

import asyncio
import itertools
import time

import pytest

from controlplane.contract.errors import (
    ActionRefused,
    ControlPlaneError,
    InvariantBroken,
    LinkDown,
    OutcomeUnknown,
    PayloadError,
)
from controlplane.edge.ami.actions import (
    CoreStatus,
    DBGetTree,
    DBPut,
    PJSIPShowContacts,
    QueueStatus,
)
from controlplane.edge.ami.link import AmiLink, Phase, Reply
from tests.contract.test_ami_peer import SECRET, PeerConnection, Sent, linked, peer, settings, until

UP = [Phase.CONNECTING, Phase.AUTHENTICATING, Phase.SYNCING, Phase.READY]


async def test_login_by_challenge_then_filters_then_events() -> None:
    async with peer() as server, linked(server, event_filters=("QueueMemberStatus", "UserEvent")) as it:
        names = [sent.name for sent in server.actions]
        assert names == ["Challenge", "Login", "Filter", "Filter", "Filter", "Events"]
        criteria = {sent.get("MatchCriteria") for sent in server.named("Filter")}
        assert criteria == {
            f"action(include),name({name}),method(none)" for name in ("FullyBooted", "QueueMemberStatus", "UserEvent")
        }
        assert not any(SECRET.encode() in sent.raw for sent in server.actions)
        assert it.phases == UP
        assert it.synchronised == 1


async def test_secret_is_in_no_representation_of_the_settings() -> None:
    config = settings(5038)
    assert SECRET not in repr(config)
    assert SECRET not in str(config)
    assert SECRET not in repr(config.__rich_repr__())


async def test_reconnects_and_takes_new_snapshots_after_a_drop() -> None:
    async with peer() as server, linked(server) as it:
        server.now.drop()
        await it.ready(times=2)
        assert it.phases == [*UP, Phase.DOWN, *UP]
        assert it.synchronised == 2


async def test_fully_booted_may_come_later_than_the_login() -> None:
    async with peer() as server, linked(server, started=False) as it:
        server.boots = False
        it.start()
        await until(lambda: bool(server.named("Events")))
        assert it.link.phase is Phase.AUTHENTICATING
        with pytest.raises(LinkDown):
            await it.link.call(CoreStatus())
        server.now.event("FullyBooted", "Privilege: system,all")
        await it.ready()


async def test_actions_are_allowed_while_synchronising() -> None:
    async with peer() as server, linked(server, started=False) as it:
        seen: list[Phase] = []

        async def snapshot(link: AmiLink) -> None:
            seen.append(link.phase)
            await link.call(CoreStatus())

        it.synchronise = snapshot
        it.start()
        await it.ready()
        assert seen == [Phase.SYNCING]


@pytest.mark.parametrize("fault", [RuntimeError("bad fold"), ActionRefused("QueueStatus", "Permission denied")])
async def test_failed_snapshots_give_the_connection_up(fault: Exception) -> None:
    async with peer() as server, linked(server, started=False) as it:

        async def fails_once(link: AmiLink) -> None:
            it.synchronised += 1
            if it.synchronised == 1:
                raise fault

        it.synchronise = fails_once
        it.start()
        await it.ready()
        assert it.phases == [*UP[:3], Phase.DOWN, *UP]
        assert len(server.connections) == 2


async def test_broken_invariant_in_a_callback_ends_run() -> None:
    async with peer() as server, linked(server) as it:

        def breaks(_frame: object) -> None:
            raise InvariantBroken("no such site")

        it.on_event = breaks
        server.now.event("UserEvent")
        assert it.task is not None
        with pytest.raises(InvariantBroken):
            await it.task
        assert it.link.phase is Phase.DOWN


async def test_fault_of_the_phase_callback_is_contained() -> None:
    async with peer() as server, linked(server, started=False) as it:
        told = it.moved

        def moved(phase: Phase, detail: str) -> None:
            told(phase, detail)
            raise ValueError("display")

        it.link._on_phase = moved
        it.start()
        await it.ready()
        assert {entry["event"] for entry in it.logged if entry["level"] == "error"} == {"ami.phase_callback_failed"}


async def test_nobody_listening_is_said_once_and_tried_again() -> None:
    async with peer() as server, linked(server, started=False) as it:
        assert server.server is not None
        server.server.close()
        it.start()
        await it.down(times=4)
        said = [entry for entry in it.logged if entry["level"] == "warning"]
        assert len(said) == 1
        assert (said[0]["event"], said[0]["port"]) == ("ami.link_down", server.port)
        assert f"no connection to 127.0.0.1:{server.port} (Connection refused)" in said[0]["reason"]


async def test_list_gives_its_items_in_order_and_single_answers_their_frame() -> None:
    async with peer() as server, linked(server) as it:
        rows = [("Event: DBGetTreeResponse", f"Key: /cp/did/{i}", f"Val: {i}") for i in range(500)]
        server.rules["DBGetTree"] = lambda at, sent: at.items(sent, "DBGetTreeComplete", rows)
        reply = await it.link.call(DBGetTree(family="cp"))
        assert [item.get("Val") for item in reply.events] == [str(i) for i in range(500)]
        assert reply.frame.get("EventList") == "start"
        server.rules["CoreStatus"] = lambda at, sent: at.ok(sent, "CoreCurrentCalls: 3")
        assert (await it.link.call(CoreStatus())).frame.get("corecurrentcalls") == "3"
        assert [frame.name for frame in it.events] == ["FullyBooted"]
        assert it.link.in_flight == 0


async def test_error_that_says_the_list_is_empty_is_an_empty_list() -> None:
    async with peer() as server, linked(server) as it:
        server.rules["PJSIPShowContacts"] = lambda at, sent: at.refuse(sent, "No Contacts found\n")
        assert (await it.link.call(PJSIPShowContacts())).events == ()


async def test_call_many_keeps_order_and_goes_on_after_a_failure() -> None:
    async with peer() as server, linked(server) as it:

        def put(at: PeerConnection, sent: Sent) -> None:
            if sent.get("Key") == "13":
                at.refuse(sent, "unlucky")
            else:
                at.ok(sent, f"Got: {sent.get('Key')}")

        server.rules["DBPut"] = put
        actions = [DBPut("cp", str(i), "bad\r\nAction: Logoff" if i == 7 else "v") for i in range(300)]
        outcomes = await it.link.call_many(actions, window=20)
        assert isinstance(outcomes[7], PayloadError)
        assert isinstance(outcomes[13], ActionRefused)
        got = [outcome.frame.get("Got") for outcome in outcomes if isinstance(outcome, Reply)]
        assert got == [str(i) for i in range(300) if i not in (7, 13)]
        assert [sent.get("Key") for sent in server.named("DBPut")] == [str(i) for i in range(300) if i != 7]


async def test_call_many_when_the_link_drops_says_of_each_what_is_known() -> None:
    async with peer() as server, linked(server) as it:

        def put(at: PeerConnection, sent: Sent) -> None:
            number = int(sent.get("Key"))
            if number < 10:
                at.ok(sent)
            elif number == 29:
                at.writer.close()

        server.rules["DBPut"] = put
        outcomes = await it.link.call_many([DBPut("cp", str(i), "v") for i in range(100)], window=20)
        kinds = [type(outcome) for outcome in outcomes]
        assert kinds[:10] == [Reply] * 10
        assert set(kinds[10:30]) == {OutcomeUnknown}
        assert set(kinds[30:]) == {LinkDown}
        await it.ready(times=2)
        assert len(server.named("DBPut")) == 30


async def test_events_before_an_answer_are_delivered_before_it_and_later_ones_after() -> None:
    """Otherwise a snapshot would overwrite a newer event, or an older event the snapshot."""
    async with peer() as server, linked(server) as it:
        trace: list[str] = []
        it.on_event = lambda frame: trace.append(frame.get("N"))

        def status(at: PeerConnection, sent: Sent) -> None:
            at.writer.transport.write(b"")  # all below leaves in one write
            for n in range(100):
                at.event("QueueMemberStatus", f"N: before {n}")
            at.items(sent, "QueueStatusComplete", [("Event: QueueParams", "Queue: claims")])
            for n in range(100):
                at.event("QueueMemberStatus", f"N: after {n}")

        server.rules["QueueStatus"] = status
        await it.link.call(QueueStatus())
        trace.append("snapshot")
        await until(lambda: len(trace) == 201)
        assert trace == [*(f"before {n}" for n in range(100)), "snapshot", *(f"after {n}" for n in range(100))]


async def test_what_arrived_before_a_drop_is_still_delivered() -> None:
    async with peer() as server, linked(server) as it:
        for n in range(1000):
            server.now.event("UserEvent", f"N: {n}")
        server.now.writer.close()
        await it.down()
        assert [frame.get("N") for frame in it.events if frame.name == "UserEvent"] == [str(n) for n in range(1000)]


async def test_every_byte_alone_gives_the_same() -> None:
    async with peer() as server, linked(server) as it:

        async def byte_by_byte(at: PeerConnection, sent: Sent) -> None:
            text = f"Event: UserEvent\r\nName: Müller\r\n\r\nResponse: Success\r\nActionID: {sent.id}\r\nX: ü\r\n\r\n"
            for byte in text.encode():
                at.raw(bytes([byte]))
                await at.writer.drain()
                await asyncio.sleep(0)

        server.rules["CoreStatus"] = byte_by_byte
        assert (await it.link.call(CoreStatus())).frame.get("X") == "ü"
        assert [frame.get("Name") for frame in it.events if frame.name == "UserEvent"] == ["Müller"]


async def test_cancelling_call_many_forgets_what_is_in_flight() -> None:
    async with peer() as server, linked(server) as it:
        server.rules["DBPut"] = lambda at, sent: None
        task = asyncio.create_task(it.link.call_many([DBPut("cp", str(i), "v") for i in range(50)], window=20))
        await until(lambda: len(server.named("DBPut")) == 20)
        task.cancel()
        await asyncio.wait([task])
        assert it.link.in_flight == 0


async def test_back_off_grows_to_its_maximum() -> None:
    async with peer() as server, linked(server, started=False, backoff_min_s=0.01, backoff_max_s=0.04) as it:
        assert server.server is not None
        server.server.close()
        at: list[float] = []
        told = it.moved

        def moved(phase: Phase, detail: str) -> None:
            told(phase, detail)
            if phase is Phase.CONNECTING:
                at.append(time.monotonic())

        it.link._on_phase = moved
        it.start()
        await until(lambda: len(at) >= 6)
        waits = [later - earlier for earlier, later in itertools.pairwise(at)]
        for wait, least in zip(waits, (0.01, 0.02, 0.04, 0.04, 0.04), strict=False):
            assert wait >= least * 0.95


async def test_every_failure_of_a_call_is_one_of_ours() -> None:
    async with peer() as server, linked(server) as it:
        server.rules["CoreStatus"] = lambda at, sent: at.drop()
        with pytest.raises(ControlPlaneError):
            await it.link.call(CoreStatus())
