"""The world's program: `run` keeps carrier and phones alive; the other verbs are called by the lab in this container.

Each verb prints one JSON value. Passwords come by standard input, never as an argument.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import time

import agents
import calls
import ledger
import supervise
from setting import LEDGER, PHONE_LOGS, Setting, read_setting

#: After the last caller has hung up, the carrier still writes its last lines.
SETTLE_S = 5.0


def main() -> int:
    said = _parser().parse_args()
    setting = read_setting()
    match said.verb:
        case "run":
            return supervise.run(setting)
        case "place":
            batch = calls.place(
                setting,
                did=said.did,
                count=said.count,
                rate=said.rate,
                talk_ms=said.talk_ms,
                ring_ms=said.ring_ms,
                batch_id=said.batch,
            )
            return _begun(batch, detach=said.detach)
        case "outbound":
            batch = calls.outbound(
                setting,
                site=said.site,
                agent=said.agent,
                password=sys.stdin.readline().strip(),
                number=said.number,
                count=said.count,
                rate=said.rate,
                batch_id=said.batch,
            )
            return _begun(batch, detach=said.detach)
        case "wait":
            return _wait(said.batch, said.timeout_s)
        case "stop":
            calls.stop(said.batch)
            return _print({"batch": said.batch})
        case "ledger":
            return _print([call.as_json() for call in read_ledger(said.batch)])
        case _:
            return _agent_verb(setting, said)


def _agent_verb(setting: Setting, said: argparse.Namespace) -> int:
    if said.verb == "unregister":
        return _print(agents.unregister(setting, agent=said.agent))
    if said.verb == "registration":
        return _print(agents.words(said.agent))
    password = sys.stdin.readline().strip()
    registration = agents.register(
        setting,
        agent=said.agent,
        password=password,
        site=said.site,
        timeout_s=said.timeout_s,
        refresh_ms=said.refresh_ms,
    )
    return _print(registration)


def read_ledger(batch_id: str) -> list[ledger.Call]:
    """Every call of one batch, or of all, with its outcome."""
    with LEDGER.open() if LEDGER.exists() else open("/dev/null") as lines:
        seen = ledger.read_carrier(lines)
    logs = sorted(PHONE_LOGS.glob("*/sipp.log"))
    ledger.add_talks(seen, itertools.chain.from_iterable(log.read_text().splitlines() for log in logs))
    # The same number may have been dialled out in an earlier batch too: a call belongs to the batch begun last before it,
    # so the newest batch takes its calls first.
    by_key: dict[tuple[str, str], list[ledger.Call]] = {}
    for call in seen:
        by_key.setdefault((call.direction, call.number), []).append(call)
    now_ms = time.time_ns() // 1_000_000
    found: list[ledger.Call] = []
    known: set[int] = set()
    for batch in reversed(calls.batches()):
        over = (batch.folder / "done").exists()
        for number, dialled_ms in calls.dialled(batch).items():
            placed = by_key.get((batch.direction, number), [])
            mine = bool(placed) and (placed[-1].placed_ms or 0) >= batch.begun_ms
            call = placed.pop() if mine else ledger.Call(number, batch.direction)
            call.batch, call.dialled_ms = batch.id, dialled_ms
            ledger.judge(call, now_ms=now_ms, batch_over=over)
            known.add(id(call))
            if batch_id in ("", batch.id):
                found.append(call)
    if not batch_id:
        # Calls that no batch knows, such as test calls of the control plane.
        strangers = [call for call in seen if id(call) not in known]
        for call in strangers:
            ledger.judge(call, now_ms=now_ms, batch_over=True)
        found += strangers
    return found


def _begun(batch: calls.Batch, *, detach: bool) -> int:
    if detach:
        return _print({"batch": batch.id, "over": False})
    longest_s = batch.count / batch.rate + batch.talk_ms / 1000 + 60
    return _wait(batch.id, longest_s)


def _wait(batch_id: str, timeout_s: float) -> int:
    over = calls.wait(batch_id, timeout_s)
    deadline = time.monotonic() + SETTLE_S
    while over and time.monotonic() < deadline:
        if all(call.outcome != "open" for call in read_ledger(batch_id)):
            break
        time.sleep(0.1)
    return _print({"batch": batch_id, "over": over})


def _print(value: object) -> int:
    sys.stdout.write(json.dumps(value) + "\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="world")
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("run")
    place = verbs.add_parser("place", help="callers dial a DID through the carrier")
    place.add_argument("--did", required=True)
    place.add_argument("--talk-ms", type=int, default=3000)
    place.add_argument("--ring-ms", type=int, default=60_000)
    outbound = verbs.add_parser("outbound", help="an agent calls out through a site; password on standard input")
    for name in ("--site", "--agent", "--number"):
        outbound.add_argument(name, required=True)
    for verb in (place, outbound):
        verb.add_argument("--count", type=int, default=1)
        verb.add_argument("--rate", type=float, default=10.0)
        verb.add_argument("--batch", default="")
        verb.add_argument("--detach", action="store_true")
    wait = verbs.add_parser("wait", help="until the last call of a batch is over")
    wait.add_argument("--batch", required=True)
    wait.add_argument("--timeout-s", type=float, default=600.0)
    stop = verbs.add_parser("stop", help="no more new calls in a batch")
    stop.add_argument("--batch", required=True)
    show = verbs.add_parser("ledger", help="what became of the calls")
    show.add_argument("--batch", default="")
    register = verbs.add_parser("register", help="a home agent's phone; password on standard input")
    register.add_argument("--agent", required=True)
    register.add_argument("--site", required=True)
    register.add_argument("--timeout-s", type=float, default=5.0)
    register.add_argument("--refresh-ms", type=int, default=40_000)
    for name in ("unregister", "registration"):
        verbs.add_parser(name).add_argument("--agent", required=True)
    return parser


if __name__ == "__main__":
    sys.exit(main())
