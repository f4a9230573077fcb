"""The archives of others that every version of Quarry is tried against, besides Orthanc and DCMTK."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from dicom_quarry.model import AE
from tests.peers import installed
from tests.peers.corpus import Corpus
from tests.peers.dcmjs_archive import DcmjsArchive
from tests.peers.dcmtk import NextDcmqrscp
from tests.peers.orthanc import NextOrthanc
from tests.peers.pixelmed import PixelMed
from tests.peers.qrscp import Qrscp
from tests.peers.tiny_pacs import TinyPacs

COUNTS, CLASSES, UID_LISTS, CANCEL = "counts", "SOP classes", "lists of UIDs", "C-CANCEL"
PARALLEL, FIRST_TIME, BYTES = "parallel requests", "all of a study at the first request", "bytes as stored"


class ArchiveServer(AbstractContextManager[Any], Protocol):
    """An archive that stores instances and sends them to the destinations that it was given."""

    @property
    def ae(self) -> AE: ...

    @property
    def base(self) -> str:
        """The base URL of its DICOMweb services, if it has any."""


class Make(Protocol):
    """Makes the server of an archive, which is not started yet."""

    def __call__(self, folder: Path, *, destinations: Sequence[AE]) -> ArchiveServer: ...


def _nothing() -> str:
    return ""


def _all(corpus: Corpus) -> Corpus:
    return corpus


def _with_patient_id(corpus: Corpus) -> Corpus:
    return Corpus(tuple(item for item in corpus.items if item.patient_id))


@dataclass(frozen=True, slots=True)
class Permanent:
    """An archive: its software and the registry that has it, its transports, and what it lacks here.

    ``keeps``: what it keeps of what it accepts. ``omits`` are optional parts of DICOM: COUNTS and CLASSES (in
    answers to queries), UID_LISTS (in requests for series or instances), CANCEL; and what else the contract
    suite expects of an archive.
    ``doubts``: reason codes of rows whose images all came, although the archive's own lists do not prove it.
    ``quick``: the transports that ``make test`` tries, too; all of them are part of ``make test-peers``.
    """

    name: str
    software: str
    registry: str
    make: Make
    transports: tuple[str, ...] = ("move", "get")
    lacks: Callable[[], str] = _nothing
    keeps: Callable[[Corpus], Corpus] = _all
    omits: frozenset[str] = frozenset()
    doubts: frozenset[str] = frozenset()
    quick: tuple[str, ...] = ()
    notes: str = ""


PERMANENT = {
    peer.name: peer
    for peer in (
        Permanent(
            "qrscp",
            "pynetdicom 3.0, `qrscp`",
            "PyPI",
            Qrscp,
            keeps=_with_patient_id,
            quick=("move", "get"),
            omits=frozenset({COUNTS, CLASSES, UID_LISTS, PARALLEL, FIRST_TIME}),
            notes="it keeps no instance without a patient ID",
        ),
        Permanent(
            "tiny-pacs",
            "tiny-pacs 0.4 with DICOMweb",
            "PyPI",
            TinyPacs,
            ("move", "get", "wado"),
            lambda: installed.lacks(installed.PYTHON),
            doubts=frozenset({"unlisted_arrived", "count_disagrees"}),
            omits=frozenset({COUNTS}),
            notes="its answers to C-FIND repeat one instance in place of others: its lists prove nothing",
        ),
        Permanent(
            "dcmjs",
            "dcmjs-dimse 0.3, a small archive in tests/peers/dcmjs",
            "npm",
            DcmjsArchive,
            lacks=lambda: installed.lacks_command("node") or installed.lacks(installed.NODE_MODULES),
            omits=frozenset({COUNTS, CANCEL}),
            notes="it decodes what it stores, and sends it uncompressed",
        ),
        Permanent(
            "pixelmed",
            "PixelMed 20220618",
            "Debian",
            PixelMed,
            lacks=lambda: (
                installed.lacks_command("java")
                or installed.lacks(installed.PIXELMED)
                or installed.lacks_private_network()
            ),
            omits=frozenset({UID_LISTS, CANCEL}),
            notes="it stores no compressed images",
        ),
        Permanent(
            "next-orthanc",
            "Orthanc 1.12 with DICOMweb 1.20",
            "next Debian",
            NextOrthanc,
            ("move", "get", "wado"),
            lambda: installed.lacks(installed.NEXT_DEBIAN),
            omits=frozenset({FIRST_TIME, BYTES}),
        ),
        Permanent(
            "next-dcmqrscp",
            "DCMTK 3.6.9, `dcmqrscp`",
            "next Debian",
            NextDcmqrscp,
            lacks=lambda: installed.lacks(installed.NEXT_DEBIAN),
            omits=frozenset({COUNTS, CLASSES}),
            notes="it stores no compressed images",
        ),
    )
}
