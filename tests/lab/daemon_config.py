"""The daemons' own configuration in the lab: fleet.toml, one controlplane.toml a host, and the secrets they name.

One folder a host, mounted at /etc/controlplane: <home>/<site>/daemon, <home>/coordinator/daemon, … and <home>/desk/daemon
for the command line of a person.
"""

from __future__ import annotations

from pathlib import Path

from tests.lab.credentials import Credentials
from tests.lab.layout import SITES, Layout

BROKER_PORT = 1883
AMI_PORT = 5038
AMI_USER = "controlplane"
COORDINATORS = ("coordinator", "coordinator2")
#: Whose account the desk uses unless it is told otherwise.
DESK_PERSON = "wang"


def write_daemon_config(layout: Layout, credentials: Credentials) -> None:
    """Write every host's /etc/controlplane. Secrets are files beside the configuration that names them (`*_file`)."""
    for site in SITES:
        folder = _folder(layout, site)
        _secret(folder / "mqtt.secret", credentials.password(f"mqtt-site-{site}"))
        _secret(folder / "ami.secret", credentials.password(f"ami-{site}"))
        ami = f'[ami]\nhost = "127.0.0.1"\nport = {AMI_PORT}\nusername = "{AMI_USER}"\nsecret_file = "ami.secret"\n'
        _host(folder, layout, f'site = "{site}"', f"site-{site}", "mqtt.secret", ami)
    for coordinator in COORDINATORS:
        folder = _folder(layout, coordinator)
        _secret(folder / "mqtt.secret", credentials.password(f"mqtt-{coordinator}"))
        _host(folder, layout, f'host = "{coordinator}"', coordinator, "mqtt.secret")
    desk = _folder(layout, "desk")
    for person in ("wang", "observer"):
        _secret(desk / f"{person}.secret", credentials.password(f"mqtt-{person}"))
        _host(desk, layout, "", person, f"{person}.secret", file=f"{person}.toml")
    _host(desk, layout, "", DESK_PERSON, f"{DESK_PERSON}.secret")


def _host(
    folder: Path,
    layout: Layout,
    role: str,
    account: str,
    secret: str,
    more: str = "",
    *,
    file: str = "controlplane.toml",
) -> None:
    """One host's own file, and the fleet's beside it: the sample fleet is the lab's."""
    broker = (
        f'[broker]\nhost = "{layout.core("broker")}"\nport = {BROKER_PORT}\naccount = "{account}"\n'
        f'password_file = "{secret}"\n'
    )
    (folder / file).write_text(f'fleet_file = "fleet.toml"\n{role}\n\n{more}\n{broker}')
    (folder / "fleet.toml").write_text((layout.checkout / "deploy" / "fleet.sample.toml").read_text())


def _folder(layout: Layout, host: str) -> Path:
    folder = layout.home / host / "daemon"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _secret(path: Path, value: str) -> None:
    path.touch(mode=0o600)
    path.write_text(value + "\n")
