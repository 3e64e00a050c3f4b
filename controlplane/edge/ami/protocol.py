"""The seam with panoramisk 1.4: the only module of the project that imports it.

What of panoramisk remains in use: `Manager` holds the address and opens the socket (`connect()`), `protocol_factory`
is where our protocol comes in, `AMIProtocol` is its base, and `IdGenerator` makes the action ids (a UUID for each
process, so a UserEvent cannot guess the id of an action in flight). Everything else of it is bypassed, because it is
at fault where we must rely on it: parser, `Action`, `send`, list detection, ping, login, replay after reconnect,
reconnect, dispatch. Each fault has a test in tests/contract. Must not know: phases, actions.
"""

from __future__ import annotations

import asyncio
import os
import socket
from typing import Protocol

from panoramisk.ami_protocol import AMIProtocol
from panoramisk.manager import Manager
from panoramisk.utils import IdGenerator

from controlplane.contract.errors import LinkDown

_action_ids = IdGenerator("cp")


def next_action_id() -> str:
    """An id that no other action of any process has."""
    return str(_action_ids())


class Session(Protocol):
    """What the seam tells about one connection. Called in the event loop, never concurrently."""

    def attached(self, transport: asyncio.Transport) -> None: ...
    def received(self, chunk: bytes) -> None: ...
    def lost(self, reason: str) -> None: ...
    def pause_writing(self) -> None: ...
    def resume_writing(self) -> None: ...


class SeamProtocol(AMIProtocol):  # type: ignore[misc]  # panoramisk has no types
    """panoramisk's protocol with every entry point handed on to a session of ours."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def connection_made(self, transport: asyncio.Transport) -> None:
        """The base sets its own fields first; none of them is used afterwards but `transport` and `closed`."""
        super().connection_made(transport)
        self._session.attached(transport)

    def data_received(self, data: bytes) -> None:
        """Replaces the decoding for each chunk (16) and the parser (8, 17, 18, 19)."""
        self._session.received(data)

    def connection_lost(self, exc: Exception | None) -> None:
        """Replaces the queueing for a replay (4, 5, 11, 23)."""
        self.closed = True
        self._session.lost("closed by the peer" if exc is None else type(exc).__name__)

    def pause_writing(self) -> None:
        """asyncio's high-water mark was passed (20)."""
        self._session.pause_writing()

    def resume_writing(self) -> None:
        """The write buffer has room again."""
        self._session.resume_writing()

    def close(self) -> None:
        """Replaces the replay that panoramisk prepares here (5)."""
        if not self.closed:
            self.closed = True
            self.transport.abort()


class SeamManager(Manager):  # type: ignore[misc]  # panoramisk has no types
    """panoramisk's manager as the opener of one socket: no login, ping, replay or reconnect of its own."""

    def connection_made(self, f: asyncio.Future[object]) -> None:
        """Done callback of `connect()`: the one who awaits it deals with a failure; here it is only taken note of."""
        if not f.cancelled():
            f.exception()


async def open_session(host: str, port: int, session: Session, *, timeout_s: float) -> None:
    """Connect and attach the session. LinkDown, with the reason, when there is no connection within `timeout_s`."""
    manager = SeamManager(host=host, port=port, protocol_factory=lambda: SeamProtocol(session))
    connecting = manager.connect()
    try:
        async with asyncio.timeout(timeout_s):
            await connecting
    except TimeoutError as error:
        raise LinkDown(f"no connection to {host}:{port} within {timeout_s:g} s") from error
    except OSError as error:
        raise LinkDown(
            f"no connection to {host}:{port} ({_plain(error)}): does Asterisk run there, and does its manager.conf "
            f"say enabled=yes, this port and this bindaddr?"
        ) from error


def _plain(error: OSError) -> str:
    """asyncio words its own text for a refused connection; the system's is what people search for."""
    if isinstance(error, socket.gaierror) or error.errno is None:
        return error.strerror or str(error)
    return os.strerror(error.errno)
