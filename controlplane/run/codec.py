"""JSON of the contract at the edge of a process: bytes to values, and why not."""

from __future__ import annotations

from typing import TypeVar

import msgspec

T = TypeVar("T")


class Unreadable(Exception):
    """A payload is not what its topic carries."""


def decode(payload: bytes, form: type[T]) -> T:
    """The value in a payload. Unknown fields are tolerated, except in commands, whose types forbid them."""
    try:
        return msgspec.json.decode(payload, type=form)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Unreadable(str(error)) from None


def encode(value: object) -> bytes:
    return msgspec.json.encode(value)
