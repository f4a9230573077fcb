"""The three formats of table, against three archives: every row's outcome, and every file."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from dicom_quarry.model import AE
from tests.e2e.command import Done, check_folder, manifest, quarry, report
from tests.e2e.conftest import Site
from tests.e2e.expected_outcomes import SHARED_ACCESSION, SHARING_PATIENTS, Expected
from tests.peers.corpus import TEN_STUDIES_PATIENT, TWIN_ACCESSION, TWIN_PATIENT, UMLAUT_PATIENT
from tests.peers.process import free_port, listens

COMPLETE = ("complete", "all_listed_stored")
NOT_FOUND = ("not_found", "study_not_found")
NEAR_MISS = ("not_found", "near_miss")
SEVERAL = ("several_patients", "several_patients")


def write(path: Path, header: str, rows: list[str]) -> Path:
    """A table as the tool that Quarry replaces shows it: blank lines between the rows."""
    path.write_text("\n\n".join([header, *rows]) + "\n", encoding="utf-8")
    return path


def extract(site: Site, cohort: Path, *options: object) -> tuple[Path, Done]:
    """Run the command into ``out`` beside the table."""
    port = free_port()
    site.register(AE("QUARRY", "127.0.0.1", port))
    out = cohort.parent / "out"
    done = quarry(
        "extract", cohort, "--from", site.remote, "--as", f"QUARRY@127.0.0.1:{port}", "--to", out, *options
    )
    assert not listens(port), "the receiver outlives the job"
    return out, done


def check(site: Site, out: Path, done: Done, expected: list[Expected]) -> list[dict[str, str]]:
    """Every row is what it must be, the tree is what the rows say, and nothing leaks."""
    rows = report(out)
    assert [told(row) for row in rows] == expected, done.out + done.err
    wanted = {uid for one in expected for uid in one.study_uids}
    held = {sop for uid in wanted for sop in site.holding.studies[uid].sop_uids}
    assert {row["sop_uid"] for row in manifest(out)} == held
    check_folder(out)
    all_complete = all(one.outcome == "complete" for one in expected)
    assert done.code == (0 if all_complete else 1), done.err
    spoken = done.out + done.err + (out / ".quarry" / "quarry.log").read_text()
    leaks = [value for value in site.holding.identifying() if value in spoken]
    assert not leaks, spoken
    return rows


def told(row: dict[str, str]) -> Expected:
    """A row of report.csv, once its counts are seen to agree with each other."""
    uids = row["quarry_study_uids"].split()
    assert len(uids) == int(row["quarry_studies_found"]) == int(row["quarry_studies_complete"])
    assert row["quarry_instances_expected"] == row["quarry_instances_stored"]
    complete = row["quarry_outcome"] == "complete"
    assert bool(row["quarry_proved_at"]) == complete
    assert (int(row["quarry_bytes"]) > 0) == complete
    assert row["quarry_reason"] and bool(row["quarry_what_to_do"]) != complete
    return Expected(
        row["quarry_outcome"], row["quarry_code"], frozenset(uids), int(row["quarry_instances_stored"])
    )


def words(rows: list[dict[str, str]]) -> list[tuple[str, str]]:
    return [(row["quarry_outcome"], row["quarry_code"]) for row in rows]


def test_the_archives_hold_enough_to_be_worth_it(site: Site) -> None:
    assert len(site.holding.studies) >= 60
    assert len(site.holding.match(patient=TEN_STUDIES_PATIENT)) == 10
    assert len(site.holding.match(accession=TWIN_ACCESSION)) == 2
    shared = {study.patient_id for study in site.holding.match(accession=SHARED_ACCESSION)}
    assert shared == set(SHARING_PATIENTS)


def test_patient_and_accession(site: Site, work: Path) -> None:
    keys = [
        (TEN_STUDIES_PATIENT, "QA00000"),
        (TEN_STUDIES_PATIENT, "QA00001"),
        (TWIN_PATIENT, TWIN_ACCESSION),
        (UMLAUT_PATIENT, "QA00012"),
        (SHARING_PATIENTS[1], SHARED_ACCESSION),
        (TEN_STUDIES_PATIENT, "QA99999"),
        ("Q-0014", "QA00015"),  # each exists, but not together
        (TEN_STUDIES_PATIENT, "QA00000"),
        ("Q-0013", "QA00013"),
    ]
    cohort = write(
        work / "cohort.csv", "EMPI,Accession", [f"{patient},{accession}" for patient, accession in keys]
    )
    out, done = extract(site, cohort)
    expected = [site.holding.expect(patient=patient, accession=accession) for patient, accession in keys]
    rows = check(site, out, done, expected)
    assert words(rows) == [*[COMPLETE] * 5, NOT_FOUND, NEAR_MISS, COMPLETE, COMPLETE]
    assert "under another patient ID, Q-0015" in rows[6]["quarry_reason"]
    assert [row["quarry_same_as_row"] for row in rows] == ["", "", "", "", "", "", "", "1", ""]
    assert [row["quarry_studies_found"] for row in rows] == ["1", "1", "2", "1", "2", "0", "0", "1", "1"]
    assert [(row["EMPI"], row["Accession"]) for row in rows] == keys


def test_patient_and_date(site: Site, work: Path) -> None:
    days = sorted(study.study_date for study in site.holding.match(patient=TEN_STUDIES_PATIENT))
    keys = [
        *((TEN_STUDIES_PATIENT, day) for day in days),
        (SHARING_PATIENTS[1], "20030505"),
        (TEN_STUDIES_PATIENT, "20181231"),
        (TEN_STUDIES_PATIENT, days[0]),
    ]
    cohort = write(work / "cohort.csv", "EMPI, Study Date", [f"{patient}, {day}" for patient, day in keys])
    out, done = extract(site, cohort)
    rows = check(site, out, done, [site.holding.expect(patient=patient, day=day) for patient, day in keys])
    assert len(set(days)) == 10
    assert words(rows) == [*[COMPLETE] * 11, NEAR_MISS, COMPLETE]
    assert rows[10]["quarry_studies_found"] == "3"
    assert rows[12]["quarry_same_as_row"] == "1"
    # The user's cells as they stand in the table, with the space after the comma.
    assert [(row["EMPI"], row[" Study Date"]) for row in rows] == [(key, f" {day}") for key, day in keys]


def test_accession(site: Site, work: Path) -> None:
    keys = ["QA00003", TWIN_ACCESSION, "NOBODY", SHARED_ACCESSION, "QA00012", "134", "QA00003", "NOBODY"]
    cohort = write(work / "cohort.csv", "Accession", keys)
    out, done = extract(site, cohort)
    rows = check(site, out, done, [site.holding.expect(accession=accession) for accession in keys])
    assert words(rows) == [
        *(COMPLETE, COMPLETE, NOT_FOUND, SEVERAL),
        *(COMPLETE, COMPLETE, COMPLETE, NOT_FOUND),
    ]
    assert [row["quarry_same_as_row"] for row in rows] == ["", "", "", "", "", "", "1", "3"]


def test_an_accession_of_several_patients_when_allowed(site: Site, work: Path) -> None:
    cohort = write(work / "cohort.csv", "Accession", [SHARED_ACCESSION])
    out, done = extract(site, cohort, "--allow-several-patients")
    check(site, out, done, [site.holding.expect(accession=SHARED_ACCESSION, allow_several=True)])
    assert {row["path"].split("/")[0] for row in manifest(out)} == set(SHARING_PATIENTS)


def test_every_row_complete_is_exit_code_0_and_own_columns_stay(site: Site, work: Path) -> None:
    own = [
        ["QA00002", "=1+1", ' a "quoted" one ', "0001"],
        ["QA00004", "two\nlines", "ä;,\t", ""],
    ]
    header = ["Accession", "Formula", "Note", "Number"]
    with (work / "cohort.csv").open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([header, *own])
    out, done = extract(site, work / "cohort.csv")
    rows = check(site, out, done, [site.holding.expect(accession=row[0]) for row in own])
    assert done.code == 0
    assert [[row[name] for name in header] for row in rows] == own
    assert list(rows[0])[: len(header)] == header


def test_whole_patients(site: Site, work: Path) -> None:
    cohort = write(work / "cohort.csv", "EMPI", [TEN_STUDIES_PATIENT, "Q-NOBODY"])
    out, done = extract(site, cohort, "--whole-patients")
    expected = [site.holding.expect(patient=TEN_STUDIES_PATIENT), site.holding.expect(patient="Q-NOBODY")]
    rows = check(site, out, done, expected)
    assert rows[0]["quarry_studies_complete"] == "10"


def test_patient_root(site: Site, work: Path) -> None:
    if site.web:
        pytest.skip("DICOMweb has no information models")
    """The other information model, by configuration: every question names the patient too."""
    profile = f'[archive.main]\naddress = "{site.ae}"\nmodel = "patient"\n'
    (work / "quarry.toml").write_text(profile)
    keys = [(TEN_STUDIES_PATIENT, "QA00005"), (TWIN_PATIENT, TWIN_ACCESSION), ("Q-NOBODY", "QA00005")]
    cohort = write(work / "cohort.csv", "MRN,Accession Number", [",".join(row) for row in keys])
    out, done = extract(site, cohort, "--from", "main")
    expected = [site.holding.expect(patient=patient, accession=one) for patient, one in keys]
    # Every query names the patient, so the accession of another patient is not found.
    check(site, out, done, [*expected[:-1], Expected("not_found", "study_not_found")])


def test_a_column_of_the_table_in_the_path(demo: Site, work: Path) -> None:
    cohort = write(work / "cohort.csv", "Accession,Site", ["QA00003,NORTH", "QA00004,../south"])
    out, done = extract(demo, cohort, "--filepath", "{csv:Site}/{StudyInstanceUID}/{SOPInstanceUID}.dcm")
    # Of which every file lies below the folder, or the manifest would not agree with it.
    check(demo, out, done, [demo.holding.expect(accession=f"QA0000{n}") for n in (3, 4)])
    tops = {row["path"].split("/")[0] for row in manifest(out)}
    assert len(tops) == 2 and "NORTH" in tops
    assert {len(row["path"].split("/")) for row in manifest(out)} == {3}
