"""Instances in the ledger. UIDs that repeat are stored once; the instances refer to them by number."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from sqlalchemy import ColumnElement, Connection, and_, delete, func, select

from dicom_quarry.ledger import statements as put
from dicom_quarry.ledger.compiled_statement import new_id
from dicom_quarry.ledger.schema import instances, series, tasks, uids
from dicom_quarry.model import InstanceRef


@dataclass(frozen=True, slots=True)
class InstanceRow:
    """An instance that is expected, stored, or both; the ``digest`` of a missing one is None.

    ``path`` is relative to the output folder; None means the path that the template gives.
    """

    ref: InstanceRef
    listed: bool
    transfer_syntax: str = ""
    size: int | None = None
    digest: bytes | None = None
    path: str | None = None


#: The numbers of SOP Class and Transfer Syntax UIDs in a ledger; none is removed, or given again.
UidNumbers = dict[str, int | None]


def replace_instances(
    connection: Connection, task_id: int, rows: Sequence[InstanceRow], known: UidNumbers
) -> UidNumbers:
    """Replace the instances of a task; return the numbers that were not ``known``, once this is committed."""
    put.DELETE_INSTANCES.run(connection, task_id=task_id)
    return _insert(connection, task_id, rows, known)


def stored_totals(connection: Connection, task_id: int) -> tuple[int, int, int]:
    """Return the number of stored instances of a task, their bytes, and the number of unlisted ones."""
    mine = instances.c.task_id == task_id
    stored = select(func.count(), func.coalesce(func.sum(instances.c.size), 0))
    count, size = connection.execute(stored.where(mine, instances.c.digest.is_not(None))).one()
    unlisted = select(func.count()).where(mine, instances.c.digest.is_not(None), instances.c.listed == 0)
    return count, size, connection.scalar(unlisted) or 0


def instances_of(
    connection: Connection, task_id: int, *conditions: ColumnElement[bool], limit: int
) -> Iterator[InstanceRef]:
    """Yield the first instances of a task that meet the conditions, by series."""
    mine = select(tasks.c.study_uid, series.c.series_uid, instances.c.sop_uid, uids.c.uid).where(
        instances.c.task_id == task_id, *conditions
    )
    query = (
        mine.join_from(instances, tasks, tasks.c.id == instances.c.task_id)
        .join(series, series.c.id == instances.c.series_id)
        .outerjoin(uids, uids.c.id == instances.c.class_id)
        .order_by(instances.c.series_id, instances.c.sop_uid)
    )
    for study_uid, series_uid, sop_uid, sop_class in connection.execute(query.limit(limit)):
        yield InstanceRef(study_uid, series_uid, sop_uid, sop_class or "")


def add_instance(connection: Connection, task_id: int, row: InstanceRow) -> bool:
    """Record one more stored instance of a task; return False if it was recorded as stored before."""
    known = and_(instances.c.task_id == task_id, instances.c.sop_uid == row.ref.sop_uid)
    before = connection.execute(select(instances.c.listed, instances.c.digest).where(known)).first()
    if before is not None and before.digest is not None:
        return False
    connection.execute(delete(instances).where(known))
    _insert(connection, task_id, [replace(row, listed=before is not None and bool(before.listed))], {})
    return True


def _insert(
    connection: Connection, task_id: int, rows: Sequence[InstanceRow], known: UidNumbers
) -> UidNumbers:
    # The INSERT first for series, as nearly all are new; the SELECT for the few different UIDs. All are run
    # before a result is looked at: with a server each look is a wait.
    uids_of_series = {row.ref.series_uid for row in rows}
    added = {uid: put.ADD_SERIES.run(connection, task_id=task_id, series_uid=uid) for uid in uids_of_series}
    named = {uid for row in rows for uid in (row.ref.sop_class, row.transfer_syntax) if uid}
    found = {uid: put.UID_NUMBER.find(connection, uid=uid) for uid in named - known.keys()}
    series_ids = {uid: new_id(one) or _series_id(connection, task_id, uid) for uid, one in added.items()}
    new = {uid: _first(one) or new_id(put.ADD_UID.run(connection, uid=uid)) for uid, one in found.items()}
    numbers = {**known, **new}
    put.ADD_INSTANCE.run_many(
        connection,
        [
            {
                "task_id": task_id,
                "sop_uid": row.ref.sop_uid,
                "series_id": series_ids[row.ref.series_uid],
                "class_id": numbers.get(row.ref.sop_class),
                "syntax_id": numbers.get(row.transfer_syntax),
                "size": row.size,
                "digest": row.digest,
                "path": row.path,
                "listed": int(row.listed),
            }
            for row in rows
        ],
    )
    return new


def _series_id(connection: Connection, task_id: int, series_uid: str) -> int | None:
    return _first(put.SERIES_ID.find(connection, task_id=task_id, series_uid=series_uid))


def _first(rows: Iterable[tuple[int]]) -> int | None:
    return next((number for (number,) in rows), None)
