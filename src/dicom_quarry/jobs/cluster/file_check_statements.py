"""The tables of the comparison of a job's files, and their statements; ``{job}`` is the schema of the job."""

from dicom_quarry.ledger.dialects import AS_OWNER

BE_OWNER = f"{AS_OWNER}'{{job}}'"
# ``position`` is the last study that was given out; ``is_listed``: no other is left.
TABLES = """
CREATE TABLE IF NOT EXISTS {job}.file_checks (
    parameters text NOT NULL,
    started timestamptz NOT NULL DEFAULT clock_timestamp(),
    moved timestamptz NOT NULL DEFAULT clock_timestamp(),
    ended timestamptz,
    is_shown boolean NOT NULL DEFAULT false,
    position bigint NOT NULL DEFAULT 0,
    is_listed boolean NOT NULL DEFAULT false,
    is_searched boolean NOT NULL,
    files bigint NOT NULL DEFAULT 0,
    bytes bigint NOT NULL DEFAULT 0,
    damaged bigint NOT NULL DEFAULT 0,
    unrecorded bigint NOT NULL DEFAULT 0
);
CREATE TABLE IF NOT EXISTS {job}.file_check_parts (
    after_study bigint PRIMARY KEY,
    last_study bigint NOT NULL,
    files bigint NOT NULL DEFAULT 0,
    bytes bigint NOT NULL DEFAULT 0
);
CREATE TABLE IF NOT EXISTS {job}.file_check_findings (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    study bigint NOT NULL,
    finding text NOT NULL,
    UNIQUE (study, id)
);
"""
# Locked first, as in all that writes the other tables: those do not wait for each other then.
CLEAR = """
LOCK TABLE {job}.file_checks IN EXCLUSIVE MODE;
DELETE FROM {job}.claims WHERE kind = 'files';
DELETE FROM {job}.file_check_parts;
DELETE FROM {job}.file_check_findings;
DELETE FROM {job}.file_checks;
"""
STATE = """
SELECT parameters, started, moved, ended, is_shown, verifying,
    checks.files + coalesce((SELECT sum(files) FROM {job}.file_check_parts), 0),
    checks.bytes + coalesce((SELECT sum(bytes) FROM {job}.file_check_parts), 0),
    damaged, unrecorded, (SELECT count(*) FROM {job}.claims WHERE kind = 'files')
FROM {job}.file_checks checks, quarry.jobs WHERE number = %s
"""
ADD = "INSERT INTO {job}.file_checks (parameters, is_searched) VALUES (%s, %s)"
FIND = """
SELECT parameters, position, is_listed, is_searched FROM {job}.file_checks WHERE ended IS NULL FOR UPDATE
"""
FORGET_CLAIMS = "DELETE FROM {job}.claims WHERE kind = 'files' AND worker = %s"
CLAIM = """
INSERT INTO {job}.claims (kind, item, worker, number, claimed_at) VALUES ('files', %s, %s, %s, %s)
"""
END_CLAIM = "DELETE FROM {job}.claims WHERE kind = 'files' AND item = %s AND number = %s"
GIVE_OUT = "UPDATE {job}.file_checks SET position = %s, is_listed = %s"
ADD_PART = "INSERT INTO {job}.file_check_parts (after_study, last_study) VALUES (%s, %s)"
END_PART = "DELETE FROM {job}.file_check_parts WHERE after_study = %s"
BEGIN_AGAIN = "UPDATE {job}.file_check_parts SET files = 0, bytes = 0 WHERE after_study = %s"
REPORT = """
UPDATE {job}.file_check_parts SET files = %s, bytes = %s FROM {job}.claims
WHERE after_study = %s AND kind = 'files' AND item = after_study AND number = %s
RETURNING (SELECT verifying FROM quarry.jobs WHERE quarry.jobs.number = %s)
"""
HOLD_OPEN = "SELECT FROM {job}.file_checks WHERE ended IS NULL FOR UPDATE"
ADD_FINDING = "INSERT INTO {job}.file_check_findings (study, finding) VALUES (%s, %s)"
ADD_DONE = """
UPDATE {job}.file_checks SET files = files + %s, bytes = bytes + %s, damaged = damaged + %s,
    unrecorded = unrecorded + %s, is_searched = is_searched OR %s, moved = clock_timestamp()
"""
UNCLAIMED = """
SELECT after_study, last_study FROM {job}.file_check_parts
WHERE NOT EXISTS (SELECT FROM {job}.claims WHERE kind = 'files' AND item = after_study)
ORDER BY after_study LIMIT 1
"""
NEXT = """
SELECT id, stored, size FROM {job}.tasks WHERE id > %s AND released_at IS NULL ORDER BY id LIMIT %s
"""
END = """
UPDATE {job}.file_checks SET ended = clock_timestamp()
WHERE is_listed AND is_searched AND ended IS NULL AND NOT EXISTS (SELECT FROM {job}.file_check_parts)
"""
