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
        exceptions = {"not_found"} if "accession" in name else set()
        assert {"complete"} | exceptions <= found <= {"complete", "several_patients"} | exceptions
        assert "\n\n" not in (work / "demo" / f"{name.removesuffix(suffix)}.csv").read_text()
        assert "quarry extract" in done.out and str(Path("demo") / name) in done.out
        assert any(row["quarry_same_as_row"] for row in report(folder)), "a repeated row"
    assert ("several_patients", "several_patients") in outcomes(work / "demo" / f"accession{suffix}")
    # It ends with a complete cohort, one with exceptions explained, and commands that work from here.
    complete, last = done.out.split("$ quarry extract ")[-2:]
    assert "every row is complete" in complete and "what to do: add the patient ID" in last
    typed = [line.split() for line in last.splitlines() if line.startswith("  quarry ")]
    assert [quarry(*words[1:], cwd=work).code for words in typed if words[1] != "demo"] == [0, 1, 0]
    assert quarry("verify", work / "demo" / f"accession{suffix}").code == 0
