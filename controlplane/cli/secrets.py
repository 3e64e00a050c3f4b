"""Credentials of remote agents: made here, on the machine of who enrols; only the digest leaves it."""

from __future__ import annotations

import hashlib
import os
import secrets
from pathlib import Path

from controlplane.contract.names import REALM

_ALPHABET = "abcdefghjkmnpqrstuvwxyz23456789"


def new_password() -> str:
    """20 characters without look-alikes, about 99 bits."""
    return "".join(secrets.choice(_ALPHABET) for _ in range(20))


def digest(agent: str, password: str) -> str:
    """H(user:realm:password) of RFC 2617, with MD5: what every phone knows."""
    return hashlib.md5(f"{agent}:{REALM}:{password}".encode(), usedforsecurity=False).hexdigest()


def hand_out(path: Path, password: str) -> None:
    """Write a password into a new file that only its owner can read; an existing file is never overwritten."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(password + "\n")
    except BaseException:
        path.unlink()  # A full disk: half a password is worse than none.
        raise
