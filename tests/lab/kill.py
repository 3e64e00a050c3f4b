"""Killing a PBX host, with the list of its calls taken up to the last moment; and what became of each.

The list is the dying server's own (over AMI), what became of a call is the carrier's ledger: two sources that know
nothing of each other.
"""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Iterable

import msgspec

from tests.lab.lab import Lab
from tests.lab.shell import LabError
from tests.lab.world import Call

#: A BYE or a 200 that crossed the kill: both ends saw the same end within this time.
CROSSING_MS = 250
_READY_S = 20.0
_DEATH_S = 30.0


class Death(msgspec.Struct, frozen=True):
    """When a host died (epoch milliseconds) and its calls then: caller number to channel state."""

    died_ms: int
    calls: dict[str, str]


class Verdict(msgspec.Struct, frozen=True):
    """`listed`: the callers on the list. `cut`: established over the host when it died. `saved`: not yet answered, taken
    elsewhere or still offered. `ended`: over at the moment of death. `unlisted` and `unexplained` must be empty."""

    listed: frozenset[str]
    cut: frozenset[str]
    saved: frozenset[str]
    ended: frozenset[str]
    unlisted: frozenset[str]
    unexplained: frozenset[str]


def host(lab: Lab, site: str) -> Death:
    """SIGKILL a site's Asterisk, then its daemon; returns the list of calls at its death."""
    script = (lab.layout.checkout / "tests" / "lab" / "death_list.py").read_text()
    argv = ["docker", "exec", "-i", lab.layout.container(f"{site}-daemon"), "python3", "-"]
    with subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as lister:
        watchdog = threading.Timer(_READY_S + _DEATH_S, lister.kill)
        watchdog.start()
        try:
            if lister.stdin is None or lister.stdout is None or lister.stderr is None:
                raise LabError("the lister has no pipes")
            lister.stdin.write(script)
            lister.stdin.close()
            if '"ready"' not in lister.stdout.readline():
                raise LabError(f"the list of calls at {site} could not be taken: {lister.stderr.read()[-500:]}")
            lab.kill(site)
            last = lister.stdout.readline()
            if not last:
                raise LabError(f"the list of calls at {site} ended early: {lister.stderr.read()[-500:]}")
            found = json.loads(last)
        finally:
            watchdog.cancel()
            lister.kill()
    lab.kill(f"{site}-daemon")
    return Death(found["died_ms"], found["calls"])


def judge(death: Death, calls: Iterable[Call], site: str, agent_letter: str) -> Verdict:
    """What became of the calls on the list, and of those that should have been on it."""
    by_number = {c.number: c for c in calls}
    cut = {c.number for c in by_number.values() if _stood_on(c, death, site, agent_letter)}
    listed = {n for n in death.calls if n in by_number}
    rest = listed - cut
    ended = {n for n in rest if _over_at(by_number[n], death)}
    saved = {n for n in rest - ended if _went_on(by_number[n], death, site)}
    return Verdict(
        listed=frozenset(listed),
        cut=frozenset(cut),
        saved=frozenset(saved),
        ended=frozenset(ended),
        unlisted=frozenset(cut - listed),
        unexplained=frozenset(rest - ended - saved),
    )


def _stood_on(call: Call, death: Death, site: str, letter: str) -> bool:
    """Established over the host when it died: answered by it, or by one of its agents, and not over yet."""
    if call.answered_ms is None or call.answered_ms > death.died_ms + CROSSING_MS:
        return False
    if call.ended_ms is not None and call.ended_ms <= death.died_ms:
        return False
    return call.ingress == site or any(t.agent.startswith(letter) for t in call.talks)


def _over_at(call: Call, death: Death) -> bool:
    return call.ended_ms is not None and call.ended_ms <= death.died_ms


def _went_on(call: Call, death: Death, site: str) -> bool:
    """Not answered there: the carrier left that way in, and the call was answered by another, or its caller gave up."""
    return call.ingress != site and (call.answered_ms is None or call.answered_ms >= death.died_ms)
