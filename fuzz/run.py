"""All harnesses for some time: ``python -m fuzz.run SECONDS [NAME…]``; findings go into the corpus.

Under atheris where it is installed, each harness in a process of its own; otherwise under Hypothesis.
"""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fuzz.harnesses import HARNESSES
from fuzz.mutation import mutated

CORPUS = Path(__file__).with_name("corpus")
#: Inputs that are found are kept between runs, outside of the committed corpus.
GROWN = Path(tempfile.gettempdir()) / "quarry-fuzz"
_LONGEST = 4096  # bytes of an input: longer ones are rarely better, and always slower
_SLOW = 10  # seconds: a unit of that length takes milliseconds
_MEGABYTES = 1024


def _guided(name: str, seconds: int) -> tuple[int, bool]:
    """Run a harness; return the number of executions and True without a finding."""
    grown, seeds = GROWN / name, CORPUS / name
    grown.mkdir(parents=True, exist_ok=True)
    seeds.mkdir(parents=True, exist_ok=True)
    command = [
        *("nice", sys.executable, "-m", "fuzz.guided", name),
        *(f"-max_total_time={seconds}", f"-max_len={_LONGEST}", "-len_control=20"),
        *(f"-timeout={_SLOW}", "-report_slow_units=2", f"-rss_limit_mb={_MEGABYTES}"),
        *(f"-artifact_prefix={seeds}/", str(grown), str(seeds)),
    ]
    with (GROWN / f"{name}.log").open("w") as log:
        ended = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, check=False)
    text = (GROWN / f"{name}.log").read_text(errors="replace")
    counts = [int(count) for count in re.findall(r"^#(\d+)\t", text, re.MULTILINE)]
    return max(counts, default=0), ended.returncode == 0


def _unguided(name: str, seconds: int) -> tuple[int, bool]:
    count, deadline = 0, time.monotonic() + seconds
    seeds = [path.read_bytes() for path in sorted((CORPUS / name).glob("*"))]
    inputs = st.binary(max_size=_LONGEST) | st.builds(mutated, st.sampled_from(seeds or [b""]), st.randoms())

    @settings(max_examples=1000, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(inputs)
    def once(data: bytes) -> None:
        nonlocal count
        count += 1
        try:
            HARNESSES[name](data)
        except BaseException:
            (CORPUS / name / "crash-hypothesis").write_bytes(data)  # the last one written is the smallest
            raise

    while time.monotonic() < deadline:
        try:
            once()
        except Exception as error:  # noqa: BLE001 - any exception is a finding
            print(f"{name}: {error!r}", file=sys.stderr)
            return count, False
    return count, True


def main() -> int:
    """One harness after the other; exit status 1 after a finding."""
    seconds, names = int(sys.argv[1]), sys.argv[2:] or list(HARNESSES)
    run = _guided if importlib.util.find_spec("atheris") else _unguided
    print(f"{len(names)} harnesses, {seconds} s, {run.__name__.strip('_')}; logs in {GROWN}", flush=True)
    clean = True
    for name in names:
        count, well = run(name, max(1, seconds // len(names)))
        clean &= well
        print(
            f"{name:10} {count:10,} executions{'' if well else f', a finding in {CORPUS / name}'}", flush=True
        )
    return 0 if clean else 1


if __name__ == "__main__":
    sys.exit(main())
