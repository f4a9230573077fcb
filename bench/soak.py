"""Long runs, for a night or a free machine: nothing may grow, slow down or stay unexplained.

    endurance  20,000 studies through the demo archive, with a kill -9 in the middle
    million    a table of a million rows: read, entered, worked on, counted, reported, updated
    crash      kill -9 of the process group at 100 random moments, with an archive that fails
    ordeal     23,186 rows, 2 % of them bad, with an archive that fails, an outage and a crash

    python -m bench.soak [endurance] [million] [crash] [ordeal] [--scale 0.1] [--keep DIR] [--write]

Exit code 1 if a goal is missed. Times are worth what the machine was free for.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from bench import crashes, endurance, fault_run, million
from bench.figures import Part, keep

_PAGE = Path(__file__).parents[1] / "docs" / "performance.md"
_HEADING = "## Long runs"
_INTRODUCTION = (
    "From `make soak`: the job, the archive and the watcher on one machine. The goals are those of the "
    "project; processor time changes less than the clock where others use the machine, too."
)

#: Parts by name, each with its full size.
_PARTS: dict[str, tuple[Callable[[Path, int, int], Part], int]] = {
    "endurance": (endurance.run, 20_000),
    "million": (lambda folder, rows, _: million.run(folder, rows), 1_000_000),
    "crash": (crashes.run, 100),
    "ordeal": (fault_run.run, 23_186),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(_PARTS)}; all if none is named")
    parser.add_argument("--scale", type=float, default=1.0, help="a part of the full size (default 1)")
    parser.add_argument("--parallel", type=int, default=4, help="moves at once (default 4)")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="work in DIR and leave everything there")
    parser.add_argument("--write", action="store_true", help="put the figures into docs/performance.md")
    options = parser.parse_args()
    unknown = set(options.parts) - set(_PARTS)
    if unknown:
        parser.error(f"there is no part {', '.join(sorted(unknown))}")
    met = True
    with ExitStack() as stack:
        folder = options.keep or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="quarry-soak-")))
        # The registry keeps jobs there, and these belong to no user.
        os.environ["XDG_STATE_HOME"] = str(folder.resolve() / "home")
        for name in options.parts or _PARTS:
            run, size = _PARTS[name]
            part = run(folder.resolve() / name, round(size * options.scale), options.parallel)
            print("\n".join(part.lines()), flush=True)
            met = met and part.met
            if options.write:
                keep(part, _PAGE, _HEADING, _INTRODUCTION)
    sys.exit(not met)


if __name__ == "__main__":
    main()
