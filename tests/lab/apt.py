"""Debian packages for the machine the lab runs on, when we are root there; else a clear word on what to install."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from tests.lab.shell import LabError, log_tail, run_logged, step

QUIET = {"DEBIAN_FRONTEND": "noninteractive"}


def can_install() -> bool:
    """Whether this is root on a machine with apt-get."""
    return os.geteuid() == 0 and shutil.which("apt-get") is not None


def install(packages: Sequence[str], *, build: Path) -> None:
    """Install these packages or raise LabError. The log goes to build/lab/apt.log."""
    names = " ".join(packages)
    if not can_install():
        raise LabError(f"please install {names} (Debian's names); the lab does it by itself only as root with apt-get")
    log = build / "apt.log"
    with step(f"apt-get install {names}"):
        # An update may fail on a third party's source and still have brought what we need: the install decides.
        run_logged(["apt-get", "update"], log=log, timeout_s=300, env=QUIET)
        argv = ["apt-get", "install", "-y", "--no-install-recommends", *packages]
        if run_logged(argv, log=log, timeout_s=900, env=QUIET) != 0:
            raise LabError(f"apt-get could not install {names}; end of {log}:\n{log_tail(log)}")
