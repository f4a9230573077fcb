"""The tables of the ledger (SQLAlchemy Core); migrations.py has their version.

The tables are compact, since cohorts reach 50 million instances. A series is a number; SOP classes and
transfer syntaxes are numbers of a dictionary; a digest is bytes; a path is stored only where the path
template does not give it.
"""

from __future__ import annotations

from sqlalchemy import (
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

#: Facts about the job by name: its settings, its columns, and what it has learned since.
job = Table(
    "job",
    metadata,
    Column("name", Text, primary_key=True),
    Column("value", Text, nullable=False),
)

#: A row of the user's table. ``state`` is a RequestState; a concluded row has a ``code``.
requests = Table(
    "requests",
    metadata,
    Column("row", Integer, primary_key=True, autoincrement=False),
    Column("line", Integer, nullable=False),
    Column("identity", LargeBinary, nullable=False),
    Column("keys", Text, nullable=False),
    Column("alternatives", Text),
    Column("note", Text, nullable=False, default="", server_default=""),
    Column("cells", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("code", Text),
    Column("details", Text),
    Column("same_as", Integer),
    Index("requests_by_identity", "identity"),
    Index("requests_by_state", "state", "row"),
)

#: A study to fetch, or a selection of it; ``not_before``, ``proved_at`` and ``released_at`` are POSIX times.
#: ``extra_attributes`` are further attributes of the study (JSON), where the user requested any. ``removing``
#: is 1 while the files of a released study are being removed.
tasks = Table(
    "tasks",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("archive", Text, nullable=False),
    Column("study_uid", Text, nullable=False),
    Column("selection", Text, nullable=False, default=""),
    Column("patient_id", Text, nullable=False),
    Column("accession", Text, nullable=False),
    Column("study_date", Text, nullable=False),
    Column("modalities", Text, nullable=False),
    Column("description", Text, nullable=False),
    Column("series_count", Integer),
    Column("instance_count", Integer),
    Column("availability", Text, nullable=False, default=""),
    Column("extra_attributes", Text),
    Column("state", Text, nullable=False),
    Column("not_before", Float),
    Column("code", Text),
    Column("details", Text),
    Column("expected", Integer),
    Column("stored", Integer, nullable=False, default=0),
    Column("size", Integer, nullable=False, default=0),
    Column("folder", Text, nullable=False, default=""),
    Column("proved_at", Float),
    Column("released_at", Float),
    Column("removing", Integer, nullable=False, default=0, server_default="0"),
    UniqueConstraint("study_uid", "archive", "selection"),
    # In the order in which tasks are started: those without a time by id, then the postponed ones by time.
    Index("tasks_by_state", "state", "not_before", "id"),
)

request_tasks = Table(
    "request_tasks",
    metadata,
    Column("row", Integer, ForeignKey("requests.row"), primary_key=True, autoincrement=False),
    Column("task_id", Integer, ForeignKey("tasks.id"), primary_key=True, autoincrement=False),
    Index("request_tasks_by_task", "task_id", "row"),
    sqlite_with_rowid=False,
)

series = Table(
    "series",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("task_id", Integer, ForeignKey("tasks.id"), nullable=False),
    Column("series_uid", Text, nullable=False),
    UniqueConstraint("task_id", "series_uid"),
)

#: SOP Class and Transfer Syntax UIDs, stored once.
uids = Table(
    "uids",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("uid", Text, nullable=False, unique=True),
)

#: Expected and stored instances. An instance on disk has a digest; ``listed`` is 1 if the archive listed it.
instances = Table(
    "instances",
    metadata,
    Column("task_id", Integer, ForeignKey("tasks.id"), primary_key=True, autoincrement=False),
    Column("sop_uid", Text, primary_key=True),
    Column("series_id", Integer, nullable=False),
    Column("class_id", Integer),
    Column("syntax_id", Integer),
    Column("size", Integer),
    Column("digest", LargeBinary),
    Column("path", Text),
    Column("listed", Integer, nullable=False),
    sqlite_with_rowid=False,
)

#: Folders with instances of unfinished tasks. After a crash the job reads them.
folders = Table(
    "folders",
    metadata,
    Column("task_id", Integer, ForeignKey("tasks.id"), primary_key=True, autoincrement=False),
    Column("path", Text, primary_key=True),
    sqlite_with_rowid=False,
)

#: Every retrieval request for a task, with its transport and its end; times are POSIX. The requests at one
#: level make a round. Retries are counted in rounds, so that a study with many series does not use them up.
attempts = Table(
    "attempts",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("task_id", Integer, ForeignKey("tasks.id"), nullable=False),
    Column("round", Integer, nullable=False),
    Column("started", Float, nullable=False),
    Column("ended", Float, nullable=False),
    Column("transport", Text, nullable=False, default="move", server_default="move"),
    Column("level", Text, nullable=False),
    Column("requested", Integer, nullable=False),
    Column("newly_stored", Integer, nullable=False),
    Column("verdict", Text, nullable=False),
    Column("status", Integer),
    Column("comment", Text, nullable=False, default=""),
    Index("attempts_by_task", "task_id"),
)

#: The queries for rows and tasks (see query_log.py). ``started`` is POSIX time and ``duration`` a time span,
#: both in milliseconds. ``keys`` has the names of the keys; their values are in the row.
queries = Table(
    "queries",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("row", Integer),
    Column("task_id", Integer),
    Column("archive", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("purpose", Text, nullable=False),
    Column("level", Text, nullable=False),
    Column("keys", Text, nullable=False),
    Column("started", Integer, nullable=False),
    Column("duration", Integer, nullable=False),
    Column("request_count", Integer, nullable=False),
    Column("result_count", Integer),
    Column("status", Integer),
    Column("why", Text, nullable=False),
    Index("queries_by_row", "row", sqlite_where=text("row IS NOT NULL")),
    Index("queries_by_task", "task_id", sqlite_where=text("task_id IS NOT NULL")),
)

#: Tasks that were postponed from one POSIX time to another; a part of the query log.
postponements = Table(
    "postponements",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("task_id", Integer, nullable=False),
    Column("at", Float, nullable=False),
    Column("until", Float, nullable=False),
    Column("why", Text, nullable=False),
    Index("postponements_by_task", "task_id"),
)

#: Complete studies for which the user's on-complete command runs. ``proof`` is the ``proved_at`` of the task:
#: for a study that was proved again the command runs again. ``error`` is the failure of the last try.
on_complete_items = Table(
    "on_complete_items",
    metadata,
    Column("task_id", Integer, ForeignKey("tasks.id"), primary_key=True, autoincrement=False),
    Column("proof", Float, nullable=False),
    Column("state", Text, nullable=False),
    Column("tries", Integer, nullable=False),
    Column("not_before", Float),
    Column("ended", Float),
    Column("error", Text, nullable=False),
    Index("on_complete_items_by_state", "state", "not_before", "task_id"),
)
