"""Archives that merge answers into one if their query requests counts: a fact of the job, for its workers.

A row that was resolved by such an answer may lack studies, also one that has ended. So the fact is recorded
first, and all rows of the archive are queried again after that. A worker looks for the fact when it has
claimed rows, and their claims are removed: what it finds for them without knowing the fact is refused.
"""

from __future__ import annotations

from sqlalchemy import Connection, and_, bindparam, delete, or_, select, update

from dicom_quarry.ledger.compiled_statement import CompiledStatement
from dicom_quarry.ledger.database import Database
from dicom_quarry.ledger.ledger import write_metadata
from dicom_quarry.ledger.schema import claims, job, request_tasks, requests, tasks
from dicom_quarry.model import RequestState, TaskState

#: The name of the fact, with that of the archive; its values.
_PREFIX = "merged answers: "
_FOUND, _QUERIED_AGAIN = "found", "queried again"

#: The codes of rows whose outcome follows from the studies that the archive answered with.
_CODES = (
    "answers_do_not_match",
    "attribute_not_returned",
    "condition_not_returned",
    "no_series_wanted",
    "several_patients",
    "study_excluded",
    "study_filtered",
)

_FACTS = CompiledStatement(
    select(job.c.name, job.c.value).where(job.c.name >= bindparam("first"), job.c.name < bindparam("end"))
)
_VALUES = {"first": _PREFIX, "end": f"{_PREFIX}\U0010ffff"}


def find_merging_archives(database: Database) -> list[str]:
    """Return the archives that merge answers; the rows of each are queried again, if that is to be done."""
    found = {row.name.removeprefix(_PREFIX): row.value for row in database.fetch_all(_FACTS, **_VALUES)}
    for archive, value in found.items():
        if value != _QUERIED_AGAIN:  # the worker that found out was killed
            query_again(database, archive)
    return list(found)


def note_merging(database: Database, archive: str) -> bool:
    """Record that an archive merges answers, and query for its rows again; return False if that was done."""
    if archive in find_merging_archives(database):
        return False
    database.write(lambda connection: write_metadata(connection, {_PREFIX + archive: _FOUND}))
    query_again(database, archive)
    return True


def query_again(database: Database, archive: str) -> None:
    """Let all rows wait that an archive's answers have resolved or ended; what is stored stays.

    Workers that are just resolving rows lose their claims on them.
    """
    linked = select(request_tasks.c.row).join(tasks, tasks.c.id == request_tasks.c.task_id)
    of_archive = requests.c.row.in_(linked.where(tasks.c.archive == archive))
    by_answers = and_(requests.c.state == RequestState.CONCLUDED, requests.c.code.in_(_CODES))
    waiting = select(requests.c.row).where(requests.c.state == RequestState.WAITING)
    unknown = {"series_count": None, "instance_count": None}

    def work(connection: Connection) -> None:
        connection.execute(delete(claims).where(claims.c.kind == "row"))
        reopened = update(requests).where(or_(of_archive, by_answers))
        connection.execute(reopened.values(state=RequestState.WAITING, code=None, details=None))
        connection.execute(delete(request_tasks).where(request_tasks.c.row.in_(waiting)))
        not_begun = update(tasks).where(tasks.c.archive == archive, tasks.c.state == TaskState.WAITING)
        connection.execute(not_begun.values(unknown))
        write_metadata(connection, {_PREFIX + archive: _QUERIED_AGAIN})

    database.write(work)
