"""``make demo`` is this command."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.command import check_folder, outcomes, quarry, report


@pytest.mark.parametrize(("flags", "suffix"), [((), ""), (("--dicomweb",), "-dicomweb")])
def test_the_demo_leaves_three_folders_with_reports(work: Path, flags: tuple[str, ...], suffix: str) -> None:
    done = quarry("demo", "--to", "demo", *flags, cwd=work)
    assert done.code == 0, done.err
    assert ("--from http://" in done.out) == bool(flags)
    for name in (f"{name}{suffix}" for name in ("empi_accession", "empi_date", "accession")):
        folder = work / "demo" / name
        check_folder(folder)
        found = {outcome for outcome, _ in outcomes(folder)}
        assert {"complete", "not_found"} <= found <= {"complete", "not_found", "several_patients"}
        assert "quarry extract" in done.out and str(Path("demo") / name) in done.out
        assert any(row["quarry_same_as_row"] for row in report(folder)), "a repeated row"
    assert ("several_patients", "several_patients") in outcomes(work / "demo" / f"accession{suffix}")
    assert quarry("verify", work / "demo" / f"accession{suffix}").code == 0
