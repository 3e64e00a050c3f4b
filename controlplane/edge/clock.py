"""The clocks of this host."""

from __future__ import annotations

import datetime as dt
import time


def monotonic_s() -> float:
    """Seconds that never go back; only differences mean something."""
    return time.monotonic()


def wall() -> dt.datetime:
    """The time of day in UTC."""
    return dt.datetime.now(dt.UTC)


def wall_ms() -> int:
    """Epoch milliseconds, as the dialplan counts."""
    return time.time_ns() // 1_000_000
