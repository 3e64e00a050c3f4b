"""The files for systemd."""

from __future__ import annotations

from configparser import ConfigParser
from pathlib import Path

import pytest

DEPLOY = Path(__file__).parents[2] / "deploy"


@pytest.mark.parametrize("name", ["site", "coordinator"])
def test_systemd_never_gives_a_daemon_up(name: str) -> None:
    unit = ConfigParser(interpolation=None)
    unit.read(DEPLOY / f"controlplane-{name}.service")
    assert unit["Unit"]["StartLimitIntervalSec"] == "0"
    assert unit["Service"]["Restart"] == "always"
    assert "StartLimitIntervalSec" not in unit["Service"]
