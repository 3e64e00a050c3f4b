"""Parts that run side by side: each named; when one ends, all end, and systemd starts the process again."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine

from structlog.typing import FilteringBoundLogger


async def run_together(parts: dict[str, Coroutine[object, object, None]], log: FilteringBoundLogger) -> None:
    """Run all parts until one fails or the process is asked to stop. Raises the first failure as it is."""
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)
    tasks = [asyncio.create_task(part, name=name) for name, part in parts.items()]
    stop = asyncio.create_task(stopped.wait(), name="stop")
    try:
        done, _ = await asyncio.wait([*tasks, stop], return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (*tasks, stop):
            task.cancel()
        await asyncio.gather(*tasks, stop, return_exceptions=True)
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
    for task in done:
        if task is not stop and (error := task.exception()):
            log.error("part.failed", part=task.get_name(), error=str(error))
            raise error
    log.info("stopped")
