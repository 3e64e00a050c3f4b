"""What the coordinator takes from the bus: a site speaks for itself alone, answers go to reply topics alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import msgspec
import pytest

from controlplane.contract.report import CallEvents, Promise, Report
from controlplane.contract.topics import Topics
from controlplane.edge.config import BrokerSettings, Host, Settings
from controlplane.edge.mqtt import Arrived
from controlplane.fleet import state as fleet
from controlplane.run.codec import encode
from controlplane.run.coordinator import Coordinator
from tests.contract.test_ami_peer import recording_log
from tests.unit.test_contract_bounds import EVENTS, KEY, REPORT
from tests.unit.test_fleet_driver import FLEET, body_of

TOPICS = Topics(FLEET.fleet)
PROMISE = Promise("nanchang", KEY.authority, None)


class Heard:
    """A coordinator without a bus: what it is told, what it took, what it logged."""

    def __init__(self, folder: Path) -> None:
        (folder / "secret").write_text("s")
        host = Host("fleet.toml", BrokerSettings("127.0.0.1", "coordinator", "secret"), host="coordinator")
        self.logged: list[dict[str, Any]] = []
        self.it = Coordinator(Settings(FLEET, host, folder), cast(Any, None), None, recording_log(self.logged))

    def hear(self, topic: str, payload: bytes, *, reply: str | None = None) -> fleet.Input | None:
        self.it._on_message(Arrived(topic, payload, False, reply, b"7"))
        return None if self.it._inbox.empty() else self.it._inbox.get_nowait()

    @property
    def warnings(self) -> list[str]:
        return [entry["event"] for entry in self.logged if entry["level"] == "warning"]


@pytest.fixture
def heard(tmp_path: Path) -> Heard:
    return Heard(tmp_path)


WORDS: list[tuple[str, Report | Promise | CallEvents]] = [("report", REPORT), ("promise", PROMISE), ("calls", EVENTS)]


@pytest.mark.parametrize(("tail", "value"), WORDS)
def test_a_site_speaks_for_itself_alone(heard: Heard, tail: str, value: Report | Promise | CallEvents) -> None:
    own, other = (f"{TOPICS.prefix}site/{site}/{tail}" for site in ("nanchang", "chengdu"))
    assert heard.hear(own, encode(value)) is not None
    assert heard.warnings == []
    for _ in range(3):
        assert heard.hear(other, encode(value)) is None
    assert heard.warnings == ["message.dropped"]


@pytest.mark.parametrize(("tail", "value"), WORDS)
def test_an_unknown_site_is_not_heard(heard: Heard, tail: str, value: Report | Promise | CallEvents) -> None:
    said = encode(msgspec.structs.replace(value, site="beijing"))
    for _ in range(3):
        assert heard.hear(f"{TOPICS.prefix}site/beijing/{tail}", said) is None
    assert heard.warnings == ["message.dropped"]


def test_unknown_sites_do_not_fill_the_memory_or_the_log(heard: Heard) -> None:
    for number in range(1000):
        assert heard.hear(f"{TOPICS.prefix}site/x{number}/report", b"{}") is None
    assert len(heard.warnings) == len(heard.it._told) == 100


def test_a_command_is_answered_where_its_sender_may_read(heard: Heard) -> None:
    body, reply = body_of("pause"), TOPICS.reply("wang", "1")
    assert heard.hear(TOPICS.command, body, reply=reply) == fleet.CommandCame(body, False, fleet.ReplyTo(reply, b"7"))


@pytest.mark.parametrize(
    "reply", [TOPICS.plan, TOPICS.command, TOPICS.prefix + "reply/+", TOPICS.prefix + "reply/#", "x",
              TOPICS.prefix + "reply/" + "x" * 200]
)  # fmt: skip
def test_a_strange_response_topic_is_ignored_and_the_command_is_not(heard: Heard, reply: str) -> None:
    body = body_of("pause")
    assert heard.hear(TOPICS.command, body, reply=reply) == fleet.CommandCame(body, False, None)
    assert heard.warnings == ["reply.ignored"]


def test_a_command_without_a_response_topic_is_no_fault(heard: Heard) -> None:
    assert heard.hear(TOPICS.command, body_of("pause")) is not None
    assert heard.warnings == []
