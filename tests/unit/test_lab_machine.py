"""What the lab decides about the machine it runs on, without touching an engine."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.lab import __main__ as lab_main
from tests.lab import engine, images
from tests.lab.base_image import debian_mirror
from tests.lab.images import ca_bundle, content_hash, requirements
from tests.lab.layout import DAEMON_ACCOUNTS, FLEET, PERSONS, agents_of, layout_of
from tests.lab.shell import Finished, LabError, run

CHECKOUT = Path(__file__).resolve().parents[2]


def test_two_checkouts_never_share_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("CP_LAB_SUBNET", "CP_LAB_NAME"):
        monkeypatch.delenv(variable, raising=False)
    one, other = layout_of(tmp_path / "one"), layout_of(tmp_path / "other")
    assert one.project != other.project
    assert one == layout_of(tmp_path / "one")

    monkeypatch.setenv("CP_LAB_NAME", "second")
    assert layout_of(tmp_path / "one").project != one.project
    monkeypatch.setenv("CP_LAB_SUBNET", "10.77.12.0/24")
    assert layout_of(tmp_path / "one").core("broker") == "10.77.12.2"
    monkeypatch.setenv("CP_LAB_SUBNET", "10.77.12.0/16")
    with pytest.raises(LabError, match="CP_LAB_SUBNET"):
        layout_of(tmp_path / "one")


def test_agents_are_named_after_their_site() -> None:
    assert (agents_of("nanchang")[0], agents_of("chengdu")[-1]) == ("n01", "c40")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (
            "sources.list",
            "# deb http://old.example/debian bookworm main\ndeb http://mirror.example/debian bookworm main\n",
        ),
        ("sources.list.d/x.list", "deb [signed-by=/k.gpg] http://mirror.example/debian/ trixie main\n"),
        ("sources.list.d/debian.sources", "Types: deb\nURIs: http://mirror.example/debian\nSuites: trixie\n"),
    ],
)
def test_mirror_is_the_machines_own(tmp_path: Path, name: str, text: str) -> None:
    release = tmp_path / "os-release"
    release.write_text("NAME=Debian\nID=debian\n")
    (tmp_path / "sources.list.d").mkdir()
    (tmp_path / "sources.list.d" / "other.list").write_text("deb https://packages.example/apt stable main\n")
    (tmp_path / name).write_text(text)
    mirror = debian_mirror(tmp_path, release)
    assert mirror is not None
    assert mirror.rstrip("/") == "http://mirror.example/debian"


def test_mirror_of_another_system_is_not_debians(tmp_path: Path) -> None:
    release = tmp_path / "os-release"
    release.write_text("ID=ubuntu\nID_LIKE=debian\n")
    (tmp_path / "sources.list").write_text("deb http://mirror.example/ubuntu noble main\n")
    assert debian_mirror(tmp_path, release) is None


def test_tag_follows_names_contents_and_arguments(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("1")
    first = content_hash(tmp_path, {"BASE": "x"})
    assert first == content_hash(tmp_path, {"BASE": "x"})
    assert first != content_hash(tmp_path, {"BASE": "y"})
    (tmp_path / "a").write_text("2")
    assert first != content_hash(tmp_path, {"BASE": "x"})


def test_requirements_are_those_of_the_package() -> None:
    stated = requirements(CHECKOUT / "pyproject.toml")
    assert any(line.startswith("panoramisk==") for line in stated)
    assert any(line.startswith("setuptools") for line in stated)


def test_bundle_that_is_named_must_be_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("CP_CA_BUNDLE", "PIP_CERT", "SSL_CERT_FILE"):
        monkeypatch.delenv(variable, raising=False)
    assert ca_bundle() is None
    monkeypatch.setenv("CP_CA_BUNDLE", str(tmp_path / "none.pem"))
    with pytest.raises(LabError, match="CP_CA_BUNDLE"):
        ca_bundle()


def test_stale_pid_files_go_and_living_ones_stay(tmp_path: Path) -> None:
    path = tmp_path / "docker.pid"
    assert not engine.remove_stale_pid_file(path, "dockerd")
    own_name = Path("/proc/self/comm").read_text().strip()
    path.write_text(f"{os.getpid()}\n")
    assert not engine.remove_stale_pid_file(path, own_name)
    assert engine.remove_stale_pid_file(path, "dockerd"), "another program has that pid now"
    for left in ("", "not a number", "4194400"):
        path.write_text(left)
        assert engine.remove_stale_pid_file(path, "dockerd")
        assert not path.exists()


def test_only_our_own_engine_is_stopped(tmp_path: Path) -> None:
    assert "left as it is" in engine.stop_engine(tmp_path)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as stranger:
        # The pid of a process that began at another time: the pid was used again.
        (tmp_path / "engine.json").write_text(f'{{"pid":{stranger.pid},"ticks":1}}')
        assert "gone already" in engine.stop_engine(tmp_path)
        assert stranger.poll() is None
        stranger.kill()


def test_a_program_that_fails_is_named_with_its_words() -> None:
    with pytest.raises(LabError, match="is not installed"):
        run(["no-such-program"], timeout_s=5)
    with pytest.raises(LabError, match="no result within"):
        run(["sleep", "5"], timeout_s=0.1)
    with pytest.raises(LabError, match=r"(?s)ended with 3.*the reason"):
        run(["sh", "-c", "echo the reason >&2; exit 3"], timeout_s=5)


def test_access_rules_name_every_account_and_this_fleet_only() -> None:
    lines = (CHECKOUT / "deploy" / "mosquitto.acl").read_text().splitlines()
    users = [line.split()[1] for line in lines if line.startswith("user ")]
    assert sorted(users) == sorted((*DAEMON_ACCOUNTS, *PERSONS))
    topics = [line.split()[2] for line in lines if line.startswith("topic ")]
    assert topics
    assert all(topic.startswith(f"controlplane/v1/{FLEET}/") for topic in topics)


class Docker:
    """What `docker` is asked, in order; images whose removal is refused are in `used`."""

    def __init__(self, *tags: str, used: str = "") -> None:
        self.asked: list[str] = []
        self.tags, self.used = tags, used

    def run(self, argv: list[str], *, timeout_s: float, check: bool = True) -> Finished:
        self.asked.append(" ".join(argv))
        if argv[1] == "images":
            assert "reference=controlplane-lab-*" in argv
            return Finished(0, "\n".join(self.tags), "")
        return Finished(int(argv[-1] == self.used), "", "")


def test_only_images_of_the_lab_are_removed_and_those_in_use_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    docker = Docker("controlplane-lab-base:1", "controlplane-lab-world:2", used="controlplane-lab-base:1")
    monkeypatch.setattr(images, "run", docker.run)
    assert images.remove_images() == ["controlplane-lab-base:1"]
    assert docker.asked[1:] == ["docker rmi controlplane-lab-base:1", "docker rmi controlplane-lab-world:2"]


@pytest.mark.parametrize("engine_answers", [True, False])
@pytest.mark.parametrize("fails", [True, False])
def test_clean_takes_all_away_and_stops_the_engine_last(
    monkeypatch: pytest.MonkeyPatch, engine_answers: bool, fails: bool
) -> None:
    done: list[str] = []

    def down(_lab: object) -> None:
        done.append("down")
        if fails:
            raise LabError("a volume is in use")

    def remove_images() -> list[str]:
        done.append("images")
        return []

    def stop_engine(_build: Path) -> str:
        done.append("engine")
        return "stopped"

    monkeypatch.setattr(lab_main, "answers", lambda: engine_answers)
    monkeypatch.setattr(lab_main.Lab, "down", down)
    monkeypatch.setattr(lab_main, "remove_images", remove_images)
    monkeypatch.setattr(lab_main, "stop_engine", stop_engine)
    monkeypatch.setattr("sys.argv", ["tests.lab", "clean"])
    assert lab_main.main() == (1 if fails and engine_answers else 0)
    expected = (["down", "engine"] if fails else ["down", "images", "engine"]) if engine_answers else ["engine"]
    assert done == expected


def test_make_clean_shows_its_failures() -> None:
    recipe = (CHECKOUT / "Makefile").read_text().partition("\nclean:")[2]
    assert "-m tests.lab clean" in recipe
    assert "\t-" not in recipe
