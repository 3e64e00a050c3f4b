"""A Docker Engine to work with: the one that answers, else one that we install and start ourselves, else a clear error.

What we start we write down with its start time, so that `stop` ends exactly that process and never another's engine.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import msgspec

from tests.lab.apt import can_install, install
from tests.lab.shell import LabError, log_tail, run, step

PACKAGES = ("docker.io", "docker-compose", "debootstrap", "iptables")
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 30.0
#: Kept so that Python does not warn of a child that still runs: it is meant to outlive us.
_engines: list[subprocess.Popen[bytes]] = []
#: Where dockerd and the containerd it starts write down their process ids.
PID_FILES = {"dockerd": Path("/var/run/docker.pid"), "containerd": Path("/var/run/docker/containerd/containerd.pid")}


class Started(msgspec.Struct, frozen=True):
    """The engine that we started. `ticks` is its start time as in /proc/<pid>/stat: a pid alone may be used again."""

    pid: int
    ticks: int


def answers() -> bool:
    """Whether a Docker Engine answers this user now."""
    if shutil.which("docker") is None:
        return False
    return run(["docker", "info", "--format", "{{.ServerVersion}}"], timeout_s=20, check=False).code == 0


def ensure_engine(build: Path) -> None:
    """Return when an engine answers. Installs and starts one where that is possible (root on Debian or Ubuntu)."""
    if answers():
        return
    if os.environ.get("DOCKER_HOST"):
        raise LabError(
            f"DOCKER_HOST={os.environ['DOCKER_HOST']} does not answer; start that engine or unset the variable"
        )
    if os.geteuid() != 0:
        raise LabError(
            "no Docker Engine answers this user. Start Docker and give this user access to it (group docker), "
            "or run as root on Debian or Ubuntu, where the lab installs and starts one by itself"
        )
    if shutil.which("dockerd") is None:
        if not can_install():
            raise LabError("no Docker Engine, and this is not Debian or Ubuntu: install Docker by hand and start it")
        install(PACKAGES, build=build)
    if shutil.which("docker") is None:
        install(["docker-cli"], build=build)  # a package of its own since Debian 13
    if answers():
        return  # the package started it, as a service of the machine: not ours to stop
    _start(build)


def stop_engine(build: Path) -> str:
    """Stop the engine if we started it; says what was done."""
    record = build / "engine.json"
    if not record.exists():
        return "the engine was not started by the lab: left as it is"
    started = msgspec.json.decode(record.read_bytes(), type=Started)
    if start_ticks(started.pid) != started.ticks:
        record.unlink()
        return f"the engine that the lab started (pid {started.pid}) is gone already"
    os.kill(started.pid, signal.SIGTERM)
    deadline = time.monotonic() + STOP_TIMEOUT_S
    while start_ticks(started.pid) == started.ticks:
        if time.monotonic() > deadline:
            raise LabError(f"dockerd (pid {started.pid}) did not stop within {STOP_TIMEOUT_S:g} s of SIGTERM")
        time.sleep(0.1)
    record.unlink()
    return f"the engine that the lab started (pid {started.pid}) is stopped"


def start_ticks(pid: int) -> int | None:
    """When this process started, in clock ticks since boot; None when there is none or it is only waiting to be reaped."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The name in parentheses may hold blanks: count the fields after it (proc(5): 3 is the state, 22 the start time).
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] == "Z" else int(fields[19])


def remove_stale_pid_file(path: Path, name: str) -> bool:
    """Remove a pid file whose process is gone or is another program: dockerd refuses to start over one. True if removed."""
    try:
        pid = int(path.read_text().strip() or "0")
    except FileNotFoundError:
        return False
    except ValueError:
        pid = 0
    try:
        living = Path(f"/proc/{pid}/comm").read_text().strip() if pid else ""
    except (FileNotFoundError, ProcessLookupError):
        living = ""
    if living == name and start_ticks(pid) is not None:
        return False
    path.unlink(missing_ok=True)
    return True


def _start(build: Path) -> None:
    for name, path in PID_FILES.items():
        if remove_stale_pid_file(path, name):
            print(f"lab: removed {path}, left by a {name} that is gone", flush=True)
    build.mkdir(parents=True, exist_ok=True)
    log = build / "dockerd.log"
    with step("start dockerd"), log.open("ab") as sink:
        # A session of its own: the engine outlives the command that started it, until `engine-stop`.
        daemon = subprocess.Popen(
            ["dockerd"], stdin=subprocess.DEVNULL, stdout=sink, stderr=subprocess.STDOUT, start_new_session=True
        )
        _engines.append(daemon)
        deadline = time.monotonic() + START_TIMEOUT_S
        while not answers():
            if daemon.poll() is not None:
                raise LabError(f"dockerd ended with {daemon.returncode}; end of {log}:\n{log_tail(log)}")
            if time.monotonic() > deadline:
                daemon.terminate()
                raise LabError(f"dockerd does not answer after {START_TIMEOUT_S:g} s; end of {log}:\n{log_tail(log)}")
            time.sleep(0.2)
        ticks = start_ticks(daemon.pid)
        if ticks is None:
            raise LabError(f"dockerd ended right after its start; end of {log}:\n{log_tail(log)}")
        (build / "engine.json").write_bytes(msgspec.json.encode(Started(daemon.pid, ticks)))


def compose_command(build: Path) -> list[str]:
    """How to call compose here: the v2 plugin, else docker-compose, else one of them installed (root, Debian)."""
    found = _compose()
    if found is None:
        if not can_install():
            raise LabError("no compose: install Docker's compose plugin (v2), or Debian's package docker-compose")
        install(["docker-compose"], build=build)  # version 1 or 2, by the age of the system
        found = _compose()
    if found is None:
        raise LabError("docker-compose is installed, but neither `docker compose` nor `docker-compose` works")
    return found


def _compose() -> list[str] | None:
    if shutil.which("docker") and run(["docker", "compose", "version"], timeout_s=20, check=False).code == 0:
        return ["docker", "compose"]
    return ["docker-compose"] if shutil.which("docker-compose") else None
