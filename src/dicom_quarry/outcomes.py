"""The catalogue of reason codes: what each one says to a user, and what to do next.

A code is stable, scripts may lean on it; the sentences may be reworded. Titles and next steps carry no
patient identifiers, so they may stand in logs. A reason may (the problem of an unusable row quotes its
value): it goes to report files and terminals only.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from dicom_quarry.model import Outcome, OutcomeStatus


@dataclass(frozen=True, slots=True)
class OutcomeDefinition:
    """A line of the catalogue; ``reason`` (``title`` where empty) and ``next_step`` are templates."""

    status: OutcomeStatus
    title: str
    reason: str = ""
    next_step: str = ""


_RETRY_STEP = "try again with quarry retry: what is stored is not asked for again"
_EXCLUDED_STEP = "nothing, if that is right; else correct the list, then quarry retry --outcome excluded"

CATALOGUE: dict[str, OutcomeDefinition] = {
    "all_listed_stored": OutcomeDefinition(
        OutcomeStatus.COMPLETE,
        "every instance that the archive lists is stored",
        "all of the {instances:instance} that the archive lists are stored",
    ),
    "instances_missing": OutcomeDefinition(
        OutcomeStatus.PARTIAL,
        "some instances that the archive lists did not arrive",
        "{missing:instance} of {expected} did not arrive, though asked for again; missing.csv names them",
        f"{_RETRY_STEP}; if they stay away, send missing.csv to the PACS team",
    ),
    "archive_cannot_list": OutcomeDefinition(
        OutcomeStatus.UNVERIFIED,
        "the archive cannot list its instances, so nothing proves that all of them came",
        "{stored:instance} stored, but the archive cannot list its instances, so this may not be all",
        "compare the number with what the PACS viewer shows",
    ),
    "count_disagrees": OutcomeDefinition(
        OutcomeStatus.UNVERIFIED,
        "the archive counts more instances than it lists",
        "{stored:instance} stored, all that the archive lists, but it counts {count}",
        f"{_RETRY_STEP}; if the count stays, ask the PACS team which of the two is right",
    ),
    "list_cut_short": OutcomeDefinition(
        OutcomeStatus.UNVERIFIED,
        "the archive's list of instances ended early, so nothing proves that all of them came",
        "{stored:instance} stored, but the archive's list ended early ({why})",
        _RETRY_STEP,
    ),
    "unlisted_arrived": OutcomeDefinition(
        OutcomeStatus.UNVERIFIED,
        "more instances arrived than the archive lists",
        "{extra:instance} arrived that the archive does not list, so its list cannot be trusted",
        "the study may still be growing: try again later with quarry retry",
    ),
    "content_conflict": OutcomeDefinition(
        OutcomeStatus.UNVERIFIED,
        "an instance came twice with different content",
        "{conflicts:instance} came twice with different content; both are kept",
        "ask the PACS team which is right; studies.csv names the folder",
    ),
    "no_instances_listed": OutcomeDefinition(
        OutcomeStatus.NO_IMAGES,
        "the archive knows the study but lists no instance of it",
        next_step="the images may be offline or deleted: ask the PACS team",
    ),
    "no_series_wanted": OutcomeDefinition(
        OutcomeStatus.NO_IMAGES,
        "the study is there, but none of its series is among those asked for",
        "{studies:study} found, without a series that --series, --series-not and --min-instances leave",
        "nothing, if that is right; else change the filter, and run again with --update",
    ),
    "study_not_found": OutcomeDefinition(
        OutcomeStatus.NOT_FOUND,
        "the archive answered, and no study matches",
        "the {keys} matched no study",
        "check the value; the study may be in another archive or under another patient ID",
    ),
    "near_miss": OutcomeDefinition(
        OutcomeStatus.NOT_FOUND,
        "the archive answered, and no study matches, but something near it does",
        "the {keys} matched no study: {hint}",
        "correct the row if that is what was meant, and run again with --update",
    ),
    "several_patients": OutcomeDefinition(
        OutcomeStatus.SEVERAL_PATIENTS,
        "the accession belongs to studies of several patients; nothing was moved",
        "the {keys} matched studies of {patients:patient}; nothing was moved",
        "add the patient ID to the row, or allow it with --allow-several-patients",
    ),
    "too_many_studies": OutcomeDefinition(
        OutcomeStatus.FAILED,
        "the row matched more studies than a row is expected to; nothing was moved",
        "the {keys} matched {studies:study}, more than a row is expected to; nothing was moved",
        "make the row narrower; or allow it with --max-studies, then quarry retry",
    ),
    "answers_do_not_match": OutcomeDefinition(
        OutcomeStatus.MISMATCH,
        "the archive answered with studies that were not asked for",
        "the archive answered with {answers:study}, none of which has the {keys} asked for",
        "the archive seems to ignore that key: ask with other columns, such as StudyInstanceUID",
    ),
    "stored_differs": OutcomeDefinition(
        OutcomeStatus.MISMATCH,
        "the images carry another identifier than the archive's answer",
        "the {keys} inside the images differs from what the archive answered",
        "it is kept apart, in the folder mismatch: ask the PACS team, then take it with --accept-mismatch",
    ),
    "row_unusable": OutcomeDefinition(
        OutcomeStatus.INVALID_ROW,
        "the row cannot be used as it stands",
        "{problem}",
        "correct the row in the table, then run again with --update",
    ),
    "row_excluded": OutcomeDefinition(
        OutcomeStatus.EXCLUDED,
        "the row asks for what must not be taken: it is on the exclusion list",
        "the {keys} of the row is on the exclusion list; nothing was asked of the archive",
        _EXCLUDED_STEP,
    ),
    "study_excluded": OutcomeDefinition(
        OutcomeStatus.EXCLUDED,
        "what was found must not be taken: it is on the exclusion list",
        "the {keys} of what was found is on the exclusion list; nothing of it was taken",
        _EXCLUDED_STEP,
    ),
    "excluded_on_arrival": OutcomeDefinition(
        OutcomeStatus.EXCLUDED,
        "images arrived that must not be taken, and were refused: they are on the exclusion list",
        "the {keys} inside an image is on the exclusion list; it was refused, and is not on the disk",
        "tell the PACS team: inside its images the study has another identity than in the archive's answers",
    ),
    "excluded_but_stored": OutcomeDefinition(
        OutcomeStatus.EXCLUDED,
        "images are here that must not be taken: they are on the exclusion list now",
        "the {keys} is on the exclusion list, and {stored:instance} that came before are stored",
        "remove the study's folder, which studies.csv names, and run the same command again: "
        "nothing is deleted by itself",
    ),
    "archive_refused": OutcomeDefinition(
        OutcomeStatus.FAILED,
        "the archive refused to send the study",
        "the archive refused to send the study ({status})",
        f"{_RETRY_STEP}; if it is refused again, show the status to the PACS team",
    ),
    "query_failed": OutcomeDefinition(
        OutcomeStatus.FAILED,
        "the archive could not answer the query",
        "the archive could not answer the query ({status})",
        f"{_RETRY_STEP}; if it fails again, show the status to the PACS team",
    ),
    "query_cut_short": OutcomeDefinition(
        OutcomeStatus.FAILED,
        "the archive ended its answer early, so studies may be missing from it",
        "the archive ended its answer after {answers:study}; there may be more",
        "make the row narrower: add a date or an accession",
    ),
    "nothing_arrived": OutcomeDefinition(
        OutcomeStatus.FAILED,
        "nothing of the study arrived, though the archive lists it",
        "none of the {expected:instance} that the archive lists arrived ({status})",
        "ask the PACS team whether the study is online, and whether its images may be sent here",
    ),
    "gave_up_waiting": OutcomeDefinition(
        OutcomeStatus.FAILED,
        "the archive did not answer, and Quarry gave up for now",
        "the archive did not answer ({why}); gave up after {attempts:attempt}",
        _RETRY_STEP,
    ),
    "pending": OutcomeDefinition(
        OutcomeStatus.PENDING, "not finished yet", next_step="run the same command again to go on"
    ),
}


def codes_of(statuses: Collection[OutcomeStatus]) -> frozenset[str]:
    """The codes that stand for these words."""
    return frozenset(code for code, entry in CATALOGUE.items() if entry.status in statuses)


class _CountedNoun(int):
    """A number that writes its noun with it: ``{n:study}`` gives ``1 study`` or ``2,345 studies``."""

    def __format__(self, noun: str) -> str:
        if not noun:
            return f"{int(self):,}"
        if self != 1:
            noun = f"{noun[:-1]}ies" if noun.endswith("y") else f"{noun}s"
        return f"{int(self):,} {noun}"


def make_outcome(code: str, **details: object) -> Outcome:
    """The outcome of a code, its sentence filled with the details that the catalogue's template names."""
    definition = CATALOGUE[code]
    values = {
        name: _CountedNoun(value) if isinstance(value, int) else value for name, value in details.items()
    }
    reason = (definition.reason or definition.title).format_map(values)
    return Outcome(definition.status, code, reason, definition.next_step.format_map(values))


# A row is only as good as the worst of its studies; what has not ended yet comes before any verdict.
_WORST_FIRST = (
    OutcomeStatus.PENDING,
    OutcomeStatus.FAILED,
    OutcomeStatus.MISMATCH,
    OutcomeStatus.SEVERAL_PATIENTS,
    OutcomeStatus.PARTIAL,
    OutcomeStatus.UNVERIFIED,
    OutcomeStatus.NO_IMAGES,
    OutcomeStatus.NOT_FOUND,
    OutcomeStatus.INVALID_ROW,
    OutcomeStatus.EXCLUDED,
    OutcomeStatus.COMPLETE,
)


def worst_outcome(outcomes: Iterable[Outcome]) -> Outcome:
    """The outcome of a row from those of its studies (at least one): the worst; the first among equals."""
    return min(outcomes, key=lambda one: _WORST_FIRST.index(one.status))
