"""The plan as a table, a file and lines: what is in them, and what must not be."""

from __future__ import annotations

import csv
import json
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from dicom_quarry.ledger.plan_reader import PlannedRow
from dicom_quarry.model import Study
from dicom_quarry.outcomes import make_outcome
from dicom_quarry.reporting.estimate import DataVolume, Forecast
from dicom_quarry.reporting.plan_files import plan_json, write_plan_csv
from dicom_quarry.reporting.plan_summary import PlanSummary, count_rows, plan_lines, render_plan

EVIL = Study("1.2.1", "=4711", "@A1", "20180723", "CT\\SR", "+cmd|x\x1b[2J", 2, 7, "NEARLINE")


def rows(count: int = 1) -> list[PlannedRow]:
    found = [PlannedRow(n, n + 1, None, (("main", EVIL),)) for n in range(1, count + 1)]
    none = PlannedRow(
        count + 1, count + 2, None, (), make_outcome("near_miss", keys="accession", hint="=HINT")
    )
    return [*found, none]


def summary(table: list[PlannedRow], *, free: int = 10**12) -> PlanSummary:
    amount = DataVolume(1, 7, 3_710_000, 0)
    at = datetime(2026, 3, 3, 5, tzinfo=UTC)
    return PlanSummary(count_rows(table), (Forecast("main", amount, 90, "at all", 2, at),), Path("out"), free)


def shown(table: list[PlannedRow]) -> str:
    console = Console(width=120, record=True, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    console.print(render_plan(summary(table), table))
    return console.export_text()


def test_nothing_of_the_archive_computes_in_a_spreadsheet(tmp_path: Path) -> None:
    write_plan_csv(tmp_path / "plan.csv", rows(), detailed=False)
    with (tmp_path / "plan.csv").open(newline="") as stream:
        first, second = csv.DictReader(stream)
    assert (first["PatientID"], first["AccessionNumber"]) == ("'=4711", "'@A1")
    assert first["StudyDescription"] == "'+cmd|x\\x1b[2J"
    assert (first["modality"], first["availability"]) == ("CT\\SR", "NEARLINE")
    assert second["PatientID"] == "" and second["code"] == "near_miss"


def test_a_terminal_shows_the_first_rows() -> None:
    text = shown(rows(60))
    assert "\x1b[2J" not in text
    assert " 50  =4711" in text and " 51  =4711" not in text
    assert "… and 11 more rows" in text
    assert "nearline" in text and "in 2 time windows" in text


def test_lines_name_rows_alone() -> None:
    table = rows()
    lines = "\n".join(plan_lines(summary(table)))
    assert "near_miss" in lines and "row 2" in lines
    assert "4711" not in lines and "HINT" not in lines
    assert "enough" in lines


def test_room() -> None:
    assert "NOT ENOUGH" in "\n".join(plan_lines(summary(rows(), free=1000)))


def test_what_the_archive_does_not_count_is_unknown() -> None:
    counts = count_rows(rows())
    unknown = PlanSummary(
        counts, (Forecast("main", DataVolume(3, 0, 0, 3), None, "", None, None),), Path("out"), 0
    )
    text = "\n".join(plan_lines(unknown))
    assert "3 studies; number of instances and size unknown" in text
    assert "duration unknown" in text
    assert "0 instances" not in text and "0 B, " not in text and "NOT ENOUGH" not in text
    values = json.loads("".join(plan_json(unknown, ())))["summary"]
    assert (values["instances"], values["bytes_estimated"]) == (None, None)
    assert values["archives"][0]["seconds_estimated"] is None


def test_exit_codes() -> None:
    table = rows()
    assert summary(table).exit_code == 1
    assert summary(table[:1]).exit_code == 0
    assert summary([*table, PlannedRow(9, 10, None, (), make_outcome("pending"))]).exit_code == 4
