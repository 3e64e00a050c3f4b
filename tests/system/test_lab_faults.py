"""The lab's own faults do what they say: a host dies or loses a network, and comes back where it was."""

from __future__ import annotations

from tests.lab.lab import Lab
from tests.lab.shell import run


def test_networks_are_internal(lab: Lab) -> None:
    # The engine's word for: no traffic to or from anywhere but this machine.
    for network in ("core", "trunk", "access"):
        argv = ["docker", "network", "inspect", "-f", "{{.Internal}}", f"{lab.layout.project}_{network}"]
        assert run(argv, timeout_s=20).out.strip() == "true"


def test_astdb_older_than_a_second_survives_a_kill(bare: Lab) -> None:
    # Puts of the last second may be lost with the host: wait until the file has it.
    bare.asterisk_cli("nanchang", "database put labmark key a-value-of-the-lab")
    bare.wait_for(
        "the put is in the file",
        lambda: "a-value-of-the-lab" in bare.exec("nanchang", ["sh", "-c", "cat /var/lib/asterisk/astdb.sqlite3*"]).out,
        within_s=5,
    )
    bare.kill("nanchang")
    bare.start("nanchang")
    assert "a-value-of-the-lab" in bare.asterisk_cli("nanchang", "database get labmark key")
    bare.asterisk_cli("nanchang", "database deltree labmark")


def test_cut_and_mended_network(bare: Lab) -> None:
    bare.cut("chengdu", "trunk")
    cli = ["asterisk", "-C", "/run/world/etc/asterisk.conf", "-rx", "pjsip show contacts"]

    def seen(word: str) -> bool:
        lines = bare.exec("world", cli).out.splitlines()
        return any(" chengdu/sip:" in line and f" {word} " in line for line in lines)

    try:
        bare.wait_for("the carrier sees that chengdu is gone", lambda: seen("Unavail"), within_s=10)
    finally:
        bare.mend("chengdu", "trunk")
    bare.wait_for("the carrier sees chengdu again", lambda: seen("Avail"), within_s=10)
