"""Both configuration files: every fault at once, each with its path; the samples are good."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from controlplane.contract.errors import ConfigError
from controlplane.contract.fleet import faults, warnings
from controlplane.edge.config import load

DEPLOY = Path(__file__).parents[2] / "deploy"
HOST = """
fleet_file = "fleet.toml"
site = "nanchang"
[ami]
secret_file = "ami.secret"
[broker]
host = "127.0.0.1"
account = "site-nanchang"
password_file = "mqtt.secret"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shutil.copy(DEPLOY / "fleet.sample.toml", tmp_path / "fleet.toml")
    (tmp_path / "controlplane.toml").write_text(HOST)
    (tmp_path / "ami.secret").write_text("ami-s3cret\n")
    (tmp_path / "mqtt.secret").write_text("  mqtt-s3cret \n")
    return tmp_path


def found(folder: Path) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(folder / "controlplane.toml")
    return caught.value.faults


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_the_sample_files_are_good(folder: Path) -> None:
    shutil.copy(DEPLOY / "controlplane.sample.toml", folder / "controlplane.toml")
    settings = load(folder / "controlplane.toml")
    assert faults(settings.fleet) == []
    assert warnings(settings.fleet) == []
    assert settings.host.site == "nanchang"
    assert settings.fleet.services["claims"].shares == {"nanchang": 60, "chengdu": 40}
    assert settings.fleet.ingress["95556"].trunks == ("nc-carrier", "cd-carrier")
    assert settings.host.ami is not None
    assert settings.secret(settings.host.ami.secret_file) == "ami-s3cret"
    assert settings.secret(settings.host.broker.password_file) == "mqtt-s3cret"


def test_no_secret_is_in_a_representation(folder: Path) -> None:
    assert "s3cret" not in repr(load(folder / "controlplane.toml"))


def test_a_file_that_is_not_there_or_no_toml_is_said_with_its_path(folder: Path) -> None:
    (folder / "fleet.toml").write_text("fleet = hotline")
    [fault] = found(folder)
    assert fault.startswith(f"{folder / 'fleet.toml'}: not TOML")
    (folder / "fleet.toml").write_bytes(b'fleet = "\xff"')
    assert "not TOML" in found(folder)[0]
    (folder / "fleet.toml").unlink()
    assert found(folder)[0].startswith(f"{folder / 'fleet.toml'}: cannot be read: No such file")
    (folder / "controlplane.toml").unlink()
    assert found(folder)[0].startswith(f"{folder / 'controlplane.toml'}: cannot be read")


def test_all_faults_of_both_files_and_of_the_secrets_come_at_once(folder: Path) -> None:
    fleet, host = folder / "fleet.toml", folder / "controlplane.toml"
    edit(fleet, "link_cap = 200", "link_cap = -1")
    edit(fleet, 'fleet = "hotline"', 'fleet = "Hot Line"\ncolour = "red"')
    edit(fleet, 'mode = "fixed"', 'mode = "votes"')
    edit(fleet, 'endpoint = "carrier"\ncap = 200', 'cap = "many"')
    edit(host, 'account = "site-nanchang"', "port = 70000")
    edit(host, "[ami]", "[ami]\nsecret = 1")
    faults_ = found(folder)
    paths = {f.split(": ")[0] + ": " + f.split(": ")[1] for f in faults_}
    assert paths == {f"{host}: {p}" for p in ("broker.account", "broker.port", "ami.secret")}
    edit(host, "port = 70000", 'account = "site-nanchang"')
    edit(host, "\nsecret = 1", "")
    (folder / "mqtt.secret").write_text("\n")
    (folder / "ami.secret").unlink()
    faults_ = found(folder)
    for path in (
        "sites.nanchang.link_cap", "sites.chengdu.link_cap", "fleet", "colour", "authority.mode",
        "trunks.nc-carrier.endpoint", "trunks.nc-carrier.cap", "trunks.cd-carrier.endpoint", "trunks.cd-carrier.cap",
    ):  # fmt: skip
        assert sum(f.startswith(f"{fleet}: {path}: ") for f in faults_) == 1, path
    assert any(f.startswith(f"{host}: broker.password_file: ") and "is empty" in f for f in faults_)
    assert any(f.startswith(f"{host}: ami.secret_file: ") and "cannot be read" in f for f in faults_)
    assert len(faults_) == 11


def test_rules_between_the_parts_are_told_with_both_files(folder: Path) -> None:
    fleet, host = folder / "fleet.toml", folder / "controlplane.toml"
    edit(fleet, "nanchang = 60", "nanchang = 61")
    edit(fleet, 'dids = ["95557"]', 'dids = ["95556"]')
    edit(host, 'site = "nanchang"', 'site = "beijing"\nhost = "chengdu"')
    faults_ = found(folder)
    for start in (
        f"{fleet}: services.claims.shares: the shares add up to 101",
        f"{fleet}: services.enquiries.dids: 95556 belongs to claims",
        f"{fleet}: ingress.95557: no service has this DID",
        f"{host}: site: 'beijing' is not in fleet.toml; known: nanchang, chengdu",
        f"{host}: host: 'chengdu' is no coordinator of fleet.toml; known: coordinator, coordinator2",
    ):
        assert sum(f.startswith(start) for f in faults_) == 1, start
    assert len(faults_) == 5


def test_a_site_needs_ami(folder: Path) -> None:
    edit(folder / "controlplane.toml", '[ami]\nsecret_file = "ami.secret"\n', "")
    [fault] = found(folder)
    assert fault.endswith("ami: a site needs a table [ami] with secret_file")


@pytest.mark.parametrize(
    ("old", "new", "path"),
    [
        ('host = "127.0.0.1"', "", "broker.host: missing"),
        ('site = "nanchang"', 'site = "nanchang\\n"', "site: "),
        ('site = "nanchang"', 'site = "nanchang"\nlog_level = "info\\n"', "log_level: "),
        ('site = "nanchang"', 'site = "nanchang"\nlog_level = "loud"', "log_level: "),
        ('fleet_file = "fleet.toml"', "fleet_file = 3", "fleet_file: "),
        ("[ami]", "[amy]", "amy: unknown; known here: "),
        ('[ami]\nsecret_file = "ami.secret"', "ami = 7", "ami: "),
    ],
)
def test_each_fault_of_the_hosts_own_file_names_its_path(folder: Path, old: str, new: str, path: str) -> None:
    if old == 'fleet_file = "fleet.toml"' or "ami = 7" in new:
        edit(folder / "controlplane.toml", old, "")
        text = (folder / "controlplane.toml").read_text()
        (folder / "controlplane.toml").write_text(f"{new}\n{text}")
    else:
        edit(folder / "controlplane.toml", old, new)
    assert any(f.startswith(f"{folder / 'controlplane.toml'}: {path}") for f in found(folder)), found(folder)


def test_a_secret_that_is_no_text_or_a_folder_is_a_fault(folder: Path) -> None:
    (folder / "ami.secret").write_bytes(b"\xff\xfe")
    (folder / "mqtt.secret").unlink()
    (folder / "mqtt.secret").mkdir()
    faults_ = found(folder)
    assert any("ami.secret cannot be read: it is not text" in f for f in faults_)
    assert any("mqtt.secret cannot be read: Is a directory" in f for f in faults_)


@pytest.mark.parametrize("key", ["95x", "1", "95556\\n", "1" * 21])
def test_a_key_of_a_table_keeps_the_rules_of_names(folder: Path, key: str) -> None:
    edit(folder / "fleet.toml", "[ingress.95557]", f'[ingress."{key}"]')
    assert any(": ingress." in f and "name " in f for f in found(folder))
