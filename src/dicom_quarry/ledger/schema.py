"""The tables of the ledger (SQLAlchemy Core); migrations.py has their version.

The tables are compact, since cohorts reach 50 million instances. A series is a number; SOP classes and
transfer syntaxes are numbers of a dictionary; a digest is bytes; a path is stored only where the path
template does not give it.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    text,
)

metadata = MetaData()

#: SQLite's integers have 64 bits, and its primary keys must be called INTEGER.
_Big = BigInteger().with_variant(Integer, "sqlite")

#: Text in the order of its bytes, on PostgreSQL too, so that pages and reports have one order.
_Text = Text().with_variant(Text(collation="C"), "postgresql")

_IS_WAITING = "state = 'waiting'"

#: A condition that is always true. PostgreSQL takes an index with it for a statement that has it: without
#: statistics, as of a new job, it would take that of all archives for one of them as well. With a sum, as
#: SQLite would read the tasks by their ids for a condition of these.
OF_ANY_ARCHIVE = "id + 0 > 0"

#: Facts about the job by name: its settings, its columns, and what it has learned since.
job = Table(
    "job",
    metadata,
    Column("name", _Text, primary_key=True),
    Column("value", _Text, nullable=False),
)

#: A row of the user's table. ``state`` is a RequestState; a concluded row has a ``code``.
requests = Table(
    "requests",
    metadata,
    Column("row", _Big, primary_key=True, autoincrement=False),
    Column("line", _Big, nullable=False),
    Column("identity", LargeBinary, nullable=False),
    Column("keys", _Text, nullable=False),
    Column("alternatives", _Text),
    Column("note", _Text, nullable=False, default="", server_default=""),
    Column("cells", _Text, nullable=False),
    Column("state", _Text, nullable=False),
    Column("code", _Text),
    Column("details", _Text),
    Column("same_as", _Big),
    Index("requests_by_identity", "identity"),
    Index("requests_by_state", "state", "row"),
)

#: A study to fetch, or a selection of it; ``not_before``, ``proved_at`` and ``released_at`` are POSIX times.
#: ``extra_attributes`` are further attributes of the study (JSON), where the user requested any. ``removing``
#: is 1 while the files of a released study are being removed.
tasks = Table(
    "tasks",
    metadata,
    Column("id", _Big, primary_key=True),
    Column("archive", _Text, nullable=False),
    Column("study_uid", _Text, nullable=False),
    Column("selection", _Text, nullable=False, default=""),
    Column("patient_id", _Text, nullable=False),
    Column("accession", _Text, nullable=False),
    Column("study_date", _Text, nullable=False),
    Column("modalities", _Text, nullable=False),
    Column("description", _Text, nullable=False),
    Column("series_count", _Big),
    Column("instance_count", _Big),
    Column("availability", _Text, nullable=False, default=""),
    Column("extra_attributes", _Text),
    Column("state", _Text, nullable=False),
    Column("not_before", Float),
    Column("code", _Text),
    Column("details", _Text),
    Column("expected", _Big),
    Column("stored", _Big, nullable=False, default=0),
    Column("size", _Big, nullable=False, default=0),
    Column("folder", _Text, nullable=False, default=""),
    Column("proved_at", Float),
    Column("released_at", Float),
    Column("removing", _Big, nullable=False, default=0, server_default="0"),
    UniqueConstraint("study_uid", "archive", "selection"),
    # In the order in which tasks are started: those without a time by id, then the postponed ones by time.
    # One process takes them from all archives in turn, workers from one, whatever waits for the others.
    Index("tasks_waiting", "not_before", "id", sqlite_where=text(f"{_IS_WAITING} AND {OF_ANY_ARCHIVE}")),
    Index("tasks_waiting_for_archive", "archive", "not_before", "id", sqlite_where=text(_IS_WAITING)),
)

request_tasks = Table(
    "request_tasks",
    metadata,
    Column("row", _Big, ForeignKey("requests.row"), primary_key=True, autoincrement=False),
    Column("task_id", _Big, ForeignKey("tasks.id"), primary_key=True, autoincrement=False),
    Index("request_tasks_by_task", "task_id", "row"),
    sqlite_with_rowid=False,
)

series = Table(
    "series",
    metadata,
    Column("id", _Big, primary_key=True),
    Column("task_id", _Big, ForeignKey("tasks.id"), nullable=False),
    Column("series_uid", _Text, nullable=False),
    UniqueConstraint("task_id", "series_uid"),
)

#: SOP Class and Transfer Syntax UIDs, stored once.
uids = Table(
    "uids",
    metadata,
    Column("id", _Big, primary_key=True),
    Column("uid", _Text, nullable=False, unique=True),
)

#: Expected and stored instances. An instance on disk has a digest; ``listed`` is 1 if the archive listed it.
instances = Table(
    "instances",
    metadata,
    Column("task_id", _Big, ForeignKey("tasks.id"), primary_key=True, autoincrement=False),
    Column("sop_uid", _Text, primary_key=True),
    Column("series_id", _Big, nullable=False),
    Column("class_id", _Big),
    Column("syntax_id", _Big),
    Column("size", _Big),
    Column("digest", LargeBinary),
    Column("path", _Text),
    Column("listed", _Big, nullable=False),
    sqlite_with_rowid=False,
)

#: Folders with instances of unfinished tasks. After a crash the job reads them.
folders = Table(
    "folders",
    metadata,
    Column("task_id", _Big, ForeignKey("tasks.id"), primary_key=True, autoincrement=False),
    Column("path", _Text, primary_key=True),
    sqlite_with_rowid=False,
)

#: Every retrieval request for a task, with its transport and its end; times are POSIX. The requests at one
#: level make a round. Retries are counted in rounds, so that a study with many series does not use them up.
attempts = Table(
    "attempts",
    metadata,
    Column("id", _Big, primary_key=True),
    Column("task_id", _Big, ForeignKey("tasks.id"), nullable=False),
    Column("round", _Big, nullable=False),
    Column("started", Float, nullable=False),
    Column("ended", Float, nullable=False),
    Column("transport", _Text, nullable=False, default="move", server_default="move"),
    Column("level", _Text, nullable=False),
    Column("requested", _Big, nullable=False),
    Column("newly_stored", _Big, nullable=False),
    Column("verdict", _Text, nullable=False),
    Column("status", _Big),
    Column("comment", _Text, nullable=False, default=""),
    Index("attempts_by_task", "task_id"),
)

#: The queries for rows and tasks (see query_log.py). ``started`` is POSIX time and ``duration`` a time span,
#: both in milliseconds. ``keys`` has the names of the keys; their values are in the row.
queries = Table(
    "queries",
    metadata,
    Column("id", _Big, primary_key=True),
    Column("row", _Big),
    Column("task_id", _Big),
    Column("archive", _Text, nullable=False),
    Column("model", _Text, nullable=False),
    Column("purpose", _Text, nullable=False),
    Column("level", _Text, nullable=False),
    Column("keys", _Text, nullable=False),
    Column("started", _Big, nullable=False),
    Column("duration", _Big, nullable=False),
    Column("request_count", _Big, nullable=False),
    Column("result_count", _Big),
    Column("status", _Big),
    Column("why", _Text, nullable=False),
    Index("queries_by_row", "row", sqlite_where=text("row IS NOT NULL")),
    Index("queries_by_task", "task_id", sqlite_where=text("task_id IS NOT NULL")),
)

#: Tasks that were postponed from one POSIX time to another; a part of the query log.
postponements = Table(
    "postponements",
    metadata,
    Column("id", _Big, primary_key=True),
    Column("task_id", _Big, nullable=False),
    Column("at", Float, nullable=False),
    Column("until", Float, nullable=False),
    Column("why", _Text, nullable=False),
    Index("postponements_by_task", "task_id"),
)

#: The rows and tasks in work: ``kind`` is row or task, ``item`` its number. ``worker`` and ``number`` name a
#: claim for ever, so that a worker that was suspended cannot end what another has taken over.
claims = Table(
    "claims",
    metadata,
    Column("kind", _Text, primary_key=True),
    Column("item", _Big, primary_key=True, autoincrement=False),
    Column("worker", _Text, nullable=False),
    Column("number", _Big, nullable=False),
    Column("claimed_at", Float, nullable=False),
    sqlite_with_rowid=False,
)

#: Complete studies for which the user's on-complete command runs. ``proof`` is the ``proved_at`` of the task:
#: for a study that was proved again the command runs again. ``error`` is the failure of the last try.
on_complete_items = Table(
    "on_complete_items",
    metadata,
    Column("task_id", _Big, ForeignKey("tasks.id"), primary_key=True, autoincrement=False),
    Column("proof", Float, nullable=False),
    Column("state", _Text, nullable=False),
    Column("tries", _Big, nullable=False),
    Column("not_before", Float),
    Column("ended", Float),
    Column("error", _Text, nullable=False),
    Index("on_complete_items_by_state", "state", "not_before", "task_id"),
)
