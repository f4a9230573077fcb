"""Time and memory to read and validate a large table, as CSV and as XLSX.

python -m bench.tables [--rows 1000000]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.cohort.workbooks import DATE, number, sheet, text, workbook

from dicom_quarry.cohort.cohort import CohortFile, describe_row_errors

_CHILD = "--read"


def write_csv(path: Path, rows: int) -> None:
    with path.open("w", encoding="utf-8") as stream:
        stream.write("EMPI,Accession,Study Date,Note\n")
        for row in range(rows):
            stream.write(
                f"{row:08d},A{row * 7919 % 10**9:010d},2018{row % 12 + 1:02d}{row % 28 + 1:02d},n {row}\n"
            )


def write_xlsx(path: Path, rows: int) -> None:
    lines = [[text("EMPI"), text("Accession"), text("Study Date"), text("Note")]]
    for row in range(rows):
        day = number(str(43_000 + row % 900), DATE)
        lines.append([number(str(10**7 + row)), text(f"A{row:010d}"), day, text(f"n {row}")])
    path.write_bytes(workbook(("Cohort", sheet(lines))))


def read(path: Path) -> None:
    """In a process of its own, so that the memory is that of reading."""
    before, cpu = time.perf_counter(), time.process_time()
    problems = describe_row_errors(CohortFile(path).read_requests())
    took, used = time.perf_counter() - before, time.process_time() - cpu
    # Of this program alone: ru_maxrss begins with that of the process which started it.
    status = Path("/proc/self/status").read_text(encoding="ascii")
    memory = int(status.partition("VmHWM:")[2].split()[0]) / 1024
    print(f"{path.name:12} {took:6.2f} s ({used:.2f} s of the processor), {memory:.0f} MB at most{problems}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000, help="of the CSV; the XLSX has a tenth")
    parser.add_argument(_CHILD, type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.read:
        read(given.read)
        return
    with tempfile.TemporaryDirectory() as folder:
        csv, xlsx = Path(folder, "cohort.csv"), Path(folder, "cohort.xlsx")
        write_csv(csv, given.rows)
        write_xlsx(xlsx, given.rows // 10)
        for path in (csv, xlsx):
            subprocess.run([sys.executable, "-m", "bench.tables", _CHILD, path], check=True)


if __name__ == "__main__":
    main()
