"""Home agents: phones that really register at a site with digest authentication, and answer there."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import sipp
from calls import stamp_ms
from setting import PHONE_LOGS, RUN, SIP_PORT, Setting

AGENTS = RUN / "agents"
EXPIRES_S = 120
RETRY_MS = 2_000


def register(
    setting: Setting, *, agent: str, password: str, site: str, timeout_s: float, refresh_ms: int
) -> dict[str, object]:
    """Start the agent's phone; returns once it is registered, refused, or `timeout_s` has passed. It goes on trying."""
    if (AGENTS / agent).exists():
        unregister(setting, agent=agent)
    folder = _folder(agent)
    loop = f'  <pause milliseconds="{refresh_ms}"/>\n  <nop next="register"/>'
    retry = f'  <pause milliseconds="{RETRY_MS}"/>\n  <nop next="register"/>'
    values = {"EXPIRES": str(EXPIRES_S), "AFTERWARDS": loop, "RETRY": retry}
    script = sipp.scenario("register", values, into=folder)
    phone = sipp.scenario("phones", {}, into=folder)
    injected = _injected(folder, agent, password)
    target = f"{setting.sites[site].access}:{SIP_PORT}"
    port = sipp.free_port(setting.access)
    begun_ms = time.time_ns() // 1_000_000
    arguments = [target, "-sf", str(script), "-oocsf", str(phone), "-inf", str(injected), "-m", "1", "-l", "1"]
    process = sipp.start(arguments, folder=folder, address=setting.access, port=port)
    AGENTS.mkdir(parents=True, exist_ok=True)
    state = {"pid": process.pid, "site": site, "port": port, "folder": str(folder)}
    (AGENTS / agent).write_text(json.dumps(state))
    result, at_ms = _first_word(folder, timeout_s)
    return {"agent": agent, "site": site, "result": result, "took_ms": max(0, at_ms - begun_ms), "port": port}


def unregister(setting: Setting, *, agent: str) -> dict[str, object]:
    """End the agent's phone. The registration itself is left to expire or to the site: a dead phone says no goodbye."""
    path = AGENTS / agent
    if not path.exists():
        return {"agent": agent, "result": "not registered here"}
    state = json.loads(path.read_text())
    path.unlink()
    try:
        os.kill(int(state["pid"]), signal.SIGKILL)
    except ProcessLookupError:
        return {"agent": agent, "result": "the phone was gone already"}
    return {"agent": agent, "result": "stopped"}


def words(agent: str) -> list[dict[str, object]]:
    """All that the agent's present phone has noted about its registration: registered, refused, silent, with times."""
    state = json.loads((AGENTS / agent).read_text())
    return [{"result": result, "at_ms": at_ms} for result, at_ms in _registration_words(Path(state["folder"]))]


def _folder(agent: str) -> Path:
    folder = PHONE_LOGS / f"{agent}-{time.time_ns()}"
    folder.mkdir(parents=True)
    return folder


def _injected(folder: Path, agent: str, password: str) -> Path:
    path = folder / "account.csv"
    path.touch(mode=0o600)
    path.write_text(f"SEQUENTIAL\n{agent};{password};\n")
    return path


def _registration_words(folder: Path) -> list[tuple[str, int]]:
    log = folder / "sipp.log"
    lines = log.read_text().splitlines() if log.exists() else []
    split = [line.split() for line in lines]
    wanted = ("registered", "refused", "silent")
    return [(w[0], stamp_ms(w[1], w[2])) for w in split if len(w) == 4 and w[0] in wanted]


def _first_word(folder: Path, timeout_s: float) -> tuple[str, int]:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if said := _registration_words(folder):
            return said[0]
        time.sleep(0.02)
    return "nothing", time.time_ns() // 1_000_000
