"""Studies that are fetched again since verify found something: their damaged files are moved aside first."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from dicom_quarry.errors import InputError
from dicom_quarry.jobs.folder import JobFolder
from dicom_quarry.jobs.instance_paths import derive_of
from dicom_quarry.ledger.again import again, concluded
from dicom_quarry.ledger.ledger import Ledger
from dicom_quarry.ledger.stored_files import StoredFile, StoredReader
from dicom_quarry.store.directories import Directories
from dicom_quarry.store.hash_worker import Batch
from dicom_quarry.verification.hash_pool import Checkers, default_threads


@dataclass(frozen=True, slots=True)
class Aside:
    """What was taken up again: so many studies, of which these instances were damaged or missing."""

    studies: int
    damaged: frozenset[str]


def studies_in(path: Path, codes: frozenset[str], how: str) -> list[str]:
    """The Study Instance UIDs in a list that verify has left, of lines with these codes; each once.

    Raises InputError where there is no such list; ``how`` is what makes one.
    """
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            lines = csv.DictReader(stream)
            return list(dict.fromkeys(line["study_uid"] for line in lines if line["code"] in codes))
    except FileNotFoundError:
        raise InputError(f"there is no {path}: make it with  {how}") from None
    except (KeyError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} is not as it was written ({error}): make it again with  {how}") from None


def put_aside(folder: JobFolder, ledger: Ledger, study_uids: list[str]) -> Aside:
    """Take up these studies; every file of theirs that is not as recorded goes to ``.quarry/damaged``.

    All of their files are compared, also such as no list names: whatever lies in the folder of a task in work
    is taken for what the archive sent.
    """
    numbers = [number for study_uid in study_uids for number in concluded(ledger, study_uid)]
    root, damaged = os.fspath(folder.out), set()

    def batch(files: list[StoredFile]) -> Batch:
        return root, False, [file[:3] for file in files]

    with closing(StoredReader(folder.ledger)) as reader, Checkers(default_threads()) as checkers:
        derive = derive_of(reader)
        for files, problems in checkers.check((reader.files_of(derive, one) for one in numbers), batch):
            for at, (code, _) in problems.items():
                damaged.add(files[at].sop_uid)
                if code != "missing":
                    _move(folder.out, files[at].path)
            for number in {file.task_id for file in files}:
                again(ledger, number, {os.path.dirname(file.path) for file in files})  # noqa: PTH120
    return Aside(len(numbers), frozenset(damaged))


def _move(root: Path, path: str) -> None:
    aside = Directories(root / ".quarry" / "damaged")
    place = Path(aside.make(PurePosixPath(path).parent), PurePosixPath(path).name)
    (root / path).rename(next(one for one in _versions(place) if not one.exists()))


def _versions(place: Path) -> Iterator[Path]:
    """Where it can be: beside one of the same name that was moved there before."""
    yield place
    number = 2
    while True:
        yield place.with_name(f"{place.name}~{number}")
        number += 1


def came_again(folder: JobFolder, aside: Aside, study_uids: list[str]) -> int:
    """Of the damaged and missing instances those that are stored now."""
    with closing(StoredReader(folder.ledger)) as reader:
        return sum(reader.stored_of(study_uid, aside.damaged) for study_uid in study_uids)
