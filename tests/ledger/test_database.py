"""One writer that commits in groups: what that must never cost, and what a crash leaves."""

from __future__ import annotations

import os
import re
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import Connection, func, insert, select
from sqlalchemy.exc import IntegrityError

from dicom_quarry.errors import LedgerError, LedgerFull
from dicom_quarry.ledger.database import Database
from dicom_quarry.ledger.read_pool import ReadPool
from dicom_quarry.ledger.reader import LedgerReader
from dicom_quarry.ledger.schema import job
from dicom_quarry.ledger.sqlite import ledger_error
from dicom_quarry.ledger.statements import METADATA

Work = Callable[[Connection], object]


def put(name: str, value: str = "") -> Work:
    return lambda connection: connection.execute(insert(job).values(name=name, value=value))


def names(database: Database) -> set[str]:
    return database.read(lambda c: set(c.scalars(select(job.c.name))))


def gathered(database: Database, *works: Work) -> list[Future[object]]:
    """Hand in several pieces of work while the writer is busy, so that they share a commit."""
    entered, leave = threading.Event(), threading.Event()

    def busy(_connection: Connection) -> None:
        entered.set()
        leave.wait(10)

    first = database.submit(busy)
    entered.wait(10)
    futures: list[Future[object]] = [database.submit(work) for work in works]
    leave.set()
    first.result(10)
    return futures


def test_a_piece_that_fails_is_undone_alone_and_its_caller_is_told(tmp_path: Path) -> None:
    database = Database(tmp_path / "l.db")

    def half(connection: Connection) -> None:
        connection.execute(insert(job).values(name="half", value=""))
        raise KeyError("mine")

    done = gathered(database, put("a"), half, put("a"), put("b"))
    done[0].result(10)
    with pytest.raises(KeyError, match="mine"):
        done[1].result(10)
    with pytest.raises(IntegrityError):
        done[2].result(10)
    done[3].result(10)
    assert names(database) == {"a", "b"}
    database.close()


def test_what_is_handed_in_together_is_one_commit(tmp_path: Path) -> None:
    database = Database(tmp_path / "l.db")
    seen: list[int] = []

    def look(_connection: Connection) -> None:
        seen.append(len(names(database)))

    for future in gathered(database, put("a"), look, put("b"), look):
        future.result(10)
    assert seen == [0, 0], "a reader sees nothing of a group before its commit"
    assert names(database) == {"a", "b"}
    database.close()


def test_a_disk_that_fails_reaches_everybody_and_the_writer_lives_on(tmp_path: Path) -> None:
    database = Database(tmp_path / "l.db")

    def full(connection: Connection) -> None:
        connection.exec_driver_sql("select * from no_such_table")  # an OperationalError, as a full disk gives

    for future in gathered(database, put("a"), full, put("b")):
        with pytest.raises(LedgerError, match="could not be written"):
            future.result(10)
    assert names(database) == set()
    database.write(put("c"))
    assert names(database) == {"c"}
    database.close()


def test_closing_commits_what_waits_and_ends_what_comes_later(tmp_path: Path) -> None:
    database = Database(tmp_path / "l.db")
    handed_in = gathered(database, *(put(str(number)) for number in range(600)))
    database.close()
    database.close()
    assert all(future.done() and future.exception() is None for future in handed_in)
    with pytest.raises(LedgerError, match="closed"):
        database.write(put("late"))
    again = Database(tmp_path / "l.db")
    assert len(names(again)) == 600
    again.close()


def test_nobody_who_writes_while_it_closes_waits_for_ever(tmp_path: Path) -> None:
    database = Database(tmp_path / "l.db")
    start = threading.Barrier(5)

    def write(number: int) -> int:
        start.wait(10)
        for count in range(1000):
            try:
                database.submit(put(f"{number}-{count}"))
            except LedgerError:
                return count
        return 1000

    with ThreadPoolExecutor(4) as pool:
        counts = [pool.submit(write, number) for number in range(4)]
        start.wait(10)
        database.close()
        written = sum(one.result(20) for one in counts)
    again = Database(tmp_path / "l.db")
    assert len(names(again)) == written, "each was either refused or committed"
    again.close()


_CHILD = """
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from sqlalchemy import insert
from dicom_quarry.ledger.database import Database
from dicom_quarry.ledger.schema import job
database = Database(Path(sys.argv[1]))
def write(thread):
    for number in range(1_000_000):
        name = f"{thread}-{number}"
        database.write(lambda c: c.execute(insert(job).values(name=name, value="x" * 200)))
        sys.stdout.write(name + "\\n")
        sys.stdout.flush()
with ThreadPoolExecutor(4) as pool:
    list(pool.map(write, range(4)))
"""


@pytest.mark.parametrize("after", [1, 50, 400])
def test_what_write_has_returned_from_survives_kill_9(tmp_path: Path, after: int) -> None:
    path = tmp_path / "l.db"
    with subprocess.Popen(
        [sys.executable, "-c", _CHILD, str(path)], stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        told = [child.stdout.readline() for _ in range(after)]
        os.kill(child.pid, signal.SIGKILL)
        told += child.stdout.readlines()
        assert child.wait(10) == -signal.SIGKILL
    returned = {line.strip() for line in told if line.endswith("\n")}
    assert len(returned) >= after
    database = Database(path)
    assert returned <= names(database)
    check = database.read(lambda c: c.exec_driver_sql("PRAGMA integrity_check").scalar())
    assert check == "ok"
    database.close()


def test_the_file_is_durable_and_for_its_owner(tmp_path: Path) -> None:
    path = tmp_path / "l.db"
    database = Database(path)
    settings = database.write(
        lambda c: [c.exec_driver_sql(f"PRAGMA {name}").scalar() for name in ("journal_mode", "synchronous")]
    )
    assert settings == ["wal", 2], "write-ahead log, and FULL"
    for file in tmp_path.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file
    database.close()


@pytest.mark.parametrize("name", ["a b", "50%41", "x?y=1", "c#d", "ä", "it's;"])
def test_a_folder_may_have_any_name(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    folder.mkdir()
    database = Database(folder / "l.db")
    database.write(put("a"))
    reader = LedgerReader(folder / "l.db")
    assert reader.metadata() == {"a": ""}
    reader.close()
    database.close()
    assert (folder / "l.db").stat().st_size
    assert [one.name for one in tmp_path.iterdir()] == [name]


def test_what_is_no_ledger_is_told_in_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "l.db"
    path.write_bytes(b"not a database at all" * 100)
    for opened in (Database, LedgerReader):
        with pytest.raises(LedgerError, match=r"l\.db cannot be (opened|read): file is not a database"):
            opened(path)
    with pytest.raises(LedgerError, match="there is no job in"):
        LedgerReader(tmp_path / "nothing.db")


def test_a_reader_cannot_write(tmp_path: Path) -> None:
    database = Database(tmp_path / "l.db")
    with pytest.raises(Exception, match="readonly"):
        database.read(put("a"))
    database.close()


def test_a_reader_sees_one_moment(tmp_path: Path) -> None:
    database = Database(tmp_path / "l.db")

    def twice(connection: Connection) -> tuple[int | None, int | None]:
        count = select(func.count()).select_from(job)
        before = connection.scalar(count)
        database.write(put("in between"))
        return before, connection.scalar(count)

    assert database.read(twice) == (0, 0)
    assert names(database) == {"in between"}
    database.close()


@pytest.mark.parametrize(
    ("code", "kind", "words"),
    [
        (sqlite3.SQLITE_FULL, LedgerFull, "disk full.*run the same command again"),
        (sqlite3.SQLITE_IOERR | 1 << 8, LedgerError, "disk I/O error.*Have that disk checked"),
    ],
)
def test_a_full_and_a_failing_disk_are_sentences(code: int, kind: type[Exception], words: str) -> None:
    error = sqlite3.OperationalError("disk I/O error")
    error.sqlite_errorcode = code
    found = ledger_error(Path("l.db"), error)
    assert type(found) is kind
    assert re.search(words, str(found))


def test_a_damaged_ledger_is_a_sentence_wherever_it_is_read(tmp_path: Path) -> None:
    database = Database(tmp_path / "l.db")
    for number in range(200):
        database.write(put(str(number), "x" * 2000))
    database.close()
    pool = ReadPool(tmp_path / "l.db")
    assert pool.fetch_all(METADATA)
    size = (tmp_path / "l.db").stat().st_size
    with (tmp_path / "l.db").open("r+b") as file:
        file.seek(size // 2)
        file.write(b"\xff" * (size // 2))
    pool.close()
    with pytest.raises(LedgerError, match="cannot be read"):
        ReadPool(tmp_path / "l.db").fetch_all(METADATA)


def test_a_ledger_that_is_a_link_is_not_opened(tmp_path: Path) -> None:
    Database(tmp_path / "l.db").close()
    (tmp_path / "link.db").symlink_to("l.db")
    with pytest.raises(LedgerError, match="is a link"):
        ReadPool(tmp_path / "link.db").fetch_all(METADATA)


def test_nobody_waits_for_a_writer_that_has_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    database = Database(tmp_path / "l.db")

    def end(*_: object) -> None:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(database, "_commit", end)
        with pytest.raises(LedgerError, match="MemoryError"):
            database.submit(put("lost")).result(10)
        with pytest.raises(LedgerError, match="is closed"):
            database.submit(put("late"))
    database.close()
