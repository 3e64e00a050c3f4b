"""The Debian forky base image, with or without an image registry.

In this order: the one made before, the one a registry gives, one made here by debootstrap. No mirror's host name stands
in our files: it is the one of the machine's own apt sources where those are Debian's, else debootstrap's own.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from pathlib import Path

from tests.lab.apt import install
from tests.lab.shell import LabError, log_tail, run, run_logged, step

NAME = "controlplane-lab-base"
SUITE = "forky"
PULL_TIMEOUT_S = 60
#: Debian's bookworm debootstrap has no forky script; testing is bootstrapped as unstable is.
SCRIPT = Path("/usr/share/debootstrap/scripts/sid")
#: Without it debootstrap would go on unverified; Ubuntu does not bring it along.
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_SOURCES = Path("/etc/apt")


def base_image(build: Path) -> str:
    """The tag of a local forky image, made if need be."""
    recipe = hashlib.sha256(f"{SUITE} minbase 1".encode()).hexdigest()[:8]
    tag = f"{NAME}:{SUITE}-{recipe}"
    if run(["docker", "image", "inspect", tag], timeout_s=20, check=False).code == 0:
        return tag
    log = build / "base-image.log"
    if _pulled(log):
        run(["docker", "tag", f"debian:{SUITE}", tag], timeout_s=20)
        return tag
    _bootstrapped(tag, build, log)
    return tag


def _pulled(log: Path) -> bool:
    argv = ["docker", "pull", f"debian:{SUITE}"]
    try:
        return run_logged(argv, log=log, timeout_s=PULL_TIMEOUT_S) == 0
    except LabError:
        return False  # no registry, or too slow a one: debootstrap follows


def _bootstrapped(tag: str, build: Path, log: Path) -> None:
    if os.geteuid() != 0:
        raise LabError(
            f"no base image: `docker pull debian:{SUITE}` did not work and debootstrap needs root. "
            f"Pull it by hand, load one as {tag}, or run once as root"
        )
    if shutil.which("debootstrap") is None or not KEYRING.exists():
        install(["debootstrap", "debian-archive-keyring"], build=build)
    root = build / "base-root"
    shutil.rmtree(root, ignore_errors=True)  # a bootstrap that was interrupted leaves half a system
    argv = ["debootstrap", "--variant=minbase", SUITE, str(root), debian_mirror() or "", str(SCRIPT)]
    try:
        with step(f"debootstrap {SUITE}"):
            if run_logged(argv, log=log, timeout_s=900) != 0:
                raise LabError(f"debootstrap failed; end of {log}:\n{log_tail(log)}")
        with step("import the base image"):
            for archive in (root / "var/cache/apt/archives").glob("*.deb"):
                archive.unlink()
            tar = ["bash", "-o", "pipefail", "-c", 'tar -C "$1" -c . | docker import - "$2"', "import", str(root), tag]
            if run_logged(tar, log=log, timeout_s=300) != 0:
                raise LabError(f"docker import failed; end of {log}:\n{log_tail(log)}")
    finally:
        shutil.rmtree(root, ignore_errors=True)


def debian_mirror(apt: Path = _SOURCES, os_release: Path = Path("/etc/os-release")) -> str | None:
    """The mirror of Debian that this machine uses, from both forms of apt sources; None where it is not Debian."""
    if not os_release.exists() or not re.search(r"^ID=debian$", os_release.read_text(), re.M):
        return None
    listed = [apt / "sources.list", *sorted((apt / "sources.list.d").glob("*.list"))]
    for file in listed:
        if file.exists():
            for line in file.read_text().splitlines():
                match = re.match(r"deb\s+(?:\[[^]]*\]\s+)?(https?://\S+/debian/?)\s", line)
                if match:
                    return match.group(1)
    for file in sorted((apt / "sources.list.d").glob("*.sources")):
        match = re.search(r"^URIs:\s*(https?://\S+/debian/?)(?:\s|$)", file.read_text(), re.M)
        if match:
            return match.group(1)
    return None
