"""The ledger: what became of every call, from the carrier's lines, the phones' logs and the callers' own.

Law: anything that is not clearly an agent, a queue or the last announcement is lost. Pure: it is given lines.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field

#: A caller who dialled this long ago and whom the carrier never heard is not on his way any more.
LATE_MS = 5_000


@dataclass
class Attempt:
    """One ingress tried for one call. `sip` is the final response's code, empty when there was none."""

    ingress: str
    begun_ms: int
    status: str = ""
    cause: str = ""
    sip: str = ""
    progress: bool = False
    took_ms: int | None = None


@dataclass
class Talk:
    """An agent's phone answered this call."""

    agent: str
    answered_ms: int
    ended_ms: int | None = None


@dataclass
class Call:
    """One call from its dialling to its end, by epoch milliseconds. Inbound: `number` is the caller, `did` the dialled.
    Outbound: `agent` called `number`, and it came in by the trunk of `site`."""

    number: str
    direction: str
    batch: str = ""
    dialled_ms: int | None = None
    placed_ms: int | None = None
    did: str = ""
    attempts: list[Attempt] = field(default_factory=list)
    answered_ms: int | None = None
    ingress: str = ""
    ended_ms: int | None = None
    ended_by: str = ""
    talks: list[Talk] = field(default_factory=list)
    site: str = ""
    agent: str = ""
    phone_answered_ms: int | None = None
    outcome: str = "open"
    reason: str = ""

    def as_json(self) -> dict[str, object]:
        return asdict(self)


def read_carrier(lines: Iterable[str]) -> list[Call]:
    """The calls that the carrier saw, in the order of their placing."""
    calls: dict[str, Call] = {}
    for line in lines:
        if not line.endswith("}\n"):
            continue  # the last line may still be on its way
        said = json.loads(line)
        if said["e"] == "placed":
            calls[said["call"]] = Call(said["number"], "in", placed_ms=said["t"], did=said["did"])
        elif said["e"] == "out":
            calls[said["call"]] = Call(
                said["number"], "out", placed_ms=said["t"], site=said["site"], agent=said["from"]
            )
        else:
            _add(calls[said["call"]], said)
    return list(calls.values())


def _add(call: Call, said: dict[str, object]) -> None:
    at = int(str(said["t"]))
    match said["e"]:
        case "attempt":
            call.attempts.append(Attempt(str(said["ingress"]), at))
        case "attempt_end":
            last = call.attempts[-1]
            last.status, last.cause, last.sip = str(said["status"]), str(said["cause"]), str(said["sip"])
            last.progress = said["progress_ms"] not in ("", "0")
            last.took_ms = at - last.begun_ms
        case "answered":
            call.answered_ms, call.ingress = at, str(said["ingress"])
        case "out_answered":
            call.answered_ms = at
        case "ended":
            call.ended_ms, call.ended_by = at, str(said["by"])


def add_talks(calls: Iterable[Call], phone_lines: Iterable[str]) -> None:
    """Put the phones' words to the inbound calls: `answered|ended <s> <us> <agent> <caller>`."""
    by_number = {call.number: call for call in calls if call.direction == "in"}
    for line in phone_lines:
        words = line.split()
        if len(words) != 5 or words[4] not in by_number:
            continue
        what, at, agent, call = words[0], _ms(words[1], words[2]), words[3], by_number[words[4]]
        if what == "answered":
            call.talks.append(Talk(agent, at))
        elif what == "ended":
            open_talks = [talk for talk in call.talks if talk.agent == agent and talk.ended_ms is None]
            if open_talks:
                open_talks[-1].ended_ms = at
    for call in by_number.values():
        if call.talks:
            call.agent, call.phone_answered_ms = call.talks[-1].agent, call.talks[0].answered_ms


def judge(call: Call, *, now_ms: int, batch_over: bool) -> None:
    """Set the outcome and, where it is lost, the reason."""
    call.outcome, call.reason = _outcome(call, now_ms=now_ms, batch_over=batch_over)


def _outcome(call: Call, *, now_ms: int, batch_over: bool) -> tuple[str, str]:
    if call.placed_ms is None:
        waiting = not batch_over and call.dialled_ms is not None and now_ms - call.dialled_ms < LATE_MS
        if waiting:
            return "open", ""
        return "lost", "the carrier never saw it on a trunk" if call.direction == "out" else "never reached the carrier"
    if call.ended_ms is None:
        return "open", ""
    if call.direction == "out":
        answered = call.answered_ms is not None
        return ("answered", "") if answered else ("lost", "never answered")
    return _inbound_outcome(call)


def _inbound_outcome(call: Call) -> tuple[str, str]:
    if call.answered_ms is not None:
        if call.talks:
            return "agent", ""
        if call.ended_by == "caller":
            return "queue", ""
        return "lost", f"answered by {call.ingress}, no agent, then ended by {call.ended_by}"
    last = call.attempts[-1] if call.attempts else None
    if last is not None and last.progress and last.sip == "480" and call.ended_by == "site":
        return "announcement", ""
    if last is None:
        return "lost", "no ingress was tried"
    return "lost", f"never answered: {last.ingress} {last.status} sip={last.sip or 'none'}, ended by {call.ended_by}"


def _ms(seconds: str, microseconds: str) -> int:
    return int(float(seconds)) * 1000 + int(float(microseconds)) // 1000
