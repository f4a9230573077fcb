"""The setup of a job's context: its store, the admission of instances, and the check of the disk."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from dicom_quarry.config.settings import Settings
from dicom_quarry.extraction.identity import IdentityCheck
from dicom_quarry.extraction.inbound import InboundStudies
from dicom_quarry.extraction.inbound_sink import InboundSink
from dicom_quarry.extraction.job_context import JobContext
from dicom_quarry.extraction.query_context import QueryContext
from dicom_quarry.jobs.audit_log import AuditLog
from dicom_quarry.jobs.instance_paths import make_path_function
from dicom_quarry.jobs.naming import recorded_names
from dicom_quarry.jobs.place import JobPlace
from dicom_quarry.ledger.ledger import Ledger
from dicom_quarry.ledger.stored_files import count_stored_bytes
from dicom_quarry.model import Task
from dicom_quarry.scheduling.disk_space import DiskSpaceMonitor
from dicom_quarry.scheduling.job_room import JobRoom
from dicom_quarry.store.instance_store import InstanceStore
from dicom_quarry.store.path_template import PathTemplate


def make_job_context(
    queries: QueryContext,
    folder: JobPlace,
    ledger: Ledger,
    audit_log: AuditLog,
    incoming: Path,
    columns: tuple[str, ...],
    *,
    waits_for_room: bool = True,
) -> JobContext:
    """Return the context of an open job; ``incoming`` is the worker's folder, ``columns`` the user's.

    ``waits_for_room``: see JobRoom.
    """
    settings = queries.settings
    names = recorded_names(ledger.metadata())
    template = PathTemplate.parse(settings.filepath, columns=columns, names=names)
    inbound = _make_inbound(queries, ledger, template, columns)
    store = InstanceStore(
        folder.out,
        template,
        incoming=incoming,
        admit=inbound.admit,
        access=settings.permissions,
        tags=inbound.tags,
    )
    disk_space = DiskSpaceMonitor(
        folder.out, settings.keep_free_bytes, queries.shutdown, queries.status_board
    )
    room = JobRoom(
        settings.room_bytes,
        partial(count_stored_bytes, ledger.database),
        queries.shutdown,
        queries.status_board,
        waits=waits_for_room,
    )
    limits_bytes = any(throttle.has_byte_limit for throttle in queries.throttles.values())
    limiter_for = queries.bandwidth_limiter_for if limits_bytes else None
    return JobContext(
        queries=queries,
        folder=folder,
        ledger=ledger,
        audit_log=audit_log,
        path_of=make_path_function(template),
        inbound=inbound,
        sink=InboundSink(store, inbound, disk_space, limiter_for),
        instance_files=store,
        disk_space=disk_space,
        room=room,
    )


def _make_inbound(
    queries: QueryContext, ledger: Ledger, template: PathTemplate, columns: tuple[str, ...]
) -> InboundStudies:
    """Return the studies that instances are awaited for; columns are read if the template has any."""

    def read_cells(task: Task) -> dict[str, str]:
        cells = ledger.cells_of(task.task_id) if template.has_columns else ()
        return dict(zip(columns, cells, strict=False))

    return InboundStudies(ledger, read_cells, _identity_check(queries.settings), queries.exclusions)


def _identity_check(settings: Settings) -> IdentityCheck:
    return IdentityCheck(
        accept_all=settings.accept_mismatch,
        accept_patients=all(archive.merged_ids == "accept" for archive in settings.archives),
    )
