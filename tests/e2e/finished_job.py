"""The folder of a finished job, made without an archive: by the ledger's own verbs, with real files."""

from __future__ import annotations

import csv
import hashlib
import random
import time
from pathlib import Path

from dicom_quarry.config.settings import ArchiveProfile, Settings
from dicom_quarry.jobs import record
from dicom_quarry.jobs.folder import prepare
from dicom_quarry.jobs.instance_paths import deriver, template_of
from dicom_quarry.ledger.instances import InstanceRow
from dicom_quarry.ledger.ledger import Ledger, TaskEnd
from dicom_quarry.ledger.reader import Derive
from dicom_quarry.model import AE, Arrival, InstanceRef, Selection, Study
from dicom_quarry.store.part10 import file_head

_CLASS, _SYNTAX = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.1.2.1"
_SERIES = 25
_NOISE = random.Random(7).randbytes(1 << 20)


def record(
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
    ledger = Ledger(prepare(out, None).ledger)
    derive = deriver(template_of(settings.filepath, ("Accession",)))
    chance, paths = random.Random(6), []
    try:
        record.enter(ledger, record.read(table, settings)[0], settings, update=False)
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
    head = file_head(Arrival(_CLASS, ref.sop_uid, _SYNTAX))
    start = hash(ref) % (len(_NOISE) - size)
    return head + _NOISE[start : start + size]


def _write(out: Path, study: Study, row: InstanceRow, derive: Derive) -> Path:
    path = out / derive(study, row.ref)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    head = len(file_head(Arrival(_CLASS, row.ref.sop_uid, _SYNTAX)))
    path.write_bytes(_content(row.ref, (row.size or 0) - head))
    return path


def _conclude(ledger: Ledger, study: Study, rows: list[InstanceRow]) -> None:
    [request] = ledger.waiting_requests(1)
    ledger.resolve(request, "DEMO", [(study, Selection())]).result()
    task = ledger.task_of(study.study_uid)
    assert task is not None
    size, number = sum(row.size or 0 for row in rows), len(rows)
    end = TaskEnd("all_listed_stored", {"instances": number}, number, number, size, "", time.time(), rows)
    ledger.conclude(task.task_id, end).result()
