"""An operation as it is published: what a person or program that sent a command gets to read.

Law: accepted is not effective. `done` is said after the effect was observed; what could not be proven is in `unproven`.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec


class OperationState(StrEnum):
    """Where a command stands."""

    REFUSED = "refused"
    ACCEPTED = "accepted"
    RUNNING = "running"
    WAITING = "waiting"
    DONE = "done"
    FAILED = "failed"
    UNDONE = "undone"
    CANCELLED = "cancelled"
    SUPERSEDED = "superseded"


FINAL = frozenset(
    {
        OperationState.REFUSED,
        OperationState.DONE,
        OperationState.FAILED,
        OperationState.UNDONE,
        OperationState.CANCELLED,
        OperationState.SUPERSEDED,
    }
)


class Refusal(msgspec.Struct, frozen=True):
    """Why a command is not obeyed. `rule` is a name that an override quotes; `detail` says what to do."""

    rule: str
    detail: str


class Operation(msgspec.Struct, frozen=True, omit_defaults=False):
    """What is published on `operation/<id>`. `progress` is 0..1; `predicted` and `observed` are per kind."""

    id: str
    kind: str
    state: OperationState
    phase: str = ""
    progress: float = 0.0
    refusals: tuple[Refusal, ...] = ()
    unproven: tuple[str, ...] = ()
    predicted: dict[str, object] = {}
    observed: dict[str, object] = {}
    key: str = ""
    at: str = ""
