"""The archives of a job, each with its gate and its manners, for as long as the job runs."""

from __future__ import annotations

import ssl
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager

from dicom_quarry.archive.base import Archive
from dicom_quarry.archive.multi_transport import ManyRoads
from dicom_quarry.config.settings import ArchiveProfile, Settings
from dicom_quarry.errors import ArchiveError, Rejected, StartError
from dicom_quarry.extraction.job_context import Source
from dicom_quarry.jobs.progress import Board
from dicom_quarry.model import Level, Road
from dicom_quarry.scheduling.circuit_breaker import Gate
from dicom_quarry.scheduling.throttle import Guest
from dicom_quarry.scheduling.transport_selection import Roads
from dicom_quarry.system.shutdown import Stop
from dicom_quarry.wire.tls import requestor_context


@contextmanager
def open_sources(
    settings: Settings, guests: Mapping[str, Guest], stop: Stop, board: Board, *, served: bool
) -> Iterator[Mapping[str, Source]]:
    """Every archive, heard once before anything is asked of it; raises StartError.

    ``served``: instances came in an earlier run, so the archives know where to send to.
    """
    with ExitStack() as opened:
        sources = {}
        for profile in settings.archives:
            guest = guests[profile.name]
            roads = Roads(profile.roads, str(settings.local), board.say, served=served)
            archive = _archive(profile, settings, guest, roads)
            opened.callback(archive.close)
            sources[profile.name] = Source(
                profile=profile,
                archive=archive,
                gate=Gate(archive, stop, board, guest, settings.give_up_after),
                guest=guest,
                roads=roads,
            )
        for source in sources.values():
            _hear(source)
        yield sources


def _hear(source: Source) -> None:
    if not source.guest.is_open:
        return  # not even a C-ECHO outside the window
    try:
        source.archive.probe()
    except Rejected as error:
        if error.permanent:
            raise StartError(f"the archive {source.profile.name} cannot be used: {error}") from error
        source.gate.close(error)  # busy, hence there
    except ArchiveError as error:
        raise StartError(f"the archive {source.profile.name} cannot be used: {error}") from error


def _archive(profile: ArchiveProfile, settings: Settings, guest: Guest, roads: Roads) -> Archive:
    """The adapter for an archive. C-FIND finds where there is an application entity, QIDO-RS elsewhere."""
    fetchers = {road: _adapter(road, profile, settings, guest) for road in profile.roads}
    first = next(iter(fetchers.values()))
    if profile.address is None or [*fetchers] in ([Road.MOVE], [Road.GET]):
        return first
    finder = fetchers.get(Road.MOVE) or _adapter(Road.MOVE, profile, settings, guest)
    return ManyRoads(finder, fetchers, lambda: roads.open)


def _adapter(road: Road, profile: ArchiveProfile, settings: Settings, guest: Guest) -> Archive:
    if road is Road.WADO:
        return _over_http(profile, guest)
    return _over_dimse(profile, settings, guest, by_get=road is Road.GET)


def _over_http(profile: ArchiveProfile, guest: Guest) -> Archive:
    # Imported here, like the other adapter: most jobs need one of them, and both take time to load.
    from dicom_quarry.archive.dicomweb.archive import DicomWebArchive

    return DicomWebArchive(
        profile.name,
        profile.base,
        profile.http,
        silence=profile.query_timeout,
        before_query=guest.before_query,
        result_cap=profile.result_cap,
    )


def _over_dimse(profile: ArchiveProfile, settings: Settings, guest: Guest, *, by_get: bool) -> Archive:
    from dicom_quarry.archive.dimse.archive import DimseArchive, Habits
    from dicom_quarry.archive.dimse.association_factory import Patiences

    title = settings.local.title
    return DimseArchive(
        profile.name,
        profile.entity,
        calling=title,
        destination=title,
        model=profile.model,
        charset=profile.character_set,
        patiences=Patiences(query=profile.query_timeout),
        tls=_tls(settings) if profile.tls != "none" else None,
        before_query=guest.before_query,
        result_cap=profile.result_cap,
        habits=Habits(
            lowest=Level(profile.lowest_level.upper()),
            relational=profile.relational,
            patient_id_in_move=profile.move_identifiers == "patient",
        ),
        retrieve="get" if by_get else "move",
    )


def _tls(settings: Settings) -> ssl.SSLContext:
    files = settings.tls
    return requestor_context(files.ca, files.certificate, files.key, check_hostname=files.hostname)
