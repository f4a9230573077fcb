"""Look up known vulnerabilities of Quarry's runtime, with pip-audit: ``python -m tools.audit FILE...``.

Exit codes: 0 none is known; 1 some are, and each is named; 2 the question could not be asked, so nothing is
known. A script must not take the last for the first.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

_TIMEOUT = 300.0


def main(files: list[str], program: str = "build/tools/bin/pip-audit") -> int:
    """Audit the requirements in these files; print the result and return the exit code."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.json")
        command = [program, "--disable-pip", "--require-hashes", "--strict", "--progress-spinner", "off"]
        command += ["--format", "json", "--output", str(report)]
        command += [argument for file in files for argument in ("--requirement", file)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            return _fail(str(error))
        try:
            packages = json.loads(report.read_text(encoding="utf-8"))["dependencies"]
        except (OSError, ValueError, KeyError):
            return _fail(_last_line(done.stderr) or f"exit code {done.returncode}")
    if not packages or any("skip_reason" in one for one in packages):
        return _fail("not every package was looked up")
    known = [(one["name"], one["version"], each["id"]) for one in packages for each in one["vulns"]]
    for name, version, identifier in known:
        print(f"{name} {version}: {identifier}")
    print(f"{len(packages)} packages, known vulnerabilities: {len(known)}")
    return 1 if known else 0


def _fail(reason: str) -> int:
    print(
        f"The audit could not ask about vulnerabilities, so nothing is known: {reason}\n"
        "Run it again on a computer that reaches the vulnerability service (https://pypi.org)",
        file=sys.stderr,
    )
    return 2


def _last_line(text: str) -> str:
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
