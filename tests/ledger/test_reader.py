"""What the ledger tells agrees with itself, whatever the job."""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from dicom_quarry.errors import LedgerError
from dicom_quarry.ledger.cohort_rows import replace_rows
from dicom_quarry.ledger.instances import InstanceRow
from dicom_quarry.ledger.ledger import Ledger
from dicom_quarry.ledger.reader import LedgerReader, has_job
from dicom_quarry.ledger.views import MissingView
from dicom_quarry.model import OutcomeStatus, Request
from dicom_quarry.outcomes import codes_of
from tests.ledger.helpers import (
    begin,
    conclude,
    derive,
    missing_row,
    ref,
    request,
    resolve,
    stored_row,
    study,
    task_id,
)


def test_rows_come_a_page_at_a_time_by_outcome(ledger: Ledger, reader: LedgerReader) -> None:
    begin(ledger, [request(number, f"A{number}") for number in range(1, 8)])
    for number in (1, 3, 4, 6):
        resolve(ledger, request(number, f"A{number}"), study(number))
    resolve(ledger, request(7, "A7"), study(4), study(6))
    for number in (1, 3, 6):
        conclude(ledger, f"1.2.{number}", [stored_row(f"1.2.{number}", 1)])
    conclude(ledger, "1.2.4", [stored_row("1.2.4", 1), missing_row("1.2.4", 2)])

    def numbers(status: OutcomeStatus | None, **edges: int) -> list[int]:
        return [view.row for view in reader.row_page(status, 2, **edges)]

    complete, partial, pending = OutcomeStatus.COMPLETE, OutcomeStatus.PARTIAL, OutcomeStatus.PENDING
    assert numbers(None) == [1, 2]
    assert numbers(None, after=2) == [3, 4]
    assert numbers(None, before=7) == [5, 6]
    assert numbers(complete) == [1, 3]
    assert numbers(complete, after=3) == [6], "row 7 has a complete study and a partial one"
    assert numbers(complete, before=6) == [1, 3]
    assert numbers(partial) == [4, 7]
    assert numbers(pending) == [2, 5]
    assert numbers(pending, after=5) == []
    assert {view.row for view in reader.row_page(partial, 9)} == {4, 7}
    assert reader.row_page(OutcomeStatus.FAILED, 2) == []


def test_a_row_of_several_studies_is_as_good_as_the_worst(ledger: Ledger, reader: LedgerReader) -> None:
    begin(ledger, [request(1, "A", cells=(" a", "=b")), request(2, "B"), request(3, "A")])
    resolve(ledger, request(1, "A"), study(1), study(2))
    resolve(ledger, request(2, "B"), study(2))
    conclude(ledger, "1.2.1", [stored_row("1.2.1", 1), stored_row("1.2.1", 2)])
    first = next(reader.rows())
    assert (first.outcome.status, first.studies_found, first.studies_complete) == (
        OutcomeStatus.PENDING,
        2,
        1,
    )
    assert first.proved_at is None
    conclude(ledger, "1.2.2", [stored_row("1.2.2", 1), missing_row("1.2.2", 2)])
    first, second, third = reader.rows()
    assert first.cells == (" a", "=b")
    assert (first.outcome.status, first.outcome.code) == (OutcomeStatus.PARTIAL, "instances_missing")
    assert first.outcome.reason.startswith("1 instance of 2 did not arrive")
    assert (first.instances_expected, first.instances_stored, first.size) == (4, 3, 101 + 102 + 101)
    assert first.study_uids == ("1.2.1", "1.2.2")
    assert (first.same_as_row, second.same_as_row, third.same_as_row) == (None, 1, 1)
    assert second.study_uids == ("1.2.2",)
    assert [view.rows for view in reader.studies()] == [(1, 3), (1, 2, 3)]
    assert list(reader.missing()) == [MissingView((1, 2, 3), ref("1.2.2", 2))]


def test_counts_are_of_studies_and_instances_once_however_many_rows_share_them(
    ledger: Ledger, reader: LedgerReader
) -> None:
    begin(ledger, [request(1, "A"), request(2, "B"), request(3, "A"), request(4, "C")])
    resolve(ledger, request(1, "A"), study(1), study(2))
    resolve(ledger, request(2, "B"), study(2), study(3))
    for number in (1, 2):
        conclude(ledger, f"1.2.{number}", [stored_row(f"1.2.{number}", 1), stored_row(f"1.2.{number}", 2)])
    counts = reader.counts()
    assert (counts.rows, counts.rows_waiting) == (4, 1)
    assert counts.rows_by_status == {OutcomeStatus.COMPLETE: 2, OutcomeStatus.PENDING: 2}
    assert (counts.studies, counts.studies_done, counts.studies_complete) == (3, 2, 2)
    assert (counts.instances_expected, counts.instances_stored, counts.size) == (4, 4, 406)
    agree(reader)


def test_instances_are_told_with_their_paths(ledger: Ledger, reader: LedgerReader) -> None:
    begin(ledger, [request(1, "A")])
    resolve(ledger, request(1, "A"), study(1), study(2))
    conclude(ledger, "1.2.1", [stored_row("1.2.1", 1), stored_row("1.2.1", 2, path="else/where")])
    conclude(ledger, "1.2.2", [stored_row("1.2.2", 1)])
    found = list(reader.instances(derive))
    assert [str(one.path) for one in found] == [
        "4711/1.2.1/1.2.1.1.1.dcm",
        "else/where",
        "4711/1.2.2/1.2.2.1.1.dcm",
    ]
    assert (found[0].ref, found[0].size, found[0].digest) == (ref("1.2.1", 1), 101, b"\1" * 32)
    assert found[0].transfer_syntax == "1.2.840.10008.1.2.1"
    assert list(reader.instances(derive, study_uid="1.2.2")) == found[2:]


def test_a_proof_is_dated_in_utc_once_all_studies_are_proved(ledger: Ledger, reader: LedgerReader) -> None:
    begin(ledger, [request(1, "A")])
    resolve(ledger, request(1, "A"), study(1))
    conclude(ledger, "1.2.1", [stored_row("1.2.1", 1)])
    proved = next(reader.rows()).proved_at
    assert proved is not None
    assert proved.isoformat() == "2017-07-14T02:40:00+00:00"


events = st.lists(
    st.tuples(
        st.sampled_from(["resolve", "none", "conclude", "partial", "retry", "late", "exchange"]),
        st.integers(1, 6),
        st.integers(1, 4),
    ),
    max_size=12,
)


def live(ledger: Ledger, events: list[tuple[str, int, int]], rows: list[Request]) -> None:
    """A course of a job; what is not possible in a state is refused by the ledger."""
    for event, first, second in events:
        asked = rows[first % len(rows)]
        uid = f"1.2.{second}"
        try:
            match event:
                case "resolve":
                    resolve(ledger, asked, study(second), study(first))
                case "none":
                    ledger.conclude_request(asked, "study_not_found", keys="accession").result()
                case "conclude":
                    conclude(ledger, uid, [stored_row(uid, number) for number in range(first)])
                case "partial":
                    stored = [stored_row(uid, number) for number in range(first)]
                    conclude(ledger, uid, [*stored, missing_row(uid, 9)])
                case "retry":
                    ledger.retry(
                        codes_of(
                            {OutcomeStatus.PARTIAL, OutcomeStatus.NOT_FOUND}
                            if first > 2
                            else {OutcomeStatus.COMPLETE}
                        )
                    )
                case "late":
                    ledger.add_late_instance(task_id(ledger, uid), stored_row(uid, 9, listed=False), "f")
                case "exchange":
                    kept = [one.keys[0][1] for one in rows[:first] if one.keys]
                    rows[:] = [request(row, key) for row, key in enumerate([*kept, f"N{second}"], 1)]
                    ledger.database.write(lambda c: replace_rows(c, rows))
        except (LedgerError, AssertionError):
            continue


def agree(reader: LedgerReader) -> None:
    counts = reader.counts()
    rows, studies = list(reader.rows()), list(reader.studies())
    wanted = [view for view in studies if view.rows]
    assert counts.rows == len(rows)
    assert counts.rows_by_status == Counter(view.outcome.status for view in rows)
    assert counts.is_finished == all(view.outcome.status is not OutcomeStatus.PENDING for view in rows)
    assert counts.studies == len(wanted)
    assert counts.studies_done == sum(view.outcome.status is not OutcomeStatus.PENDING for view in wanted)
    assert counts.studies_complete == sum(view.outcome.status is OutcomeStatus.COMPLETE for view in wanted)
    assert counts.instances_expected == sum(view.expected or 0 for view in wanted)
    assert counts.instances_stored == sum(view.stored for view in wanted)
    assert counts.size == sum(view.size for view in wanted)
    assert counts.rows_waiting == sum(
        not view.study_uids and view.outcome.status is OutcomeStatus.PENDING for view in rows
    )
    by_uid = {view.study.study_uid: view for view in studies}
    stored, missing = list(reader.instances(derive)), list(reader.missing())
    for uid, view in by_uid.items():
        mine = [one for one in stored if one.ref.study_uid == uid]
        assert (view.stored, view.size) == (len(mine), sum(one.size for one in mine))
        lacking = [one for one in missing if one.ref.study_uid == uid]
        assert all(one.rows == view.rows for one in lacking)
        if view.outcome.status is OutcomeStatus.COMPLETE:
            assert not lacking
        if view.outcome.status is OutcomeStatus.PARTIAL:
            assert lacking
    for row in rows:
        assert row.instances_stored == sum(by_uid[uid].stored for uid in row.study_uids)
        assert (row.proved_at is not None) == (row.outcome.status is OutcomeStatus.COMPLETE)
        assert all(row.row in by_uid[uid].rows for uid in row.study_uids)
        if row.same_as_row is not None:
            assert row.same_as_row < row.row


@settings(deadline=None, max_examples=25)
@given(st.lists(st.sampled_from("ABC!"), min_size=1, max_size=5), events)
def test_rows_studies_instances_and_counts_agree_at_every_moment(
    letters: list[str], events: list[tuple[str, int, int]]
) -> None:
    rows = [
        request(row, "" if one == "!" else one, problem="no" if one == "!" else "")
        for row, one in enumerate(letters, 1)
    ]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "l.db"
        ledger = Ledger(path)
        reader = LedgerReader(path)
        try:
            begin(ledger, rows)
            for end in range(len(events)):
                live(ledger, events[end : end + 1], rows)
                agree(reader)
        finally:
            reader.close()
            ledger.close()


# -- size


def test_the_ledger_stays_small(tmp_path: Path) -> None:
    """Cohorts reach 50 million instances: less than 200 bytes for each, and 1 kB for a study."""

    def size(studies: int, instances: int) -> int:
        path = tmp_path / f"{studies}-{instances}.db"
        ledger = Ledger(path)
        begin(ledger, (request(row, f"ACC{row:013}") for row in range(1, studies + 1)))
        root = "1.2.826.0.1.3680043.8.498.401128061731612"

        def live(row: int) -> None:
            found = replace(study(row), study_uid=f"{root}.{row:018}", accession=f"ACC{row:013}")
            resolve(ledger, request(row, found.accession), found)
            ended = [long_row(found.study_uid, number) for number in range(instances)]
            conclude(ledger, found.study_uid, ended)

        with ThreadPoolExecutor(32) as pool:
            list(pool.map(live, range(1, studies + 1)))
        ledger.close()
        assert not path.with_name(f"{path.name}-wal").exists()
        return path.stat().st_size

    def long_row(study_uid: str, number: int) -> InstanceRow:
        """UIDs of the length that scanners give."""
        row = stored_row(study_uid, number)
        instance = replace(
            row.ref, series_uid=study_uid.replace("8.498", "8.499"), sop_uid=f"{study_uid}.{number:03}"
        )
        assert len(instance.sop_uid) == 64
        return replace(row, ref=instance)

    small, large = size(100, 3), size(100, 103)
    many = size(1000, 3)
    per_instance = (large - small) / (100 * 100)
    per_study = (many - small) / 900 - 3 * per_instance
    print(f"{per_instance:.0f} bytes an instance, {per_study:.0f} a study")
    assert per_instance < 200
    assert per_study < 1000


def kill_while_it_writes(path: Path) -> None:
    """Leave the file as a process does that is killed in its first transaction, before there is a log."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA cache_size = 2")
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("CREATE TABLE pages (page)")
    connection.executemany("INSERT INTO pages VALUES (?)", [("x" * 4000,) for _ in range(200)])
    for name in (path.name, f"{path.name}-journal"):
        shutil.copy(path.with_name(name), path.with_name(f"killed-{name}"))
    connection.close()
    for name in (path.name, f"{path.name}-journal"):
        path.with_name(f"killed-{name}").replace(path.with_name(name))


def test_a_ledger_whose_first_transaction_was_cut_off_has_no_job(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    kill_while_it_writes(path)
    assert not has_job(path)
    Ledger(path).close()
    assert not has_job(path)
