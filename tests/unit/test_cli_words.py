"""What the command line says and how it exits; secrets of agents; tables with anything in them."""

from __future__ import annotations

import asyncio
import hashlib
import io
import shutil
import stat
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest
import typer
from rich.console import Console

from controlplane import __version__
from controlplane.cli import desk, main, tables
from controlplane.cli.desk import FleetState, state_of
from controlplane.cli.exits import Exit, exit_for
from controlplane.cli.secrets import digest, hand_out, new_password
from controlplane.contract.errors import LinkDown, OutcomeUnknown
from controlplane.contract.key import Key
from controlplane.contract.operation import Operation, OperationState, Refusal
from controlplane.contract.plan import AgentPlan, OperationRecord, Plan
from controlplane.contract.report import Applied, Beacon, Report, SeatState
from controlplane.contract.topics import Topics
from controlplane.edge import clock
from controlplane.edge.config import load
from controlplane.edge.mqtt import Arrived
from controlplane.fleet.slicing import first_plan
from controlplane.run.codec import encode
from tests.unit.test_fleet_driver import DIGEST, EPOCH, FLEET, command_of

KEY = Key(1, 2, "coordinator", 3)


# -- exit codes

ENDS = {
    OperationState.REFUSED: 3,
    OperationState.ACCEPTED: 0,
    OperationState.RUNNING: 5,
    OperationState.WAITING: 5,
    OperationState.DONE: 0,
    OperationState.FAILED: 4,
    OperationState.UNDONE: 4,
    OperationState.CANCELLED: 4,
    OperationState.SUPERSEDED: 4,
}


@pytest.mark.parametrize("state", OperationState)
def test_every_end_has_its_exit_code(state: OperationState) -> None:
    assert exit_for(Operation("id", "shift", state)) == ENDS[state]


def test_no_answer_is_five_and_the_codes_are_these() -> None:
    assert exit_for(None) == 5
    assert {e.name: e.value for e in Exit} == {
        "DONE": 0, "FAULT": 1, "USAGE": 2, "REFUSED": 3, "FAILED": 4, "NO_ANSWER": 5,
    }  # fmt: skip


# -- the program


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr("sys.argv", ["controlplane", *arguments])
    with pytest.raises(SystemExit) as caught:
        main.run()
    code = caught.value.code
    return code if isinstance(code, int) else 0


def test_the_version(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(monkeypatch, "version") == 0
    assert __version__ in capfd.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [["dance"], ["shift"], ["failover", "nanchang"], ["call", "claims", "--count", "0"], ["plan", "--strange"],
     ["agents", "enrol", "home01"]],
)  # fmt: skip
def test_wrong_usage_is_two(monkeypatch: pytest.MonkeyPatch, arguments: list[str]) -> None:
    assert run(monkeypatch, *arguments) == Exit.USAGE


@pytest.mark.parametrize(
    "verb", [["status"], ["shift", "claims", "nanchang=100"], ["site"], ["coordinator"], ["history"]]
)
def test_faults_of_the_configuration_are_lines_and_one(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path, verb: list[str]
) -> None:
    (tmp_path / "c.toml").write_text("site = 7\ncolour = 1\n")
    assert run(monkeypatch, *verb, "--config", str(tmp_path / "c.toml")) == Exit.FAULT
    told = capfd.readouterr()
    said = told.err.replace("\n", "")
    for part in ("fleet_file: missing", "broker: missing", "colour: unknown", "site: 7"):
        assert part in said
    assert "Traceback" not in told.err
    assert told.out == ""


def test_shares_are_read_or_refused_as_usage() -> None:
    assert main._shares(["nanchang=20", "chengdu=80"]) == {"nanchang": 20, "chengdu": 80}
    for pairs in (["nanchang"], ["nanchang="], ["nanchang=x"], ["nanchang=-1"], ["a=50", "a=50"], ["nanchang=1.5"]):
        with pytest.raises(typer.BadParameter, match="NAME=PERCENT"):
            main._shares(pairs)


# -- secrets


def test_the_digest_is_that_of_rfc_2617() -> None:
    assert digest("home01", "secret") == hashlib.md5(b"home01:controlplane:secret").hexdigest()
    assert digest("home01", "secret") == "f5b1f7475a56e8114a13f6fb8658db58"


def test_passwords_are_long_different_and_easy_to_read() -> None:
    made = {new_password() for _ in range(200)}
    assert len(made) == 200
    for password in made:
        assert len(password) == 20
        assert not set(password) & set("0O1lIio")


def test_a_password_goes_into_a_new_file_of_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "home01"
    hand_out(path, "secret")
    assert path.read_text() == "secret\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with pytest.raises(FileExistsError):
        hand_out(path, "other")
    assert path.read_text() == "secret\n"


def test_a_password_does_not_follow_a_link(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(FileExistsError):
        hand_out(tmp_path / "link", "secret")
    assert not (tmp_path / "elsewhere").exists()


# -- tables


def printed(show: str, value: object) -> str:
    console = Console(file=io.StringIO(), width=300)
    getattr(tables, f"show_{show}")(console, value)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def plan() -> Plan:
    record = OperationRecord("op-1", command_of("shift"), OperationState.WAITING, 0, EPOCH, EPOCH)
    return msgspec.structs.replace(
        first_plan(FLEET, KEY), paused_at=EPOCH, running=record,
        agents={"home01": AgentPlan("王芳", "chengdu", ("claims",), 5, DIGEST)},
    )  # fmt: skip


def test_an_operation_is_told_with_all_a_person_has_to_know() -> None:
    text = printed("operation", Operation(
        "id-1", "shift", OperationState.UNDONE, "prove", 1.0, (Refusal("expired", "it expired"),), ("no call seen",),
        {"changes": {"x": 1}}, {"claims": {"nanchang": 3}},
    ))  # fmt: skip
    for part in (
        "undone",
        "shift",
        "prove",
        "100%",
        "id-1",
        "expired: it expired",
        "unproven: no call seen",
        "'nanchang': 3",
    ):
        assert part in text


def test_a_plan_is_a_table_without_zero_shares() -> None:
    text = printed("plan", plan())
    for part in (
        "service claims",
        "nanchang 60 %  chengdu 40 %",
        "trunks national",
        KEY.label,
        "王芳",
        "op-1, waiting",
    ):
        assert part in text
    assert "0 %" not in text.replace("60 %", "").replace("40 %", "").replace("100 %", "")
    assert DIGEST not in text


def test_the_status_shows_what_is_wrong_loudly() -> None:
    now = clock.wall()
    behind = Report(
        "nanchang", "i", 1, now, 0, "h", "down", Applied(Key(1, 1, "coordinator", 9), "h", now), None, True, ("no slice",),
        channels=7, seats={"a": SeatState(True, 1, ()), "b": SeatState(True, 0, ())},
    )  # fmt: skip
    state = FleetState(plan(), Beacon(KEY.authority, KEY, now), False, {"nanchang": behind}, ())
    text = printed("status", state)
    for part in (
        "silent: no beacon", "paused since", "HANDS OFF; no slice", "1.1.coordinator.9", "no report", "1/2", "in_service",
        " 7 ",
    ):  # fmt: skip
        assert part in text
    assert "silent" not in printed("status", msgspec.structs.replace(state, beacon_live=True))


def test_a_fleet_of_which_nothing_is_known_has_a_status() -> None:
    assert "nobody" in printed("status", FleetState(None, None, False, {}, ()))


def test_the_history_tells_why() -> None:
    operation = Operation(
        "id-1", "shift", OperationState.REFUSED, refusals=(Refusal("shares-sum", "101"),), at=EPOCH.isoformat()
    )
    text = printed("history", (operation,))
    assert "shares-sum: 101" in text
    assert "2026-03-01T09:00:00" in text


MARKUP = "[/x] [broker] [red]"


@pytest.mark.parametrize("show", ["operation", "history", "plan"])
def test_text_from_outside_is_shown_as_it_is(show: str) -> None:
    operation = Operation(
        "id-1", "shift", OperationState.REFUSED, refusals=(Refusal("unknown-kind", MARKUP),), unproven=(MARKUP,)
    )
    named = msgspec.structs.replace(plan(), agents={"home01": AgentPlan(MARKUP, "chengdu", ("claims",), 5, DIGEST)})
    value = {"operation": operation, "history": (operation,), "plan": named}[show]
    assert MARKUP in printed(show, value)


# -- retained messages that cannot be read

TOPICS = Topics("hotline")
GOOD = Operation("id-1", "shift", OperationState.DONE)
BAD = (TOPICS.authority, TOPICS.operation("bad"), TOPICS.plan, TOPICS.report("chengdu"))


def retained() -> dict[str, bytes]:
    report = Report("nanchang", "i", 1, EPOCH, 0, "h", "ready", None, None, False)
    good = {TOPICS.report("nanchang"): encode(report), TOPICS.operation("id-1"): encode(GOOD)}
    return good | dict.fromkeys(BAD, b"\xff{") | {TOPICS.report("gone"): b""}


def test_what_cannot_be_read_is_left_out_and_named() -> None:
    state = state_of(TOPICS, retained())
    assert set(state.reports) == {"nanchang"}
    assert state.operations == (GOOD,)
    assert (state.plan, state.beacon, state.beacon_live) == (None, None, False)
    assert state.unreadable == BAD
    text = printed("status", state)
    assert all(topic in text for topic in BAD)


@pytest.mark.parametrize(("verb", "code"), [("status", 0), ("history", 0), ("plan", 1)])
def test_what_cannot_be_read_is_told_and_does_not_end_the_program(
    desktop: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], verb: str, code: int
) -> None:
    async def read_state(_: object) -> FleetState:
        return state_of(TOPICS, retained())

    monkeypatch.setattr(desk, "read_state", read_state)
    monkeypatch.setattr(main.asyncio, "run", run_to_end)
    assert run(monkeypatch, verb, "--config", str(desktop)) == code
    said = capfd.readouterr().err.replace("\n", "")
    assert all(topic in said for topic in BAD)


def run_to_end(work: Any) -> Any:
    """What `asyncio.run` does, for work that waits for nothing: the tests' own loop is left alone."""
    try:
        work.send(None)
    except StopIteration as end:
        return end.value
    raise AssertionError("it waited")


# -- enrolling


@pytest.fixture
def desktop(tmp_path: Path) -> Path:
    """The configuration of a person's machine."""
    shutil.copy(Path(__file__).parents[2] / "deploy" / "fleet.sample.toml", tmp_path / "fleet.toml")
    (tmp_path / "secret").write_text("s")
    path = tmp_path / "controlplane.toml"
    path.write_text(
        'fleet_file = "fleet.toml"\n[broker]\nhost = "127.0.0.1"\naccount = "wang"\npassword_file = "secret"\n'
    )
    return path


def enrol(monkeypatch: pytest.MonkeyPatch, desktop: Path, *more: str, agent: str = "home01") -> int:
    return run(
        monkeypatch, "agents", "enrol", agent, "--name", "Wang Fang", "--site", "chengdu", "--service", "claims",
        "--password-file", str(desktop.parent / "home01"), "--config", str(desktop), *more,
    )  # fmt: skip


def sending(end: Operation | Exception | None, file: Path) -> Callable[..., Any]:
    async def send(_settings: object, command: Any, **_: object) -> Operation | None:
        assert file.exists()
        assert command.digest == digest("home01", file.read_text().strip())
        if isinstance(end, Exception):
            raise end
        return end

    return send


def ended(state: OperationState) -> Operation:
    return Operation("id-1", "agents.enrol", state)


@pytest.mark.parametrize(
    ("end", "code", "stays"),
    [
        (ended(OperationState.DONE), Exit.DONE, True),
        (ended(OperationState.REFUSED), Exit.REFUSED, False),
        (ended(OperationState.FAILED), Exit.FAILED, True),
        (None, Exit.NO_ANSWER, True),
        (LinkDown("no broker"), Exit.FAULT, False),
        (OutcomeUnknown("perhaps"), Exit.FAULT, True),
    ],
)
def test_a_password_stays_where_it_may_be_in_use(
    desktop: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str],
    end: Operation | Exception | None, code: Exit, stays: bool,
) -> None:  # fmt: skip
    file = desktop.parent / "home01"
    monkeypatch.setattr(desk, "send", sending(end, file))
    monkeypatch.setattr(main.asyncio, "run", run_to_end)
    assert enrol(monkeypatch, desktop) == code
    assert file.exists() is stays
    assert ("is removed again" in " ".join(capfd.readouterr().err.split())) is not stays
    if not stays:
        monkeypatch.setattr(desk, "send", sending(ended(OperationState.DONE), file))
        assert enrol(monkeypatch, desktop) == Exit.DONE


def test_a_wrong_enrolment_writes_no_password(desktop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert enrol(monkeypatch, desktop, agent="Home 01") == Exit.USAGE
    assert not (desktop.parent / "home01").exists()


def test_half_a_password_is_taken_back(tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        hand_out(tmp_path / "home01", cast(Any, 7))
    assert not (tmp_path / "home01").exists()


# -- sending

Hear = Callable[[Arrived], None]


def desk_that(fails_before: bool, word: Operation | None) -> Callable[..., Any]:
    """A connection that fails before or at the publish; `word` comes before the failure."""

    @asynccontextmanager
    async def open_desk(_broker: object, _topics: object, hear: Hear) -> AsyncIterator[Any]:
        if fails_before:
            raise LinkDown("nobody listens")

        async def publish(topic: str, payload: bytes, response_topic: str) -> None:
            if word is None:
                raise LinkDown("gone")
            hear(Arrived(response_topic, encode(word), False, None, None))

        yield publish
        raise LinkDown("gone")

    return open_desk


async def test_what_is_known_of_a_command_that_was_sent(desktop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings, heard = load(desktop), list[Operation]()

    async def send(fails_before: bool, word: Operation | None) -> Operation | None:
        monkeypatch.setattr(desk, "open_desk", desk_that(fails_before, word))
        async with asyncio.timeout(5):
            return await desk.send(settings, command_of("pause"), wait_s=5, on_progress=heard.append)

    with pytest.raises(LinkDown, match="nobody listens"):
        await send(True, None)
    with pytest.raises(OutcomeUnknown, match="may have been sent"):
        await send(False, None)
    assert await send(False, GOOD) == GOOD
