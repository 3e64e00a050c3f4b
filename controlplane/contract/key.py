"""The key of a plan, and who may write one.

Law: keys are ordered by (generation, epoch, holder, revision), and one key never names two contents. The epoch grows
when authority changes hands; only a person raises the generation.
"""

from __future__ import annotations

import hashlib

import msgspec

from controlplane.contract.names import Count, Name


class Authority(msgspec.Struct, frozen=True, order=True, forbid_unknown_fields=False):
    """A right to write plans: every key of one authority starts with it."""

    generation: Count
    epoch: Count
    holder: Name

    @property
    def label(self) -> str:
        return f"{self.generation}.{self.epoch}.{self.holder}"


class Key(msgspec.Struct, frozen=True, order=True):
    """The key of one plan."""

    generation: Count
    epoch: Count
    holder: Name
    revision: Count

    @property
    def label(self) -> str:
        """The key as it stands in AstDB and in call events: `1.3.host.42`. Holds no colon, space or comma."""
        return f"{self.generation}.{self.epoch}.{self.holder}.{self.revision}"

    @property
    def authority(self) -> Authority:
        return Authority(self.generation, self.epoch, self.holder)

    def next_revision(self) -> Key:
        return Key(self.generation, self.epoch, self.holder, self.revision + 1)

    @classmethod
    def first(cls, authority: Authority, revision: int = 1) -> Key:
        return cls(authority.generation, authority.epoch, authority.holder, revision)


def parse_label(label: str) -> Key | None:
    """The key that a label names, or None where it is not a label. A holder may hold dots, the numbers cannot."""
    head, _, revision = label.rpartition(".")
    parts = head.split(".", 2)
    if len(parts) != 3 or not parts[2]:
        return None
    numbers = (parts[0], parts[1], revision)
    if not all(n.isascii() and n.isdigit() and len(n) < 19 for n in numbers):
        return None
    return Key(int(parts[0]), int(parts[1]), parts[2], int(revision))


def content_hash(value: object) -> str:
    """First 16 hex digits of SHA-256 over the deterministic JSON of a value: tells two contents of one key apart."""
    return hashlib.sha256(msgspec.json.encode(value, order="deterministic")).hexdigest()[:16]
