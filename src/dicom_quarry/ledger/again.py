"""Studies that had ended well are taken up again, for what happened to their files or in their archive."""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import Connection, select

from dicom_quarry.ledger import statements as put
from dicom_quarry.ledger.ledger import Ledger, reopen_tasks
from dicom_quarry.ledger.schema import CONCLUDED, tasks


def concluded_tasks(ledger: Ledger, study_uid: str) -> list[int]:
    """The tasks of a study that have ended, and whose data did not go elsewhere."""
    mine = tasks.c.study_uid == study_uid, tasks.c.state == CONCLUDED, tasks.c.released_at.is_(None)
    query = select(tasks.c.id).where(*mine)
    return ledger.database.read(lambda c: list(c.scalars(query)))


def reopen_with_folders(ledger: Ledger, task_id: int, paths: Collection[str]) -> None:
    """Let a task wait again whose instances are in these folders: what is there need not be sent."""

    def work(connection: Connection) -> None:
        put.ADD_FOLDER.run_many(connection, [{"task_id": task_id, "path": path} for path in paths])
        reopen_tasks(connection, [task_id])

    ledger.database.write(work)
