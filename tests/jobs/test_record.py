"""A job's record: begun, continued, updated, refused; and what the API tells of one that is not finished."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

import pytest

from dicom_quarry import api
from dicom_quarry.config.settings import Settings, load_settings
from dicom_quarry.errors import ConfigError, InputError, LedgerError
from dicom_quarry.jobs import record
from dicom_quarry.jobs.instance_paths import load_path_function, make_path_function
from dicom_quarry.jobs.local_place import create_local
from dicom_quarry.ledger.cohort_rows import CohortChange
from dicom_quarry.ledger.ledger import Ledger
from dicom_quarry.ledger.reader import LedgerReader
from dicom_quarry.model import OutcomeStatus, Selection, Study
from dicom_quarry.store.path_template import PathTemplate
from tests.ledger.helpers import conclude, missing_row, ref, stored_row, study


class Bench:
    """A folder, a table, and a ledger to enter it in."""

    def __init__(self, path: Path) -> None:
        self.out = path / "out"
        self.table = path / "cohort.csv"
        self.folder = create_local(self.out, None)
        self.ledger = Ledger(self.folder.ledger)

    def settings(self, **options: object) -> Settings:
        return load_settings(None, {"from": "PACS@127.0.0.1:104", "to": str(self.out), **options})

    def write(self, *rows: str, header: str = "EMPI,Accession") -> None:
        self.table.write_text("\n".join([header, *rows]) + "\n")

    def enter(self, *, update: bool = False, **options: object) -> CohortChange | None:
        settings = self.settings(**options)
        cohort, _ = record.read_cohort(self.table, settings)
        return record.begin_or_continue(self.ledger, cohort, settings, update=update)

    def words(self) -> list[OutcomeStatus]:
        reader = LedgerReader(self.folder.ledger)
        try:
            return [view.outcome.status for view in reader.rows()]
        finally:
            reader.close()

    def waiting(self) -> list[int]:
        return [one.row for one in self.ledger.waiting_requests(100)]

    def path_of_patient(self, patient_id: str) -> str:
        reader = LedgerReader(self.folder.ledger)
        try:
            return load_path_function(reader)(Study("1.2", patient_id), ref("1.2", 1)).parts[0]
        finally:
            reader.close()

    def complete(self, row: int, number: int) -> None:
        asked = next(one for one in self.ledger.waiting_requests(100) if one.row == row)
        self.ledger.resolve_request(asked, "PACS", [(study(number), Selection())]).result()
        conclude(self.ledger, f"1.2.{number}", [stored_row(f"1.2.{number}", 1)])


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    monkeypatch.chdir(tmp_path)
    made = Bench(tmp_path)
    made.write("1,A", "2,B", "1,A")
    yield made
    made.ledger.close()


def test_a_new_job(bench: Bench) -> None:
    assert record.read_cohort(bench.table, bench.settings())[1] == 3
    assert bench.enter() is None
    assert bench.waiting() == [1, 2]
    facts = bench.ledger.metadata()
    assert set(facts) == {"cohort", "columns", "created", "names", "settings", "table", "version"}
    assert facts["columns"] == '["EMPI", "Accession"]'
    assert Settings.model_validate_json(facts["settings"]) == bench.settings()


def test_the_same_again_goes_on_with_the_settings_of_now(bench: Bench) -> None:
    bench.enter()
    bench.complete(1, 1)
    assert bench.enter(parallel=4) is None
    assert bench.words() == [OutcomeStatus.COMPLETE, OutcomeStatus.PENDING, OutcomeStatus.COMPLETE]
    assert Settings.model_validate_json(bench.ledger.metadata()["settings"]).parallel == 4


def test_a_changed_table_is_refused_and_changes_nothing(bench: Bench) -> None:
    bench.enter()
    before = bench.ledger.metadata()
    bench.write("1,A", "3,C")
    with pytest.raises(InputError, match=r"has changed .* run again with --update"):
        bench.enter(parallel=4)
    assert bench.ledger.metadata() == before
    assert bench.waiting() == [1, 2]


def test_update_counts_and_known_studies_are_reused(bench: Bench) -> None:
    bench.enter()
    bench.complete(1, 1)
    bench.write("9,Z", "1,A", "3,C", "4,D")
    assert bench.enter(update=True) == CohortChange(added=2, removed=1, changed=1)
    assert bench.words() == [
        OutcomeStatus.PENDING,
        OutcomeStatus.COMPLETE,
        OutcomeStatus.PENDING,
        OutcomeStatus.PENDING,
    ]
    assert bench.ledger.waiting_tasks(0.0, 10) == []
    assert bench.enter() is None, "the newer table is the job's now"


def test_update_with_the_same_table_looks_at_its_rows_again(bench: Bench) -> None:
    """What could not be used may be meant now: the flags have changed, not the file."""
    bench.write("1,A", "2,")
    bench.enter(skip_bad_rows=True)
    assert bench.words() == [OutcomeStatus.PENDING, OutcomeStatus.INVALID_ROW]
    assert bench.enter(update=True, whole_patients=True) == CohortChange(0, 0, 1)
    assert bench.words() == [OutcomeStatus.PENDING, OutcomeStatus.PENDING]
    assert bench.enter(update=True, whole_patients=True) == CohortChange(0, 0, 0)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"filepath": "{00080018}.dcm"}, "are named by --layout niffler"),
        ({"from": "OTHER@127.0.0.1:104"}, r"is filled from PACS \(PACS@127.0.0.1:104\): use that archive"),
    ],
)
def test_another_layout_or_archive_is_refused(
    bench: Bench, options: dict[str, object], sentence: str
) -> None:
    bench.enter()
    before = bench.ledger.metadata()
    for update in (False, True):
        with pytest.raises(InputError, match=sentence):
            bench.enter(update=update, **options)
    assert bench.ledger.metadata() == before


def test_rows_that_cannot_be_used_are_named_unless_they_may_be_skipped(bench: Bench) -> None:
    bench.write("1,A", "2,", ",B*")
    with pytest.raises(InputError, match=r"(?s)2 of 3 rows cannot be used.*row 2, line 3.*--skip-bad-rows"):
        record.read_cohort(bench.table, bench.settings())
    assert bench.ledger.metadata() == {}
    bench.enter(skip_bad_rows=True)
    assert bench.words() == [OutcomeStatus.PENDING, OutcomeStatus.INVALID_ROW, OutcomeStatus.INVALID_ROW]


@pytest.mark.parametrize("update", [False, True])
def test_what_fails_half_way_leaves_the_job_as_it_was(
    bench: Bench, update: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a crash would: rows and facts are one transaction, so the job is never half another."""
    if update:
        bench.enter()
        bench.complete(1, 1)
        bench.write("5,E")
    before = bench.ledger.metadata(), bench.words()

    def half(*_: object) -> None:
        raise RuntimeError("half-way")

    # Of the two steps of each transaction the second.
    second = "replace_rows" if update else "write_metadata"
    monkeypatch.setattr(f"dicom_quarry.jobs.record.{second}", half)
    with pytest.raises(RuntimeError, match="half-way"):
        bench.enter(update=update)
    assert (bench.ledger.metadata(), bench.words()) == before


# -- paths


def test_the_template_gives_the_path_from_what_the_archive_lists() -> None:
    derive = make_path_function(PathTemplate.parse("{PatientID}/{AccessionNumber}/{SOPInstanceUID}.dcm"))
    assert str(derive(study(1), ref("1.2.1", 7))) == "4711/A1/1.2.1.1.7.dcm"


# -- the API on a job that is not finished


def test_settings_of_a_job_are_those_of_its_last_run_where_it_is_now(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.enter(to="out", parallel=3)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    found = api.load_job_settings(bench.out)
    assert (found.to, found.parallel, found.archives[0].name) == (bench.out, 3, "PACS")
    with pytest.raises(InputError, match="holds no job"):
        api.load_job_settings(tmp_path / "nothing")


def test_a_job_that_never_began_is_no_job(bench: Bench) -> None:
    for call in (api.load_job_settings, api.report, api.verify):
        with pytest.raises(InputError, match="holds no job"):
            call(bench.out)


def test_a_report_in_mid_run(bench: Bench) -> None:
    bench.enter()
    bench.complete(1, 1)
    asked = bench.ledger.waiting_requests(1)[0]
    bench.ledger.resolve_request(asked, "PACS", [(study(2), Selection())]).result()
    result = api.report(bench.out)
    assert result.exit_code == 4
    assert [view.outcome.status for view in result.rows()] == [
        OutcomeStatus.COMPLETE,
        OutcomeStatus.PENDING,
        OutcomeStatus.COMPLETE,
    ]
    assert [view.rows for view in result.studies()] == [(1, 3), (2,)]
    with result.report.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["EMPI"], row["Accession"], row["quarry_outcome"]) for row in rows] == [
        ("1", "A", "complete"),
        ("2", "B", "pending"),
        ("1", "A", "complete"),
    ]
    assert not (bench.out / "missing.csv").exists()
    conclude(bench.ledger, "1.2.2", [missing_row("1.2.2", 1)])
    assert api.report(bench.out).exit_code == 1
    assert (bench.out / "missing.csv").exists()


def test_verify_finds_what_is_missing_and_what_has_changed(bench: Bench) -> None:
    bench.enter()
    bench.complete(1, 1)
    reader = LedgerReader(bench.folder.ledger)
    [recorded] = reader.instances(load_path_function(reader))
    reader.close()
    assert [one.problem for one in api.verify(bench.out)] == ["is missing"]
    path = bench.out / recorded.path
    path.parent.mkdir(parents=True)
    path.write_bytes(b"x")
    assert [one.problem for one in api.verify(bench.out, quick=True)] == ["has 1 bytes instead of 101"]
    path.write_bytes(b"x" * recorded.size)
    assert [one.problem for one in api.verify(bench.out, quick=True)] == [""]
    assert [one.problem for one in api.verify(bench.out)] == ["has other content than was recorded"]


def test_the_folder_for_what_is_kept_apart_is_no_folder_of_a_pattern() -> None:
    with pytest.raises(ConfigError, match="Quarry's own"):
        PathTemplate.parse("mismatch/{SOPInstanceUID}")
    assert PathTemplate.parse("matched/{SOPInstanceUID}").pattern == "matched/{SOPInstanceUID}"


def test_the_rule_of_the_names_is_recorded_and_stays(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.enter()
    assert bench.ledger.metadata()["names"] == "values"
    monkeypatch.setattr("dicom_quarry.jobs.naming.distinguishes_names", lambda _folder: False)
    bench.enter()
    assert bench.ledger.metadata()["names"] == "values"
    with pytest.raises(InputError, match="--portable-names"):
        bench.enter(portable_names=True)


def test_a_disk_that_ignores_case_gets_portable_names(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dicom_quarry.jobs.naming.distinguishes_names", lambda _folder: False)
    bench.enter()
    assert bench.ledger.metadata()["names"] == "portable"
    bench.enter(portable_names=True)


def test_a_job_without_a_rule_has_the_names_of_before(bench: Bench) -> None:
    bench.enter()
    bench.ledger.database.write(
        lambda connection: connection.exec_driver_sql("DELETE FROM job WHERE name = 'names'")
    )
    bench.enter(portable_names=True)
    assert "names" not in bench.ledger.metadata()
    assert bench.path_of_patient("mismatch") == "mismatch~"
    bench.ledger.set_metadata(names="values")
    assert bench.path_of_patient("mismatch") == "%6Dismatch"
    bench.ledger.set_metadata(names="of-2031")
    with pytest.raises(LedgerError, match="another version"):
        bench.enter()
