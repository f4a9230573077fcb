"""A job against an archive in this process: its cohort, its settings, its command line."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from dicom_quarry.demo.dimse_server import DemoArchive
from dicom_quarry.demo.synthetic_studies import DemoStudy
from dicom_quarry.model import AE
from tests.e2e.command import Done, quarry
from tests.peers.process import free_port


class Job:
    """``quarry extract`` of studies by accession; ``settings`` are lines of [archive.main] in quarry.toml."""

    def __init__(self, work: Path, archive: DemoArchive | AE, accessions: Iterable[str]) -> None:
        self.out, self.port = work / "out", free_port()
        self.cohort, self.toml = work / "cohort.csv", work / "quarry.toml"
        self.cohort.write_text("\n".join(["Accession", *accessions]) + "\n")
        self.local = AE("QUARRY", "127.0.0.1", self.port)
        self.archive = archive if isinstance(archive, AE) else AE(archive.title, archive.host, archive.port)
        if isinstance(archive, DemoArchive):
            archive.destinations["QUARRY"] = ("127.0.0.1", self.port)
        self.configure()

    def configure(self, *settings: str, tables: str = "") -> None:
        """Write quarry.toml."""
        lines = [f'[archive.main]\naddress = "{self.archive}"\nsettle = 0.5', *settings, tables]
        self.toml.write_text("\n".join(lines) + "\n")

    def command(self, *options: object) -> list[object]:
        receiver = f"QUARRY@127.0.0.1:{self.port}"
        return ["extract", self.cohort, "--from", "main", "--as", receiver, "--to", self.out, *options]

    def run(self, *options: object) -> Done:
        return quarry(*self.command(*options))


def accessions(studies: Iterable[DemoStudy]) -> list[str]:
    return [study.accession for study in studies]


def script(path: Path, text: str) -> Path:
    """A shell script that can be run."""
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path
