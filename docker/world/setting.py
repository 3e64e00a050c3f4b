"""Where the world stands: addresses of its own two legs and of the sites, and its directories in the container."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
RUN = Path("/run/world")
STATE = Path("/var/lib/world")
LEDGER = STATE / "ledger.jsonl"
BATCHES = STATE / "batches"
PHONE_LOGS = STATE / "phones"
SIP_PORT = 5060
PHONES_PORT = 6000


@dataclass(frozen=True)
class Site:
    """One site's addresses: where carriers reach it, and where phones do."""

    trunk: str
    access: str


@dataclass(frozen=True)
class Setting:
    """`sites` is in the order in which the carrier tries them."""

    trunk: str
    access: str
    sites: dict[str, Site]


def read_setting() -> Setting:
    """From the environment variable CP_WORLD, a JSON object written by the lab."""
    said = json.loads(os.environ["CP_WORLD"])
    sites = {name: Site(trunk=site["trunk"], access=site["access"]) for name, site in said["sites"].items()}
    return Setting(trunk=said["trunk"], access=said["access"], sites=sites)
