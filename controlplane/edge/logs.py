"""Logs: one JSON object a line on standard error, from a thread behind a bounded queue, so that a full pipe never
stops the loop. Text is fixed, facts are fields. Never one line for each event.
"""

from __future__ import annotations

import logging
import logging.handlers
import queue
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec
import structlog

_QUEUE = 10_000


class _CountingHandler(logging.handlers.QueueHandler):
    """Drops a line when the queue is full, and counts what it dropped."""

    dropped = 0

    def enqueue(self, record: logging.LogRecord) -> None:
        try:
            self.queue.put_nowait(record)
        except queue.Full:
            self.dropped += 1


def _to_json(event: object, **_options: object) -> str:
    return msgspec.json.encode(event, enc_hook=str).decode()


@contextmanager
def logging_to_stderr(level: str, *, people: bool = False) -> Iterator[None]:
    """Set up logging for a process. `people`: lines for a terminal instead of JSON."""
    lines: queue.Queue[logging.LogRecord] = queue.Queue(_QUEUE)
    handler = _CountingHandler(lines)
    output = logging.StreamHandler(sys.stderr)
    output.setFormatter(logging.Formatter("%(message)s"))
    listener = logging.handlers.QueueListener(lines, output)
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    logging.getLogger("aiosqlite").setLevel(logging.WARNING)
    renderer = structlog.dev.ConsoleRenderer() if people else structlog.processors.JSONRenderer(serializer=_to_json)
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.stdlib.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )
    listener.start()
    try:
        yield
    finally:
        listener.stop()
        root.handlers = []
