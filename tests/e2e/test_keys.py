"""Keys, conditions, rewrites, series filters, from the flag to the files; the former extractor's files."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pytest

from dicom_quarry.demo.dimse_server import DemoArchive
from dicom_quarry.demo.synthetic_studies import PROFILES, make_patient, make_study
from tests.e2e.command import Done, Row, check_folder, quarry, report
from tests.peers.process import free_port

TINY, SR = PROFILES["tiny"], PROFILES["sr"]
PATIENT = make_patient(random.Random(1), "0004711", "Stone^Ada")
STUDIES = [
    make_study(PATIENT, "1234567180001", date(2018, 7, 22), (TINY, 3), (SR, 1)),
    make_study(PATIENT, "1234567180002", date(2018, 8, 30), (SR, 1)),
]
TINY_MODALITY = TINY.modality


@pytest.fixture
def archive() -> Iterator[DemoArchive]:
    with DemoArchive(STUDIES) as server:
        yield server


def extract(archive: DemoArchive, work: Path, table: str, *flags: str) -> tuple[list[Row], Done]:
    cohort, port = work / "cohort.csv", free_port()
    cohort.write_text(table)
    archive.destinations["QUARRY"] = ("127.0.0.1", port)
    done = quarry(
        *("extract", cohort, "--from", f"DEMO@127.0.0.1:{archive.port}"),
        *("--as", f"QUARRY@127.0.0.1:{port}", "--to", work / "out", *flags),
    )
    return report(work / "out"), done


def files(work: Path) -> int:
    check_folder(work / "out")
    return len(list((work / "out").rglob("*.dcm")))


@pytest.mark.parametrize(
    ("flags", "count"),
    [
        (("--series", f"Modality={TINY_MODALITY}"), 3),
        (("--series-not", "Modality=SR,PR,KO"), 3),
        (("--min-instances", "2"), 3),
        (("--series", f"SeriesDescription={TINY_MODALITY} series*"), 3),
    ],
)
def test_a_filter_makes_the_selection(
    archive: DemoArchive, work: Path, flags: tuple[str, ...], count: int
) -> None:
    rows, done = extract(archive, work, "Accession\n1234567180001\n1234567180002\n", *flags)
    assert [row["quarry_code"] for row in rows] == ["all_listed_stored", "no_series_wanted"], done.out
    assert rows[0]["quarry_instances_expected"] == str(count)
    assert files(work) == count
    assert set(archive.moves) == {STUDIES[0].study_uid}


def test_a_named_series(archive: DemoArchive, work: Path) -> None:
    series = STUDIES[0].series[1].series_uid
    rows, done = extract(archive, work, f"Accession,SeriesInstanceUID\n1234567180001,{series}\n")
    assert rows[0]["quarry_outcome"] == "complete", done.out
    assert files(work) == 1


def test_a_range_of_dates_is_one_query(archive: DemoArchive, work: Path) -> None:
    rows, done = extract(
        archive, work, "EMPI,From,Until\n0004711,2018-07-01,2018-08-01\n0004711,2018-01-01,2018-12-31\n"
    )
    assert [row["quarry_studies_found"] for row in rows] == ["1", "2"], done.out
    assert archive.finds["STUDY"] == 2


def test_a_month_and_a_condition_for_every_row(archive: DemoArchive, work: Path) -> None:
    table = "Patient,Month\n0004711,201807\n0004711,201808\n"
    flags = (
        "--map",
        "Patient=PatientID",
        "--map",
        "Month=StudyMonth",
        "--where",
        f"Modality={TINY_MODALITY}",
    )
    rows, done = extract(archive, work, table, *flags)
    assert rows[0]["quarry_outcome"] == "complete", done.out + done.err
    assert rows[1]["quarry_outcome"] == "filtered"


def test_a_rewrite_is_tried_after_the_value_as_given_and_told(archive: DemoArchive, work: Path) -> None:
    rows, done = extract(
        archive, work, "Accession\n1234567180002\n123456720180001\n", "--rewrite", "yyyy-to-yy"
    )
    assert [row["quarry_outcome"] for row in rows] == ["complete", "complete"], done.out
    assert "1234567180001" in rows[1]["quarry_reason"]
    assert "searched as" not in rows[0]["quarry_reason"]
    assert "1234567180001" not in done.out


def test_a_pad(archive: DemoArchive, work: Path) -> None:
    rows, done = extract(archive, work, "EMPI,Study Date\n4711,20180722\n", "--pad", "PatientID=7")
    assert rows[0]["quarry_outcome"] == "complete", done.out + done.err


def test_what_a_row_may_mean(archive: DemoArchive, work: Path) -> None:
    table = "EMPI\n0004711\n"
    rows, _ = extract(archive, work, table, "--whole-patients", "--max-studies", "1")
    assert (rows[0]["quarry_code"], dict(archive.moves)) == ("too_many_studies", {})


def test_the_former_extractors_files(archive: DemoArchive, work: Path) -> None:
    port = free_port()
    archive.destinations["QBNIFFLER"] = ("127.0.0.1", port)
    system = {
        "SrcAet": f"DEMO@127.0.0.1:{archive.port}",
        "QueryAet": f"QBNIFFLER:{port}",
        "NightlyOnly": False,
    }
    system |= {
        "DestAet": "QBNIFFLER",
        "StartHour": 19,
        "EndHour": 7,
        "NifflerID": 1,
        "DCM4CHEBin": "/opt/dcm",
    }
    config: dict[str, object] = {
        "NifflerSystem": "system.json",
        "StorageFolder": "out",
        "CsvFile": "cohort.csv",
    }
    config |= {"NumberOfQueryAttributes": 1, "FirstAttr": "AccessionNumber", "FirstIndex": 1}
    (work / "system.json").write_text(json.dumps(system))
    (work / "config.json").write_text(json.dumps(config))
    (work / "cohort.csv").write_text("Site,Number\nNorth,1234567180001\n")
    done = quarry("extract", "--niffler", "config.json")
    assert done.code == 0, done.err
    assert report(work / "out")[0]["quarry_outcome"] == "complete"
    assert files(work) == 4


def test_no_table(work: Path) -> None:
    done = quarry("extract", "--to", work / "out")
    assert done.code == 2
    assert "Which table?" in done.err
