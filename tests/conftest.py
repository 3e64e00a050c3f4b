"""A guard around every test that needs no container: it leaves no task, no thread and no socket behind."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

#: How long an end that was begun (a transport that closes, a thread that was told to stop) may take.
END_S = 2.0
FDS = Path("/proc/self/fd")
HERE = Path(__file__).parent
GUARDED = (HERE / "unit", HERE / "contract")


def threads() -> set[threading.Thread]:
    """Live threads but those of a loop's own executor, which lives as long as the loop."""
    return {t for t in threading.enumerate() if not t.name.startswith("asyncio_")}


def sockets() -> set[str]:
    """The open sockets of this process by descriptor and inode; empty where the system does not tell."""
    found = set()
    try:
        numbers = os.listdir(FDS)
    except OSError:
        return found
    for number in numbers:
        try:
            target = os.readlink(FDS / number)
        except OSError:  # The descriptor by which the folder was read.
            continue
        if target.startswith("socket:"):
            found.add(f"{number} {target}")
    return found


class Before:
    """What was there before a test, and what is there since."""

    def __init__(self) -> None:
        self.tasks = asyncio.all_tasks()
        self.threads = threads()
        self.sockets = sockets()

    def left(self) -> list[str]:
        here = asyncio.current_task()
        tasks = [f"task {t.get_name()}" for t in asyncio.all_tasks() - self.tasks if t is not here and not t.done()]
        return tasks + [f"thread {t.name}" for t in threads() - self.threads] + sorted(sockets() - self.sockets)


@pytest.fixture(autouse=True)
async def nothing_is_left(request: pytest.FixtureRequest) -> AsyncIterator[None]:
    """Fails a test that leaves something running, and names it."""
    if not any(folder in request.path.parents for folder in GUARDED):
        yield
        return
    before = Before()
    yield
    deadline = time.monotonic() + END_S
    while (left := before.left()) and time.monotonic() < deadline:  # noqa: ASYNC110 - a transport tells nobody
        await asyncio.sleep(0.001)
    assert not left, f"left behind: {'; '.join(left)}"
