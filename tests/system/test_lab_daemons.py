"""The daemons' containers: they live and die with the host whose network they share, and offer nothing to this machine."""

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


def test_second_coordinator_is_started_by_name(daemons: Lab) -> None:
    daemons.up(["coordinator2"])
    try:
        assert reaches(daemons, "coordinator2", *daemons.broker_address())
    finally:
        daemons.stop("coordinator2")


def test_nothing_is_published_on_the_machine(daemons: Lab) -> None:
    for service in ("broker", "nanchang", "coordinator", "world"):
        assert "->" not in daemons.compose(["ps", service]).out
