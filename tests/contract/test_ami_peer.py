"""A scripted AMI peer over real sockets, there only to misbehave; good behaviour is tested on a real Asterisk.

Its own test is that bare panoramisk can log in to it: so it speaks what another client of the protocol expects.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Any

import structlog
from panoramisk import Manager

from controlplane.edge.ami.link import AmiConfig, AmiLink, Frame, Phase

SECRET = "s3cret-never-to-be-seen"
CHALLENGE = "771234"

Fields = list[tuple[str, str]]
Rule = Callable[["PeerConnection", "Sent"], Awaitable[None] | None]


class Sent:
    """One action as the peer received it."""

    def __init__(self, raw: bytes) -> None:
        self.raw = raw
        self.fields = [tuple(line.split(": ", 1)) for line in raw.decode().split("\r\n") if ": " in line]

    def get(self, name: str) -> str:
        return next((value for key, value in self.fields if key.lower() == name.lower()), "")

    @property
    def name(self) -> str:
        return self.get("Action")

    @property
    def id(self) -> str:
        return self.get("ActionID")


class PeerConnection:
    """The peer's end of one connection."""

    def __init__(self, peer: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.peer, self.reader, self.writer = peer, reader, writer

    def send(self, *lines: str) -> None:
        self.raw("\r\n".join(lines).encode() + b"\r\n\r\n")

    def raw(self, data: bytes) -> None:
        if not self.writer.is_closing():
            self.writer.write(data)

    def ok(self, sent: Sent, *lines: str) -> None:
        self.send("Response: Success", f"ActionID: {sent.id}", *lines)

    def refuse(self, sent: Sent, message: str) -> None:
        self.send("Response: Error", f"ActionID: {sent.id}", f"Message: {message}")

    def items(self, sent: Sent, complete: str, items: Iterable[tuple[str, ...]]) -> None:
        self.ok(sent, "EventList: start", "Message: will follow")
        for item in items:
            self.send(item[0], f"ActionID: {sent.id}", *item[1:])
        self.send(f"Event: {complete}", f"ActionID: {sent.id}", "EventList: Complete")

    def event(self, name: str, *lines: str) -> None:
        self.send(f"Event: {name}", *lines)

    def drop(self) -> None:
        self.writer.transport.abort()


class Peer:
    """A server on loopback. `rules` replace the answer to an action by name; a rule that does nothing stays silent."""

    def __init__(self) -> None:
        self.rules: dict[str, Rule] = {}
        self.connections: list[PeerConnection] = []
        self.actions: list[Sent] = []
        self.boots = True
        self.greets = True
        self.reads = asyncio.Event()
        self.reads.set()
        self.port = 0
        self.server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def now(self) -> PeerConnection:
        return self.connections[-1]

    def named(self, name: str) -> list[Sent]:
        return [sent for sent in self.actions if sent.name == name]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        connection = PeerConnection(self, reader, writer)
        self.connections.append(connection)
        if self.greets:
            connection.raw(b"Asterisk Call Manager/11.0.0\r\n")
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            while True:
                await self.reads.wait()
                sent = Sent(await reader.readuntil(b"\r\n\r\n"))
                self.actions.append(sent)
                done = self.rules.get(sent.name, self.behave)(connection, sent)
                if done is not None:
                    await done
        writer.transport.abort()
        self._tasks.discard(task)

    def behave(self, connection: PeerConnection, sent: Sent) -> None:
        """As Asterisk does, as far as the link needs it."""
        match sent.name:
            case "Challenge":
                connection.ok(sent, f"Challenge: {CHALLENGE}")
            case "Login":
                digest = hashlib.md5((CHALLENGE + SECRET).encode()).hexdigest()
                if sent.get("Key") != digest and sent.get("Secret") != SECRET:
                    connection.refuse(sent, "Authentication failed")
                    connection.writer.close()
                    return
                connection.ok(sent, "Message: Authentication accepted")
                if self.boots:
                    connection.event("FullyBooted", "Privilege: system,all", "Status: Fully Booted")
            case "Ping":
                connection.ok(sent, "Ping: Pong")
            case _:
                connection.ok(sent)

    async def stop(self) -> None:
        if self.server is not None:
            self.server.close()
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)


@contextlib.asynccontextmanager
async def peer() -> AsyncIterator[Peer]:
    """A peer that listens; at the end nothing of it, of a link or of the test is left running."""
    before = asyncio.all_tasks()
    made = Peer()
    made.server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.port = made.server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        await made.stop()
        await until(lambda: asyncio.all_tasks() <= before, what="no task left")


class Linked:
    """A link under test with what it told."""

    def __init__(self, config: AmiConfig) -> None:
        self.events: list[Frame] = []
        self.phases: list[Phase] = []
        self.details: list[str] = []
        self.logged: list[dict[str, Any]] = []
        self.on_event: Callable[[Frame], None] = self.events.append
        self.synchronised = 0
        self.synchronise: Callable[[AmiLink], Awaitable[None]] = self.count
        self.link = AmiLink(
            config,
            on_event=self.take,
            on_phase=self.moved,
            synchronise=self.snapshot,
            log=recording_log(self.logged),
        )
        self.task: asyncio.Task[None] | None = None

    def take(self, frame: Frame) -> None:
        self.on_event(frame)  # looked up each time: a test may replace it while the link runs

    async def snapshot(self, link: AmiLink) -> None:
        await self.synchronise(link)

    async def count(self, link: AmiLink) -> None:
        self.synchronised += 1

    def moved(self, phase: Phase, detail: str) -> None:
        self.phases.append(phase)
        self.details.append(detail)

    def start(self) -> None:
        self.task = asyncio.create_task(self.link.run(), name="ami-run")

    async def ready(self, times: int = 1) -> None:
        await until(lambda: self.phases.count(Phase.READY) >= times, what=f"READY {times} times")

    async def down(self, times: int = 1) -> None:
        await until(lambda: self.phases.count(Phase.DOWN) >= times, what=f"DOWN {times} times")

    async def stop(self) -> None:
        if self.task is not None:
            self.task.cancel()
            await asyncio.wait([self.task])


def recording_log(into: list[dict[str, Any]]) -> Any:
    """A structlog logger that keeps its entries, DEBUG too."""

    def keep(_logger: object, level: str, entry: Any) -> str:
        into.append({"level": level, **entry})
        raise structlog.DropEvent

    return structlog.wrap_logger(
        structlog.ReturnLogger(), processors=[keep], wrapper_class=structlog.make_filtering_bound_logger(0)
    ).bind()


def settings(port: int, **changes: Any) -> AmiConfig:
    """Deadlines short enough for tests."""
    values: dict[str, Any] = {
        "host": "127.0.0.1",
        "port": port,
        "username": "controlplane",
        "secret": SECRET,
        "ping_interval_s": 5.0,
        "ping_timeout_s": 5.0,
        "connect_timeout_s": 2.0,
        "action_timeout_s": 2.0,
        "backoff_min_s": 0.01,
        "backoff_max_s": 0.05,
        **changes,
    }
    return AmiConfig(**values)


@contextlib.asynccontextmanager
async def linked(to: Peer, *, started: bool = True, **changes: Any) -> AsyncIterator[Linked]:
    """A link to the peer, READY when `started`; cancelled at the end."""
    made = Linked(settings(to.port, **changes))
    try:
        if started:
            made.start()
            await made.ready()
        yield made
    finally:
        await made.stop()


@contextlib.asynccontextmanager
async def bare(to: Peer) -> AsyncIterator[Manager]:
    """Bare panoramisk, logged in to the peer."""
    manager = Manager(
        host="127.0.0.1",
        port=to.port,
        username="controlplane",
        secret=SECRET,
        ping_delay=3600,
        reconnect_timeout=3600,
    )
    await manager.connect()
    await until(lambda: manager.authenticated, what="panoramisk logged in")
    try:
        yield manager
    finally:
        if manager.pinger is not None:
            manager.pinger.cancel()
        manager.protocol.transport.abort()


async def until(true: Callable[[], bool], *, within_s: float = 5.0, what: str = "the state waited for") -> None:
    """Wait for a state; a deadline, no fixed sleeps."""
    ends_at = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < ends_at, f"not reached in {within_s} s: {what}"
        await asyncio.sleep(0.002)


async def test_bare_panoramisk_can_log_in_to_the_peer() -> None:
    async with peer() as server, bare(server) as manager:
        answer = await asyncio.wait_for(manager.send_action({"Action": "Ping"}), 2)
        assert answer.ping == "Pong"
