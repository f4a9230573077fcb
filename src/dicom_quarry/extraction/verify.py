"""Offline, and any time later: is every file that was recorded still there, byte for byte?"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from dicom_quarry.config import Settings
from dicom_quarry.extraction.folder import JobFolder
from dicom_quarry.extraction.job import deriver
from dicom_quarry.ledger.reading import Derive, Reader
from dicom_quarry.ledger.views import InstanceView
from dicom_quarry.store.template import Template

#: Files hashed at once: hashing releases the interpreter, and two keep a disk busy.
_THREADS = 2


@dataclass(frozen=True, slots=True)
class Checked:
    """A recorded file as it is found now; ``problem`` is empty where it is as it was, or went elsewhere."""

    instance: InstanceView
    problem: str


def derive_of(reader: Reader) -> Derive:
    """The paths of a job's instances, by the pattern that it was begun with."""
    settings = Settings.model_validate_json(reader.facts()["settings"])
    return deriver(Template.parse(settings.filepath, columns=reader.columns()))


def verify(folder: JobFolder, *, quick: bool = False) -> Iterator[Checked]:
    """Look at every recorded file: its size and SHA-256, or its size alone if ``quick``."""
    reader = Reader(folder.ledger)
    waiting: deque[Future[Checked]] = deque()
    try:
        with ThreadPoolExecutor(_THREADS) as pool:
            for instance in reader.instances(derive_of(reader)):
                waiting.append(pool.submit(check, folder.out, instance, quick))
                if len(waiting) > 8 * _THREADS:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
    finally:
        reader.close()


def check(root: Path, instance: InstanceView, quick: bool) -> Checked:
    """Look at one recorded file; one of a released study is not looked at."""
    if instance.released:
        return Checked(instance, "")
    path = root / instance.path
    try:
        size = path.stat().st_size
        if size != instance.size:
            return Checked(instance, f"has {size} bytes instead of {instance.size}")
        if not quick:
            with path.open("rb") as file:
                if hashlib.file_digest(file, "sha256").digest() != instance.digest:
                    return Checked(instance, "has another content than was recorded")
    except FileNotFoundError:
        return Checked(instance, "is missing")
    except OSError as error:
        return Checked(instance, f"cannot be read: {error.strerror}")
    return Checked(instance, "")
