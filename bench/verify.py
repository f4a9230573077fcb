"""``quarry verify`` compared with ``sha256sum`` over the same files: ``python -m bench.verify [--write]``.

The folder is that of a real job: made by the ledger's own verbs, its files laid out by the usual pattern.
Both read it in turns, each time with nothing of it in the system's cache (as root; else all of it).
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import psutil
from tests.e2e.command import QUARRY
from tests.e2e.finished_job import record_job

from bench.figures import Figure, Part, keep

_PAGE = Path(__file__).parents[1] / "docs" / "performance.md"
_GOAL = 0.8
_FILES = 100  # of a study
_SMALLEST, _LARGEST = 10_000, 50_000
_HEADING = "## Verify"
_INTRODUCTION = (
    "`make bench-verify`: `quarry verify OUT` and `xargs -P N -n 200 sha256sum`, start-up and reading the "
    "ledger included, in turns on one machine. The ratio is the median of those of single rounds."
)


@dataclass(frozen=True, slots=True)
class Taken:
    """A command's time in seconds and the largest memory of all its processes together, in bytes."""

    seconds: float
    memory: int


def _forget(out: Path) -> bool:
    """Drop the files from the system's cache, where that is possible."""
    os.sync()
    try:
        Path("/proc/sys/vm/drop_caches").write_text("3\n")
    except OSError:
        for path in out.rglob("*.dcm"):  # found in the cache by both alike
            path.read_bytes()
        return False
    return True


def timed(command: Sequence[str], stdin: Path | None = None) -> Taken:
    """Run a command to its end, which must be a good one."""
    with (stdin or Path(os.devnull)).open("rb") as given, tempfile.TemporaryFile() as output:
        began = time.monotonic()
        child = psutil.Popen(command, stdin=given, stdout=output, stderr=output)
        memory = 0
        while child.poll() is None:
            memory = max(memory, _memory(child))
            time.sleep(0.05)
        seconds = time.monotonic() - began
        if child.returncode:
            output.seek(0)
            raise SystemExit(f"{command[0]} did not end well:\n{output.read().decode()[-3000:]}")
    return Taken(seconds, memory)


def _memory(process: psutil.Process) -> int:
    """Sum the memory of the command's processes; shared pages count once (proportional set size)."""
    total = 0
    try:
        for one in [process, *process.children(recursive=True)]:
            total += one.memory_full_info().pss
    except psutil.Error:
        pass  # one of them has just ended
    return total


def compare(out: Path, threads: int, rounds: int) -> Part:
    """Both in turns; the ratio of their rates."""
    # Outside of the folder: verify would report it as unrecorded.
    names = out.parent / "names"
    names.write_bytes(b"".join(os.fsencode(path) + b"\0" for path in sorted(out.rglob("*.dcm"))))
    files = names.read_bytes().count(b"\0")
    size = sum(path.stat().st_size for path in out.rglob("*.dcm"))
    verify = [str(QUARRY), "verify", str(out), "--threads", str(threads), "--restart"]
    others = ["xargs", "-0", "-P", str(threads), "-n", "200", "sha256sum"]
    contenders: dict[str, Callable[[], Taken]] = {
        "sha256sum": lambda: timed(others, names),
        "verify": lambda: timed(verify),
    }
    taken: dict[str, list[Taken]] = {name: [] for name in contenders}
    cold = True
    for _ in range(rounds):
        for name, run in contenders.items():
            cold = _forget(out) and cold
            taken[name].append(run())
    quick = timed([*verify, "--quick"])
    memory = max(one.memory for one in taken["verify"])
    ratios = [a.seconds / b.seconds for a, b in zip(taken["sha256sum"], taken["verify"], strict=True)]
    return Part("verify", f"{files:,} files, {size / 1e9:.1f} GB, {threads} at once", [
        Figure("found in the system's cache", "no, read from the disk" if cold else "yes"),
        *(_rate(name, taken[name], files, size) for name in contenders),
        Figure("`quarry verify --quick`", f"{quick.seconds:.1f} s, {files / quick.seconds:,.0f} files/s"),
        Figure(
            "rate of verify over that of sha256sum",
            f"{median(ratios):.2f} ({', '.join(f'{one:.2f}' for one in ratios)})",
            f"at least {_GOAL}",
            met=median(ratios) >= _GOAL,
        ),
        Figure("memory of verify, all processes", f"{memory / 1e6:.0f} MB"),
    ])  # fmt: skip


def _rate(name: str, taken: Sequence[Taken], files: int, size: int) -> Figure:
    seconds = median(one.seconds for one in taken)
    return Figure(
        {"sha256sum": "`xargs sha256sum`", "verify": "`quarry verify`"}[name],
        f"{seconds:.1f} s, {files / seconds:,.0f} files/s, {size / seconds / 1e6:,.0f} MB/s",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="of both; all processors")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="work in DIR, and leave the folder there")
    parser.add_argument("--write", action="store_true", help="put the figures into docs/performance.md")
    options = parser.parse_args()
    with ExitStack() as stack:
        made = tempfile.TemporaryDirectory(prefix="quarry-verify-")
        folder = options.keep or Path(stack.enter_context(made))
        os.environ["XDG_STATE_HOME"] = str(folder.resolve() / "home")
        out = folder / "out"
        if not out.exists():
            record_job(out, options.files // _FILES, _FILES, smallest=_SMALLEST, largest=_LARGEST)
        part = compare(out, options.threads, options.rounds)
    print("\n".join(part.lines()))
    if options.write:
        keep(part, _PAGE, _HEADING, _INTRODUCTION)
    raise SystemExit(not part.met)


if __name__ == "__main__":
    main()
