"""The exclusion lists of a job (``--exclude``) in its record, from which workers on any computer take them.

The record has the identifiers, and two digests: of these, and of these with the site's lists, which are files
of each computer.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from sqlalchemy import Connection, delete, literal, select, union_all

from dicom_quarry.errors import InputError, LedgerError
from dicom_quarry.jobs.cluster.tables import exclusions as table
from dicom_quarry.ledger.backend import backend_of, driver_connection
from dicom_quarry.ledger.compiled_statement import CompiledStatement
from dicom_quarry.ledger.ledger import Ledger, write_metadata
from dicom_quarry.ledger.location import PostgresLocation
from dicom_quarry.ledger.outages import MAX_OUTAGE
from dicom_quarry.ledger.read_pool import ReadPool
from dicom_quarry.ledger.schema import job

if TYPE_CHECKING:
    # quarry status and others load this module, and read no table.
    from dicom_quarry.cohort.exclusion_list import ExclusionList

#: Facts about the job: the digest of its own lists, and that of these with the site's.
_OWN, _ALL = "own_exclusions", "exclusions"

#: Identifiers in a row of the table.
_PAGE = 1000

# One statement: the digest is that of these identifiers, also while another process replaces them.
_SELECT = CompiledStatement(
    union_all(
        select(table.c.keyword, table.c.identifiers),
        select(literal(""), job.c.value).where(job.c.name == _ALL),
    )
)


@dataclass(frozen=True, slots=True)
class RecordedExclusions:
    """The identifiers of a job's own lists, by keyword; ``digest`` is that of these with the site's lists."""

    values: Mapping[str, frozenset[str]]
    digest: str


def record_exclusions(ledger: Ledger, exclusions: ExclusionList) -> None:
    """Record the lists of a run, with their digests, in one transaction; the same ones are left as they are.

    Raises InputError if those that were read from the record are not there any more.
    """
    metadata = ledger.metadata()
    facts = {_OWN: exclusions.own_digest, _ALL: exclusions.digest}
    if all(metadata.get(name, "") == value for name, value in facts.items()):
        return

    if exclusions.is_recorded and metadata.get(_OWN) != exclusions.own_digest:
        raise InputError(
            "another command has just changed the exclusion lists of this job: run this one again"
        )

    def work(connection: Connection) -> None:
        if metadata.get(_OWN, "") != exclusions.own_digest:
            connection.execute(delete(table))
            _copy(connection, exclusions.own_values)
        write_metadata(connection, facts)

    ledger.database.write(work)


def read_recorded_exclusions(location: PostgresLocation) -> RecordedExclusions:
    """Return what a record has; nothing if an older version of Quarry made it. Raises LedgerError."""
    found: defaultdict[str, set[str]] = defaultdict(set)
    digest, backend = "", backend_of(location)
    with closing(ReadPool(location, max_outage=MAX_OUTAGE)) as pool:
        try:
            for keyword, text in pool.stream(_SELECT):
                if keyword:
                    found[keyword].update(json.loads(text))
                else:
                    digest = text
        except LedgerError as error:
            if not (isinstance(error.__cause__, Exception) and backend.lacks_tables(error.__cause__)):
                raise
    return RecordedExclusions({keyword: frozenset(texts) for keyword, texts in found.items()}, digest)


def _copy(connection: Connection, values: Mapping[str, frozenset[str]]) -> None:
    statement = f"COPY {table.name} (number, keyword, identifiers) FROM STDIN"
    with driver_connection(connection).cursor().copy(statement) as copy:
        for number, (keyword, page) in enumerate(_pages(values)):
            copy.write_row([number, keyword, json.dumps(page)])


def _pages(values: Mapping[str, frozenset[str]]) -> Iterator[tuple[str, list[str]]]:
    for keyword, texts in values.items():
        rest = iter(texts)
        while page := list(islice(rest, _PAGE)):
            yield keyword, page
