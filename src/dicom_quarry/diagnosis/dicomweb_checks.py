"""A check of an archive that is reached over DICOMweb: the road, who we are, queries, and one retrieval."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import PurePosixPath

from dicom_quarry.archive.base import Ask, Patience, Verdict
from dicom_quarry.archive.dicomweb.archive import DicomWebArchive
from dicom_quarry.config.time_window import Hours
from dicom_quarry.diagnosis.context import Bench, Mark, Step
from dicom_quarry.diagnosis.local_checks import clock, disk, synchronised
from dicom_quarry.diagnosis.network_checks import host_name, port
from dicom_quarry.errors import ArchiveError
from dicom_quarry.model import Arrival, InstanceRef, Receipt, Road, Study, Task

_NOWHERE = PurePosixPath()

_ADDRESS = "check the address of its DICOMweb services, and [archive.NAME.http] in quarry.toml"


def web_steps(bench: Bench, hours: Hours, now: datetime, accession: str) -> Iterator[Step]:
    """Steps up to the first that fails; with an accession a study is found, listed and fetched.

    What is fetched is counted and thrown away. Raises ConfigError.
    """
    for stage in (host_name, port):
        step = stage(bench)
        yield step
        if step.mark is Mark.BAD:
            return
    base = bench.profile.dicomweb
    assert base is not None
    if base.is_open:
        yield Step("https", Mark.NOTE, f"{base} is not https: others can read along on the way")
    archive = DicomWebArchive(
        bench.profile.name,
        base,
        bench.profile.http,
        silence=bench.profile.query_timeout,
        before_query=bench.manners.before_query,
    )
    try:
        step = _queries(archive)
        yield step
        yield clock(hours, now, synchronised=synchronised())
        yield disk(bench)
        if accession and step.mark is Mark.GOOD:
            yield from _study(bench, archive, accession)
    finally:
        archive.close()


def _queries(archive: DicomWebArchive) -> Step:
    try:
        archive.probe()
    except ArchiveError as error:
        return Step("QIDO-RS", Mark.BAD, str(error), _ADDRESS)
    return Step("QIDO-RS", Mark.GOOD, "queries are answered, and to us")


def _study(bench: Bench, archive: DicomWebArchive, accession: str) -> Iterator[Step]:
    try:
        found = archive.find({"AccessionNumber": accession})
        matching = [study for study in found.studies if study.accession == accession]
        if not matching:
            yield Step("query", Mark.BAD, "no study has the accession given with --accession", "name another")
            return
        study = min(matching, key=lambda one: one.instance_count or 0)
        yield Step("query", Mark.GOOD, "finds the study by its accession")
        listing = archive.list_instances(Task(0, archive.name, study))
        listed = frozenset(ref.sop_uid for ref in listing.instances)
        if not (listed and listing.complete):
            yield Step("list", Mark.BAD, listing.why or "the archive lists no instances of the study")
            return
        yield Step("list", Mark.GOOD, f"{len(listed)} instances in {len(listing.series_uids)} series")
        yield _retrieval(bench, archive, study, listed)
    except ArchiveError as error:
        yield Step("query", Mark.BAD, str(error))


def _retrieval(bench: Bench, archive: DicomWebArchive, study: Study, listed: frozenset[str]) -> Step:
    sink = _Counting()
    with bench.manners.before_study():
        answered = archive.retrieve(Ask(study.study_uid, road=Road.WADO), sink, _Patient())
    bench.manners.received(sink.size)
    came = f"{len(sink.uids)} of {len(listed)} instances came, {sink.size / 1e6:.1f} MB"
    syntaxes = f"; transfer syntaxes {', '.join(sorted(sink.syntaxes))}" if sink.syntaxes else ""
    if answered.verdict is not Verdict.SUCCESS or not listed <= sink.uids:
        return Step("WADO-RS", Mark.BAD, f"{came}. {answered.comment}".strip())
    return Step("WADO-RS", Mark.GOOD, came + syntaxes)


@dataclass
class _Counting:
    """A sink that keeps nothing but what it has seen."""

    uids: set[str] = field(default_factory=set)
    syntaxes: set[str] = field(default_factory=set)
    size: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def begin(self, arrival: Arrival) -> _Counted:
        """One more."""
        return _Counted(self, arrival)


class _Counted:
    def __init__(self, sink: _Counting, arrival: Arrival) -> None:
        self._sink = sink
        self._arrival = arrival
        self._size = len(arrival.head)

    def write(self, data: memoryview) -> None:
        self._size += len(data)

    def commit(self) -> Receipt:
        sink, arrival = self._sink, self._arrival
        with sink.lock:
            sink.uids.add(arrival.sop_uid)
            sink.syntaxes.add(arrival.transfer_syntax)
            sink.size += self._size
        ref = InstanceRef("", "", arrival.sop_uid, arrival.sop_class)
        return Receipt(ref, arrival.transfer_syntax, _NOWHERE, self._size, b"")

    def abort(self) -> None:
        """Nothing is kept anyway."""


class _Patient:
    """A check waits as long as the person who runs it."""

    def sign_of_life(self, _completed: int | None, _remaining: int | None, /) -> None:
        """Good."""

    def patience(self) -> Patience:
        return Patience.WAIT
