"""The archives of a job, each with its gate and its manners, for as long as the job runs."""

from __future__ import annotations

import ssl
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager

from dicom_quarry.archive.base import Archive
from dicom_quarry.archive.multi_transport import MultiTransportArchive
from dicom_quarry.config.settings import ArchiveProfile, Settings
from dicom_quarry.errors import ArchiveError, Rejected, StartError
from dicom_quarry.extraction.job_context import ArchiveClient
from dicom_quarry.jobs.progress import StatusBoard
from dicom_quarry.model import Level, Transport
from dicom_quarry.scheduling.circuit_breaker import CircuitBreaker
from dicom_quarry.scheduling.throttle import ArchiveThrottle
from dicom_quarry.scheduling.transport_selection import TransportSelector
from dicom_quarry.system.shutdown import Shutdown
from dicom_quarry.wire.tls import requestor_context


@contextmanager
def open_clients(
    settings: Settings,
    throttles: Mapping[str, ArchiveThrottle],
    shutdown: Shutdown,
    status_board: StatusBoard,
    *,
    has_served: bool,
) -> Iterator[Mapping[str, ArchiveClient]]:
    """Every archive, heard once before anything is asked of it; raises StartError.

    ``served``: instances came in an earlier run, so the archives know where to send to.
    """
    with ExitStack() as opened:
        clients = {}
        for profile in settings.archives:
            throttle = throttles[profile.name]
            transport_selector = TransportSelector(
                profile.transports, str(settings.local), status_board.report, has_delivered=has_served
            )
            archive = _make_archive(profile, settings, throttle, transport_selector)
            opened.callback(archive.close)
            clients[profile.name] = ArchiveClient(
                profile=profile,
                archive=archive,
                circuit_breaker=CircuitBreaker(
                    archive, shutdown, status_board, throttle, settings.give_up_after
                ),
                throttle=throttle,
                transport_selector=transport_selector,
            )
        for client in clients.values():
            _verify_connection(client)
        yield clients


def _verify_connection(client: ArchiveClient) -> None:
    if not client.throttle.is_open:
        return  # not even a C-ECHO outside the window
    try:
        client.archive.probe()
    except Rejected as error:
        if error.permanent:
            raise StartError(f"the archive {client.profile.name} cannot be used: {error}") from error
        client.circuit_breaker.trip(error)  # busy, hence there
    except ArchiveError as error:
        raise StartError(f"the archive {client.profile.name} cannot be used: {error}") from error


def _make_archive(
    profile: ArchiveProfile,
    settings: Settings,
    throttle: ArchiveThrottle,
    transport_selector: TransportSelector,
) -> Archive:
    """The adapter for an archive. C-FIND finds where there is an application entity, QIDO-RS elsewhere."""
    retrievers = {
        transport: _make_adapter(transport, profile, settings, throttle) for transport in profile.transports
    }
    first = next(iter(retrievers.values()))
    if profile.address is None or [*retrievers] in ([Transport.MOVE], [Transport.GET]):
        return first
    finder = retrievers.get(Transport.MOVE) or _make_adapter(Transport.MOVE, profile, settings, throttle)
    return MultiTransportArchive(finder, retrievers, lambda: transport_selector.available)


def _make_adapter(
    transport: Transport, profile: ArchiveProfile, settings: Settings, throttle: ArchiveThrottle
) -> Archive:
    if transport is Transport.WADO:
        return _make_dicomweb_archive(profile, throttle)
    return _make_dimse_archive(profile, settings, throttle, by_get=transport is Transport.GET)


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
    profile: ArchiveProfile, settings: Settings, throttle: ArchiveThrottle, *, by_get: bool
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
        tls=_tls_context(settings) if profile.tls != "none" else None,
        before_query=throttle.acquire_query,
        result_cap=profile.result_cap,
        capabilities=QueryCapabilities(
            lowest_level=Level(profile.lowest_level.upper()),
            relational_queries=profile.relational,
            patient_id_in_move=profile.move_identifiers == "patient",
        ),
        retrieve="get" if by_get else "move",
    )


def _tls_context(settings: Settings) -> ssl.SSLContext:
    files = settings.tls
    return requestor_context(files.ca, files.certificate, files.key, check_hostname=files.hostname)
