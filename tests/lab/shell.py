"""Running other programs with a deadline, a log and an error that says what to look at."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec

TAIL_LINES = 30


class LabError(Exception):
    """The lab cannot do what was asked; the text says what is missing and what to do."""


class Finished(msgspec.Struct, frozen=True):
    """What a program said and how it ended."""

    code: int
    out: str
    err: str


def run(
    argv: Sequence[str],
    *,
    timeout_s: float,
    stdin: str | None = None,
    check: bool = True,
    env: Mapping[str, str] | None = None,
) -> Finished:
    """Run to its end. Raises LabError when it cannot start, takes longer than `timeout_s`, or (`check`) ends non-zero."""
    try:
        done = subprocess.run(
            list(argv),
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_s,
            check=False,
            env={**os.environ, **(env or {})},
        )
    except FileNotFoundError as missing:
        raise LabError(f"{argv[0]} is not installed (wanted for: {' '.join(argv[:4])})") from missing
    except subprocess.TimeoutExpired as late:
        raise LabError(f"`{' '.join(argv)}` gave no result within {timeout_s:g} s") from late
    if check and done.returncode != 0:
        said = tail(done.stderr.strip() or done.stdout.strip())
        raise LabError(f"`{' '.join(argv)}` ended with {done.returncode}:\n{said}")
    return Finished(done.returncode, done.stdout, done.stderr)


def run_logged(argv: Sequence[str], *, log: Path, timeout_s: float, env: Mapping[str, str] | None = None) -> int:
    """Run with all output appended to `log`; returns the exit code. A deadline that passes ends it and raises."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as sink:
        sink.write(f"\n$ {' '.join(argv)}\n".encode())
        sink.flush()
        try:
            return subprocess.run(
                list(argv),
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                timeout=timeout_s,
                check=False,
                env={**os.environ, **(env or {})},
            ).returncode
        except FileNotFoundError as missing:
            raise LabError(f"{argv[0]} is not installed") from missing
        except subprocess.TimeoutExpired as late:
            raise LabError(f"`{' '.join(argv[:4])} …` took longer than {timeout_s:g} s; see {log}") from late


def tail(text: str, lines: int = TAIL_LINES) -> str:
    """The last lines of a longer text."""
    return "\n".join(text.splitlines()[-lines:])


def log_tail(log: Path, lines: int = TAIL_LINES) -> str:
    """The last lines of a log file; empty when there is none."""
    return tail(log.read_text(errors="replace"), lines) if log.exists() else ""


@contextmanager
def step(title: str) -> Iterator[None]:
    """One line of progress a step: what, whether it worked, how long it took."""
    begun = time.monotonic()
    print(f"lab: {title} …", flush=True)
    try:
        yield
    except BaseException:
        print(f"lab: {title}: failed after {time.monotonic() - begun:.1f} s", flush=True)
        raise
    print(f"lab: {title}: {time.monotonic() - begun:.1f} s", flush=True)
