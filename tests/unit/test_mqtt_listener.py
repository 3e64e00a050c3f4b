"""A fault of who listens to the bus does not cost the connection."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, cast

import aiomqtt
import pytest

from controlplane.contract.errors import InvariantBroken
from controlplane.edge.mqtt import Arrived, Broker, Bus
from tests.contract.test_ami_peer import recording_log

SECRET = "in the message"


class Client:
    """A connection on which some messages come, then it ends."""

    def __init__(self, *payloads: bytes) -> None:
        self.payloads = payloads

    @property
    def messages(self) -> AsyncIterator[aiomqtt.Message]:
        async def come() -> AsyncIterator[aiomqtt.Message]:
            for number, payload in enumerate(self.payloads):
                yield aiomqtt.Message("a/topic", payload, 1, False, number, None)

        return come()


def bus(on_message: Any, logged: list[dict[str, Any]]) -> Bus:
    return Bus(
        Broker("127.0.0.1", 1883, "a", "p"), subscriptions=(), on_message=on_message, on_link=lambda _: None,
        log=recording_log(logged),
    )  # fmt: skip


async def test_a_fault_of_the_listener_is_said_once_and_the_next_message_comes() -> None:
    heard: list[bytes] = []
    logged: list[dict[str, Any]] = []

    def listen(message: Arrived) -> None:
        heard.append(message.payload)
        if message.payload != b"good":
            raise ValueError(SECRET)

    with pytest.raises(aiomqtt.MqttError, match="closed"):
        await bus(listen, logged)._receive(cast(Any, Client(b"bad", b"bad", b"good")))
    assert heard == [b"bad", b"bad", b"good"]
    assert [entry["level"] for entry in logged] == ["error", "debug"]
    assert logged[0]["error"] == "ValueError"
    assert SECRET not in repr(logged)


async def test_a_broken_invariant_goes_on() -> None:
    def listen(_: Arrived) -> None:
        raise InvariantBroken("never")

    with pytest.raises(InvariantBroken):
        await bus(listen, [])._receive(cast(Any, Client(b"x")))
