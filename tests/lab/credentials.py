"""The lab's passwords: made once for a lab, random, each in a file of its own that only this user reads."""

from __future__ import annotations

import hashlib
import secrets
from pathlib import Path

REALM = "controlplane"


class Credentials:
    """Passwords by name, such as `mqtt-coordinator`, `ami-nanchang`, `agent-n01`, `intersite`, under one folder."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)
        self._folder = folder

    def path(self, name: str) -> Path:
        """The file that holds this password; the password is made at the first asking."""
        path = self._folder / name
        if not path.exists():
            path.touch(mode=0o600)
            path.write_text(secrets.token_urlsafe(18).replace("_", "x").replace("-", "y") + "\n")
        return path

    def password(self, name: str) -> str:
        return self.path(name).read_text().strip()


def sip_digest(user: str, password: str) -> str:
    """H(user:realm:password) as Asterisk's password_digest wants it, `MD5:<hex>`: the server holds no clear text."""
    return "MD5:" + hashlib.md5(f"{user}:{REALM}:{password}".encode()).hexdigest()
