"""The tables that all workers of a database share, next to those of the jobs (schema ``quarry``)."""

from __future__ import annotations

#: ``slots``: a place in a pool, such as one retrieval of an archive, leased to a worker until a time of the
#: database's clock. ``numbers``: the numbers of a limit. ``workers``: ``queues`` has the number of tokens at
#: once by queue, ``beat`` is the last sign of life, ``state`` is empty or what the worker waits for.
CREATE_SHARED_STATE = """
CREATE TABLE IF NOT EXISTS quarry.workers (
    name text PRIMARY KEY,
    host text NOT NULL,
    process bigint NOT NULL,
    receiver text NOT NULL,
    root text NOT NULL,
    queues jsonb NOT NULL,
    version text NOT NULL,
    started timestamptz NOT NULL DEFAULT clock_timestamp(),
    beat timestamptz NOT NULL DEFAULT clock_timestamp(),
    state text NOT NULL DEFAULT ''
);
CREATE TABLE IF NOT EXISTS quarry.slots (
    pool text NOT NULL,
    number integer NOT NULL,
    lease bigint NOT NULL,
    worker text NOT NULL,
    until timestamptz NOT NULL,
    PRIMARY KEY (pool, number)
);
CREATE UNIQUE INDEX IF NOT EXISTS slots_by_lease ON quarry.slots (lease);
CREATE SEQUENCE IF NOT EXISTS quarry.leases;
CREATE TABLE IF NOT EXISTS quarry.numbers (
    name text PRIMARY KEY,
    numbers double precision[] NOT NULL
);
"""
