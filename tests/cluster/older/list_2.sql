-- The list of jobs as the builds of revision 2 made it.
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
    role text NOT NULL DEFAULT current_user
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
    archives jsonb NOT NULL DEFAULT '{}'
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

ALTER TABLE quarry.jobs ENABLE ROW LEVEL SECURITY;
CREATE POLICY anyone_lists ON quarry.jobs FOR SELECT USING (true);
CREATE POLICY members_add ON quarry.jobs FOR INSERT WITH CHECK (EXISTS (SELECT FROM pg_roles WHERE rolname = jobs.role AND pg_has_role(oid, 'MEMBER')));
CREATE POLICY members_change ON quarry.jobs FOR UPDATE USING (EXISTS (SELECT FROM pg_roles WHERE rolname = jobs.role AND pg_has_role(oid, 'MEMBER')));
CREATE POLICY members_remove ON quarry.jobs FOR DELETE USING (EXISTS (SELECT FROM pg_roles WHERE rolname = jobs.role AND pg_has_role(oid, 'MEMBER')));

INSERT INTO quarry.version (version) SELECT 2 WHERE NOT EXISTS (SELECT FROM quarry.version);
