"""The broker takes the accounts it knows, and lets each say only what is its own (deploy/mosquitto.acl)."""

from __future__ import annotations

import uuid

import aiomqtt
import pytest

from tests.lab import health
from tests.lab.lab import Lab
from tests.lab.layout import DAEMON_ACCOUNTS, FLEET, PERSONS

PREFIX = f"controlplane/v1/{FLEET}/"


def client(lab: Lab, user: str, password: str | None = None) -> aiomqtt.Client:
    address, port = lab.broker_address()
    return aiomqtt.Client(
        address,
        port,
        username=user,
        password=password or lab.account(user).password,
        protocol=aiomqtt.ProtocolVersion.V5,
        identifier=f"test-{uuid.uuid4().hex[:8]}",
    )


@pytest.mark.parametrize("user", [*DAEMON_ACCOUNTS, *PERSONS])
def test_every_account_logs_in(lab: Lab, user: str) -> None:
    assert health.broker_refuses(lab, user) is None


async def test_wrong_password_is_refused(lab: Lab) -> None:
    with pytest.raises(aiomqtt.MqttError, match=r"[Nn]ot authorized"):
        async with client(lab, "wang", "not-it"):
            pass


@pytest.mark.parametrize(
    ("writer", "topic", "reader"),
    [
        ("site-nanchang", "site/nanchang/report", "coordinator"),
        ("coordinator", "slice/chengdu", "site-chengdu"),
        ("coordinator2", "claim", "site-nanchang"),
        ("wang", "command", "coordinator"),
        ("coordinator", "reply/wang/x", "wang"),
        ("coordinator", "operation/x", "observer"),
    ],
)
async def test_what_is_allowed_arrives(lab: Lab, writer: str, topic: str, reader: str) -> None:
    async with client(lab, reader) as reading, client(lab, writer) as writing:
        await reading.subscribe(PREFIX + topic, qos=1)
        await writing.publish(PREFIX + topic, b"hello", qos=1)
        # Something retained may come first.
        async for message in reading.messages:
            if message.payload == b"hello":
                break


@pytest.mark.parametrize(
    ("writer", "topic"),
    [
        ("site-nanchang", "site/chengdu/report"),
        ("site-nanchang", "slice/nanchang"),
        ("site-nanchang", "command"),
        ("coordinator", "command"),
        ("coordinator", "site/nanchang/report"),
        ("wang", "plan"),
        ("wang", "operation/x"),
        ("observer", "command"),
    ],
)
async def test_what_is_not_allowed_reaches_nobody(lab: Lab, writer: str, topic: str) -> None:
    # wang reads every topic; what is allowed comes after what is not, so its arrival proves that the other was dropped.
    async with client(lab, "wang") as reading, client(lab, writer) as writing, client(lab, "coordinator") as allowed:
        await reading.subscribe(PREFIX + "#", qos=1)
        # aiomqtt 2.5.1 says nothing of a PUBACK that reads "not authorized": only what arrives can be asserted.
        await writing.publish(PREFIX + topic, b"forged", qos=1)
        await allowed.publish(PREFIX + "authority", b"allowed", qos=1)
        async for message in reading.messages:
            assert message.payload != b"forged"
            if message.payload == b"allowed":
                break


async def test_site_does_not_hear_another_sites_slice(lab: Lab) -> None:
    async with client(lab, "site-nanchang") as reading, client(lab, "coordinator") as writing:
        await reading.subscribe(PREFIX + "#", qos=1)
        await writing.publish(PREFIX + "slice/chengdu", b"secret", qos=1)
        await writing.publish(PREFIX + "slice/nanchang", b"mine", qos=1)
        async for message in reading.messages:
            assert message.payload != b"secret"
            if message.payload == b"mine":
                break
