"""Starting SIPp: scenarios from templates, free ports, files for its logs."""

from __future__ import annotations

import re
import socket
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from setting import HERE

#: Final answers that a caller takes for a no; SIPp wants each one named.
REFUSALS = [400, 402, 403, 404, 405, 406, 408, 410, 415, 420, 480, 481, 482, 483, 484, 486, 487, 488, 491]
REFUSALS += [500, 501, 502, 503, 504, 505, 600, 603, 604, 606]


def scenario(name: str, values: Mapping[str, str], *, into: Path) -> Path:
    """Write scenarios/<name>.xml with its capital words replaced; returns the file written."""
    text = (HERE / "scenarios" / f"{name}.xml").read_text()

    def refusals(match: re.Match[str]) -> str:
        return "\n".join(f'  <recv response="{code}" optional="true" next="{match[1]}"/>' for code in REFUSALS)

    text = re.sub(r"^REFUSALS (\w+)$", refusals, text, flags=re.M)
    for word, value in values.items():
        text = text.replace(word, value)
    target = into / f"{name}.xml"
    target.write_text(text)
    return target


def free_port(address: str) -> int:
    """A UDP port that is free on this address now."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind((address, 0))
        return int(probe.getsockname()[1])


def start(arguments: Sequence[str], *, folder: Path, address: str, port: int) -> subprocess.Popen[bytes]:
    """SIPp in a session of its own, its log lines in folder/sipp.log, its errors in folder/errors.log."""
    argv = ["sipp", *arguments, "-i", address, "-p", str(port), "-mi", address, "-nostdin", "-t", "u1"]
    argv += ["-trace_logs", "-log_file", str(folder / "sipp.log")]
    argv += ["-trace_err", "-error_file", str(folder / "errors.log"), "-watchdog_interval", "0"]
    with (folder / "screen.log").open("wb") as screen:
        return subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=screen, stderr=screen, start_new_session=True, cwd=folder
        )
