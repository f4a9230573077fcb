"""The record of a large job that ran for several nights, made without an archive."""

from __future__ import annotations

import json
import random
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy import Connection, insert, update

from dicom_quarry.config.archive_profile import ArchiveProfile
from dicom_quarry.config.settings import Settings
from dicom_quarry.jobs import record
from dicom_quarry.jobs.local_place import create_local
from dicom_quarry.ledger.ledger import Ledger
from dicom_quarry.ledger.schema import attempts, job, postponements, queries, request_tasks, requests, tasks
from dicom_quarry.model import AE, RequestState, TaskState

ZONE = ZoneInfo("America/New_York")
_BEGAN = datetime(2026, 11, 2, 19, tzinfo=ZONE)

#: Modalities with their share of the studies, the usual number of images, and the bytes of one.
_MODALITIES = (
    ("CT", 46, 310, 530_000),
    ("MR", 24, 640, 200_000),
    ("CR", 12, 2, 8_000_000),
    ("DX\\SR", 9, 3, 9_000_000),
    ("US", 6, 42, 900_000),
    ("PT\\CT", 3, 820, 180_000),
)

#: Codes of a thousand rows that are not complete; ``None`` details end the row without a study.
_CODES: tuple[tuple[str, int, dict[str, object], bool], ...] = (
    ("study_not_found", 31, {"keys": "accession"}, False),
    ("near_miss", 6, {"keys": "accession", "hint": "patient P1 has the accession 1"}, False),
    ("several_patients", 7, {"keys": "accession", "patients": 2}, False),
    ("query_failed", 1, {"status": "0xA700"}, False),
    ("row_excluded", 9, {"keys": "patient ID"}, False),
    ("no_series_wanted", 14, {"studies": 1}, False),
    ("instances_missing", 8, {"missing": 3, "expected": 40, "why": ""}, True),
    ("count_disagrees", 3, {"stored": 40, "count": 41}, True),
    ("no_instances_listed", 2, {}, True),
    ("archive_refused", 3, {"status": "0xA702: unable to perform sub-operations"}, True),
    ("stored_differs", 1, {"keys": "patient ID"}, True),
)


def record_cohort(out: Path, rows: int, *, unusable: int = 0, marker: str = "") -> Settings:
    """Record a job of so many rows; ``marker`` is in every cell, and in every text of the archive."""
    out.mkdir(parents=True, exist_ok=True)
    archive = ArchiveProfile(
        name="main", address=AE("PACS", "10.1.2.3", 104), window="19:00-07:00", time_zone="America/New_York"
    )
    settings = Settings(archives=(archive,), to=out, skip_bad_rows=True, protocol="IRB-2026-014", parallel=2)
    table = out / f"{marker or 'cohort'}.csv"
    with table.open("w") as file:
        file.write("EMPI,Accession,Note\n")
        for row in range(1, rows + 1):
            accession = "" if row <= unusable else f"{marker}{951381800000 + row}"
            file.write(f"{marker}{4711 + row // 2:07d},{accession},{marker}follow-up {row % 7}\n")
    table.rename(out.parent / table.name)
    ledger = Ledger(create_local(out, None).ledger)
    try:
        cohort = record.read_cohort(out.parent / table.name, settings)[0]
        record.begin_or_continue(ledger, cohort, settings, update=False)
        ledger.database.write(lambda connection: _fill(connection, range(unusable + 1, rows + 1), marker))
    finally:
        ledger.close()
    return settings


def _fill(connection: Connection, rows: range, marker: str) -> None:
    chance = random.Random(17)
    nights = _Nights()
    codes = [code for code, weight, _, _ in _CODES for _ in range(weight)]
    found: dict[str, list[dict[str, object]]] = {
        name: [] for name in ("tasks", "links", "queries", "attempts")
    }
    ended: list[dict[str, object]] = []
    for row in rows:
        at = chance.randrange(1000)
        code = codes[at] if at < len(codes) else "all_listed_stored"
        now = nights.next()
        details, has_study = next(
            ((more, study) for name, _, more, study in _CODES if name == code), ({}, True)
        )
        found["queries"].append(_query(row, now, failed=code == "query_failed", marker=marker))
        if not has_study:
            ended.append({"at": row, "code": code, "details": json.dumps(details)})
            continue
        study = _study(chance, row, code, details, marker)
        found["tasks"].append({**study, "proved_at": now if code == "all_listed_stored" else None})
        found["links"].append({"row": row, "task_id": row})
        found["attempts"].append(_attempt(row, now, nights.retrieve(now, study["size"]), study, code))
    for table, name in (
        (tasks, "tasks"),
        (request_tasks, "links"),
        (queries, "queries"),
        (attempts, "attempts"),
    ):
        if found[name]:
            connection.execute(insert(table), found[name])
    _end_rows(connection, ended)
    waited = [
        {"task_id": one["id"], "at": _BEGAN.timestamp(), "until": _BEGAN.timestamp() + 5400, "why": marker}
        for one in found["tasks"][:9]
    ]
    connection.execute(insert(postponements), waited)
    connection.execute(update(job).where(job.c.name == "created").values(value=_BEGAN.isoformat()))


def _end_rows(connection: Connection, ended: list[dict[str, object]]) -> None:
    connection.execute(
        update(requests).where(requests.c.state == RequestState.WAITING).values(state=RequestState.RESOLVED)
    )
    for one in ended:
        values = {"state": RequestState.CONCLUDED, "code": one["code"], "details": one["details"]}
        connection.execute(update(requests).where(requests.c.row == one["at"]).values(**values))


class _Nights:
    """Two retrievals at once, in the hours of the window; the archive is slower before midnight."""

    def __init__(self) -> None:
        self._free = [_BEGAN.timestamp(), _BEGAN.timestamp() + 1]

    def next(self) -> float:
        """Return the POSIX time at which the next retrieval can begin."""
        now = datetime.fromtimestamp(min(self._free), ZONE)
        if 7 <= now.hour < 19:
            now = now.replace(hour=19, minute=0, second=0)
        return now.timestamp()

    def retrieve(self, began: float, size: int) -> float:
        """Return the POSIX time at which a retrieval ends."""
        rate = 14e6 if datetime.fromtimestamp(began, ZONE).hour >= 19 else 36e6
        self._free.remove(min(self._free))
        self._free.append(began + 0.3 + size / rate)
        return self._free[-1]


def _study(
    chance: random.Random, row: int, code: str, details: dict[str, object], marker: str
) -> dict[str, Any]:
    weights = [share for _, share, _, _ in _MODALITIES]
    [(modality, _, usual, size)] = chance.choices(_MODALITIES, weights)
    expected = max(1, round(usual * chance.lognormvariate(0, 0.6)))
    if code == "all_listed_stored":
        details = {"instances": expected}
    stored = {"instances_missing": max(0, expected - 3), "no_instances_listed": 0, "archive_refused": 0}.get(
        code, expected
    )
    return {
        "id": row,
        "archive": "main",
        "study_uid": f"2.25.{10**30 + row}",
        "patient_id": f"{marker}{row}",
        "accession": f"{marker}{row}",
        "study_date": f"{chance.choices(range(2014, 2026), range(1, 13))[0]}0723",
        "modalities": f"{modality}\\{marker}" if marker and row % 5 == 0 else modality,
        "description": f"{marker}HEAD",
        "state": TaskState.CONCLUDED,
        "code": code,
        "details": json.dumps({**details, **({"why": marker} if marker and "why" in details else {})}),
        "expected": 0 if code == "no_instances_listed" else expected,
        "stored": stored,
        "size": round(stored * size * chance.uniform(0.8, 1.25)),
        "folder": f"{marker}{row}/2.25.{row}" if stored else "",
    }


def _query(row: int, now: float, *, failed: bool, marker: str) -> dict[str, object]:
    return {
        "row": row,
        "task_id": None,
        "archive": "main",
        "model": "study",
        "purpose": "row",
        "level": "STUDY",
        "keys": "AccessionNumber",
        "started": round(now * 1000),
        "duration": 60 + row % 180,
        "request_count": 1,
        "result_count": None if failed else 1,
        "status": 0xA700 if failed else None,
        "why": marker,
    }


def _attempt(row: int, now: float, ended: float, study: dict[str, Any], code: str) -> dict[str, object]:
    return {
        "task_id": row,
        "round": 1,
        "started": now + 0.2,
        "ended": ended,
        "transport": "move",
        "level": "STUDY",
        "requested": study["expected"],
        "newly_stored": study["stored"],
        "verdict": "retry" if code == "archive_refused" else "success",
        "status": None,
        "comment": "",
    }
