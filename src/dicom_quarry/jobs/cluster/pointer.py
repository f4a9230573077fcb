"""The name of a job in a database, and the file by which its folder names it."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

from dicom_quarry.errors import ConfigError, InputError
from dicom_quarry.jobs.cluster.database import Cluster
from dicom_quarry.jobs.folder import JOB_FILE
from dicom_quarry.system.atomic_file import atomic_write_text

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


@dataclass(frozen=True, slots=True)
class Pointer:
    """The job that a folder belongs to."""

    name: str
    cluster: Cluster


def check_job_name(name: str) -> None:
    """Raise ConfigError for a text that cannot name a job."""
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"--job: {name!r} cannot be the name of a job. Use letters, digits, '.', '_' and '-', beginning "
            "with a letter or a digit, 63 characters at most"
        )


def read_pointer(out: Path) -> Pointer | None:
    """Return the job of a folder, None if the folder has no job in a database; raise InputError."""
    path = out / ".quarry" / JOB_FILE
    try:
        text = path.read_text(encoding="utf-8") if path.is_file() else None
        if text is None:
            return None
        data = json.loads(text)
        file = data["password_file"]
        return Pointer(str(data["job"]), Cluster(str(data["ledger"]), None if file is None else Path(file)))
    except PermissionError:
        raise InputError(
            f"{out} has a job of another user of the system: type the command as that user"
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path} cannot be read ({error}): it should name the job of this folder and its database"
        ) from None


def write_pointer(state: Path, pointer: Pointer) -> None:
    """Write the file that names the job of a folder, into its state folder."""
    cluster, file = pointer.cluster, pointer.cluster.password_file
    with atomic_write_text(state / JOB_FILE) as stream:
        data = {"job": pointer.name, "ledger": cluster.url, "password_file": file and str(file)}
        json.dump(data, stream)
