"""``make demo`` is this command."""

from __future__ import annotations

from pathlib import Path

from tests.e2e.command import check_folder, outcomes, quarry, report


def test_the_demo_leaves_three_folders_with_reports(work: Path) -> None:
    done = quarry("demo", "--to", "demo", cwd=work)
    assert done.code == 0, done.err
    names = ("empi_accession", "empi_date", "accession")
    for name in names:
        folder = work / "demo" / name
        check_folder(folder)
        found = {outcome for outcome, _ in outcomes(folder)}
        assert {"complete", "not_found"} <= found <= {"complete", "not_found", "several_patients"}
        assert "quarry extract" in done.out and str(Path("demo") / name) in done.out
        assert any(row["quarry_same_as_row"] for row in report(folder)), "a repeated row"
    assert ("several_patients", "several_patients") in outcomes(work / "demo" / "accession")
    assert quarry("verify", work / "demo" / "accession").code == 0
