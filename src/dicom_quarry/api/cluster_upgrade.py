"""The upgrade of a database of jobs: the workers finish what they have, then list, engine and records."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dicom_quarry.config.cluster import ClusterSettings, find_url_problem
from dicom_quarry.errors import ConfigError, LedgerError
from dicom_quarry.jobs.cluster.database import Cluster, JobRow
from dicom_quarry.jobs.cluster.lease import find_obstacle, hold_job
from dicom_quarry.jobs.cluster.versions import (
    Revision,
    Versions,
    begin_upgrade,
    format_revision,
    parse_revision,
    read_versions,
    write_revision,
)
from dicom_quarry.jobs.cluster.workers import list_workers
from dicom_quarry.ledger.database import upgrade_ledger
from dicom_quarry.ledger.migrations import schema_version

#: Seconds between two looks at the workers.
_POLL_INTERVAL = 0.5

_LET_GO = """
UPDATE quarry.jobs SET stop_request = 'finish'
WHERE holder_token IS NOT NULL AND with_workers AND stop_request = ''
"""
# None without the rights of the role that made the job.
_HAS_RECORD = """
SELECT CASE WHEN coalesce(has_schema_privilege(to_regnamespace(%(schema)s), 'CREATE'), true)
    THEN to_regclass(%(schema)s || '.schema_version') IS NOT NULL END
"""


@dataclass(frozen=True, slots=True)
class UpgradeResult:
    """The number of records that are of this version now, and why others are not.

    ``others`` is the number of jobs of roles whose members alone can upgrade them.
    """

    jobs: int
    left: tuple[str, ...] = ()
    others: int = 0


def upgrade_cluster(
    url: str, password_file: Path | None = None, on_wait: Callable[[str], object] = lambda _: None
) -> UpgradeResult:
    """Bring a database to this version, in order: the list of jobs, the engine, the records of the jobs.

    Workers of the older version are waited for: they finish what they have; ``on_wait`` gets their names. An
    exception meanwhile lets them go on. Raises ConfigError, InputError and LedgerError.
    """
    # Imported here: it needs the extra [cluster].
    from dicom_quarry.cluster.engine_schema import worker_revision

    if problem := find_url_problem(url):
        raise ConfigError(problem)
    cluster, target = Cluster.of(ClusterSettings(ledger=url, password_file=password_file)), worker_revision()
    with cluster.connected() as connection:
        found = read_versions(connection)
        if found.revision > target:
            raise LedgerError(
                f"{url} is of a newer version of Quarry ({format_revision(found.revision)}, this one knows "
                f"{format_revision(target)}): use that version"
            )
        if found.revision < target:
            _await_workers(connection, found, target, on_wait)
            _upgrade_list(cluster, connection, found, target)
        result = _upgrade_jobs(cluster, connection)
        if found.revision < target:
            write_revision(connection, target)
            begin_upgrade(connection, ())
        return result


def _await_workers(
    connection: Any, found: Versions, target: Revision, on_wait: Callable[[str], object]
) -> None:
    """Wait until no older worker has a job open; they are asked not to take any."""
    if found.list == 1:
        return  # workers of that version know no such request
    begin_upgrade(connection, target)
    shown = ""
    try:
        while names := _list_busy(connection, target):
            if names != shown:
                on_wait(names)
            shown = names
            connection.execute(_LET_GO)
            time.sleep(_POLL_INTERVAL)
    except BaseException:
        begin_upgrade(connection, ())
        raise


def _list_busy(connection: Any, target: Revision) -> str:
    """Return the names of the older workers that give signs of life, and may have a job open."""
    workers = [one for one in list_workers(connection) if not (one.has_vanished or one.idle)]
    return ", ".join(one.name for one in workers if parse_revision(one.revision) < target)


def _upgrade_list(cluster: Cluster, connection: Any, found: Versions, target: Revision) -> None:
    """Upgrade the list of jobs and the engine; the records are still of the older version then."""
    from dicom_quarry.cluster.engine_schema import create_schema, upgrade_schema

    def upgrade_engine() -> None:
        if not create_schema(connection):
            upgrade_schema(connection, found.revision)
        records = found.revision[1:2] or (1,)
        write_revision(connection, (target[0], *records, *target[2:]))

    cluster.upgrade_list(connection, upgrade_engine)
    if found.list == 1:
        begin_upgrade(connection, target)


def _upgrade_jobs(cluster: Cluster, connection: Any) -> UpgradeResult:
    """Upgrade the records of the jobs on which nothing works."""
    count, others, left = 0, 0, []
    for job in cluster.list_all():
        schema = cluster.location(job.number).schema
        (has_record,) = connection.execute(_HAS_RECORD, {"schema": schema}).fetchone()
        if not has_record:
            others += has_record is None  # else nothing was extracted for it yet
            continue
        reason = _upgrade_job(cluster, connection, job)
        if reason:
            left.append(f"job:{job.name}: {reason}")
        else:
            count += 1
    return UpgradeResult(count, tuple(left), others)


def _upgrade_job(cluster: Cluster, connection: Any, job: JobRow) -> str:
    """Upgrade a record if it is an older one; return why that cannot be done now, empty if it is done."""
    location = cluster.location(job.number)
    try:
        with cluster.described():
            (version,) = connection.execute(
                f"SELECT max(version) FROM {location.schema}.schema_version"
            ).fetchone()
        if version >= schema_version():
            return ""
        with hold_job(connection, job.number) as is_held:
            reason = find_obstacle(connection, job.number) if is_held else "a process works on it"
            if not reason:
                upgrade_ledger(location)
            return reason
    except LedgerError as error:
        return str(error)
