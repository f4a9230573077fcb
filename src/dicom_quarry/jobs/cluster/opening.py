"""Open the place of a job in a database: by its name, by its folder, or for a first run."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from pathlib import Path

from dicom_quarry.config.cluster import ClusterSettings
from dicom_quarry.config.settings import Settings
from dicom_quarry.config.toml_file import FILE_NAME, read_toml, validate_table
from dicom_quarry.errors import ConfigError, InputError
from dicom_quarry.jobs.cluster.actions import list_actions
from dicom_quarry.jobs.cluster.database import Cluster, JobRow
from dicom_quarry.jobs.cluster.place import ClusterPlace
from dicom_quarry.jobs.cluster.pointer import Pointer, check_job_name, read_pointer, write_pointer
from dicom_quarry.jobs.cluster.workers import list_roots
from dicom_quarry.jobs.folder import JOB_FILE, JobFolder, require_own_state
from dicom_quarry.jobs.local_place import has_record, reject_unreadable_name
from dicom_quarry.jobs.registry import list_registered
from dicom_quarry.ledger.reader import has_job
from dicom_quarry.system.ownership import is_own_folder
from dicom_quarry.system.permissions import make_private_folder

_WHICH_DATABASE = 'write [cluster] ledger = "postgresql://USER@HOST/DATABASE" to quarry.toml'


def configured_cluster(path: Path = Path(FILE_NAME)) -> Cluster | None:
    """Return the database of jobs of a settings file, None if it names none; raise ConfigError."""
    return _find_cluster(read_toml(path) if path.is_file() else {}, path)


def _find_cluster(table: Mapping[str, object], path: Path) -> Cluster | None:
    settings = validate_table(ClusterSettings, table.get("cluster", {}), path, "cluster")
    return Cluster.of(settings) if settings.ledger else None


def open_named(name: str) -> ClusterPlace:
    """Return the place of the job with a name; raise InputError if there is none, and LedgerError."""
    check_job_name(name)
    cluster = configured_cluster() or _find_registered_cluster(name)
    if cluster is None:
        raise InputError(
            f"which database has job:{name}? To name it, {_WHICH_DATABASE} in the current folder"
        )
    return _open(cluster, name, None)


def choose_folder(name: str, config: Path | None, *, trust_owner: bool) -> Path | None:
    """Return the folder of the job with a name, or for a new one a folder below the root of the workers.

    None where the settings name a folder, without a database, or without workers that give signs of life.
    ``trust_owner`` is as in :func:`load_settings`. Raises ConfigError if the workers have several roots,
    InputError and LedgerError.
    """
    check_job_name(name)
    path = config or Path(FILE_NAME)
    table = read_toml(path, accept_commands=trust_owner) if path.is_file() else {}
    cluster = _find_cluster(table, path)
    if cluster is None or "to" in table:
        return None
    if (job := cluster.find(name)) is not None:
        return job.folder
    with cluster.connected() as connection:
        roots = list_roots(connection)
    if len(roots) > 1:
        raise ConfigError(
            f"which output folder? Give one with --to, below a root of the workers: {', '.join(roots)}"
        )
    return Path(roots[0], name) if roots else None


def open_by_folder(out: Path) -> ClusterPlace:
    """Return the place of the job that a folder names; raise InputError and LedgerError."""
    pointer = read_pointer(out)
    assert pointer is not None
    configured = configured_cluster()
    if configured is not None and configured.database == pointer.cluster.database:
        return _open(configured, pointer.name, out)
    # A folder of another user must not send this user's password to a server of theirs.
    if not is_own_folder(out / ".quarry"):
        raise InputError(
            f"{out} is the folder of job:{pointer.name}, and of another user. To use it, {_WHICH_DATABASE}"
        )
    return _open(pointer.cluster, pointer.name, out)


def create_named(settings: Settings) -> ClusterPlace:
    """Make a job, its folder and its row in the list; or return the one that an earlier run made.

    Raises InputError if the folder, or the name, is that of another job, and NotOwned for a folder of another
    user, unless the settings trust it.
    """
    name, out = settings.job or "", settings.to.resolve()
    cluster = _check_settings(settings, name)
    folder = JobFolder(out, out / ".quarry")
    reject_unreadable_name(out)
    require_own_state(folder, trust_owner=settings.trust_owner)
    job = _find_job_of_folder(cluster, name, out)
    try:
        for path in (out, folder.state, folder.incoming):
            make_private_folder(path)
    except OSError as error:
        raise InputError(f"{error.filename} cannot be used: {error.strerror}") from error
    require_own_state(folder, trust_owner=settings.trust_owner)
    place = ClusterPlace(out, folder.state, cluster, job or cluster.add(name, out))
    if place.job.folder != out:
        raise InputError(_describe_elsewhere(place.job))
    write_pointer(folder.state, Pointer(place.job.name, cluster))
    return place


def _find_job_of_folder(cluster: Cluster, name: str, out: Path) -> JobRow | None:
    """Return the job with a name, None if there is none; raise InputError if name and folder do not match."""
    if has_record(out):
        raise InputError(
            f"{out} has the record of a job: leave --job out to go on with that one, or give another folder"
        )
    pointer = read_pointer(out)
    if pointer is not None and pointer.name != name:
        raise InputError(f"{out} is the folder of job:{pointer.name}: give another folder for job:{name}")
    job = cluster.find(name)
    if pointer is not None and job is None and pointer.cluster.database == cluster.database:
        raise InputError(_describe_removed(out, name, cluster))
    if pointer is not None and job is None:
        raise InputError(
            f"{out} is the folder of job:{name} in the database {pointer.cluster.url}, and {cluster.url} has "
            "no job of that name: give that database, or another folder"
        )
    if job is not None and (job.folder, job.host) != (out, socket.gethostname()):
        return _find_again(cluster, job, out, is_named=pointer is not None)
    return job


def list_places() -> list[ClusterPlace]:
    """Return the places of the jobs in the database of ./quarry.toml that have begun, none without one.

    Raises InputError and LedgerError.
    """
    cluster = configured_cluster()
    if cluster is None:
        return []
    places = [ClusterPlace(job.folder, job.folder / ".quarry", cluster, job) for job in cluster.list_begun()]
    return [place for place in places if has_job(place.ledger)]


def _check_settings(settings: Settings, name: str) -> Cluster:
    check_job_name(name)
    if settings.state is not None:
        raise ConfigError("--state does not go with --job: the record of the job is in the database")
    if not settings.cluster.ledger:
        raise ConfigError(f"--job: which database? To name it, {_WHICH_DATABASE}")
    return Cluster.of(settings.cluster)


def _find_again(cluster: Cluster, job: JobRow, out: Path, *, is_named: bool) -> JobRow:
    """Return the job if its folder was moved, or is mounted here; ``is_named``: ``out`` names the job."""
    was_moved = job.folder == out or not job.folder.exists()
    if not is_named or not was_moved:
        raise InputError(_describe_elsewhere(job))
    cluster.move(job.number, out)
    return cluster.find(job.name) or job


def _describe_elsewhere(job: JobRow) -> str:
    return (
        f"job:{job.name} extracts to {job.folder} of the computer {job.host}: give that folder with --to "
        "there, or another name"
    )


def _describe_removed(out: Path, name: str, cluster: Cluster) -> str:
    """Return what became of the job that a folder still names."""
    with cluster.connected() as connection:
        actions = [one for one in list_actions(connection, name) if one.action == "removed"]
    by = f": {actions[-1].person} removed it on {actions[-1].at.astimezone():%Y-%m-%d}" if actions else ""
    return (
        f"{out} was the folder of job:{name}, which is not in {cluster.url} any more{by}. Its images and "
        f"reports are as they were. To use the folder for another job, delete {out / '.quarry' / JOB_FILE}"
    )


def _open(cluster: Cluster, name: str, out: Path | None) -> ClusterPlace:
    job = cluster.find(name)
    if job is None and out is not None:
        raise InputError(_describe_removed(out, name, cluster))
    if job is None:
        raise InputError(f"{cluster.url} has no job:{name}: quarry list shows the jobs")
    folder = out or job.folder
    place = ClusterPlace(folder, folder / ".quarry", cluster, job)
    if not has_job(place.ledger):
        raise InputError(
            f"job:{name} has no record that you may read: nothing was extracted for it yet, or it is another "
            "user's"
        )
    return place


def _find_registered_cluster(name: str) -> Cluster | None:
    """Return the database of a job that this user has run on this computer."""
    for out in list_registered():
        if is_own_folder(out / ".quarry") and (pointer := read_pointer(out)) and pointer.name == name:
            return pointer.cluster
    return None
