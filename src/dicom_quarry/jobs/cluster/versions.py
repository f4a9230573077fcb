"""The revision of a database: one number in parts for the list of jobs, the records of jobs, and the engine.

Each part grows with a change of its tables, so that of two revisions the greater is the newer one. A database
has the revision that its last upgrade gave it, and during an upgrade the one that it is being brought to.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from dicom_quarry.jobs.cluster.list_schema import list_version
from dicom_quarry.ledger.migrations import schema_version

#: The versions of the list of jobs and of the records; the engine's follow, where workers were prepared.
Revision = tuple[int, ...]

#: The parts that a command knows that needs no engine.
_OWN_PARTS: Final = 2


@dataclass(frozen=True, slots=True)
class Versions:
    """The version of the list of jobs, the revision of the database, and that of an upgrade in progress."""

    list: int
    revision: Revision
    upgrade: Revision

    @property
    def is_older(self) -> bool:
        """True if this build has to upgrade the database first."""
        return self.list < list_version() or self.revision[:_OWN_PARTS] < own_revision()

    @property
    def is_newer(self) -> bool:
        """True if a newer build has upgraded the database."""
        return self.list > list_version() or self.revision[:_OWN_PARTS] > own_revision()


def own_revision() -> Revision:
    """Return the revision of this build, without the engine's part."""
    return list_version(), schema_version()


def format_revision(revision: Revision) -> str:
    """Return a revision as text, such as 2.2.3.4.0.50."""
    return ".".join(map(str, revision))


def parse_revision(text: str) -> Revision:
    """Return the revision of a text, empty for an empty one."""
    return tuple(int(part) for part in text.split(".") if part.isdigit())


def read_versions(connection: Any) -> Versions:
    """Read the versions of a database that any build has made."""
    (facts,) = connection.execute("SELECT to_jsonb(found) FROM quarry.version found").fetchone()
    revision = parse_revision(facts.get("revision", "")) or (facts["version"],)
    return Versions(facts["version"], revision, parse_revision(facts.get("upgrade", "")))


def write_revision(connection: Any, revision: Revision) -> None:
    """Record the revision of the database."""
    connection.execute("UPDATE quarry.version SET revision = %s", (format_revision(revision),))


def begin_upgrade(connection: Any, revision: Revision) -> None:
    """Have the workers of older revisions finish what they have; an empty revision ends that."""
    connection.execute("UPDATE quarry.version SET upgrade = %s", (format_revision(revision),))
