"""The errors of the control plane.

Each says what is known about the world after it: nothing was sent (`LinkDown`, `PayloadError`), the other side said no
(`ActionRefused`), or nobody knows (`OutcomeUnknown`: look before acting again, never resend). A refused command is a
value, not an error: see `contract.operation.Refusal`.
"""

from __future__ import annotations


class ControlPlaneError(Exception):
    """Base of all errors that the program raises on purpose."""


class LinkDown(ControlPlaneError):
    """There is no usable connection; nothing was sent."""


class ActionRefused(ControlPlaneError):
    """Asterisk answered an action with an error."""

    def __init__(self, action: str, message: str) -> None:
        super().__init__(f"{action}: {message}")
        self.action = action
        self.message = message


class OutcomeUnknown(ControlPlaneError):
    """An action was sent and its answer never came: it may have happened. Look; never resend."""


class PayloadError(ControlPlaneError):
    """A value cannot be sent as it is. Names the field and the rule."""


class JournalError(ControlPlaneError):
    """The journal cannot be written: nothing new may be accepted."""


class ConfigError(ControlPlaneError):
    """One or more faults in the configuration, all found at once, each with its path."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = faults


class InvariantBroken(ControlPlaneError):
    """A thing that must never happen did; the process ends and is started again."""
