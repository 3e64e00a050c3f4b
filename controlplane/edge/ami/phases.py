"""The life of an AMI link as named phases, and which may follow which.

Actions of others go out only in SYNCING (the full snapshots after each connect) and READY. There is no way round
SYNCING: AMI has no sequence numbers, so after any cut only a full snapshot says what is true.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final


class Phase(StrEnum):
    """Where the link is."""

    DOWN = "down"
    CONNECTING = "connecting"
    AUTHENTICATING = "authenticating"  # challenge, login, event filters, FullyBooted
    SYNCING = "syncing"
    READY = "ready"


LEGAL_MOVES: Final[dict[Phase, frozenset[Phase]]] = {
    Phase.DOWN: frozenset({Phase.CONNECTING}),
    Phase.CONNECTING: frozenset({Phase.AUTHENTICATING, Phase.DOWN}),
    Phase.AUTHENTICATING: frozenset({Phase.SYNCING, Phase.DOWN}),
    Phase.SYNCING: frozenset({Phase.READY, Phase.DOWN}),
    Phase.READY: frozenset({Phase.DOWN}),
}

OPEN_FOR_ACTIONS: Final = frozenset({Phase.SYNCING, Phase.READY})
