"""The short window: as many tokens lie with the engine as the workers can use, and a few more.

The studies that wait stay in the ledgers of their jobs, whatever their number, so that a stopped job, a
closed window or a postponed study has nothing to take back. Any worker fills the window up: after each study,
and every second. Jobs get their tokens in turn, by their weights, however many rows they have.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg.types.json import Jsonb

from dicom_quarry.cluster.engine import (
    COMMAND_TASK,
    FILES_TASK,
    ROWS_QUEUE,
    ROWS_TASK,
    STUDY_TASK,
    archive_of,
    command_queue,
    is_command_queue,
)
from dicom_quarry.config.settings import COMMAND_PREFIX
from dicom_quarry.jobs.cluster.workers import (
    ENGINE_SCHEMA,
    ENGINE_TABLE,
    FILES_QUEUE,
    SILENCE,
    WorkerRow,
    total_capacity,
)
from dicom_quarry.model import OutcomeStatus
from dicom_quarry.outcomes import codes_of

#: Held by the worker that fills the window up; the others have nothing to do then.
_LOCK = 0x51574E44

#: Tokens for a queue beyond those that the workers use at once.
LOOK_AHEAD = 4

#: The codes of studies for which a command runs.
_COMPLETE = sorted(codes_of({OutcomeStatus.COMPLETE}))

#: Rows that one token stands for, at most.
ROWS_PER_TOKEN = 50

# A job whose tables another version made, or that was removed, has none. One of a role of which this worker's
# is no member is left to other workers.
_JOBS = """
SELECT number, weight, command, with_workers, verifying FROM quarry.jobs
WHERE (with_workers OR verifying)
    AND CASE WHEN has_schema_privilege(to_regnamespace('job_' || number), 'USAGE')
    THEN has_table_privilege(to_regclass('job_' || number || '.claims'), 'DELETE') END
ORDER BY number
"""
_TOKENS = f"""
SELECT queue_name, (args->>'job')::bigint, count(*), count(*) FILTER (WHERE status = 'todo')
FROM {ENGINE_TABLE} WHERE status IN ('todo', 'doing') GROUP BY 1, 2
"""

# Not EXISTS: of that the server makes a join, which reads all of the table.
_IS_REQUESTED = "(SELECT task_id FROM {job}.request_tasks WHERE task_id = tasks.id LIMIT 1) IS NOT NULL"

# A job has ended when nothing waits, also not for a time, and nothing is in work but its files.
_END = """
UPDATE quarry.jobs SET with_workers = false
WHERE number = %(number)s
    AND (
        SELECT row FROM {job}.requests WHERE state = 'waiting' AND same_as IS NULL ORDER BY row LIMIT 1
    ) IS NULL
    AND (
        SELECT id FROM {job}.tasks WHERE state = 'waiting' AND {is_requested}
        ORDER BY archive, not_before, id LIMIT 1
    ) IS NULL
    AND NOT EXISTS (SELECT FROM {job}.claims WHERE kind <> 'files')
"""
# A worker may have been killed before it had queued a study that was complete.
_ENQUEUE = """
INSERT INTO {job}.on_complete_items (task_id, proof, state, tries, error)
SELECT id, proved_at, 'waiting', 0, '' FROM {job}.tasks
WHERE proved_at IS NOT NULL AND released_at IS NULL AND code = ANY (%(codes)s)
    AND NOT EXISTS (SELECT FROM {job}.on_complete_items WHERE task_id = tasks.id AND proof = proved_at)
ON CONFLICT (task_id) DO UPDATE
SET proof = EXCLUDED.proof, state = 'waiting', tries = 0, not_before = NULL, error = ''
"""
_COMMANDS = """
SELECT count(*) FROM (
    SELECT FROM {job}.on_complete_items JOIN {job}.tasks ON tasks.id = task_id
    WHERE on_complete_items.state = 'waiting'
        AND proved_at IS NOT NULL AND released_at IS NULL AND code = ANY (%(codes)s)
        AND (on_complete_items.not_before IS NULL
            OR on_complete_items.not_before <= extract(epoch FROM now()) OR %(all)s)
        AND NOT EXISTS (SELECT FROM {job}.claims WHERE kind = 'command' AND item = task_id)
    LIMIT %(limit)s
) found
"""

# Of jobs that were stopped.
_TAKE_BACK = f"""
DELETE FROM {ENGINE_TABLE} WHERE status = 'todo' AND (args->>'job')::bigint <> ALL (
    CASE WHEN queue_name = '{FILES_QUEUE}' THEN %(verified)s::bigint[] ELSE %(fetched)s::bigint[] END
)
"""
# In one statement: a worker that is not in the list yet has no claim that it could see. Rows and studies of a
# job whose files alone the workers have may be those of a process, which is in no list.
_FREE_CLAIMS = f"""
DELETE FROM {{job}}.claims WHERE worker NOT IN (
    SELECT identity FROM quarry.workers WHERE {SILENCE} < vanished_after
) AND (kind = 'files' OR %(is_fetched)s)
"""

# Each in the order of an index, or the server may read the table instead. Studies are two ranges of that of
# their archive, so that what waits for others is not passed over.
# What a worker has claimed has a token already.
_STUDIES = """
SELECT count(*) FROM (
    (SELECT id FROM {job}.tasks
    WHERE state = 'waiting' AND not_before IS NULL AND archive = %(archive)s
        AND NOT EXISTS (SELECT FROM {job}.claims WHERE kind = 'task' AND item = tasks.id) AND {is_requested}
    ORDER BY not_before, id LIMIT %(limit)s)
    UNION ALL
    (SELECT id FROM {job}.tasks
    WHERE state = 'waiting' AND not_before <= extract(epoch FROM now()) AND archive = %(archive)s
        AND NOT EXISTS (SELECT FROM {job}.claims WHERE kind = 'task' AND item = tasks.id) AND {is_requested}
    ORDER BY not_before, id LIMIT %(limit)s)
    LIMIT %(limit)s
) found
"""
_ROWS = """
SELECT count(*) FROM (
    SELECT FROM {job}.requests WHERE state = 'waiting' AND same_as IS NULL
        AND NOT EXISTS (SELECT FROM {job}.claims WHERE kind = 'row' AND item = requests.row)
    ORDER BY row LIMIT %(limit)s
) found
"""
# Also those in work: a claim may be of a token that is lost. The search of the folder is a part, too.
_PARTS = """
SELECT CASE WHEN NOT is_listed THEN %(limit)s
    ELSE (SELECT count(*) FROM {job}.file_check_parts)
        + (NOT is_searched AND NOT EXISTS (SELECT FROM {job}.file_check_parts))::integer END
FROM {job}.file_checks WHERE ended IS NULL
"""
_DEFER = """
SELECT procrastinate_defer_jobs_v1(ARRAY(
    SELECT ROW(queue, task, 0, NULL, NULL, args, NULL)::procrastinate_job_to_defer_v1
    FROM unnest(%s::text[], %s::text[], %s::jsonb[]) AS token (queue, task, args)
))
"""


@dataclass(frozen=True, slots=True)
class _Job:
    """A job that the workers have: ``is_fetched`` for its rows and studies, ``is_verified`` for its files."""

    number: int
    weight: float
    command: str
    is_fetched: bool
    is_verified: bool


@dataclass(frozen=True, slots=True)
class Demand:
    """A job with work for a queue: its tokens, and how many more it could use."""

    job: int
    weight: float
    has: int
    wants: int


def share_out(free: int, demands: Sequence[Demand]) -> list[int]:
    """Return the jobs of new tokens in order: each is for the job with the fewest tokens for its weight."""
    jobs: list[int] = []
    given: Counter[int] = Counter()
    while len(jobs) < free:
        hungry = [one for one in demands if given[one.job] < one.wants]
        if not hungry:
            break
        next_one = min(hungry, key=lambda one: ((one.has + given[one.job] + 1) / one.weight, one.job))
        given[next_one.job] += 1
        jobs.append(next_one.job)
    return jobs


def top_up(connection: psycopg.Connection, workers: Sequence[WorkerRow], *, frees_claims: bool = True) -> int:
    """Fill the window up for a list of workers; return the number of new tokens. Raises psycopg.Error.

    With ``frees_claims`` those of workers that vanished are removed. While another worker does this, nothing
    is done.
    """
    with connection.transaction():
        if connection.execute("SELECT pg_try_advisory_xact_lock(%s)", (_LOCK,)).fetchone() != (True,):
            return 0
        # What a crash of the server loses of this is done again.
        connection.execute(f"SET LOCAL search_path = {ENGINE_SCHEMA}; SET LOCAL synchronous_commit = off")
        jobs = [_Job(*row) for row in connection.execute(_JOBS)]
        for job in jobs:
            if frees_claims:
                connection.execute(_of_job(_FREE_CLAIMS, job.number), {"is_fetched": job.is_fetched})
            if job.is_fetched:
                _end_if_done(connection, job.number, has_command=bool(job.command))
        fetched = [job.number for job in jobs if job.is_fetched]
        verified = [job.number for job in jobs if job.is_verified]
        connection.execute(_TAKE_BACK, {"fetched": fetched, "verified": verified})
        tokens = {(queue, job): (held, todo) for queue, job, held, todo in connection.execute(_TOKENS)}
        new = [
            (queue, job)
            for queue, at_once in total_capacity(workers).items()
            for job in _share_queue(connection, queue, at_once + LOOK_AHEAD, _jobs_of(queue, jobs), tokens)
        ]
        if new:
            queues, names, arguments = zip(*(_token(queue, job) for queue, job in new), strict=True)
            connection.execute(_DEFER, (list(queues), list(names), list(arguments)))
        return len(new)


def _end_if_done(connection: psycopg.Connection, job: int, *, has_command: bool) -> None:
    """End the workers' part of a job, if nothing waits or is in work; its commands are queued before."""
    ended = connection.execute(_of_job(_END, job), {"number": job}).rowcount
    if not (ended and has_command):
        return
    values: dict[str, object] = {"codes": _COMPLETE, "all": True, "limit": 1}
    connection.execute(_of_job(_ENQUEUE, job), values)
    if connection.execute(_of_job(_COMMANDS, job), values).fetchone() != (0,):
        connection.execute("UPDATE quarry.jobs SET with_workers = true WHERE number = %s", (job,))


def _jobs_of(queue: str, jobs: Sequence[_Job]) -> dict[int, float]:
    """Return the weights of the jobs that a queue is for."""
    if queue == FILES_QUEUE:
        return {job.number: job.weight for job in jobs if job.is_verified}
    fetched = [job for job in jobs if job.is_fetched]
    if is_command_queue(queue):
        fetched = [job for job in fetched if command_queue(job.command) == queue]
    return {job.number: job.weight for job in fetched}


def _share_queue(
    connection: psycopg.Connection,
    queue: str,
    size: int,
    weights: Mapping[int, float],
    tokens: Mapping[tuple[str, int], tuple[int, int]],
) -> list[int]:
    """Return the jobs of a queue's new tokens; ``size`` is how many the queue may have."""
    free = size - sum(held for (name, _), (held, _) in tokens.items() if name == queue)
    demands = []
    for job, weight in weights.items() if free > 0 else ():
        held, todo = tokens.get((queue, job), (0, 0))
        if queue == FILES_QUEUE:
            wants = _count_parts(connection, job, free + held) - held
        else:
            wants = _count_waiting(connection, queue, job, free + todo) - todo
        demands.append(Demand(job, weight, held, wants))
    return share_out(free, demands)


def _count_waiting(connection: psycopg.Connection, queue: str, job: int, limit: int) -> int:
    """Return how many tokens the waiting rows or studies of a job could use, ``limit`` at most."""
    if is_command_queue(queue):
        wanted: dict[str, object] = {"codes": _COMPLETE, "all": False, "limit": limit}
        counted: Any = connection.execute(_of_job(_COMMANDS, job), wanted).fetchone()
        return int(counted[0])
    each = ROWS_PER_TOKEN if queue == ROWS_QUEUE else 1
    statement = _of_job(_ROWS if queue == ROWS_QUEUE else _STUDIES, job)
    values = {"limit": limit * each, "archive": archive_of(queue)}
    found: Any = connection.execute(statement, values).fetchone()
    return -(-int(found[0]) // each)


def _count_parts(connection: psycopg.Connection, job: int, limit: int) -> int:
    """Return how many tokens a comparison of files could have: ``limit`` while not all are given out."""
    found = connection.execute(_of_job(_PARTS, job), {"limit": limit}).fetchone()
    return int(found[0]) if found else 0


def _of_job(statement: str, job: int) -> str:
    """Return a statement with the names of a job's tables."""
    names = {"job": f"job_{job}"}
    return statement.format(**names, is_requested=_IS_REQUESTED.format(**names))


def _token(queue: str, job: int) -> tuple[str, str, Jsonb]:
    if queue == ROWS_QUEUE:
        return queue, ROWS_TASK, Jsonb({"job": job})
    if queue == FILES_QUEUE:
        return queue, FILES_TASK, Jsonb({"job": job})
    if is_command_queue(queue):
        return queue, COMMAND_TASK, Jsonb({"job": job, "archive": queue.removeprefix(COMMAND_PREFIX)})
    return queue, STUDY_TASK, Jsonb({"job": job, "archive": archive_of(queue)})
