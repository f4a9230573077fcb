-- The list of jobs as the builds before revision 2 made it.
CREATE SCHEMA IF NOT EXISTS quarry;
CREATE TABLE IF NOT EXISTS quarry.version (version integer NOT NULL);
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
    weight double precision NOT NULL DEFAULT 1 CHECK (weight > 0)
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
    state text NOT NULL DEFAULT ''
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
INSERT INTO quarry.version SELECT 1 WHERE NOT EXISTS (SELECT FROM quarry.version);
