"""An archive with its limits: every query of a job waits, retries and is logged here."""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from dicom_quarry.archive.base import Archive, StudyQueryResult
from dicom_quarry.archive.dimse.association_limit import AssociationLimit
from dicom_quarry.archive.multi_transport import MultiTransportArchive
from dicom_quarry.config.archive_profile import ArchiveProfile
from dicom_quarry.config.settings import Settings
from dicom_quarry.errors import (
    ArchiveError,
    ConnectionLost,
    OperatorActionRequired,
    QueryFailed,
    Rejected,
    StartError,
)
from dicom_quarry.extraction.query_context import QueryContext
from dicom_quarry.ledger.ledger import Ledger
from dicom_quarry.ledger.query_log import QueryLogEntry, log_query
from dicom_quarry.model import Level, Listing, SeriesInfo, Study, Task, Transport
from dicom_quarry.scheduling.circuit_breaker import CircuitBreaker
from dicom_quarry.scheduling.throttle import ArchiveThrottle
from dicom_quarry.scheduling.transport_selection import TransportSelector
from dicom_quarry.scheduling.window_guard import WindowGuard
from dicom_quarry.system.service_loop import start_thread
from dicom_quarry.wire.tls import requestor_context

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class QueryLog:
    """The query log of a ledger, for the queries about one row or one task."""

    ledger: Ledger
    row: int | None = None
    task_id: int | None = None

    def write(self, entry: QueryLogEntry) -> None:
        """Add an entry; it is written with the next transaction."""
        log_query(self.ledger.database, entry, row=self.row, task_id=self.task_id)


@dataclass(frozen=True, slots=True)
class ArchiveClient:
    """An archive, with the objects that limit and repeat the requests to it.

    Queries raise what :meth:`CircuitBreaker.call` raises. With a ``log`` every query leaves an entry there:
    the start of its last try, the duration, and the result.
    """

    profile: ArchiveProfile
    archive: Archive
    circuit_breaker: CircuitBreaker
    throttle: ArchiveThrottle
    transport_selector: TransportSelector

    @property
    def requires_patient_id(self) -> bool:
        """True if every query needs a Patient ID, as in the Patient Root model (PS3.4 C.6.1.1.2)."""
        return self.profile.address is not None and self.profile.model == "patient"

    def find(
        self,
        keys: Mapping[str, str],
        attributes: Iterable[str] = (),
        *,
        log: QueryLog | None = None,
        purpose: str = "",
    ) -> StudyQueryResult:
        """Find studies by these keys; ``attributes`` are further keywords that the archive should return."""
        query = partial(self.archive.find, {**dict.fromkeys(attributes, ""), **keys})
        return self._query(query, _describe_studies, log, purpose=purpose, level=Level.STUDY, keys=keys)

    def count_studies(self, patient_id: str, *, log: QueryLog | None = None) -> int | None:
        """Return the archive's own number of a patient's studies, None if it gives none."""
        query = partial(self.archive.count_studies, patient_id)
        keys = ("PatientID",)
        return self._query(query, _describe_count, log, purpose="count", level=Level.PATIENT, keys=keys)

    def list_series(
        self, study: Study, attributes: Collection[str] = (), *, log: QueryLog | None = None
    ) -> tuple[SeriesInfo, ...]:
        """List the series of a study, with these attributes where the archive returns them."""
        query = partial(self.archive.list_series, study, attributes)
        keys = ("StudyInstanceUID",)
        return self._query(query, _describe_series, log, purpose="series", level=Level.SERIES, keys=keys)

    def list_instances(self, task: Task, *, log: QueryLog | None = None) -> Listing:
        """List the instances that the archive holds for a task."""
        query = partial(self.archive.list_instances, task)
        return self._query(query, _describe_listing, log, purpose="listing", level=Level.IMAGE)

    def _query(
        self,
        query: Callable[[], T],
        describe: Callable[[T], tuple[int, str]],
        log: QueryLog | None,
        *,
        purpose: str,
        level: Level,
        keys: Iterable[str] = (),
    ) -> T:
        """Run a query; ``describe`` returns the number of results, and the reason why some may be missing."""
        before, started = self.throttle.query_count, time.time()

        def run_timed() -> T:
            nonlocal started
            with self.throttle.query_slot():
                started = time.time()
                return query()

        def write_log(results: int | None, why: str, status: int | None = None) -> None:
            if log is None:
                return
            entry = QueryLogEntry(
                archive=self.profile.name,
                model=self.profile.model if self.profile.address else "qido",
                purpose=purpose,
                level=level,
                keys=" ".join(keys),
                started=started,
                duration=time.time() - started,
                request_count=max(1, self.throttle.query_count - before),
                result_count=results,
                status=status,
                why=why,
            )
            log.write(entry)

        try:
            result = self.circuit_breaker.call(run_timed, is_query=True)
        except OperatorActionRequired as error:
            error.archive = self.profile.name
            raise
        except (QueryFailed, ConnectionLost) as error:
            write_log(None, str(error), error.status if isinstance(error, QueryFailed) else None)
            raise
        write_log(*describe(result))
        return result


def _describe_studies(found: StudyQueryResult) -> tuple[int, str]:
    return len(found.studies), found.incomplete_reason


def _describe_count(count: int | None) -> tuple[int, str]:
    return int(count is not None), ""


def _describe_series(series: tuple[SeriesInfo, ...]) -> tuple[int, str]:
    return len(series), ""


def _describe_listing(listing: Listing) -> tuple[int, str]:
    count = len(listing.instances) if listing.lists_instances else listing.count or 0
    return count, listing.incomplete_reason


@contextmanager
def open_clients(
    queries: QueryContext, *, has_delivered: bool, must_answer: bool = True
) -> Iterator[Mapping[str, ArchiveClient]]:
    """Connect to every archive of the settings, in their order, by name; raises StartError.

    ``has_delivered``: instances arrived in an earlier run, so the archives know the receiver's address.
    ``must_answer``: an archive that does not answer is an error, and not waited for.
    """
    settings = queries.settings
    with ExitStack() as opened:
        clients = {}
        for profile in settings.archives:
            throttle = queries.throttles[profile.name]
            selector = TransportSelector(
                profile.transports,
                str(settings.local),
                queries.status_board.report,
                has_delivered=has_delivered,
            )
            limit = AssociationLimit(throttle.wait_for_association, queries.status_board.report)
            archive = _make_archive(profile, settings, throttle, selector, limit)
            opened.callback(archive.close)
            breaker = CircuitBreaker(
                archive, queries.shutdown, queries.status_board, throttle, settings.give_up_after
            )
            clients[profile.name] = ArchiveClient(profile, archive, breaker, throttle, selector)
            if throttle.has_window:
                window_guard = WindowGuard(archive, throttle)
                start_thread(window_guard)
                opened.callback(window_guard.end)
        for client in clients.values():
            _verify_connection(client, must_answer=must_answer)
        yield clients


def _verify_connection(client: ArchiveClient, *, must_answer: bool) -> None:
    if not client.throttle.is_open:
        return  # outside the window not even a C-ECHO is allowed
    try:
        client.archive.probe()
        client.circuit_breaker.close()
    except Rejected as error:
        if error.permanent and must_answer:
            raise StartError(f"the archive {client.profile.name} cannot be used: {error}") from error
        client.circuit_breaker.trip(error)  # it is busy, so it can be reached
    except ArchiveError as error:
        if must_answer:
            raise StartError(f"the archive {client.profile.name} cannot be used: {error}") from error
        client.circuit_breaker.trip(error)


def _make_archive(
    profile: ArchiveProfile,
    settings: Settings,
    throttle: ArchiveThrottle,
    transport_selector: TransportSelector,
    limit: AssociationLimit,
) -> Archive:
    """Make the adapter of an archive: C-FIND if it has an application entity, QIDO-RS otherwise."""
    make_adapter = partial(_make_adapter, profile, settings, throttle, limit)
    retrievers = {transport: make_adapter(transport) for transport in profile.transports}
    first = next(iter(retrievers.values()))
    if profile.address is None or [*retrievers] in ([Transport.MOVE], [Transport.GET]):
        return first
    finder = retrievers.get(Transport.MOVE) or make_adapter(Transport.MOVE)
    return MultiTransportArchive(finder, retrievers, lambda: transport_selector.available)


def _make_adapter(
    profile: ArchiveProfile,
    settings: Settings,
    throttle: ArchiveThrottle,
    limit: AssociationLimit,
    transport: Transport,
) -> Archive:
    if transport is Transport.WADO:
        return _make_dicomweb_archive(profile, throttle)
    return _make_dimse_archive(profile, settings, throttle, limit, by_get=transport is Transport.GET)


def _make_dicomweb_archive(profile: ArchiveProfile, throttle: ArchiveThrottle) -> Archive:
    # Imported here, like the other adapter: most jobs need one of them, and both take time to load.
    from dicom_quarry.archive.dicomweb.archive import DicomWebArchive

    return DicomWebArchive(
        profile.name,
        profile.dicomweb_uri,
        profile.http,
        read_timeout=profile.query_timeout,
        before_query=throttle.acquire_query,
        result_cap=profile.result_cap,
    )


def _make_dimse_archive(
    profile: ArchiveProfile,
    settings: Settings,
    throttle: ArchiveThrottle,
    limit: AssociationLimit,
    *,
    by_get: bool,
) -> Archive:
    from dicom_quarry.archive.dimse.archive import DimseArchive, QueryCapabilities
    from dicom_quarry.archive.dimse.associations import Timeouts

    title = settings.local.title
    return DimseArchive(
        profile.name,
        profile.dimse_ae,
        calling=title,
        destination=title,
        model=profile.model,
        charset=profile.character_set,
        timeouts=Timeouts(query=profile.query_timeout),
        tls=_tls_context(settings, profile) if profile.tls != "none" else None,
        before_query=throttle.acquire_query,
        result_cap=profile.result_cap,
        capabilities=QueryCapabilities(
            lowest_level=Level(profile.lowest_level.upper()),
            relational_queries=profile.relational,
            patient_id_in_move=profile.move_identifiers == "patient",
        ),
        retrieve="get" if by_get else "move",
        association_limit=limit,
    )


def _tls_context(settings: Settings, profile: ArchiveProfile) -> ssl.SSLContext:
    files = settings.tls
    return requestor_context(
        files.ca,
        files.certificate,
        files.key,
        check_hostname=files.hostname,
        profile=profile.tls_profile,
    )
