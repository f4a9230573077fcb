"""The catalogue of reason codes: the meaning of each code for a user, and the next step.

Codes are stable, so that scripts can rely on them; the sentences may change. Titles and next steps contain
no patient identifiers, so they may be logged. A reason may contain some (the problem of an unusable row
quotes its value): it is written to report files and terminals only.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from dicom_quarry.model import Outcome, OutcomeStatus
from dicom_quarry.plurals import format_count


@dataclass(frozen=True, slots=True)
class OutcomeDefinition:
    """An entry of the catalogue; ``reason`` (``title`` if empty) and ``next_step`` are templates.

    The detail named ``cause``, if there is one, is added to the reason in parentheses.
    """

    status: OutcomeStatus
    title: str
    reason: str = ""
    next_step: str = ""
    cause: str = ""


#: The one code of a complete row or study.
COMPLETE_CODE = "all_listed_stored"

#: The code of a row or study that a defect of Quarry ended.
INTERNAL_ERROR = "internal_error"

_RETRY_STEP = "run quarry retry (it fetches only what is missing)"
_REFUSED_STEP = (
    f"remove the cause, then {_RETRY_STEP}; if it is in the images themselves, show it to the PACS team"
)
_EXCLUDED_STEP = (
    "nothing to do if that is intended; otherwise correct the list (a list of this site: ask its "
    "administrator) and run quarry retry --outcome excluded"
)

CATALOGUE: dict[str, OutcomeDefinition] = {
    COMPLETE_CODE: OutcomeDefinition(
        OutcomeStatus.COMPLETE,
        "every instance that the archive lists is stored",
        "{instances:instance} stored: all that the archive lists",
    ),
    "instances_missing": OutcomeDefinition(
        OutcomeStatus.PARTIAL,
        "some instances that the archive lists did not arrive",
        "{missing:instance} of {expected} did not arrive, although requested again (see missing.csv)",
        f"{_RETRY_STEP}; if they are still missing, send missing.csv to the PACS team",
        cause="why",
    ),
    "some_images_refused": OutcomeDefinition(
        OutcomeStatus.PARTIAL,
        "Quarry's own receiver refused some images of the study",
        "{missing:instance} of {expected} missing (missing.csv): Quarry's own receiver refused them ({why})",
        _REFUSED_STEP,
    ),
    "archive_cannot_list": OutcomeDefinition(
        OutcomeStatus.UNVERIFIED,
        "the archive cannot list its instances, so Quarry cannot prove that all of them arrived",
        "{stored:instance} stored, but the archive cannot list its instances, so some may be missing",
        "compare the number of instances with the PACS viewer",
    ),
    "count_disagrees": OutcomeDefinition(
        OutcomeStatus.UNVERIFIED,
        "the archive counts more instances than it lists",
        "{stored:instance} stored: all that the archive lists, but the archive counts {count}",
        f"{_RETRY_STEP}; if the numbers still differ, ask the PACS team which one is right",
    ),
    "list_cut_short": OutcomeDefinition(
        OutcomeStatus.UNVERIFIED,
        "the archive's list of instances ended early, so Quarry cannot prove that all of them arrived",
        "{stored:instance} stored, but the archive's list ended early ({why}), so some may be missing",
        _RETRY_STEP,
    ),
    "unlisted_arrived": OutcomeDefinition(
        OutcomeStatus.UNVERIFIED,
        "more instances arrived than the archive lists",
        "{extra:instance} arrived that the archive does not list, so its list may be incomplete",
        "the study may still be growing: run quarry retry later",
    ),
    "content_conflict": OutcomeDefinition(
        OutcomeStatus.UNVERIFIED,
        "an instance arrived twice with different content",
        "{conflicts:instance} arrived twice with different content; both versions are stored",
        "ask the PACS team which version is right (studies.csv shows the folder)",
    ),
    "no_instances_listed": OutcomeDefinition(
        OutcomeStatus.NO_IMAGES,
        "the archive has the study but lists no images in it",
        next_step="ask the PACS team: the images may be offline or deleted",
    ),
    "study_filtered": OutcomeDefinition(
        OutcomeStatus.FILTERED,
        "the study exists, but your condition (--where) leaves it out",
        "{what}",
        "nothing to do if that is intended; otherwise run the command again with another --where, and with "
        "--update",
    ),
    "no_series_wanted": OutcomeDefinition(
        OutcomeStatus.FILTERED,
        "the study was found, but it has none of the series that you selected",
        "{studies:study} found, but with none of the series that you selected",
        "nothing to do if that is intended; otherwise extract to another folder (--to) with another "
        "selection of series (--series, --series-not, --min-instances)",
    ),
    "study_not_found": OutcomeDefinition(
        OutcomeStatus.NOT_FOUND,
        "the archive has no matching study",
        "no study matches this {keys}",
        "check the values; the study may be in another archive or under another patient ID",
    ),
    "near_miss": OutcomeDefinition(
        OutcomeStatus.NOT_FOUND,
        "no exact match, but a similar study exists",
        "no study matches this {keys}, but {hint}",
        "if this is the study you meant, correct the row and run the command again with --update",
    ),
    "several_patients": OutcomeDefinition(
        OutcomeStatus.SEVERAL_PATIENTS,
        "the row matches studies of several patients, so nothing was fetched",
        "studies of {patients:patient} match this {keys}, so nothing was fetched",
        "add the patient ID to the row and run the command again with --update; or fetch all of these "
        "studies: run quarry retry with --allow-several-patients",
    ),
    "too_many_studies": OutcomeDefinition(
        OutcomeStatus.FAILED,
        "the row matches more studies than --max-studies allows, so nothing was fetched",
        "{studies:study} match this {keys}, more than --max-studies allows, so nothing was fetched",
        "add a date or an accession to the row and run the command again with --update; or fetch all of "
        "these studies: run quarry retry with a higher --max-studies",
    ),
    "answers_do_not_match": OutcomeDefinition(
        OutcomeStatus.MISMATCH,
        "the archive answered with studies that do not match the row",
        "the archive answered with {answers:study}, but not with this {keys}",
        "the archive seems to ignore this column: use another one, such as StudyInstanceUID",
    ),
    "attribute_not_returned": OutcomeDefinition(
        OutcomeStatus.FAILED,
        "the archive does not return an attribute by which you select, so nothing was fetched",
        "the archive does not return {keys}, neither for the series nor for their images, so Quarry cannot "
        "select by it; nothing was fetched",
        "extract to another folder (--to): select by another attribute (see quarry extract --help), or leave "
        "this condition out",
    ),
    "condition_not_returned": OutcomeDefinition(
        OutcomeStatus.FAILED,
        "the archive does not return an attribute of your condition (--where), so nothing was fetched",
        "the archive does not return {keys} for this study, so Quarry cannot apply your condition (--where); "
        "nothing was fetched",
        "use another condition, such as --series Modality=CT, or leave it out, and run the command again "
        "with --update",
    ),
    "stored_differs": OutcomeDefinition(
        OutcomeStatus.MISMATCH,
        "the images contain another identifier than the archive's answer",
        "the {keys} inside the images differs from the archive's answer",
        "the images are in the folder mismatch: ask the PACS team which value is right; to accept the "
        "images, run quarry retry with --accept-mismatch",
    ),
    "other_study_uid": OutcomeDefinition(
        OutcomeStatus.MISMATCH,
        "images contain another Study Instance UID than the archive's answer, so they were refused",
        "the Study Instance UID inside images differs from the archive's answer, so they were refused: "
        "{missing:instance} missing, {stored} stored",
        "ask the PACS team which study they belong to; to store them in the folder mismatch, run quarry "
        "retry with --accept-mismatch",
    ),
    "row_unusable": OutcomeDefinition(
        OutcomeStatus.INVALID_ROW,
        "the row cannot be used",
        "{problem}",
        "correct the row in the table, then run the command again with --update",
    ),
    "row_excluded": OutcomeDefinition(
        OutcomeStatus.EXCLUDED,
        "the row is on the exclusion list; nothing was fetched",
        "the {keys} of this row is on the exclusion list; the archive was not queried",
        _EXCLUDED_STEP,
    ),
    "study_excluded": OutcomeDefinition(
        OutcomeStatus.EXCLUDED,
        "the study that was found is on the exclusion list; nothing was fetched",
        "the {keys} of the study is on the exclusion list; nothing was fetched",
        _EXCLUDED_STEP,
    ),
    "excluded_on_arrival": OutcomeDefinition(
        OutcomeStatus.EXCLUDED,
        "images that arrived are on the exclusion list; they were refused and are not stored",
        "the {keys} inside an image is on the exclusion list; the image was refused and is not stored",
        "inform the PACS team: the images of this study contain other identifiers than the archive's answer",
    ),
    "excluded_but_stored": OutcomeDefinition(
        OutcomeStatus.EXCLUDED,
        "images that are already stored are on the exclusion list now",
        "the {keys} is on the exclusion list, but the study is already stored ({stored:instance})",
        "delete the study's folder (see studies.csv) and run the same command again; Quarry itself deletes "
        "nothing",
    ),
    "archive_refused": OutcomeDefinition(
        OutcomeStatus.FAILED,
        "the archive refused to send the study",
        "the archive refused to send the study ({status})",
        f"{_RETRY_STEP}; if the archive refuses again, show this status to the PACS team",
    ),
    "images_refused": OutcomeDefinition(
        OutcomeStatus.FAILED,
        "Quarry's own receiver refused the images, so nothing of the study is stored",
        "Quarry's own receiver refused the images: {why}",
        _REFUSED_STEP,
    ),
    "query_failed": OutcomeDefinition(
        OutcomeStatus.FAILED,
        "the archive could not answer the query",
        "the archive could not answer the query ({status})",
        f"{_RETRY_STEP}; if it fails again, show this status to the PACS team",
    ),
    "query_cut_short": OutcomeDefinition(
        OutcomeStatus.FAILED,
        "the archive ended its answer early, so some studies may be missing",
        "the archive ended its answer after {answers:study}; there may be more",
        "add an accession or a range of study dates to the row and run the command again with --update",
        cause="why",
    ),
    "nothing_arrived": OutcomeDefinition(
        OutcomeStatus.FAILED,
        "nothing of the study arrived, although the archive lists it",
        "none of the {expected:instance} that the archive lists arrived ({status})",
        "ask the PACS team whether the study is online, and whether it may be sent to this computer",
    ),
    INTERNAL_ERROR: OutcomeDefinition(
        OutcomeStatus.FAILED,
        "Quarry itself failed here: a defect of Quarry, not of the archive or of the table",
        "a defect of Quarry ({place}); its trace, without identifiers, is in quarry.log of the job",
        f"report it with quarry.log; with a version in which it is corrected, {_RETRY_STEP}",
    ),
    "gave_up_waiting": OutcomeDefinition(
        OutcomeStatus.FAILED,
        "the archive did not answer, so Quarry stopped trying",
        "the archive did not answer ({why}); Quarry stopped after {attempts:attempt}",
        _RETRY_STEP,
    ),
    "pending": OutcomeDefinition(
        OutcomeStatus.PENDING, "not finished yet", next_step="run the same command again to continue"
    ),
}


def codes_of(statuses: Collection[OutcomeStatus]) -> frozenset[str]:
    """Return the codes whose status is one of these."""
    return frozenset(code for code, entry in CATALOGUE.items() if entry.status in statuses)


class _CountedNoun(int):
    """A number that formats its noun with it: ``{n:study}`` gives ``1 study`` or ``2,345 studies``."""

    def __format__(self, noun: str) -> str:
        return format_count(int(self), noun) if noun else f"{int(self):,}"


def make_outcome(code: str, **details: object) -> Outcome:
    """Return the outcome of a code, with the details filled into the templates of the catalogue.

    Raises KeyError if the code is unknown, or if a detail that a template needs is missing.
    """
    definition = CATALOGUE[code]
    values = {
        name: _CountedNoun(value) if isinstance(value, int) else value for name, value in details.items()
    }
    reason = (definition.reason or definition.title).format_map(values)
    if details.get(definition.cause):
        reason += f" ({details[definition.cause]})"
    return Outcome(definition.status, code, reason, definition.next_step.format_map(values))


# The worst study decides a row; a study that has not ended comes before every other.
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
    OutcomeStatus.FILTERED,
    OutcomeStatus.COMPLETE,
)


def worst_first(status: OutcomeStatus) -> int:
    """Return the place of a status in an order that begins with the worst."""
    return _WORST_FIRST.index(status)


def worst_outcome(outcomes: Iterable[Outcome]) -> Outcome:
    """Return the outcome of a row from those of its studies (at least one): the first of the worst.

    Of those that failed, one that failed for a defect of Quarry is the worst.
    """
    return min(outcomes, key=lambda one: (worst_first(one.status), one.code != INTERNAL_ERROR))
