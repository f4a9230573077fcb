"""The runner of the on-complete command counts every study that has been given to it."""

from __future__ import annotations

from concurrent.futures import Future
from pathlib import Path, PurePosixPath
from types import SimpleNamespace
from typing import cast

import pytest

from dicom_quarry.completion.on_complete import OnCompleteRunner
from dicom_quarry.config.archive_profile import ArchiveProfile
from dicom_quarry.config.settings import Settings
from dicom_quarry.extraction.job_context import JobContext
from dicom_quarry.jobs.audit_log import AuditFile
from dicom_quarry.jobs.local_place import create_local
from dicom_quarry.jobs.progress import StatusBoard
from dicom_quarry.ledger.ledger import Ledger
from dicom_quarry.ledger.on_complete_queue import OnCompleteQueue
from dicom_quarry.system.shutdown import Shutdown


def test_it_is_busy_until_the_last_study_is_in_the_ledger(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entries: list[Future[None]] = []

    def enqueue(_queue: OnCompleteQueue, _task_id: int) -> Future[None]:
        entries.append(Future())
        return entries[-1]

    monkeypatch.setattr(OnCompleteQueue, "enqueue", enqueue)
    archive = ArchiveProfile(name="main", address="PACS@127.0.0.1:104")
    settings = Settings(archives=(archive,), to=tmp_path / "out", on_complete="true")
    folder = create_local(settings.to, None)
    ledger = Ledger(folder.ledger)
    queries = SimpleNamespace(settings=settings, status_board=StatusBoard(), user_shutdown=Shutdown())
    with AuditFile(tmp_path / "audit.csv") as audit_log:
        context = SimpleNamespace(
            queries=queries,
            folder=folder,
            ledger=ledger,
            path_of=lambda *_: PurePosixPath(),
            audit_log=audit_log,
        )
        with OnCompleteRunner(cast(JobContext, context)) as runner:
            assert not runner.is_busy
            runner.enqueue(1)
            assert runner.is_busy
            entries[0].set_result(None)
            assert not runner.is_busy
    ledger.close()
