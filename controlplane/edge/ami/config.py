"""The settings of an AMI link. The secret is kept out of every representation."""

from __future__ import annotations

from typing import Any

import msgspec


class AmiConfig(msgspec.Struct, frozen=True):
    """Where and how to log in, and the deadlines of the link.

    A silent peer is noticed after at most `ping_interval_s + ping_timeout_s`. `event_filters` are the names of the
    events that are wanted; they are filtered at the server and again here; empty: all events. `queue_size` is in
    events. `connect_timeout_s` holds for the socket and for each step of the login; `boot_notice_s` is when a boot that
    takes long is said.
    """

    host: str
    port: int
    username: str
    secret: str
    ping_interval_s: float = 3.0
    ping_timeout_s: float = 5.0
    connect_timeout_s: float = 5.0
    action_timeout_s: float = 10.0
    boot_notice_s: float = 10.0
    backoff_min_s: float = 0.2
    backoff_max_s: float = 10.0
    event_filters: tuple[str, ...] = ()
    queue_size: int = 10_000

    def __repr__(self) -> str:
        return f"<AmiConfig {self.username}@{self.host}:{self.port}>"

    def __rich_repr__(self) -> list[tuple[str, Any]]:  # msgspec's own shows every field
        return [("at", f"{self.username}@{self.host}:{self.port}")]
