"""The lab for the system tests: up once for the whole run, taken away at its end.

CP_LAB_KEEP=1 leaves it standing (and takes what stands), for work on the tests themselves.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.lab import Lab
from tests.lab.layout import SITES

CHECKOUT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
#: Without daemons: whoever needs them asks for the fixture `daemons`, and writing cp/* by hand needs their absence.
STANDING = ("broker", *SITES, "world")
DAEMONS = ("nanchang-daemon", "chengdu-daemon", "coordinator", "desk")
#: The first test also waits for the lab, whose images may have to be built.
TIMEOUT_S = 900


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.system)
            if item.get_closest_marker("timeout") is None:
                item.add_marker(pytest.mark.timeout(TIMEOUT_S))


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    """Broker, both sites and the world, ready for calls, no daemon. A failure to have one is an error, never a skip."""
    one = Lab(CHECKOUT)
    keep = os.environ.get("CP_LAB_KEEP") == "1"
    one.ensure_engine()
    if not keep:
        one.cleanup()
    one.wipe(*DAEMONS)
    one.up(STANDING)
    yield one
    if not keep:
        one.down()


@pytest.fixture
def bare(lab: Lab) -> Iterator[Lab]:
    """The lab with every site alive and nothing in AstDB's cp and cpstate: as before the first plan. Leaves it so."""
    running = [daemon for daemon in DAEMONS if daemon != "desk" and lab.is_running(daemon)]
    assert not running, f"{running} would undo what this test writes: keep `bare` and `daemons` in modules of their own"
    _lay_bare(lab)
    lab.wait_ways_open()
    yield lab
    _lay_bare(lab)


@pytest.fixture(scope="module")
def daemons(lab: Lab) -> Iterator[Lab]:
    """The lab with all daemons up, new and with nothing remembered, for the tests of one module; then they are gone, with
    what they had written into AstDB and what the broker kept of them."""
    _forget_daemons(lab)
    lab.up([*STANDING, *DAEMONS])
    yield lab
    _forget_daemons(lab)
    lab.up(STANDING)


def _forget_daemons(lab: Lab) -> None:
    lab.wipe(*DAEMONS, "coordinator2", "broker")
    _lay_bare(lab)


def _lay_bare(lab: Lab) -> None:
    lab.thaw()
    dead = [service for service in (*SITES, "world") if not lab.is_running(service)]
    if dead:
        lab.start(*dead)
    for site in SITES:
        for family in ("cp", "cpstate"):
            lab.asterisk_cli(site, f"database deltree {family}")
