"""The journal on a real disk: append only, whole after a kill, closed without a trace."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import msgspec
import pytest

from controlplane.contract.errors import JournalError
from controlplane.contract.key import Authority
from controlplane.edge.journal import Journal, open_journal

AT = dt.datetime(2026, 3, 1, 9, 0, tzinfo=dt.UTC)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "new folder" / "site?#%.sqlite"


async def keep(journal: Journal, number: int) -> None:
    await journal.keep("promise", Authority(1, number, "host"), kind="promise", id_=f"1.{number}.host", at=AT)


async def test_what_is_kept_is_there_after_opening_again(path: Path) -> None:
    async with open_journal(path) as journal:
        assert await journal.load("promise") is None
        await keep(journal, 1)
        await keep(journal, 2)
        await journal.note("repair", "", {"steps": "cp/svc/claims", "who": "王芳"}, AT)
    async with open_journal(path) as journal:
        body = await journal.load("promise")
        assert body is not None
        assert msgspec.json.decode(body, type=Authority) == Authority(1, 2, "host")
        rows = await journal.rows(limit=10)
        assert [(r.seq, r.kind, r.id) for r in rows] == [
            (1, "promise", "1.1.host"), (2, "promise", "1.2.host"), (3, "repair", ""),
        ]  # fmt: skip
        assert rows[2].body == {"steps": "cp/svc/claims", "who": "王芳"}
        assert rows[0].at == AT.isoformat()
        assert [r.seq for r in await journal.rows(limit=2)] == [2, 3]
        assert [r.seq for r in await journal.rows(limit=9, id_="1.1.host")] == [1]


async def test_rows_cannot_be_changed_or_taken_away(path: Path) -> None:
    async with open_journal(path) as journal:
        await keep(journal, 1)
    with contextlib.closing(sqlite3.connect(path)) as db:
        for statement in ("UPDATE journal SET kind = 'x'", "DELETE FROM journal"):
            with pytest.raises(sqlite3.IntegrityError, match="append only"):
                db.execute(statement)
        assert db.execute("SELECT kind FROM journal").fetchall() == [("promise",)]


async def test_it_is_written_so_that_a_power_cut_loses_nothing_acknowledged(path: Path) -> None:
    async with open_journal(path) as journal:
        async with journal._db.execute("PRAGMA synchronous") as cursor:
            assert await cursor.fetchone() == (2,)
        async with journal._db.execute("PRAGMA journal_mode") as cursor:
            assert await cursor.fetchone() == ("wal",)


async def test_read_only_reads_beside_a_writer_and_writes_nothing(path: Path) -> None:
    async with open_journal(path) as writer:
        await keep(writer, 1)
        async with open_journal(path, read_only=True) as reader:
            assert [r.id for r in await reader.rows(limit=5)] == ["1.1.host"]
            with pytest.raises(JournalError, match="readonly"):
                await reader.note("x", "", {}, AT)
            await keep(writer, 2)
            assert len(await reader.rows(limit=5)) == 2


async def test_read_only_makes_no_file(path: Path) -> None:
    with pytest.raises(JournalError, match="cannot be opened"):
        async with open_journal(path, read_only=True):
            pass
    assert not path.parent.exists()


async def test_a_newer_schema_is_refused_and_left_alone(path: Path) -> None:
    async with open_journal(path):
        pass
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA user_version = 99")
    with pytest.raises(JournalError, match="schema 99 is newer"):
        async with open_journal(path):
            pass
    with contextlib.closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (99,)


@pytest.mark.parametrize(
    "content", [b"this is no database, it is a letter" * 99, b"SQLite format 3\x00" + b"\xff" * 4096]
)
async def test_a_file_that_is_no_journal_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "site.sqlite"
    path.write_bytes(content)
    with pytest.raises(JournalError):
        async with open_journal(path):
            pass
    assert path.read_bytes() == content


async def test_a_folder_that_cannot_be_made_is_a_journal_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(JournalError, match="cannot be opened"):
        async with open_journal(tmp_path / "file" / "site.sqlite"):
            pass


async def test_reading_what_has_no_tables_is_a_journal_error(tmp_path: Path) -> None:
    (tmp_path / "site.sqlite").touch()
    async with open_journal(tmp_path / "site.sqlite", read_only=True) as journal:
        with pytest.raises(JournalError, match="no such table"):
            await journal.rows(limit=1)
        with pytest.raises(JournalError, match="no such table"):
            await journal.load("plan")


async def test_a_write_that_fails_is_whole_undone_and_the_journal_goes_on(path: Path) -> None:
    async with open_journal(path) as journal:
        await keep(journal, 1)
        await journal._db.execute(
            "CREATE TEMP TRIGGER full BEFORE INSERT ON journal BEGIN SELECT RAISE(ABORT, 'disk full'); END"
        )
        with pytest.raises(JournalError, match="disk full"):
            await keep(journal, 2)
        await journal._db.execute("DROP TRIGGER full")
        await journal.note("after", "", {}, AT)
        assert [r.kind for r in await journal.rows(limit=9)] == ["promise", "after"]
        assert await journal.load("promise") == msgspec.json.encode(Authority(1, 1, "host"))


@pytest.mark.parametrize("turns", range(8))
async def test_a_cancelled_write_is_whole_or_not_at_all(path: Path, turns: int) -> None:
    """Cancelled after any number of turns of the loop; the next write must not bring half of it to the disk."""
    async with open_journal(path) as journal:
        await keep(journal, 1)
        writing = asyncio.create_task(keep(journal, 2), name="cancelled")
        for _ in range(turns):
            await asyncio.sleep(0)
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)
        await journal.note("after", "", {}, AT)
    with contextlib.closing(sqlite3.connect(path)) as db:
        [(body,)] = db.execute("SELECT body FROM state WHERE name = 'promise'").fetchall()
        ids = [row[0] for row in db.execute("SELECT id FROM journal WHERE kind = 'promise' ORDER BY seq")]
    assert msgspec.json.decode(body, type=Authority).epoch == len(ids)


async def test_a_write_cancelled_between_its_two_statements_leaves_nothing(path: Path) -> None:
    async with open_journal(path) as journal:
        await keep(journal, 1)
        execute, reached = journal._db.execute, asyncio.Event()

        async def halt(*arguments: object) -> object:
            if "INTO journal" in str(arguments[0]):
                reached.set()
                await asyncio.Event().wait()
            return await execute(*arguments)  # type: ignore[arg-type]

        journal._db.execute = halt  # type: ignore[assignment,method-assign]
        writing = asyncio.create_task(keep(journal, 2), name="cancelled")
        await reached.wait()
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)
        journal._db.execute = execute  # type: ignore[method-assign]
        await journal.note("after", "", {}, AT)
        assert await journal.load("promise") == msgspec.json.encode(Authority(1, 1, "host"))
        assert [r.kind for r in await journal.rows(limit=9)] == ["promise", "after"]


async def test_many_writers_take_turns(path: Path) -> None:
    async with open_journal(path) as journal:
        await asyncio.gather(*(keep(journal, n) for n in range(1, 41)))
        rows = await journal.rows(limit=99)
        assert len(rows) == 40
        body = await journal.load("promise")
        assert body is not None
        last = msgspec.json.decode(body, type=Authority)
        assert rows[-1].id == f"1.{last.epoch}.host"


async def test_no_thread_is_left_however_it_ends(path: Path) -> None:
    before = threading.active_count()

    async def fail() -> None:
        async with open_journal(path) as journal:
            assert threading.active_count() == before + 1
            await keep(journal, 1)
            raise RuntimeError("on purpose")

    with pytest.raises(RuntimeError, match="on purpose"):
        await fail()
    while threading.active_count() > before:  # noqa: ASYNC110 - a thread tells nobody
        await asyncio.sleep(0)


WRITER = """
import asyncio, datetime as dt, sys
from pathlib import Path
from controlplane.contract.key import Authority
from controlplane.edge.journal import open_journal
at = dt.datetime.now(dt.UTC)
async def main():
    async with open_journal(Path(sys.argv[1])) as journal:
        n = int(sys.argv[2])
        while True:
            n += 1
            await journal.keep("promise", Authority(1, n, "host"), kind="promise", id_=str(n), at=at)
            sys.stdout.write(f"{n}\\n"); sys.stdout.flush()
            if len(sys.argv) > 3: return
asyncio.run(main())
"""


def test_a_process_ends_by_itself_when_its_journal_is_closed(path: Path) -> None:
    command = [sys.executable, "-c", WRITER, str(path), "0", "once"]
    done = subprocess.run(command, timeout=20, capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"1\n", b"")


def test_a_kill_in_the_middle_of_writes_loses_nothing_that_was_acknowledged(path: Path) -> None:
    acknowledged = 0
    for wanted in (1, 2, 3, 5, 8, 13):
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path), str(acknowledged)], stdout=subprocess.PIPE
        ) as it:
            assert it.stdout is not None
            for _ in range(wanted):
                acknowledged = int(it.stdout.readline())
            os.kill(it.pid, signal.SIGKILL)
            rest = it.stdout.read().split(b"\n")
        acknowledged = max([acknowledged, *(int(line) for line in rest[:-1] if line)])
        with contextlib.closing(sqlite3.connect(path)) as db:
            assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            [(body,)] = db.execute("SELECT body FROM state WHERE name = 'promise'").fetchall()
            ids = [int(row[0]) for row in db.execute("SELECT id FROM journal ORDER BY seq")]
        kept = msgspec.json.decode(body, type=Authority).epoch
        assert kept == ids[-1] >= acknowledged
        assert ids == list(range(1, ids[-1] + 1))
        acknowledged = ids[-1]
