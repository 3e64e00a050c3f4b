"""The bus: one MQTT 5 broker, kept connected, with an outbox that survives a drop.

Facts relied on (aiomqtt 2.5, seen): re-entering a client after a drop can report success too early, so each connection
has a new Client; a publish in flight when the broker dies may still be delivered, so every message carries an id and
readers drop duplicates; QoS 1 is acknowledged before our handler ran. The only module that imports aiomqtt.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager

import aiomqtt
import msgspec
import structlog
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions
from structlog.typing import FilteringBoundLogger

from controlplane.contract.errors import InvariantBroken, LinkDown

#: Publishes in flight at a time; more only makes the library warn.
_WINDOW = 8
_MOST_QUEUED = 5_000
_BACKOFF_S = (0.2, 0.5, 1.0, 2.0, 5.0)


class Broker(msgspec.Struct, frozen=True):
    """Where a broker is and how to log in. The password is kept out of every representation."""

    host: str
    port: int
    account: str
    password: str

    def __repr__(self) -> str:
        return f"<Broker {self.account}@{self.host}:{self.port}>"


class Message(msgspec.Struct, frozen=True):
    """A message to send. `keep_newest`: only the newest unsent message of its topic is kept, for state; all others are
    queued, bounded."""

    topic: str
    payload: bytes
    retain: bool = False
    keep_newest: bool = False
    correlation: bytes | None = None
    expiry_s: int | None = None
    qos: int = 1


class Arrived(msgspec.Struct, frozen=True):
    """A message that came."""

    topic: str
    payload: bytes
    retained: bool
    response_topic: str | None
    correlation: bytes | None


class Will(msgspec.Struct, frozen=True):
    """What the broker says for us when the connection is lost."""

    topic: str
    payload: bytes


class _Listener:
    """Hands messages on. A fault of who listens must not cost the connection: it is said once, by its type alone, since
    its text may hold what was in the message. Only InvariantBroken goes on."""

    def __init__(self, on_message: Callable[[Arrived], None], log: FilteringBoundLogger) -> None:
        self._on_message = on_message
        self._log = log
        self._said = False

    def tell(self, message: Arrived) -> None:
        try:
            self._on_message(message)
        except InvariantBroken:
            raise
        except Exception as error:  # noqa: BLE001 - a callback's fault must not cost the connection
            level = self._log.debug if self._said else self._log.error
            self._said = True
            level("bus.message_callback_failed", topic=message.topic, error=type(error).__name__)


class Bus:
    """Publishes and receives over one broker. `on_message` is called for each message, in order; it must not block.
    Its exceptions are logged and contained.
    `on_link` is called with True after each connect and subscribe, with False after each loss. On the topics of
    `as_published` a message sent with retain arrives marked as retained also when it comes live."""

    def __init__(
        self,
        broker: Broker,
        *,
        subscriptions: tuple[str, ...],
        on_message: Callable[[Arrived], None],
        on_link: Callable[[bool], None],
        log: FilteringBoundLogger,
        will: Will | None = None,
        as_published: frozenset[str] = frozenset(),
    ) -> None:
        self._broker = broker
        self._subscriptions = subscriptions
        self._listener = _Listener(on_message, log)
        self._on_link = on_link
        self._log = log
        self._will = will
        self._as_published = as_published
        self._queued: deque[Message] = deque()
        self._newest: dict[str, Message] = {}
        self._wake = asyncio.Event()
        self.dropped = 0
        self.connected = False

    def publish(self, message: Message) -> None:
        """Send when connected. A full queue drops its oldest message and counts it."""
        if message.keep_newest:
            self._newest.pop(message.topic, None)
            self._newest[message.topic] = message
        else:
            if len(self._queued) >= _MOST_QUEUED:
                self._queued.popleft()
                self.dropped += 1
            self._queued.append(message)
        self._wake.set()

    def forget_state(self) -> None:
        """Drop unsent state; queued messages stay."""
        self._newest.clear()

    async def run(self) -> None:
        """Keep connected until cancelled."""
        failures = 0
        while True:
            try:
                await self._one_connection()
            except (aiomqtt.MqttError, TimeoutError, OSError) as error:
                if self.connected:
                    failures = 0
                level = self._log.warning if failures == 0 else self._log.debug
                level("bus.down", broker=repr(self._broker), reason=explain(error, self._broker))
            if self.connected:
                self.connected = False
                self._on_link(False)
            await asyncio.sleep(_BACKOFF_S[min(failures, len(_BACKOFF_S) - 1)])
            failures += 1

    async def _one_connection(self) -> None:
        client = aiomqtt.Client(
            self._broker.host,
            self._broker.port,
            username=self._broker.account,
            password=self._broker.password,
            protocol=aiomqtt.ProtocolVersion.V5,
            clean_start=True,
            keepalive=10,
            timeout=5.0,
            will=aiomqtt.Will(self._will.topic, self._will.payload, qos=1, retain=True) if self._will else None,
        )
        async with client:
            for topic in self._subscriptions:
                options = SubscribeOptions(qos=1, retainAsPublished=topic in self._as_published)
                await client.subscribe(topic, options=options)
            self.connected = True
            self._log.info("bus.up", broker=repr(self._broker))
            self._on_link(True)
            await _first_error(self._send_all(client), self._receive(client))

    async def _receive(self, client: aiomqtt.Client) -> None:
        async for message in client.messages:
            self._listener.tell(_arrived(message))
        raise aiomqtt.MqttError("the broker closed the connection")

    async def _send_all(self, client: aiomqtt.Client) -> None:
        """State first, then words about it, a window at a time; a message leaves the outbox when it is acknowledged."""
        while True:
            if self._newest:
                state = list(self._newest.items())[:_WINDOW]
                await _first_error(*(self._send(client, m) for _, m in state))
                for topic, message in state:
                    if self._newest.get(topic) is message:
                        del self._newest[topic]
                continue
            batch = [self._queued[i] for i in range(min(_WINDOW, len(self._queued)))]
            if batch:
                await _first_error(*(self._send(client, m) for m in batch))
                for message in batch:
                    # A full queue may have dropped it meanwhile.
                    if self._queued and self._queued[0] is message:
                        self._queued.popleft()
                continue
            self._wake.clear()
            await self._wake.wait()

    async def _send(self, client: aiomqtt.Client, message: Message) -> None:
        properties = None
        if message.correlation is not None or message.expiry_s is not None:
            properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]  # paho has no types here
            if message.correlation is not None:
                properties.CorrelationData = message.correlation
            if message.expiry_s is not None:
                properties.MessageExpiryInterval = message.expiry_s
        await client.publish(
            message.topic, message.payload, qos=message.qos, retain=message.retain, properties=properties, timeout=5.0
        )


def _arrived(message: aiomqtt.Message) -> Arrived:
    payload = message.payload
    return Arrived(
        topic=str(message.topic),
        payload=payload if isinstance(payload, bytes) else str(payload).encode(),
        retained=bool(message.retain),
        response_topic=getattr(message.properties, "ResponseTopic", None),
        correlation=getattr(message.properties, "CorrelationData", None),
    )


async def _first_error(*work: Coroutine[object, object, None]) -> None:
    """Run side by side to the end; the first error ends the others and is raised as it is, not in a group."""
    try:
        async with asyncio.TaskGroup() as tasks:
            for part in work:
                tasks.create_task(part, name="bus")
    except ExceptionGroup as group:
        raise group.exceptions[0] from None


def explain(error: BaseException, broker: Broker) -> str:
    """One line that says where the fault is and what to do."""
    text = str(error) or type(error).__name__
    where = f"broker {broker.host}:{broker.port}"
    if "ot authorized" in text or "Bad user name" in text or "[code:134]" in text or "[code:135]" in text:
        return f"{where} refuses account {broker.account}: check its password file here and the broker's account"
    if "refused" in text.lower():
        return f"{where}: nothing listens there ({text}); check [broker] and that the broker runs"
    if "resolution" in text or "not known" in text or "No address" in text:
        return f"{where}: this host name is not known ({text}); check [broker] host"
    return f"{where}: {text}"


@asynccontextmanager
async def open_desk(
    broker: Broker, subscriptions: tuple[str, ...], on_message: Callable[[Arrived], None]
) -> AsyncIterator[Callable[[str, bytes, str], Coroutine[object, object, None]]]:
    """One connection for a person's command line, without an outbox. Yields `publish(topic, payload, response_topic)`.
    Raises LinkDown with one line that says what to do."""
    client = aiomqtt.Client(
        broker.host,
        broker.port,
        username=broker.account,
        password=broker.password,
        protocol=aiomqtt.ProtocolVersion.V5,
        timeout=5.0,
    )

    async def publish(topic: str, payload: bytes, response_topic: str) -> None:
        properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]  # paho has no types here
        properties.ResponseTopic = response_topic
        await client.publish(topic, payload, qos=1, properties=properties)

    listener = _Listener(on_message, structlog.get_logger())

    async def receive() -> None:
        async for message in client.messages:
            listener.tell(_arrived(message))

    try:
        async with client:
            for topic in subscriptions:
                await client.subscribe(topic, qos=1)
            receiving = asyncio.create_task(receive(), name="desk-receive")
            try:
                yield publish
            finally:
                receiving.cancel()
                await asyncio.gather(receiving, return_exceptions=True)
    except (aiomqtt.MqttError, OSError) as error:
        raise LinkDown(explain(error, broker)) from error


async def check_broker(broker: Broker) -> None:
    """Log in and out. Raises LinkDown."""
    async with open_desk(broker, (), lambda _: None):
        pass
