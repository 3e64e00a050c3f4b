"""Names and addresses of one lab. All follow from the path of the checkout, so that two checkouts on one machine never
meet, and a run can find what a crashed run before it left behind."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

import msgspec

from tests.lab.shell import LabError

FLEET = "hotline"
SITES = ("nanchang", "chengdu")
SERVICES = {"claims": "95556", "enquiries": "95557"}
AGENTS_AT_SITE = 40
#: Static agents are named by the first letter of their site: n01 … n40, c01 … c40.
AGENT_LETTER = {"nanchang": "n", "chengdu": "c"}
PERSONS = ("wang", "observer")
DAEMON_ACCOUNTS = ("site-nanchang", "site-chengdu", "coordinator", "coordinator2")
#: What `up` starts when nothing is named; coordinator2 is started by name where a test wants a second one.
DEFAULT_SERVICES = (
    "broker",
    "nanchang",
    "chengdu",
    "world",
    "nanchang-daemon",
    "chengdu-daemon",
    "coordinator",
    "desk",
)
#: Which container's network a daemon lives in.
NETWORK_OF = {"nanchang-daemon": "nanchang", "chengdu-daemon": "chengdu"}
_CORE = {"broker": 2, "coordinator": 3, "coordinator2": 4, "desk": 5, "nanchang": 11, "chengdu": 12}
_TRUNK = {"world": 66, "nanchang": 75, "chengdu": 76}
_ACCESS = {"world": 130, "nanchang": 139, "chengdu": 140}
PHONES_PORT = 6000


class Layout(msgspec.Struct, frozen=True):
    """`checkout` is the repository's root; `project` names every container, network and volume; `net` is the first three
    numbers of the /24."""

    checkout: Path
    project: str
    net: str

    @property
    def build(self) -> Path:
        return self.checkout / "build" / "lab"

    @property
    def home(self) -> Path:
        """Where everything generated for this lab lives: configuration, secrets, logs."""
        return self.build / self.project

    @property
    def secrets(self) -> Path:
        return self.home / "secrets"

    def core(self, host: str) -> str:
        return f"{self.net}.{_CORE[host]}"

    def trunk(self, host: str) -> str:
        return f"{self.net}.{_TRUNK[host]}"

    def access(self, host: str) -> str:
        return f"{self.net}.{_ACCESS[host]}"

    @property
    def phones(self) -> str:
        """Where the phones of all static agents listen, as host:port."""
        return f"{self.access('world')}:{PHONES_PORT}"

    def container(self, service: str) -> str:
        return f"{self.project}-{service}"


def layout_of(checkout: Path) -> Layout:
    """The lab of this checkout. CP_LAB_NAME makes one more lab of the same checkout, with names and addresses of its own;
    CP_LAB_SUBNET (a /24 such as 10.77.12.0/24) overrides the derived network."""
    name = os.environ.get("CP_LAB_NAME", "")
    identity = f"{checkout.resolve()}#{name}" if name else str(checkout.resolve())
    digest = hashlib.sha256(identity.encode()).digest()
    wanted = os.environ.get("CP_LAB_SUBNET", "")
    if wanted:
        match = re.fullmatch(r"(\d{1,3}\.\d{1,3}\.\d{1,3})\.0/24", wanted)
        if match is None:
            raise LabError(f"CP_LAB_SUBNET={wanted!r}: want a /24 such as 10.77.12.0/24")
        net = match.group(1)
    else:
        # 10.64-10.191: away from the low numbers that offices use and from Docker's own pools (172.17-31, 192.168).
        net = f"10.{64 + digest[4] % 128}.{digest[5]}"
    return Layout(checkout=checkout.resolve(), project=f"cplab-{digest.hex()[:8]}", net=net)


def agents_of(site: str) -> tuple[str, ...]:
    """The static agents whose home is `site`."""
    return tuple(f"{AGENT_LETTER[site]}{n:02d}" for n in range(1, AGENTS_AT_SITE + 1))
