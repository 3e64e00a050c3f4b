"""What the site daemon does between its core, its Asterisk and the bus, without either."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from controlplane.contract.errors import ActionRefused, LinkDown
from controlplane.contract.report import MOST_AGE_MS, Report
from controlplane.contract.topics import Topics
from controlplane.edge.ami import actions
from controlplane.edge.ami.frames import Frame, FrameParser
from controlplane.edge.ami.link import Phase, Reply
from controlplane.edge.config import AmiSettings, BrokerSettings, Host, Settings
from controlplane.edge.mqtt import Arrived
from controlplane.run import asterisk
from controlplane.run import site as run_site
from controlplane.run.codec import decode
from controlplane.run.site import MOST_PLACED, SiteDaemon
from controlplane.site import core
from controlplane.site.compile import Member
from controlplane.site.diff import AddMember, Observed, SetPenalty
from tests.contract.test_ami_peer import recording_log, until
from tests.unit.test_fleet_driver import FLEET

TOPICS = Topics(FLEET.fleet)


@pytest.fixture
def daemon(tmp_path: Path) -> SiteDaemon:
    (tmp_path / "secret").write_text("s")
    host = Host(
        "fleet.toml", BrokerSettings("127.0.0.1", "site-nanchang", "secret"), site="nanchang", ami=AmiSettings("secret")
    )
    settings = Settings(FLEET, host, tmp_path)
    return SiteDaemon(settings, cast(Any, None), core.State("nanchang"), recording_log([]))


# -- what cannot be read


@pytest.mark.parametrize(
    ("topic", "word"),
    [(TOPICS.slice("nanchang"), "slice"), (TOPICS.plan, "plan"), (TOPICS.claim, "claim"),
     (TOPICS.probe("nanchang"), "probe")],
)  # fmt: skip
async def test_what_cannot_be_read_is_named_by_its_topic(daemon: SiteDaemon, topic: str, word: str) -> None:
    daemon._on_message(Arrived(topic, b"{", False, None, None))
    event = daemon._inbox.get_nowait()
    assert isinstance(event, core.Unreadable)
    assert event.what == word


# -- synthetic calls


def answers(daemon: SiteDaemon) -> list[tuple[str, str]]:
    return [(event.call, event.detail) for event in daemon._events]


async def test_synthetic_calls_of_a_lost_link_are_answered(daemon: SiteDaemon) -> None:
    daemon._await_answer("syn-1-1")
    daemon._await_answer("syn-1-2")
    daemon._on_phase(Phase.DOWN, "gone")
    assert answers(daemon) == [("syn-1-1", "link lost"), ("syn-1-2", "link lost")]
    assert daemon._placed == {}
    daemon._probe_answered("syn-1-1", "Success")
    assert len(daemon._events) == 2


async def test_the_calls_whose_answer_is_waited_for_are_bounded(daemon: SiteDaemon) -> None:
    for number in range(MOST_PLACED + 5):
        daemon._await_answer(f"c-{number}")
    assert len(daemon._placed) == MOST_PLACED
    assert answers(daemon) == [(f"c-{number}", "given up") for number in range(5)]


# -- looks


async def test_a_look_that_was_begun_before_the_last_steps_ended_is_taken_again(
    daemon: SiteDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, gate = asyncio.Event(), asyncio.Event()
    looks = 0
    seen: list[dict[str, str]] = []

    async def look(_link: object) -> Observed:
        nonlocal looks
        looks += 1
        mine = looks
        begun.set()
        if mine == 1:
            await gate.wait()
        return Observed({"look": str(mine)}, {})

    async def perform(_link: object, _steps: object) -> tuple[str, ...]:
        return ()

    def step(state: core.State, event: core.Input) -> core.Result:
        assert isinstance(event, core.Looked)
        seen.append(event.observed.astdb)
        return state, ()

    monkeypatch.setattr(asterisk, "look", look)
    monkeypatch.setattr(asterisk, "perform", perform)
    monkeypatch.setattr(run_site.core, "step", step)
    daemon._ready.set()
    daemon._look_wanted.set()
    tasks = [asyncio.create_task(daemon._look_regularly()), asyncio.create_task(daemon._decide())]
    try:
        await begun.wait()
        await daemon._do(())
        gate.set()
        await until(lambda: bool(seen), what="a look that counts")
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    assert seen[0] == {"look": "2"}


async def test_a_stale_look_asks_for_another(daemon: SiteDaemon, monkeypatch: pytest.MonkeyPatch) -> None:
    async def perform(_link: object, _steps: object) -> tuple[str, ...]:
        raise LinkDown("gone")

    async def quiet(_event: core.Input) -> None:
        pass

    monkeypatch.setattr(asterisk, "perform", perform)
    monkeypatch.setattr(daemon, "_step", quiet)
    await daemon._do(())
    assert daemon._done_at > 0, "steps that failed may have been done in part"
    daemon._look_wanted.clear()
    daemon._inbox.put_nowait(run_site._Look(core.Looked(Observed({}, {}), False, run_site.clock.wall()), 0.0))
    task = asyncio.create_task(daemon._decide())
    try:
        await asyncio.wait_for(daemon._look_wanted.wait(), 2)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


# -- reports


async def test_a_report_of_a_long_outage_can_still_be_read(daemon: SiteDaemon) -> None:
    daemon._healthy_at -= 3 * 24 * 3600
    daemon._send_report()
    sent = daemon._bus._newest[TOPICS.report("nanchang")]
    assert decode(sent.payload, Report).age_ms == MOST_AGE_MS


# -- Asterisk


def test_no_event_is_asked_for_in_vain() -> None:
    used = {"UserEvent", "OriginateResponse"} | asterisk.CHANGES
    assert set(asterisk.EVENTS) == used


class Link:
    """An AMI link that answers each action by a rule."""

    def __init__(self, rule: Callable[[actions.Action], Reply]) -> None:
        self.rule = rule
        self.asked: list[actions.Action] = []

    async def call(self, action: actions.Action) -> Reply:
        self.asked.append(action)
        return self.rule(action)

    async def call_many(self, batch: list[actions.Action]) -> list[Reply]:
        return [await self.call(action) for action in batch]


def success(*lines: str) -> Frame:
    [frame] = FrameParser().feed("\r\n".join(["Response: Success", *lines]).encode() + b"\r\n\r\n")
    return frame


def refusing(message: str) -> Callable[[actions.Action], Reply]:
    def rule(action: actions.Action) -> Reply:
        raise ActionRefused(type(action).__name__, message)

    return rule


async def test_only_not_found_is_an_empty_family() -> None:
    assert await asterisk._tree(cast(Any, Link(refusing("Database entry not found"))), "cp") == {}
    for message in ("Permission denied", "Database unavailable", "the list was broken off by the server"):
        with pytest.raises(ActionRefused, match=message):
            await asterisk._tree(cast(Any, Link(refusing(message))), "cp")


async def test_only_not_found_is_nobody_holds_this_site() -> None:
    assert not await asterisk.is_held(cast(Any, Link(refusing("Database entry not found"))))
    with pytest.raises(ActionRefused, match="Permission denied"):
        await asterisk.is_held(cast(Any, Link(refusing("Permission denied"))))


@pytest.mark.parametrize(("said", "channels"), [("7", 7), ("", 0), ("-1", 0), ("²", 0), ("9" * 30, 0)])
async def test_a_strange_number_of_calls_is_none(said: str, channels: int) -> None:
    link = Link(lambda _: Reply(success(f"CoreCurrentCalls: {said}")))
    assert (await asterisk.health(cast(Any, link))).channels == channels


async def test_a_penalty_is_changed_without_taking_the_member_away() -> None:
    link = Link(lambda _: Reply(success()))
    await asterisk.perform(cast(Any, link), (SetPenalty("claims", "PJSIP/home01", 3),))
    assert link.asked == [actions.QueuePenalty(interface="PJSIP/home01", penalty=3, queue="claims")]
    link.asked.clear()
    await asterisk.perform(cast(Any, link), (AddMember("claims", "PJSIP/home01", Member("cp:home01", 3)),))
    assert [type(action).__name__ for action in link.asked] == ["QueueRemove", "QueueAdd"]
