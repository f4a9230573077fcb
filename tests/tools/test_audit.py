"""The audit: what is known, what is not, and that a question that could not be asked is no good answer."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from tools.audit import main


def auditor(folder: Path, report: object, code: int) -> str:
    """A program in pip-audit's place: it writes this report, or nothing."""
    program = folder / "pip-audit"
    text = "" if report is None else json.dumps(report)
    program.write_text(
        f"#!{sys.executable}\nimport sys\n"
        f"if {text!r}: open(sys.argv[sys.argv.index('--output') + 1], 'w').write({text!r})\n"
        f"print('connection refused', file=sys.stderr)\nsys.exit({code})\n"
    )
    program.chmod(0o700)
    return str(program)


GOOD = {"name": "rich", "version": "15.0", "vulns": []}
BAD = {"name": "rich", "version": "15.0", "vulns": [{"id": "PYSEC-1"}]}
SKIPPED = {"name": "rich", "skip_reason": "not found"}


@pytest.mark.parametrize(
    ("report", "code", "expected", "message"),
    [
        ({"dependencies": [GOOD]}, 0, 0, "1 packages, known vulnerabilities: 0"),
        ({"dependencies": [GOOD, BAD]}, 1, 1, "rich 15.0: PYSEC-1"),
        (None, 1, 2, "could not ask about vulnerabilities, so nothing is known: connection refused"),
        ({"dependencies": []}, 0, 2, "not every package was looked up"),
        ({"dependencies": [GOOD, SKIPPED]}, 0, 2, "not every package was looked up"),
    ],
)
def test_what_is_not_known_is_not_good(
    tmp_path: Path, report: object, code: int, expected: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["requirements/runtime.txt"], auditor(tmp_path, report, code)) == expected
    assert message in "".join(capsys.readouterr())


def test_without_the_program_nothing_is_known(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["x.txt"], str(tmp_path / "none")) == 2
    assert "No such file" in capsys.readouterr().err
