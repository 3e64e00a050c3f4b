"""`python -m tests.lab`: the lab by hand."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from tests.lab.engine import answers, ensure_engine, stop_engine
from tests.lab.images import ensure_images, remove_images
from tests.lab.lab import Lab
from tests.lab.layout import DEFAULT_SERVICES
from tests.lab.shell import LabError

CHECKOUT = Path(__file__).resolve().parents[2]


def main() -> int:
    said = _parser().parse_args()
    try:
        return _do(Lab(CHECKOUT), said)
    except LabError as fault:
        print(f"lab: {fault}", file=sys.stderr)
        return 1


def _do(lab: Lab, said: argparse.Namespace) -> int:
    match said.verb:
        case "up":
            lab.up(said.services or None)
            print(f"lab: up; broker {':'.join(map(str, lab.broker_address()))}, secrets in {lab.layout.secrets}")
        case "down":
            lab.down()
        case "clean":
            clean(lab)
        case "images":
            ensure_engine(lab.layout.build)
            print(ensure_images(lab.layout))
        case "status":
            for service in DEFAULT_SERVICES:
                print(f"{service:18} {'runs' if lab.is_running(service) else '-'}")
        case "logs":
            print(lab.logs(said.service), end="")
        case "compose":
            print(lab.compose(said.rest).out, end="")
        case "exec":
            # Straight to the terminal: a person may want to type.
            tty = ["-it"] if sys.stdin.isatty() else ["-i"]
            return subprocess.call(["docker", "exec", *tty, lab.layout.container(said.service), *said.rest])
        case "engine-stop":
            print(f"lab: {stop_engine(lab.layout.build)}")
    return 0


def clean(lab: Lab) -> None:
    """Take away all that the lab made on this machine: containers, images, and the engine if it started that. Whatever
    fails, the engine is stopped."""
    try:
        if not answers():
            print("lab: no Docker Engine answers: no container and no image to take away")
            return
        lab.down()
        for tag in remove_images():
            print(f"lab: {tag} stays: a container uses it")
    finally:
        print(f"lab: {stop_engine(lab.layout.build)}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.lab", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("up", help="build and start").add_argument("services", nargs="*")
    verbs.add_parser("down", help="take it away")
    verbs.add_parser("clean", help="down, remove the images, stop the engine if the lab started it")
    verbs.add_parser("images", help="only build the images")
    verbs.add_parser("status")
    verbs.add_parser("engine-stop", help="stop the Docker Engine if the lab started it")
    verbs.add_parser("logs").add_argument("service")
    run = verbs.add_parser("exec", help="run a program in a service's container")
    run.add_argument("service")
    run.add_argument("rest", nargs=argparse.REMAINDER)
    verbs.add_parser("compose", help="any compose command").add_argument("rest", nargs=argparse.REMAINDER)
    return parser


if __name__ == "__main__":
    sys.exit(main())
