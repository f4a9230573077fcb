"""A scenario of the fault matrix: what the archive does, and all that must come of it; data alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from dicom_quarry.demo.synthetic_studies import DemoStudy, generate_studies
from tests.scripted.archive import Fault

#: Two studies of two series with two instances each; a scenario has a row for each by default.
STUDIES = tuple(generate_studies(2, seed=7, series=2, images=2))

COMPLETE = ("complete", "all_listed_stored")
PENDING = ("pending", "pending")


def by_accession(studies: Sequence[DemoStudy] = STUDIES) -> str:
    """A cohort with a row for each study."""
    return "\n".join(["Accession", *(study.accession for study in studies)]) + "\n"


@dataclass(frozen=True)
class ArchiveRequests:
    """Requests to the archive: C-FIND requests at STUDY, SERIES and IMAGE level, and associations.

    ``moves`` has for each study its C-MOVE requests in their order: the levels, and at IMAGE level of how
    many instances. What depends on which thread is faster is None; then there are ``at_most`` so many C-MOVE
    requests.
    """

    moves: tuple[str, ...] | None = ("STUDY", "STUDY")
    finds: tuple[int, int, int] | None = (2, 2, 4)
    associations: int | None = 3
    at_most: int | None = None


@dataclass(frozen=True)
class Scenario:
    """One fault, and what must come of it.

    ``item`` is its number in docs/faults.md. ``rows`` are outcome and code of every row, ``stored`` the
    files of each study in the tree, ``apart`` those outside of it, ``unlisted`` how many of them are second
    versions, which are not counted. ``messages`` are words of its messages and reasons, ``silent`` words
    that are in none of them.
    """

    item: int
    name: str
    fault: str
    does: str
    faults: Callable[[], Sequence[Fault]]
    rows: tuple[tuple[str, str], ...] = (COMPLETE, COMPLETE)
    stored: tuple[int, ...] = (4, 4)
    requests: ArchiveRequests = field(default_factory=ArchiveRequests)
    exit_code: int = 0
    apart: int = 0
    unlisted: int = 0
    messages: tuple[str, ...] = ()
    silent: tuple[str, ...] = ()
    studies: tuple[DemoStudy, ...] = STUDIES
    cohort: str = ""
    profile: Mapping[str, object] = field(default_factory=dict)
    options: Mapping[str, object] = field(default_factory=dict)
