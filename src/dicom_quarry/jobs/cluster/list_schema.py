"""The tables of the list of jobs, in the schema ``quarry``, and the statements that upgrade older ones.

To change them, change ``TABLES`` and append to ``MIGRATIONS``. The table ``version``, and the columns of
``workers`` that a worker writes, are read by older and newer versions of Quarry, too.
"""

from __future__ import annotations

from typing import Any

#: Times are those of the database's clock.
#:
#: ``version``: ``version`` is that of these tables, ``revision`` that of everything in the database (see
#: versions.py), ``upgrade`` the one that an upgrade is bringing it to, or empty.
#:
#: ``jobs``: ``holder_token`` is that of the process that runs the job; ``progress`` is as in progress.json;
#: ``stop_request`` is empty, ``finish`` or ``cancel``. The workers have a job while it is ``with_workers``;
#: they cancel what they fetch for it if not, and ``cancelled``. ``weight`` is its share of the workers.
#: ``hand_overs`` counts how often it was given to them with other settings than before. ``command`` is
#: the name of the command that workers run for its complete studies, or empty. ``role`` is the one that made
#: it, whose members alone may change the row. The workers compare its files while it is ``verifying``: see
#: file_check.py.
#:
#: ``workers``: ``identity`` is in the claims of the worker's process, ``queues`` has the number of studies at
#: once by queue of the engine, ``beat`` is the last sign of life, ``state`` is empty or what it waits for;
#: without a sign of life for ``vanished_after`` seconds its studies are given to others. ``revision`` is the
#: one that it works with; ``idle`` is true while it has no job open, and takes none. ``archives`` is
#: what it knows of each archive: see scheduling/archive_facts.py.
#:
#: ``slots``: a place in a pool, such as one retrieval from an archive, leased to a worker until a time.
#: ``numbers``: those of limits that all workers share.
#:
#: ``actions``: who did what to a job; the server itself writes time and role.
TABLES = """
CREATE SCHEMA IF NOT EXISTS quarry;
CREATE TABLE IF NOT EXISTS quarry.version (
    version integer NOT NULL,
    revision text NOT NULL DEFAULT '',
    upgrade text NOT NULL DEFAULT ''
);
CREATE TABLE IF NOT EXISTS quarry.jobs (
    number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text COLLATE "C" NOT NULL UNIQUE,
    folder text NOT NULL,
    host text NOT NULL,
    owner text NOT NULL,
    created timestamptz NOT NULL DEFAULT now(),
    holder_token text,
    holder_host text,
    holder_process bigint,
    heartbeat timestamptz,
    progress text,
    stop_request text NOT NULL DEFAULT '',
    with_workers boolean NOT NULL DEFAULT false,
    cancelled boolean NOT NULL DEFAULT false,
    weight double precision NOT NULL DEFAULT 1 CHECK (weight > 0),
    hand_overs bigint NOT NULL DEFAULT 0,
    command text NOT NULL DEFAULT '',
    role text NOT NULL DEFAULT current_user,
    verifying boolean NOT NULL DEFAULT false
);
CREATE TABLE IF NOT EXISTS quarry.workers (
    name text PRIMARY KEY,
    identity text NOT NULL,
    host text NOT NULL,
    process bigint NOT NULL,
    receiver text NOT NULL,
    root text NOT NULL,
    queues jsonb NOT NULL,
    version text NOT NULL,
    vanished_after double precision NOT NULL,
    started timestamptz NOT NULL DEFAULT clock_timestamp(),
    beat timestamptz NOT NULL DEFAULT clock_timestamp(),
    state text NOT NULL DEFAULT '',
    revision text NOT NULL DEFAULT '',
    idle boolean NOT NULL DEFAULT false,
    archives jsonb NOT NULL DEFAULT '{{}}'
);
CREATE SEQUENCE IF NOT EXISTS quarry.leases;
CREATE TABLE IF NOT EXISTS quarry.slots (
    pool text NOT NULL,
    number integer NOT NULL,
    lease bigint NOT NULL UNIQUE,
    worker text NOT NULL,
    until timestamptz NOT NULL,
    PRIMARY KEY (pool, number)
);
CREATE TABLE IF NOT EXISTS quarry.numbers (
    name text PRIMARY KEY,
    numbers double precision[] NOT NULL
);
CREATE TABLE IF NOT EXISTS quarry.actions (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    role text NOT NULL DEFAULT session_user,
    person text NOT NULL,
    host text NOT NULL,
    job text NOT NULL,
    action text NOT NULL,
    details text NOT NULL DEFAULT ''
);
{policies}
INSERT INTO quarry.version (version) SELECT {version} WHERE NOT EXISTS (SELECT FROM quarry.version);
"""

# All roles with the rights for the table may list the jobs; only the members of its role may change one.
_IS_MEMBER = "EXISTS (SELECT FROM pg_roles WHERE rolname = jobs.role AND pg_has_role(oid, 'MEMBER'))"
_POLICIES = f"""
ALTER TABLE quarry.jobs ENABLE ROW LEVEL SECURITY;
CREATE POLICY anyone_lists ON quarry.jobs FOR SELECT USING (true);
CREATE POLICY members_add ON quarry.jobs FOR INSERT WITH CHECK ({_IS_MEMBER});
CREATE POLICY members_change ON quarry.jobs FOR UPDATE USING ({_IS_MEMBER});
CREATE POLICY members_remove ON quarry.jobs FOR DELETE USING ({_IS_MEMBER});
"""

_FROM_1_TO_2 = """
ALTER TABLE quarry.version ADD COLUMN revision text NOT NULL DEFAULT '',
    ADD COLUMN upgrade text NOT NULL DEFAULT '';
ALTER TABLE quarry.jobs ADD COLUMN hand_overs bigint NOT NULL DEFAULT 0,
    ADD COLUMN command text NOT NULL DEFAULT '',
    ADD COLUMN role text NOT NULL DEFAULT current_user;
UPDATE quarry.jobs SET role = pg_get_userbyid(nspowner)
FROM pg_namespace WHERE nspname = 'job_' || number;
ALTER TABLE quarry.workers ADD COLUMN revision text NOT NULL DEFAULT '',
    ADD COLUMN idle boolean NOT NULL DEFAULT false,
    ADD COLUMN archives jsonb NOT NULL DEFAULT '{}';
CREATE TABLE quarry.actions (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    role text NOT NULL DEFAULT session_user,
    person text NOT NULL,
    host text NOT NULL,
    job text NOT NULL,
    action text NOT NULL,
    details text NOT NULL DEFAULT ''
);
"""

_FROM_2_TO_3 = "ALTER TABLE quarry.jobs ADD COLUMN verifying boolean NOT NULL DEFAULT false;"

#: The statements at index n upgrade the tables of version n + 1 to version n + 2.
MIGRATIONS: list[str] = [_FROM_1_TO_2 + _POLICIES, _FROM_2_TO_3]


def list_version() -> int:
    """Return the version of the tables that this build of Quarry knows."""
    return 1 + len(MIGRATIONS)


def create_list(connection: Any) -> None:
    """Make the tables."""
    connection.execute(TABLES.format(version=list_version(), policies=_POLICIES))


def upgrade_list(connection: Any, found: int) -> None:
    """Upgrade the tables of an older version within a transaction; nothing is done to those of this one."""
    for statements in MIGRATIONS[found - 1 :]:
        connection.execute(statements)
    connection.execute("UPDATE quarry.version SET version = %s", (list_version(),))
