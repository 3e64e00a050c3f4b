"""The lab's own faults do what they say: hosts die, freeze, lose a network, and come back where they were."""

from __future__ import annotations

from tests.lab.lab import Lab

#: Connects to a host and port; for containers that have python3 and no more.
KNOCK = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=3).close()"


def reaches(lab: Lab, service: str, host: str, port: int) -> bool:
    argv = ["python3", "-c", KNOCK, host, str(port)]
    return lab.exec(service, argv, check=False).code == 0


def test_a_daemon_shares_its_sites_loopback_also_after_the_site_died(daemons: Lab) -> None:
    broker = daemons.broker_address()
    assert reaches(daemons, "nanchang-daemon", "127.0.0.1", 5038)

    daemons.kill("nanchang")
    # The host's network is gone with it: what still runs there reaches nobody.
    assert not reaches(daemons, "nanchang-daemon", *broker)

    daemons.start("nanchang")
    assert reaches(daemons, "nanchang-daemon", "127.0.0.1", 5038)
    assert reaches(daemons, "nanchang-daemon", *broker)


def test_site_and_daemon_killed_together_come_back_together(daemons: Lab) -> None:
    daemons.kill("nanchang", "nanchang-daemon")
    assert not daemons.is_running("nanchang-daemon")
    daemons.start("nanchang-daemon", "nanchang")
    assert reaches(daemons, "nanchang-daemon", "127.0.0.1", 5038)


def test_astdb_older_than_a_second_survives_a_kill(bare: Lab) -> None:
    # From the facts: puts acknowledged in the last second may be lost; a graceful look at the file is not needed.
    bare.asterisk_cli("nanchang", "database put cp mark here")
    bare.wait_for(
        "the put is in the file",
        lambda: "here" in bare.exec("nanchang", ["sh", "-c", "cat /var/lib/asterisk/astdb.sqlite3*"]).out,
        within_s=5,
    )
    bare.kill("nanchang")
    bare.start("nanchang")
    assert "here" in bare.asterisk_cli("nanchang", "database get cp mark")


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


def test_second_coordinator_is_started_by_name(daemons: Lab) -> None:
    assert not daemons.is_running("coordinator2")
    daemons.up(["coordinator2"])
    try:
        assert reaches(daemons, "coordinator2", *daemons.broker_address())
    finally:
        daemons.stop("coordinator2")


def test_networks_have_no_way_out(daemons: Lab) -> None:
    for service in ("nanchang", "desk", "world"):
        routes = daemons.exec(service, ["cat", "/proc/net/route"]).out.splitlines()[1:]
        assert routes
        # 00000000 is the default route.
        assert all(line.split()[1] != "00000000" for line in routes), service


def test_nothing_is_published_on_the_machine(daemons: Lab) -> None:
    for service in ("broker", "nanchang", "coordinator", "world"):
        assert "->" not in daemons.compose(["ps", service]).out
