"""A plain AMI connection for the dialplan tests, through `docker exec`: AMI listens on the container's loopback only.

It shares no code with the product, so that a fault in the product's client can not hide one in the dialplan.
"""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Callable

Message = dict[str, str]

# Carries bytes between the pipes and AMI; runs inside the container.
RELAY = """
import os, socket, threading
s = socket.create_connection(("127.0.0.1", 5038))
def up():
    while data := os.read(0, 65536):
        s.sendall(data)
    s.shutdown(socket.SHUT_WR)
threading.Thread(target=up, daemon=True).start()
while data := s.recv(65536):
    view = memoryview(data)
    while view:
        view = view[os.write(1, view):]
"""


class Ami:
    """Actions and everything that was heard since the login, in order."""

    def __init__(self, docker: str, container: str, secret: str) -> None:
        self._process = subprocess.Popen(
            [docker, "exec", "-i", container, "python3", "-c", RELAY],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self._changed = threading.Condition()
        self._heard: list[Message] = []
        self._ended = False
        self._next_id = 0
        self._reader = threading.Thread(target=self._read, name=f"ami {container}", daemon=True)
        self._reader.start()
        answer = self.action("Login", Username="controlplane", Secret=secret)
        assert answer["Response"] == "Success", answer

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.kill()
        self._process.wait()
        self._reader.join()
        self._process.stdout.close()

    def action(self, name: str, variables: dict[str, str] | None = None, **fields: str) -> Message:
        """Send one action and wait for its response."""
        action_id = self.send(name, variables, **fields)
        [answer] = self.wait(1, lambda m: "Response" in m and m.get("ActionID") == action_id)
        return answer

    def send(self, name: str, variables: dict[str, str] | None = None, **fields: str) -> str:
        """Send one action without waiting; its ActionID."""
        self._next_id += 1
        action_id = f"t{self._next_id}"
        lines = [f"Action: {name}", f"ActionID: {action_id}"]
        lines += [f"{key}: {value}" for key, value in fields.items()]
        lines += [f"Variable: {key}={value}" for key, value in (variables or {}).items()]
        assert self._process.stdin is not None
        self._process.stdin.write(("\r\n".join(lines) + "\r\n\r\n").encode())
        self._process.stdin.flush()
        return action_id

    def mark(self) -> int:
        """The present end of what was heard: pass it as `since`."""
        with self._changed:
            return len(self._heard)

    def seen(self, wanted: Callable[[Message], bool], since: int = 0) -> list[Message]:
        with self._changed:
            return [message for message in self._heard[since:] if wanted(message)]

    def wait(
        self, count: int, wanted: Callable[[Message], bool], *, since: int = 0, within_s: float = 10
    ) -> list[Message]:
        """The first `count` messages that are wanted; AssertionError with what was there when time runs out."""
        deadline = time.monotonic() + within_s
        with self._changed:
            while True:
                found = [message for message in self._heard[since:] if wanted(message)]
                if len(found) >= count:
                    return found[:count]
                left = deadline - time.monotonic()
                if left <= 0 or self._ended:
                    raise AssertionError(f"{len(found)} of {count} messages; kit's events since:\n{self._told(since)}")
                self._changed.wait(left)

    def _told(self, since: int) -> str:
        events = [m for m in self._heard[since:] if m.get("Event") == "UserEvent"][-20:]
        return "\n".join(" ".join(f"{k}={v}" for k, v in list(m.items())[-10:]) for m in events)

    def _read(self) -> None:
        assert self._process.stdout is not None
        message: Message = {}
        for line in self._process.stdout:
            text = line.decode(errors="replace").rstrip("\r\n")
            key, colon, value = text.partition(":")
            if text == "" and message:
                with self._changed:
                    self._heard.append(message)
                    self._changed.notify_all()
                message = {}
            elif colon:
                message.setdefault(key.strip(), value.strip())
        with self._changed:
            self._ended = True
            self._changed.notify_all()


def event(name: str, **fields: str) -> Callable[[Message], bool]:
    """Matches a UserEvent of the kit by its name and some of its fields."""
    return lambda m: (
        m.get("Event") == "UserEvent"
        and m.get("UserEvent") == name
        and all(m.get(key) == value for key, value in fields.items())
    )
