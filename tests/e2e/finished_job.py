"""The folder of a finished job, made without an archive: by the ledger's own verbs, with real files."""

from __future__ import annotations

import csv
import hashlib
import random
import time
from pathlib import Path

from dicom_quarry.config.archive_profile import ArchiveProfile
from dicom_quarry.config.settings import Settings
from dicom_quarry.jobs import record
from dicom_quarry.jobs.instance_paths import make_path_function
from dicom_quarry.jobs.local_place import create_local
from dicom_quarry.ledger.instances import InstanceRow
from dicom_quarry.ledger.ledger import Ledger, TaskResult
from dicom_quarry.ledger.reader import PathFunction
from dicom_quarry.model import AE, InstanceInfo, InstanceRef, Selection, Study
from dicom_quarry.store.part10 import encode_file_head
from dicom_quarry.store.path_template import PathTemplate

_CLASS, _SYNTAX = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.1.2.1"
_SERIES = 25
_NOISE = random.Random(7).randbytes(1 << 20)


def record_job(
    out: Path,
    studies: int,
    files: int,
    *,
    smallest: int = 100,
    largest: int = 1000,
    state: Path | None = None,
) -> list[Path]:
    """So many studies of so many files, 25 in a series; the files, in the order of the record."""
    out.mkdir(parents=True, exist_ok=True)
    archive = ArchiveProfile(name="DEMO", address=AE("DEMO", "127.0.0.1", 4242))
    settings = Settings(archives=(archive,), to=out)
    known = [_study(number) for number in range(studies)]
    table = out / "cohort.csv"
    with table.open("w", newline="") as stream:
        csv.writer(stream).writerows([["Accession"], *([study.accession] for study in known)])
    ledger = Ledger(create_local(out, None).ledger)
    derive = make_path_function(PathTemplate.parse(settings.filepath))
    chance, paths = random.Random(6), []
    try:
        record.begin_or_continue(ledger, record.read_cohort(table, settings)[0], settings, update=False)
        for study in known:
            sizes = [chance.randint(smallest, largest) for _ in range(files)]
            rows = [_instance(study, number, size) for number, size in enumerate(sizes)]
            paths += [_write(out, study, row, derive) for row in rows]
            _conclude(ledger, study, rows)
    finally:
        ledger.close()
    return paths


def _study(number: int) -> Study:
    return Study(f"2.25.{10**38 + number}", f"P{number // 2:08d}", f"A{number:08d}", "20180723", "CT")


def _instance(study: Study, number: int, size: int) -> InstanceRow:
    series_uid = f"{study.study_uid}.{10 + number // _SERIES}"
    ref = InstanceRef(study.study_uid, series_uid, f"{series_uid}.{100000 + number}", _CLASS)
    data = _content(ref, size)
    return InstanceRow(ref, True, _SYNTAX, len(data), hashlib.sha256(data).digest())


def _content(ref: InstanceRef, size: int) -> bytes:
    head = encode_file_head(InstanceInfo(_CLASS, ref.sop_uid, _SYNTAX))
    start = hash(ref) % (len(_NOISE) - size)
    return head + _NOISE[start : start + size]


def _write(out: Path, study: Study, row: InstanceRow, derive: PathFunction) -> Path:
    path = out / derive(study, row.ref)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    head = len(encode_file_head(InstanceInfo(_CLASS, row.ref.sop_uid, _SYNTAX)))
    path.write_bytes(_content(row.ref, (row.size or 0) - head))
    return path


def _conclude(ledger: Ledger, study: Study, rows: list[InstanceRow]) -> None:
    [request] = ledger.waiting_requests(1)
    ledger.resolve_request(request, "DEMO", [(study, Selection())]).result()
    task = ledger.task_of(study.study_uid)
    assert task is not None
    size, number = sum(row.size or 0 for row in rows), len(rows)
    end = TaskResult("all_listed_stored", {"instances": number}, number, number, size, "", time.time(), rows)
    ledger.conclude_task(task.task_id, end).result()
