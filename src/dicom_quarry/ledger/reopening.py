"""Changes of the record of a job whose options have changed."""

from __future__ import annotations

import json
from collections.abc import Sequence

from sqlalchemy import Connection, bindparam, exists, select, update

from dicom_quarry.ledger.database import Database
from dicom_quarry.ledger.schema import request_tasks, requests, tasks
from dicom_quarry.model import RequestState


def has_studies(database: Database) -> bool:
    """Return True if a row of the job has a study."""
    return database.read(lambda c: bool(c.scalar(select(exists().select_from(request_tasks)))))


def reopen_rows_with_few_studies(database: Database, limit: int) -> int:
    """Let rows with too many studies wait again if ``limit`` allows their number; return their number."""
    ended = requests.c.state == RequestState.CONCLUDED, requests.c.code == "too_many_studies"
    waiting = update(requests).where(requests.c.row == bindparam("this"))
    reopened = waiting.values(state=RequestState.WAITING, code=None, details=None)

    def work(connection: Connection) -> int:
        found = connection.execute(select(requests.c.row, requests.c.details).where(*ended))
        few = [{"this": row} for row, details in found if json.loads(details)["studies"] <= limit]
        if few:
            connection.execute(reopened, few)
        return len(few)

    return database.write(work)


def rename_archives(database: Database, names: Sequence[tuple[str, str]]) -> None:
    """Rename archives: pairs of the old and the new name, all at once, so that two can swap their names."""
    if not names:
        return

    def work(connection: Connection) -> None:
        for old, _ in names:
            connection.execute(update(tasks).where(tasks.c.archive == old).values(archive=f"\n{old}"))
        for old, new in names:
            connection.execute(update(tasks).where(tasks.c.archive == f"\n{old}").values(archive=new))

    database.write(work)
