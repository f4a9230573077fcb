"""A demo archive in a process of its own, and what it was asked to move, line by line, in a file."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dicom_quarry.demo.dimse_server import DemoArchive
from dicom_quarry.demo.synthetic_studies import PROFILES, DemoStudy, generate_studies
from dicom_quarry.model import AE


@dataclass(frozen=True, slots=True)
class Content:
    """Alike studies; ``frames`` makes the images large without costing the archive memory."""

    studies: int
    images: int
    profile: str = "tiny"
    frames: int = 1

    def made(self) -> list[DemoStudy]:
        """The studies, the same in every process."""
        studies = generate_studies(self.studies, seed=4, profile=self.profile, images=self.images)
        return [_framed(study, self.frames) for study in studies]


def _framed(study: DemoStudy, frames: int) -> DemoStudy:
    kind = replace(PROFILES["ct"], rows=2048, columns=2048, frames=frames)
    if frames == 1:
        return study
    return replace(study, series=tuple(replace(series, profile=kind) for series in study.series))


def _serve() -> None:
    parser = argparse.ArgumentParser()
    for name in ("port", "destination", "studies", "images", "frames"):
        parser.add_argument(f"--{name}", type=int)
    parser.add_argument("--profile")
    given: Any = parser.parse_args()
    content = Content(given.studies, given.images, given.profile, given.frames)
    destinations = {"QUARRY": ("127.0.0.1", given.destination)}
    with DemoArchive(content.made(), port=given.port, destinations=destinations):
        signal.sigwait({signal.SIGTERM, signal.SIGINT})


if __name__ == "__main__":
    _serve()
else:
    from tests.peers.process import Server, free_port, listens

    class DemoProcess(Server):
        """The demo archive, started and stopped like the other peers."""

        def __init__(self, folder: Path, content: Content, *, destination: int) -> None:
            super().__init__(folder, "demo")
            self.ae = AE("DEMO", "127.0.0.1", free_port())
            self._content = content
            self._destination = destination

        def command(self) -> Sequence[str]:
            content = self._content
            options = {
                "port": self.ae.port,
                "destination": self._destination,
                "studies": content.studies,
                "images": content.images,
                "frames": content.frames,
                "profile": content.profile,
            }
            return [sys.executable, __file__, *(f"--{name}={value}" for name, value in options.items())]

        def is_ready(self) -> bool:
            return listens(self.ae.port)
