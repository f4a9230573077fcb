"""Demo archive with faults, in its own process: one hundredth of its moves fails.

Every fault is a line on standard output, so that it can be counted afterwards.
"""

from __future__ import annotations

import argparse
import random
import signal
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from tests.peers.process import Server, free_port, listens

from dicom_quarry.demo.dimse_operations import SUCCESS, UNABLE, MoveOperation, Tally
from dicom_quarry.demo.dimse_server import DemoArchive
from dicom_quarry.demo.synthetic_studies import DemoInstance, DemoStudy, generate_studies
from dicom_quarry.model import AE

#: One move in so many goes wrong.
_ONE_IN = 100
_SEED = 4


def archived(studies: int, images: int) -> list[DemoStudy]:
    """The studies, the same in every process."""
    return generate_studies(studies, seed=_SEED, images=images)


class FlakyArchive(DemoArchive):
    """Refuses, loses the association, sends half or nothing and calls it a success."""

    def __init__(self, studies: Iterable[DemoStudy], **options: Any) -> None:
        super().__init__(studies, **options)
        self._chance = random.Random()
        self._faults: dict[str, Callable[[MoveOperation, tuple[str, int], Sequence[DemoInstance]], None]] = {
            "refused": lambda move, _address, _instances: move.respond(UNABLE, Tally(0)),
            "lost": self._lose,
            "half": self._half,
            "nothing": lambda move, _address, _instances: move.respond(SUCCESS, Tally(0)),
        }

    def deliver(
        self, move: MoveOperation, address: tuple[str, int], instances: Sequence[DemoInstance]
    ) -> None:
        if self._chance.randrange(_ONE_IN):
            super().deliver(move, address, instances)
            return
        name = self._chance.choice(list(self._faults))
        print("fault", name, flush=True)
        self._faults[name](move, address, instances)

    def _lose(
        self, move: MoveOperation, _address: tuple[str, int], _instances: Sequence[DemoInstance]
    ) -> None:
        move.assoc._abort_nonblocking()

    def _half(self, move: MoveOperation, address: tuple[str, int], instances: Sequence[DemoInstance]) -> None:
        super().deliver(move, address, instances[: len(instances) // 2])


_ROOT = Path(__file__).resolve().parent.parent


class FlakyProcess(Server):
    """The archive, started and stopped like the other peers."""

    def __init__(self, folder: Path, studies: int, images: int, *, destination: int) -> None:
        super().__init__(folder, "moody")
        self.ae = AE("DEMO", "127.0.0.1", free_port())
        self._options = {
            "port": self.ae.port,
            "destination": destination,
            "studies": studies,
            "images": images,
        }

    def command(self) -> Sequence[str]:
        options = (f"--{name}={value}" for name, value in self._options.items())
        # It runs in a folder of its own, from which this package is not seen.
        return ["env", f"PYTHONPATH={_ROOT}", sys.executable, "-m", "bench.flaky_archive", *options]

    def is_ready(self) -> bool:
        return listens(self.ae.port)

    @property
    def faults(self) -> int:
        """Count the faults so far, over restarts, too."""
        return self.log_text().count("fault ")


def main() -> None:
    parser = argparse.ArgumentParser()
    for name in ("port", "destination", "studies", "images"):
        parser.add_argument(f"--{name}", type=int, required=True)
    given = parser.parse_args()
    destinations = {"QUARRY": ("127.0.0.1", given.destination)}
    studies = archived(given.studies, given.images)
    with FlakyArchive(studies, port=given.port, destinations=destinations):
        signal.sigwait({signal.SIGTERM, signal.SIGINT})


if __name__ == "__main__":
    main()
