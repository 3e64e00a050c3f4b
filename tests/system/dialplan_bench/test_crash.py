"""A killed Asterisk ends its container, and `docker start` brings it back with what AstDB held."""

import json

import pytest

from tests.system.dialplan_bench.ami import event
from tests.system.dialplan_bench.bench import Bench, docker, wait_until
from tests.system.dialplan_bench.test_agents import AOR, AUTH, ENDPOINT, register, revoke

pytestmark = pytest.mark.system

# The image has no procps.
KILL_ASTERISK = """
for p in /proc/[0-9]*; do
    case "$(cat $p/comm 2>/dev/null)" in asterisk) kill -KILL "${p#/proc/}" ;; esac
done
"""


def test_after_sigkill_the_plan_and_the_registered_home_agent_are_there_again(bench: Bench) -> None:
    site = bench.sites["nanchang"]
    for kind, value in (("endpoint", ENDPOINT), ("auth", AUTH), ("aor", AOR)):
        site.put("cp", f"{kind}/h01", json.dumps(value))
    site.ami.action("Reload", Module="res_pjsip.so")
    assert register(bench, "pw-h01") == 0
    site.put("cp", "did/95556", "claims")
    # AstDB is written once a second: a copy of the file that has the key was written by sqlite, not by us.
    reads = "grep -aq did/95556 /var/lib/asterisk/astdb.sqlite3"
    wait_until(
        "AstDB is on disk",
        lambda: docker("exec", site.container, "sh", "-c", f"{reads} && echo yes", check=False) != "",
    )
    docker("exec", site.container, "sh", "-c", KILL_ASTERISK, check=False)
    state = "{{.State.Running}} {{.State.ExitCode}}"
    wait_until("the container ends", lambda: docker("inspect", "-f", state, site.container).strip() == "false 137")
    bench.restart("nanchang")
    site = bench.sites["nanchang"]
    assert site.database("cp")["/cp/did/95556"] == "claims"
    bench.sipp_in_background("phones", "-sn", "uas", "-aa", "-p", "6001")
    since = site.ami.mark()
    site.call("h01@cp-syn-agent", {"__CP_CALL": "syn-r"})
    site.ami.wait(1, event("CPAnswered", Target="h01"), since=since)
    since = site.ami.mark()
    site.call("95556@cp-from-carrier")
    site.ami.wait(1, event("CPArrive"), since=since)
    revoke(site)
    site.ami.action("Reload", Module="res_pjsip.so")
