"""Keeps the carrier's Asterisk and the phones running for the life of the container."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import sipp
from setting import BATCHES, HERE, PHONE_LOGS, PHONES_PORT, RUN, STATE, Setting

ETC = RUN / "etc"


def write_carrier(setting: Setting) -> None:
    """Render the carrier's configuration for these addresses."""
    for folder in (ETC, RUN / "asterisk"):
        folder.mkdir(parents=True, exist_ok=True)
    modules = next(Path("/usr/lib").glob("*/asterisk/modules"))
    common = {"@TRUNK@": setting.trunk, "@ETC@": str(ETC), "@MODULES@": str(modules)}
    common["@ORDER@"] = "-".join(setting.sites)
    files = {path.name: path.read_text() for path in (HERE / "carrier").glob("*.conf")}
    ingress, trunk = files.pop("ingress.conf"), files.pop("trunk.conf")
    for name, site in setting.sites.items():
        own = {"@SITE@": name, "@ADDRESS@": site.trunk}
        files["pjsip.conf"] += _filled(ingress, own)
        files["extensions.conf"] += _filled(trunk, own)
    for name, text in files.items():
        (ETC / name).write_text(_filled(text, common))


def run(setting: Setting) -> int:
    """Start both and start again what ends, until SIGTERM. A batch that a crash of the container ended stays ended."""
    for folder in (STATE, BATCHES, PHONE_LOGS):
        folder.mkdir(parents=True, exist_ok=True)
    write_carrier(setting)
    stopping: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: stopping.append(number))
    parts = {"carrier": _carrier(), "phones": _phones(setting)}
    while not stopping:
        time.sleep(0.2)
        for name, process in parts.items():
            if process.poll() is not None and not stopping:
                sys.stderr.write(f"world: {name} ended with {process.returncode}: starting it again\n")
                time.sleep(0.5)
                parts[name] = _carrier() if name == "carrier" else _phones(setting)
    for process in parts.values():
        process.terminate()
    for process in parts.values():
        try:
            process.wait(timeout=3)
        except subprocess.TimeoutExpired:
            process.kill()
    return 0


def _carrier() -> subprocess.Popen[bytes]:
    return subprocess.Popen(["asterisk", "-fn", "-C", str(ETC / "asterisk.conf")], stdin=subprocess.DEVNULL)


def _phones(setting: Setting) -> subprocess.Popen[bytes]:
    # A folder for each start: SIPp begins its log anew, and the ledger wants every line there ever was.
    folder = PHONE_LOGS / f"static-{time.time_ns()}"
    folder.mkdir(parents=True)
    script = sipp.scenario("phones", {}, into=folder)
    return sipp.start(["-sf", str(script)], folder=folder, address=setting.access, port=PHONES_PORT)


def _filled(text: str, values: dict[str, str]) -> str:
    for word, value in values.items():
        text = text.replace(word, value)
    return text
