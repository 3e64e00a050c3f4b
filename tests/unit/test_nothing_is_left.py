"""The guard of all other tests sees what it is there to see."""

from __future__ import annotations

import asyncio
import socket
import threading
import time

from tests.conftest import Before


async def test_the_guard_names_a_task_a_thread_and_a_socket_and_no_more_when_they_end() -> None:
    before = Before()
    assert before.left() == []
    end = threading.Event()
    thread = threading.Thread(target=end.wait, name="forgotten-thread", daemon=True)
    thread.start()
    task = asyncio.create_task(asyncio.Event().wait(), name="forgotten-task")
    with socket.socket():
        told = before.left()
        assert "task forgotten-task" in told
        assert "thread forgotten-thread" in told
        assert any("socket:" in line for line in told)
        assert len(told) == 3
    end.set()
    thread.join()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert before.left() == []


async def test_the_guard_is_cheap() -> None:
    rounds, start = 20, time.thread_time()
    for _ in range(rounds):
        Before().left()
    assert (time.thread_time() - start) / rounds < 0.005
