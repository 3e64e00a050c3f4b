"""The lab's images: built from the checkout, named after their inputs, so that a second run reuses and a change rebuilds.

Each build gets a context of its own with nothing in it but its inputs; the tag carries the hash of all of them. Plain
Dockerfiles: neither buildx nor BuildKit has to be there.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import tomllib
from collections.abc import Callable
from pathlib import Path

import msgspec

from tests.lab.base_image import base_image
from tests.lab.layout import Layout
from tests.lab.shell import LabError, log_tail, run, run_logged, step

BUILD_TIMEOUT_S = 1200
#: Of each kind: other checkouts on this machine may use some of them.
KEPT_IMAGES = 5


class Images(msgspec.Struct, frozen=True):
    """The tags of the images of one lab."""

    asterisk: str
    daemon: str
    broker: str
    world: str


class Recipe(msgspec.Struct, frozen=True):
    """One image: its name, how its build context is filled, its build arguments."""

    name: str
    fill: Callable[[Path], None]
    arguments: dict[str, str]


def ensure_images(layout: Layout) -> Images:
    """Build what is missing; raises LabError with the end of the build's log."""
    layout.build.mkdir(parents=True, exist_ok=True)
    with (layout.build / "images.lock").open("w") as lock:
        # Two runs of one checkout would fill and empty the same build contexts.
        fcntl.flock(lock, fcntl.LOCK_EX)
        return _ensure_all(layout)


def _ensure_all(layout: Layout) -> Images:
    base = base_image(layout.build)
    docker = layout.checkout / "docker"
    asterisk = _ensure(layout, Recipe("asterisk", _copy_of(docker / "asterisk"), {"BASE": base}))
    broker = _ensure(layout, Recipe("broker", _copy_of(docker / "broker"), {"BASE": base}))
    world = _ensure(layout, Recipe("world", _copy_of(docker / "world"), {"ASTERISK": asterisk}))
    daemon = _ensure(layout, Recipe("daemon", lambda context: _fill_daemon(layout.checkout, context), {"BASE": base}))
    return Images(asterisk=asterisk, daemon=daemon, broker=broker, world=world)


def _copy_of(source: Path) -> Callable[[Path], None]:
    # What is rendered on this machine and mounted is no part of an image.
    ignored = shutil.ignore_patterns(".*", "__pycache__", "*.pyc", "*.md", "render.py", "etc")

    def fill(context: Path) -> None:
        shutil.copytree(source, context, ignore=ignored)

    return fill


def _fill_daemon(checkout: Path, context: Path) -> None:
    package = context / "package"
    package.mkdir(parents=True)
    shutil.copy(checkout / "docker" / "daemon" / "Dockerfile", context)
    (context / "requirements.txt").write_text("\n".join(requirements(checkout / "pyproject.toml")) + "\n")
    bundle = ca_bundle()
    (context / "extra-ca.pem").write_bytes(bundle.read_bytes() if bundle else b"")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(checkout / name, package)
    ignored = shutil.ignore_patterns(".*", "__pycache__", "*.pyc")
    shutil.copytree(checkout / "controlplane", package / "controlplane", ignore=ignored)


def requirements(pyproject: Path) -> list[str]:
    """What the package needs to run and to be built, as pyproject.toml pins it."""
    stated = tomllib.loads(pyproject.read_text())
    return [*stated["build-system"]["requires"], *stated["project"]["dependencies"]]


def ca_bundle() -> Path | None:
    """Certificates for pip behind a proxy that inspects TLS: CP_CA_BUNDLE, else what this environment already trusts."""
    for variable in ("CP_CA_BUNDLE", "PIP_CERT", "SSL_CERT_FILE"):
        path = os.environ.get(variable)
        if path and Path(path).is_file():
            return Path(path)
        if path and variable == "CP_CA_BUNDLE":
            raise LabError(f"CP_CA_BUNDLE={path}: no such file")
    return None


def content_hash(context: Path, arguments: dict[str, str]) -> str:
    """A hash of every file of a build context, by name, content and executable bit, and of the build arguments."""
    digest = hashlib.sha256(repr(sorted(arguments.items())).encode())
    for path in sorted(p for p in context.rglob("*") if p.is_file()):
        executable = bool(path.stat().st_mode & 0o100)
        digest.update(f"\0{path.relative_to(context)}\0{executable}\0".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:12]


def _ensure(layout: Layout, recipe: Recipe) -> str:
    context = layout.build / "context" / recipe.name
    shutil.rmtree(context, ignore_errors=True)
    context.parent.mkdir(parents=True, exist_ok=True)
    recipe.fill(context)
    tag = f"controlplane-lab-{recipe.name}:{content_hash(context, recipe.arguments)}"
    if run(["docker", "image", "inspect", tag], timeout_s=20, check=False).code == 0:
        return tag
    log = layout.build / f"image-{recipe.name}.log"
    with step(f"build image {tag}"):
        _build(recipe, context, tag, log)
    _forget_old(recipe.name, but=tag)
    return tag


def _forget_old(name: str, *, but: str) -> None:
    """Remove all but the newest images of this name; one that a container still uses refuses, and stays."""
    form = "{{.Repository}}:{{.Tag}}"
    listed = run(["docker", "images", "--format", form, f"controlplane-lab-{name}"], timeout_s=30).out.split()
    for tag in listed[KEPT_IMAGES:]:  # docker lists the newest first
        if tag != but:
            run(["docker", "rmi", tag], timeout_s=60, check=False)


def remove_images() -> list[str]:
    """Remove every image that the lab made; gives those that stay because a container still uses them."""
    form = "{{.Repository}}:{{.Tag}}"
    made = run(["docker", "images", "--format", form, "--filter", "reference=controlplane-lab-*"], timeout_s=30)
    return [tag for tag in made.out.split() if run(["docker", "rmi", tag], timeout_s=120, check=False).code != 0]


def _build(recipe: Recipe, context: Path, tag: str, log: Path) -> None:
    log.unlink(missing_ok=True)
    argv = ["docker", "build", "--force-rm", "-t", tag]
    for key, value in recipe.arguments.items():
        argv += ["--build-arg", f"{key}={value}"]
    # The last choice that worked goes first: a mirror does not grow younger between two images.
    memory = context.parent / "stale-mirror"
    allowed = os.environ.get("CP_STALE_MIRROR", "") != "no"
    if not (allowed and memory.exists()):
        if run_logged([*argv, str(context)], log=log, timeout_s=BUILD_TIMEOUT_S) == 0:
            return
        if not (allowed and _stale(log)):
            raise LabError(f"the image {recipe.name} did not build; end of {log}:\n{log_tail(log)}")
        print(
            "lab: WARNING: the Debian mirror is older than its Release file allows. Building once more without that "
            "check (APT_STALE_OK=1): the packages are signed but may lack recent security fixes. "
            "Set CP_STALE_MIRROR=no to fail instead.",
            flush=True,
        )
        memory.touch()
    if run_logged([*argv, "--build-arg", "APT_STALE_OK=1", str(context)], log=log, timeout_s=BUILD_TIMEOUT_S) != 0:
        memory.unlink(missing_ok=True)
        raise LabError(f"the image {recipe.name} did not build; end of {log}:\n{log_tail(log)}")


def _stale(log: Path) -> bool:
    text = log.read_text(errors="replace")
    return "Release file" in text and ("is expired" in text or "is not valid anymore" in text)
