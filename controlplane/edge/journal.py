"""The journal and the durable state of one process, in SQLite.

Law: the journal is the evidence, append only; what must survive a power cut is committed with synchronous=FULL before
its effect. A write that fails is a JournalError: its caller stops acting. The only module that imports aiosqlite.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import resources
from pathlib import Path

import aiosqlite
import msgspec

from controlplane.contract.errors import JournalError


class Row(msgspec.Struct, frozen=True):
    """One row of the journal. `at` is RFC 3339 UTC."""

    seq: int
    at: str
    kind: str
    id: str
    body: dict[str, object]


class Journal:
    """One database, one connection, one writer at a time."""

    def __init__(self, db: aiosqlite.Connection) -> None:
        self._db = db
        self._turn = asyncio.Lock()

    async def note(self, kind: str, id_: str, body: dict[str, object], at: dt.datetime) -> None:
        """Add a row, durably."""
        text = msgspec.json.encode(body).decode()
        await self._write(
            "INSERT INTO journal (at, kind, id, body) VALUES (?, ?, ?, ?)", (at.isoformat(), kind, id_, text)
        )

    async def keep(self, name: str, value: object, *, kind: str, id_: str, at: dt.datetime) -> None:
        """Replace a piece of state and add a row that says so, in one transaction."""
        body = msgspec.json.encode(value)
        statements = (
            ("INSERT OR REPLACE INTO state (name, body) VALUES (?, ?)", (name, body)),
            (
                "INSERT INTO journal (at, kind, id, body) VALUES (?, ?, ?, ?)",
                (at.isoformat(), kind, id_, body.decode()),
            ),
        )
        async with self._turn:
            try:
                for statement, values in statements:
                    await self._db.execute(statement, values)
                await self._db.commit()
            except sqlite3.Error as error:
                await self._give_up(error)
            except asyncio.CancelledError:
                await self._take_back()
                raise

    async def load(self, name: str) -> bytes | None:
        """A piece of state as it was kept."""
        rows = await self._read("SELECT body FROM state WHERE name = ?", (name,))
        return bytes(rows[0][0]) if rows else None

    async def rows(self, *, limit: int, id_: str | None = None) -> list[Row]:
        """The newest rows, oldest first."""
        where, values = ("WHERE id = ?", (id_, limit)) if id_ else ("", (limit,))
        query = f"SELECT seq, at, kind, id, body FROM journal {where} ORDER BY seq DESC LIMIT ?"  # noqa: S608 - constant parts
        found = [Row(r[0], r[1], r[2], r[3], msgspec.json.decode(r[4])) for r in await self._read(query, values)]
        return found[::-1]

    async def _read(self, query: str, values: tuple[object, ...]) -> list[sqlite3.Row]:
        async with self._turn:
            try:
                async with self._db.execute(query, values) as cursor:
                    return list(await cursor.fetchall())
            except sqlite3.Error as error:
                raise JournalError(f"the journal cannot be read: {error}") from error

    async def _write(self, statement: str, values: tuple[object, ...]) -> None:
        async with self._turn:
            try:
                await self._db.execute(statement, values)
                await self._db.commit()
            except sqlite3.Error as error:
                await self._give_up(error)
            except asyncio.CancelledError:
                await self._take_back()
                raise

    async def _take_back(self) -> None:
        """A cancelled write is whole or not at all: without this the next writer would commit the half of it."""
        with contextlib.suppress(sqlite3.Error):
            await self._db.rollback()

    async def _give_up(self, error: sqlite3.Error) -> None:
        await self._take_back()  # Its own error is not told: the first one is.
        raise JournalError(f"the journal cannot be written: {error}; look at the disk, then start again") from error


@asynccontextmanager
async def open_journal(path: Path, *, read_only: bool = False) -> AsyncIterator[Journal]:
    """The journal at `path`, made and brought to the newest schema where needed. Closed on leaving, always: an open
    connection's thread would hold the process at exit."""
    try:
        if not read_only:
            path.parent.mkdir(parents=True, exist_ok=True)
        uri = f"{path.resolve().as_uri()}?mode={'ro' if read_only else 'rwc'}"
        db = await aiosqlite.connect(uri, uri=True)
    except (sqlite3.Error, OSError) as error:
        raise JournalError(f"{path} cannot be opened: {error}") from error
    try:
        try:
            if not read_only:
                await _prepare(db)
        except sqlite3.Error as error:
            raise JournalError(f"{path} cannot be used: {error}") from error
        yield Journal(db)
    finally:
        await db.close()


async def _prepare(db: aiosqlite.Connection) -> None:
    await db.execute("PRAGMA journal_mode = WAL")
    await db.execute("PRAGMA synchronous = FULL")
    await db.execute("PRAGMA busy_timeout = 3000")
    async with db.execute("PRAGMA user_version") as cursor:
        row = await cursor.fetchone()
    present = int(row[0]) if row else 0
    folder = resources.files("controlplane.edge").joinpath("schema")
    scripts = sorted((p for p in folder.iterdir() if p.name.endswith(".sql")), key=lambda p: p.name)
    if present > len(scripts):
        raise sqlite3.DatabaseError(f"its schema {present} is newer than this program knows ({len(scripts)})")
    for number, script in enumerate(scripts[present:], present + 1):
        await db.executescript(f"BEGIN IMMEDIATE; {script.read_text()} PRAGMA user_version = {number}; COMMIT;")
