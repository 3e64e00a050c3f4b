"""Batches of calls: callers who dial a DID through the carrier, and agents who call out through their site.

A batch is a folder under /var/lib/world/batches: what was asked (batch.json), who dialled when (sipp.log), and, once its
last call is over, `done`.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import time
import uuid
from dataclasses import asdict, dataclass
from pathlib import Path

import sipp
from setting import BATCHES, SIP_PORT, STATE, Setting

FIRST_NUMBER = 13800000001


@dataclass(frozen=True)
class Batch:
    """What was asked. `count` numbers from `first` on: the callers' (inbound) or the dialled ones (outbound), each used
    once; they keep the width of the first."""

    id: str
    direction: str
    target: str
    first: str
    count: int
    rate: float
    talk_ms: int
    begun_ms: int

    @property
    def folder(self) -> Path:
        return BATCHES / self.id

    @property
    def numbers(self) -> list[str]:
        return [str(int(self.first) + i).zfill(len(self.first)) for i in range(self.count)]


def place(setting: Setting, *, did: str, count: int, rate: float, talk_ms: int, ring_ms: int, batch_id: str) -> Batch:
    """Begin `count` calls to `did` at `rate` a second; each caller stays `talk_ms` after the answer."""
    batch = _new(batch_id, "in", did, (_take_numbers(count), count), rate, talk_ms)
    rows = [f"{number};" for number in batch.numbers]
    script = sipp.scenario("caller", {"TALK_MS": str(talk_ms), "RING_MS": str(ring_ms)}, into=batch.folder)
    _begin(batch, rows, [setting.trunk + f":{SIP_PORT}", "-s", did, "-sf", str(script)], address=setting.trunk)
    return batch


def outbound(
    setting: Setting, *, site: str, agent: str, password: str, number: str, count: int, rate: float, batch_id: str
) -> Batch:
    """Begin `count` calls of one agent through `site`: to `number`, number+1 and so on, so that each can be told apart."""
    batch = _new(batch_id, "out", site, (number, count), rate, 0)
    rows = [f"{agent};{password};{called};" for called in batch.numbers]
    script = sipp.scenario("outbound", {}, into=batch.folder)
    target = f"{setting.sites[site].access}:{SIP_PORT}"
    _begin(batch, rows, [target, "-sf", str(script)], address=setting.access)
    return batch


def wait(batch_id: str, timeout_s: float) -> bool:
    """Whether the batch's last call was over within this time."""
    deadline = time.monotonic() + timeout_s
    while not (BATCHES / batch_id / "done").exists():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def stop(batch_id: str) -> None:
    """No more new calls in this batch; those under way go on to their end."""
    folder = BATCHES / batch_id
    if not (folder / "done").exists():
        os.kill(int((folder / "pid").read_text()), signal.SIGUSR1)


def batches() -> list[Batch]:
    """All batches, in the order of their beginning."""
    read = [Batch(**json.loads(path.read_text())) for path in BATCHES.glob("*/batch.json")]
    return sorted(read, key=lambda batch: batch.begun_ms)


def dialled(batch: Batch) -> dict[str, int]:
    """Who really dialled so far, and when (epoch ms)."""
    log = batch.folder / "sipp.log"
    lines = log.read_text().splitlines() if log.exists() else []
    words = (line.split() for line in lines)
    return {w[3]: stamp_ms(w[1], w[2]) for w in words if len(w) == 4 and w[0] == "dialled"}


def stamp_ms(seconds: str, microseconds: str) -> int:
    """SIPp writes numbers as floats: seconds and microseconds to epoch milliseconds."""
    return int(float(seconds)) * 1000 + int(float(microseconds)) // 1000


def _new(batch_id: str, direction: str, target: str, numbers: tuple[str, int], rate: float, talk_ms: int) -> Batch:
    id_ = batch_id or uuid.uuid4().hex[:12]
    batch = Batch(id_, direction, target, *numbers, rate, talk_ms, time.time_ns() // 1_000_000)
    batch.folder.mkdir(parents=True)  # an id that was used before is an error
    return batch


def _begin(batch: Batch, rows: list[str], arguments: list[str], *, address: str) -> None:
    folder = batch.folder
    numbers = folder / "numbers.csv"
    # It may hold a password: for this user only, and removed with the end of the batch.
    numbers.touch(mode=0o600)
    numbers.write_text("\n".join(["SEQUENTIAL", *rows]) + "\n")
    count = len(rows)
    each, period_ms = (round(batch.rate), 1000) if batch.rate >= 1 else (1, round(1000 / batch.rate))
    arguments = [*arguments, "-inf", str(numbers), "-m", str(count), "-l", str(count)]
    arguments += ["-r", str(each), "-rp", str(period_ms)]
    (folder / "batch.json").write_text(json.dumps(asdict(batch)))
    # A watcher of its own outlives the command that asked for the batch: it notes the end.
    if os.fork() == 0:
        os.setsid()
        quiet = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(quiet, stream)
        process = sipp.start(arguments, folder=folder, address=address, port=sipp.free_port(address))
        (folder / "pid").write_text(str(process.pid))
        code = process.wait()
        numbers.unlink()
        (folder / "done").write_text(str(code))
        os._exit(0)
    deadline = time.monotonic() + 10
    while not (folder / "pid").exists() and time.monotonic() < deadline:
        time.sleep(0.01)


def _take_numbers(count: int) -> str:
    """The first of `count` callers' numbers that nobody had or will have."""
    with (STATE / "next_number").open("a+") as counter:
        fcntl.flock(counter, fcntl.LOCK_EX)
        counter.seek(0)
        first = int(counter.read() or FIRST_NUMBER)
        counter.truncate(0)
        counter.write(str(first + count))
    return str(first)
