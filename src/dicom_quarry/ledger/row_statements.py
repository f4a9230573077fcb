"""The statements that read rows of the user's table, each with the tasks that it requests."""

from __future__ import annotations

from functools import cache

from sqlalchemy import ColumnElement, and_, bindparam, case, exists, func, literal, or_, select

from dicom_quarry.ledger.compiled_statement import CompiledStatement
from dicom_quarry.ledger.schema import request_tasks, requests, tasks
from dicom_quarry.model import OutcomeStatus, TaskState
from dicom_quarry.outcomes import codes_of

_first_row = (
    select(func.min(request_tasks.c.row))
    .where(request_tasks.c.task_id == tasks.c.id)
    .correlate(tasks)
    .scalar_subquery()
)
_rows = (
    select(
        requests.c.row,
        requests.c.line,
        requests.c.cells,
        requests.c.same_as,
        requests.c.note,
        requests.c.code.label("row_code"),
        requests.c.details.label("row_details"),
        _first_row.label("first_row"),
        *tasks.c,
    )
    .select_from(requests)
    .outerjoin(request_tasks, request_tasks.c.row == requests.c.row)
    .outerjoin(tasks, tasks.c.id == request_tasks.c.task_id)
)
_in_order = _rows.order_by(requests.c.row, tasks.c.id)

#: Every row with the tasks that it requests; the same with the keys of the row; and one row.
ROWS_WITH_TASKS = CompiledStatement(_in_order)
ROWS_WITH_KEYS = CompiledStatement(_in_order.add_columns(requests.c["keys"].label("row_keys")))
ROW = CompiledStatement(_in_order.where(requests.c.row == bindparam("only")))


@cache
def page_statement(status: OutcomeStatus | None, *, backwards: bool = False) -> CompiledStatement:
    """Return the statement for the rows behind the row ``edge``, or backwards those in front of it.

    With a status these are the rows that may have it: another task of the row may be worse.
    """
    row = requests.c.row
    edge = row < bindparam("edge") if backwards else row > bindparam("edge")
    statement = _rows.where(edge).order_by(row.desc() if backwards else row, tasks.c.id)
    return CompiledStatement(statement if status is None else statement.where(_may_be(status)))


def _may_be(status: OutcomeStatus) -> ColumnElement[bool]:
    codes = [literal(code) for code in sorted(codes_of({status}))]
    linked = request_tasks.alias("linked")
    task = tasks.alias("linked_task")
    code = case((task.c.state == TaskState.CONCLUDED, task.c.code), else_="pending")
    of_task = linked.c.row == requests.c.row
    has_task = exists().where(of_task)
    has_such_task = exists().where(and_(of_task, task.c.id == linked.c.task_id, code.in_(codes)))
    return or_(has_such_task, and_(~has_task, func.coalesce(requests.c.code, "pending").in_(codes)))
