"""When a service of the lab is ready, asked of its state: never a fixed wait."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

from paho.mqtt.client import Client, MQTTv5
from paho.mqtt.enums import CallbackAPIVersion

from tests.lab.layout import PHONES_PORT, SITES

if TYPE_CHECKING:
    from tests.lab.lab import Lab

CARRIER_CLI = ("asterisk", "-C", "/run/world/etc/asterisk.conf", "-rx")
LOGIN_TIMEOUT_S = 5.0


def why_not_ready(lab: Lab, service: str, among: Sequence[str]) -> str | None:
    """What is missing, or None. `among` are the services that are being started with it."""
    if not lab.is_running(service):
        return "its container does not run"
    if service in SITES:
        return _asterisk_missing(lab, service)
    if service == "broker":
        return broker_refuses(lab, "observer")
    if service == "world":
        return _world_missing(lab, [site for site in SITES if site in among])
    return None


def _asterisk_missing(lab: Lab, site: str) -> str | None:
    said = lab.exec(site, ["asterisk", "-rx", "core waitfullybooted"], check=False)
    return None if "fully booted" in said.out else "Asterisk has not booted fully"


def _world_missing(lab: Lab, sites: Sequence[str]) -> str | None:
    booted = lab.exec("world", [*CARRIER_CLI, "core waitfullybooted"], check=False)
    if "fully booted" not in booted.out:
        return "the carrier has not booted fully"
    # /proc/net/udp writes ports in hexadecimal.
    if f":{PHONES_PORT:04X} " not in lab.exec("world", ["cat", "/proc/net/udp"]).out:
        return "the phones do not listen"
    return ingress_missing(lab, sites)


def ingress_missing(lab: Lab, sites: Sequence[str]) -> str | None:
    """Which of these sites the carrier would not try at the moment, or None: OPTIONS decide that, every 3 s."""
    contacts = lab.exec("world", [*CARRIER_CLI, "pjsip show contacts"]).out
    for site in sites:
        line = next((line for line in contacts.splitlines() if f" {site}/sip:" in line), "")
        if " Avail " not in line:
            return f"the carrier has no answer to its OPTIONS from {site}"
    return None


def ways_missing(lab: Lab) -> str | None:
    """Which way between the carrier and the sites, or between two sites, nobody would try at the moment, or None. After a
    site was dead or frozen, each end learns of the other by its next OPTIONS only."""
    for site in SITES:
        if not lab.is_running(site):
            return f"{site} does not run"
        for line in lab.asterisk_cli(site, "pjsip show contacts").splitlines():
            if ("carrier/sip:" in line or "site-" in line) and " Avail " not in line:
                return f"{site} has no answer to its OPTIONS: {' '.join(line.split())}"
    return ingress_missing(lab, SITES)


def broker_refuses(lab: Lab, user: str) -> str | None:
    """Why the broker does not take this login, or None. MQTT 5, as every client of ours."""
    account = lab.account(user)
    address, port = lab.broker_address()
    answered = threading.Event()
    reasons: list[str] = []
    client = Client(CallbackAPIVersion.VERSION2, client_id=f"lab-health-{user}", protocol=MQTTv5)
    client.username_pw_set(account.user, account.password)

    def on_connect(_client: object, _userdata: object, _flags: object, reason: object, _properties: object) -> None:
        reasons.append(str(reason))
        answered.set()

    client.on_connect = on_connect
    try:
        client.connect(address, port, keepalive=10)
        client.loop_start()
        answered.wait(LOGIN_TIMEOUT_S)
    except OSError as failed:
        return f"no connection to the broker at {address}:{port} ({failed})"
    finally:
        client.disconnect()
        client.loop_stop()
    if not reasons:
        return "the broker does not answer a login"
    return None if reasons[0] == "Success" else f"the broker refuses {user}: {reasons[0]}"
