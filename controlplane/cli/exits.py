"""Exit codes, and how an operation ends as one."""

from __future__ import annotations

from enum import IntEnum

from controlplane.contract.operation import Operation, OperationState


class Exit(IntEnum):
    """0 done, 1 fault, 2 usage, 3 refused, 4 failed or undone, 5 no answer in time."""

    DONE = 0
    FAULT = 1
    USAGE = 2
    REFUSED = 3
    FAILED = 4
    NO_ANSWER = 5


def exit_for(operation: Operation | None) -> Exit:
    """The exit code that says how a command ended; None: nobody answered."""
    if operation is None:
        return Exit.NO_ANSWER
    match operation.state:
        case OperationState.REFUSED:
            return Exit.REFUSED
        case OperationState.FAILED | OperationState.UNDONE | OperationState.CANCELLED | OperationState.SUPERSEDED:
            return Exit.FAILED
        case OperationState.DONE | OperationState.ACCEPTED:
            return Exit.DONE
        case _:
            return Exit.NO_ANSWER
