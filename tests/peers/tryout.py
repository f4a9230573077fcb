"""Extraction of everything that an archive accepted, by one of its transports, with the whole command."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from dicom_quarry.model import AE
from tests.e2e.command import Done, Row, quarry, report
from tests.peers.corpus import Corpus
from tests.peers.permanent import ArchiveServer, Permanent
from tests.peers.process import free_port
from tests.peers.relay import Relay
from tests.peers.store_files import store_files

#: Two studies that no archive has: one that might be, and one whose UID has a component with a leading zero.
NOT_HELD = ("1.2.826.0.1.3680043.8.498.7.404", "1.2.3.04")


@dataclass(frozen=True, slots=True)
class Tryout:
    """What came of an extraction.

    ``sent`` is transfer syntax and dataset of every instance that crossed the wire, by SOP Instance UID;
    empty for WADO-RS.
    """

    out: Path
    done: Done
    sent: dict[str, tuple[str, bytes]]

    @property
    def rows(self) -> dict[str, Row]:
        """The rows of the report, by Study Instance UID."""
        return {row["StudyInstanceUID"]: row for row in report(self.out)}

    @property
    def codes(self) -> dict[str, int]:
        """How many rows have which reason code."""
        return dict(Counter(row["quarry_code"] for row in report(self.out)))


@dataclass(frozen=True, slots=True)
class Loaded:
    """A running archive and the instances that it accepted; ``inbound`` is before our receiver."""

    peer: Permanent
    server: ArchiveServer
    held: Corpus
    inbound: Relay

    def extract(self, transport: str, work: Path) -> Tryout:
        """Extract every study by a transport, and two that the archive does not have."""
        cohort, out = work / "cohort.csv", work / "out"
        cohort.write_text("\n".join(["StudyInstanceUID", *self.held.studies(), *NOT_HELD]) + "\n")
        with Relay(self.server.ae) as outbound:
            address = (
                f'dicomweb = "{self.server.base}"' if transport == "wado" else f'address = "{outbound.ae}"'
            )
            (work / "quarry.toml").write_text(f"[archive.main]\n{address}\nsettle = 0.5\n")
            options = ("--from", "main", "--as", self.inbound.target, "--to", out, "--retrieve", transport)
            done = quarry("extract", cohort, *options, cwd=work)
            sent = (self.inbound if transport == "move" else outbound).stored()
            self.inbound.forget()
        return Tryout(out, done, sent)


@contextmanager
def loaded(peer: Permanent, folder: Path, corpus: Corpus) -> Iterator[Loaded]:
    """Start an archive and store the corpus in it."""
    with (
        Relay(AE("QUARRY", "127.0.0.1", free_port())) as inbound,
        peer.make(folder, destinations=[inbound.ae]) as server,
    ):
        yield Loaded(peer, server, peer.keeps(store_files(corpus, server.ae)), inbound)
