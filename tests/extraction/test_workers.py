"""The threads of a job, with a ledger and no archive."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from dicom_quarry.extraction.engine import Workers
from dicom_quarry.extraction.internal_error_guard import InternalErrorGuard, RowGuard
from dicom_quarry.extraction.job_context import JobContext
from dicom_quarry.extraction.worker import Worker
from dicom_quarry.ledger.ledger import Ledger
from dicom_quarry.model import Request
from dicom_quarry.receiver.stats import ReceiverStats
from dicom_quarry.system.shutdown import Shutdown
from tests.ledger.helpers import begin, request


class _Unlucky(Workers):
    """All rows that are out are settled just before it is looked whether there is anything to wait for."""

    def _wait_for_change(self) -> bool:
        while self._open_rows:
            pass
        return super()._wait_for_change()


@pytest.mark.parametrize("parallel", [1, 4])
def test_no_row_is_left_when_all_that_are_asked_about_are_settled_at_once(
    tmp_path: Path, parallel: int
) -> None:
    ledger = Ledger(tmp_path / "ledger.db")
    begin(ledger, [request(row, f"A{row}") for row in range(1, 301)])
    asked: list[int] = []

    def resolve(one: Request) -> Future[int]:
        asked.append(one.row)
        return ledger.conclude_request(one, "study_not_found")

    stop = Shutdown()
    tools = cast(JobContext, SimpleNamespace(ledger=ledger, queries=SimpleNamespace(shutdown=stop)))
    worker = Worker({}, ReceiverStats, ThreadPoolExecutor(1))
    guard = InternalErrorGuard("studies", print)
    workers = _Unlucky(tools, worker, RowGuard(resolve, ledger, print), guard, parallel=parallel)
    workers.start()
    workers.wait()
    workers.join(0.0)
    assert sorted(asked) == list(range(1, 301))
    ledger.close()
