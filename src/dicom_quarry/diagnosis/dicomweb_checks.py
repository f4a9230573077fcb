"""Checks of an archive that is reached over DICOMweb: network, credentials, queries and one retrieval."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import PurePosixPath

from dicom_quarry.archive.base import MonitorAction, RetrieveRequest, Verdict
from dicom_quarry.archive.dicomweb.archive import DicomWebArchive
from dicom_quarry.config.time_window import Schedule
from dicom_quarry.diagnosis.attribute_check import check_attributes
from dicom_quarry.diagnosis.context import CheckContext, CheckStep, StepStatus
from dicom_quarry.diagnosis.local_checks import check_clock, check_disk, is_clock_synchronised
from dicom_quarry.diagnosis.network_checks import check_archive_port, check_host_name
from dicom_quarry.errors import ArchiveError
from dicom_quarry.model import InstanceInfo, InstanceRef, Receipt, Study, Task, Transport
from dicom_quarry.plurals import format_count, format_part

_NO_PATH = PurePosixPath()

_ADDRESS_REMEDY = "check the address of its DICOMweb services, and [archive.NAME.http] in quarry.toml"


def check_dicomweb(
    context: CheckContext, hours: Schedule, now: datetime, accession: str
) -> Iterator[CheckStep]:
    """Run the steps up to the first failure; with an accession a study is found, listed and retrieved.

    Retrieved instances are counted and not stored. Raises ConfigError.
    """
    for check in (check_host_name, check_archive_port):
        network_step = check(context)
        if network_step is None:
            continue
        yield network_step
        if network_step.status is StepStatus.BAD:
            return
    base = context.profile.dicomweb
    assert base is not None
    if base.is_unencrypted:
        yield CheckStep(
            "https", StepStatus.NOTE, f"{base} is not https: others on the network can read the data"
        )
    archive = DicomWebArchive(
        context.profile.name,
        base,
        context.profile.http,
        read_timeout=context.profile.query_timeout,
        before_query=context.request_limits.acquire_query,
    )
    try:
        step = _check_queries(archive)
        yield step
        yield check_clock(hours, now, synchronised=is_clock_synchronised())
        yield check_disk(context)
        if accession and step.status is StepStatus.GOOD:
            yield from _check_study(context, archive, accession)
    finally:
        archive.close()


def _check_queries(archive: DicomWebArchive) -> CheckStep:
    try:
        archive.probe()
    except ArchiveError as error:
        return CheckStep("QIDO-RS", StepStatus.BAD, str(error), _ADDRESS_REMEDY)
    return CheckStep("QIDO-RS", StepStatus.GOOD, "queries are answered with our credentials")


def _check_study(context: CheckContext, archive: DicomWebArchive, accession: str) -> Iterator[CheckStep]:
    try:
        found = archive.find({"AccessionNumber": accession})
        matching = [study for study in found.studies if study.accession == accession]
        if not matching:
            yield CheckStep(
                "query",
                StepStatus.BAD,
                "no study has the accession given with --accession",
                "name another accession",
            )
            return
        study = min(matching, key=lambda one: one.instance_count or 0)
        yield CheckStep("query", StepStatus.GOOD, "study found by its accession")
        listing = archive.list_instances(Task(0, archive.name, study))
        listed = frozenset(ref.sop_uid for ref in listing.instances)
        if not (listed and listing.complete):
            yield CheckStep(
                "list",
                StepStatus.BAD,
                listing.incomplete_reason or "the archive lists no instances of the study",
            )
            return
        yield CheckStep(
            "list",
            StepStatus.GOOD,
            f"{format_count(len(listed), 'instance')} in {len(listing.series_uids)} series",
        )
        yield check_attributes(archive, study, listing)
        yield _check_retrieval(context, archive, study, listed)
    except ArchiveError as error:
        yield CheckStep("query", StepStatus.BAD, str(error))


def _check_retrieval(
    context: CheckContext, archive: DicomWebArchive, study: Study, listed: frozenset[str]
) -> CheckStep:
    sink = _CountingSink()
    with context.request_limits.acquire_retrieval():
        result = archive.retrieve(
            RetrieveRequest(study.study_uid, transport=Transport.WADO), sink, _WaitingMonitor()
        )
    context.request_limits.record_received(sink.size)
    received = f"{format_part(len(sink.uids), len(listed), 'instance')} arrived, {sink.size / 1e6:.1f} MB"
    syntaxes = f"; transfer syntaxes {', '.join(sorted(sink.syntaxes))}" if sink.syntaxes else ""
    if result.verdict is not Verdict.SUCCESS or not listed <= sink.uids:
        return CheckStep("WADO-RS", StepStatus.BAD, f"{received}. {result.comment}".strip())
    return CheckStep("WADO-RS", StepStatus.GOOD, received + syntaxes)


@dataclass
class _CountingSink:
    """A sink that counts instances and stores nothing."""

    uids: set[str] = field(default_factory=set)
    syntaxes: set[str] = field(default_factory=set)
    size: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def begin(self, arrival: InstanceInfo) -> _CountingWriter:
        """Start one instance."""
        return _CountingWriter(self, arrival)


class _CountingWriter:
    def __init__(self, sink: _CountingSink, arrival: InstanceInfo) -> None:
        self._sink = sink
        self._arrival = arrival
        self._size = len(arrival.head)

    def write(self, *pieces: memoryview) -> None:
        self._size += sum(map(len, pieces))

    def commit(self) -> Receipt:
        sink, arrival = self._sink, self._arrival
        with sink.lock:
            sink.uids.add(arrival.sop_uid)
            sink.syntaxes.add(arrival.transfer_syntax)
            sink.size += self._size
        ref = InstanceRef("", "", arrival.sop_uid, arrival.sop_class)
        return Receipt(ref, arrival.transfer_syntax, _NO_PATH, self._size, b"")

    def abort(self) -> None:
        """Do nothing: no data is stored."""


class _WaitingMonitor:
    """Waits for ever: the person who runs the check can interrupt it."""

    def has_received(self) -> bool:
        return False

    def on_request(self, _message_id: int, /) -> None:
        """Do nothing."""

    def on_activity(self, _completed: int | None, _remaining: int | None, /) -> None:
        """Do nothing."""

    def next_action(self) -> MonitorAction:
        return MonitorAction.WAIT
