"""The view of a job that report.html, the web pages, ``quarry status --json`` and the metrics share.

It has numbers, reason codes and outcome titles, and nothing from the user's table or from the archive.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

from dicom_quarry.jobs.opened_job import OpenedJob
from dicom_quarry.jobs.progress import ActiveStudy
from dicom_quarry.jobs.status import JobStatus
from dicom_quarry.ledger.activity import Activity
from dicom_quarry.ledger.views import Counts
from dicom_quarry.model import SETTLED, OnCompleteState, OutcomeStatus
from dicom_quarry.outcomes import CATALOGUE
from dicom_quarry.plurals import format_count, format_part


class VerdictLevel(StrEnum):
    """The colour of a verdict: all is well, a person should look, more work is to come."""

    GOOD = "good"
    ATTENTION = "attention"
    UNFINISHED = "unfinished"


@dataclass(frozen=True, slots=True)
class OutcomeCount:
    """The rows that have one reason code."""

    status: OutcomeStatus
    code: str
    title: str
    next_step: str
    rows: int


@dataclass(frozen=True, slots=True)
class FlowStep:
    """A step of the cohort flow: the rows that reach it, and those that leave after it, by reason."""

    label: str
    rows: int
    leaving: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True)
class JobView:
    """A job at one moment, as every page shows it.

    ``name`` is that of the output folder: a user chose it, so it is for pages with identifiers alone.
    ``outcomes`` has the codes of the most rows first. ``instances_missing`` are listed by the archive and not
    stored. ``bytes_per_second``, ``seconds_left`` and ``waiting_for`` are those of a running job, None or
    empty where unknown; so are the bytes of its progress, 0 where unknown, and its ``active_studies``.
    """

    name: str
    state: str
    process: int | None
    started_at: datetime
    ended_at: datetime | None
    verdict: str
    level: VerdictLevel
    rows: int
    rows_done: int
    rows_by_status: Mapping[OutcomeStatus, int]
    outcomes: tuple[OutcomeCount, ...]
    studies: int
    studies_done: int
    studies_complete: int
    studies_released: int
    studies_by_status: Mapping[OutcomeStatus, int]
    on_complete_counts: Mapping[str, int]
    instances_expected: int
    instances_stored: int
    size: int
    files_damaged: int
    bytes_per_second: float | None
    seconds_left: float | None
    waiting_for: str
    flow: tuple[FlowStep, ...]
    activity: Activity
    was_killed: bool = False
    is_stopping: bool = False
    bytes_done: float = 0
    bytes_expected: float = 0
    active_studies: tuple[ActiveStudy, ...] = ()

    @property
    def rows_needing_attention(self) -> int:
        """The number of rows that have ended, and are neither complete nor filtered."""
        return self.rows_done - sum(self.rows_by_status.get(status, 0) for status in SETTLED)

    @property
    def instances_missing(self) -> int:
        """The number of instances that the archive lists and that are not stored, at least."""
        return max(0, self.instances_expected - self.instances_stored)


def read_job_view(job: OpenedJob) -> JobView:
    """Read the view of a job; takes seconds with a million rows. Raises LedgerError."""
    status, activity = job.status(), job.reader.activity()
    counts, progress = status.counts, status.progress
    pending = counts.rows_by_status.get(OutcomeStatus.PENDING, 0)
    level, verdict = _verdict(status)
    ended = datetime.fromtimestamp(activity.ended, UTC) if activity.ended else None
    return JobView(
        name=job.out.absolute().name,
        state=status.state,
        process=status.process,
        started_at=status.started_at,
        ended_at=ended,
        verdict=verdict,
        level=level,
        rows=counts.rows,
        rows_done=counts.rows - pending,
        rows_by_status=counts.rows_by_status,
        outcomes=_outcomes(counts.rows_by_code),
        studies=counts.studies,
        studies_done=counts.studies_done,
        studies_complete=counts.studies_complete,
        studies_released=counts.studies_released,
        studies_by_status=_by_status(counts.studies_by_code),
        on_complete_counts=counts.on_complete_counts,
        instances_expected=counts.instances_expected,
        instances_stored=counts.instances_stored,
        size=counts.size,
        files_damaged=status.damage.files if status.damage else 0,
        bytes_per_second=progress.get("bytes_per_second"),
        seconds_left=progress.get("seconds_left"),
        waiting_for=status.waiting_for,
        flow=make_flow(counts),
        activity=activity,
        was_killed=status.was_killed,
        is_stopping=status.is_stopping,
        bytes_done=progress.get("bytes_done", 0),
        bytes_expected=progress.get("bytes_expected", 0),
        active_studies=tuple(
            ActiveStudy(one["row"], one["stored"], one["listed"])
            for one in progress.get("active_studies", [])
        ),
    )


def _by_status(by_code: Mapping[str, int]) -> dict[OutcomeStatus, int]:
    statuses = [CATALOGUE[code].status for code in by_code]
    return {
        status: sum(number for code, number in by_code.items() if CATALOGUE[code].status is status)
        for status in OutcomeStatus
        if status in statuses
    }


def _outcomes(rows_by_code: Mapping[str, int]) -> tuple[OutcomeCount, ...]:
    ordered = sorted(rows_by_code.items(), key=lambda one: (-one[1], one[0]))
    return tuple(
        OutcomeCount(CATALOGUE[code].status, code, CATALOGUE[code].title, CATALOGUE[code].next_step, number)
        for code, number in ordered
    )


def _verdict(status: JobStatus) -> tuple[VerdictLevel, str]:
    """Return the state of the job in one sentence, without anything that names a patient."""
    counts = status.counts
    pending = counts.rows_by_status.get(OutcomeStatus.PENDING, 0)
    ended = format_part(counts.rows - pending, counts.rows, "row")
    if status.process is not None:
        state = "is queued" if status.is_queued else "runs"
        return VerdictLevel.UNFINISHED, f"The job {state}: {ended} ended so far."
    if status.was_killed:
        return (
            VerdictLevel.UNFINISHED,
            f"Killed: the job's process ended without stopping. {ended} ended. Run the same command again to "
            "continue.",
        )
    if not counts.is_fetched:
        return (
            VerdictLevel.UNFINISHED,
            f"Not finished: {ended} ended. Run the same command again to continue.",
        )
    if not counts.is_finished:
        return (
            VerdictLevel.UNFINISHED,
            "Not finished: the on-complete command is still to run for some studies.",
        )
    return _verdict_of_end(status)


def _verdict_of_end(status: JobStatus) -> tuple[VerdictLevel, str]:
    counts = status.counts
    open_rows = sum(number for one, number in counts.rows_by_status.items() if one not in SETTLED)
    complete = counts.rows_by_status.get(OutcomeStatus.COMPLETE, 0)
    filtered = counts.rows_by_status.get(OutcomeStatus.FILTERED, 0)
    if open_rows:
        verb = "needs" if open_rows == 1 else "need"
        part = format_part(complete, counts.rows, "row")
        return VerdictLevel.ATTENTION, f"{part} complete; {open_rows:,} {verb} attention."
    if status.damage is not None:
        files = format_count(status.damage.files, "file")
        verb = "is" if status.damage.files == 1 else "are"
        return VerdictLevel.ATTENTION, f"Every row was complete, but {files} {verb} damaged or missing now."
    if counts.on_complete_counts.get(OnCompleteState.FAILED):
        return VerdictLevel.ATTENTION, "Every row is complete, but an on-complete command failed."
    if filtered:
        return VerdictLevel.GOOD, (
            f"Every row is complete, or filtered by your own options ({filtered:,} of {counts.rows:,})."
        )
    return VerdictLevel.GOOD, "Every row is complete: all that the archive lists is stored."


#: The codes of rows that fail while their studies are searched for.
_SEARCH_FAILURES = ("query_failed", "query_cut_short", "answers_do_not_match")
_SELECTION_FAILURES = ("too_many_studies", "attribute_not_returned", "condition_not_returned")


def make_flow(counts: Counts) -> tuple[FlowStep, ...]:
    """Return the flow of the rows in the manner of a CONSORT diagram, from the table to complete rows."""
    by_code = counts.rows_by_code

    def rows_with(*statuses: OutcomeStatus, but: tuple[str, ...] = ()) -> int:
        return sum(
            number
            for code, number in by_code.items()
            if CATALOGUE[code].status in statuses and code not in but
        )

    def rows_of(codes: tuple[str, ...]) -> int:
        return sum(by_code.get(code, 0) for code in codes)

    others = (*_SEARCH_FAILURES, *_SELECTION_FAILURES)
    pending = rows_with(OutcomeStatus.PENDING)
    waiting = min(counts.rows_waiting, pending)
    # The reasons that a reader looks for are shown without a row, too.
    stages: tuple[tuple[str, tuple[tuple[str, int, bool], ...]], ...] = (
        ("Rows listed", (("Invalid", rows_with(OutcomeStatus.INVALID_ROW), True),)),
        ("Valid rows", (("Excluded by a list", rows_with(OutcomeStatus.EXCLUDED), True),)),
        (
            "Rows searched",
            (
                ("Not found", rows_with(OutcomeStatus.NOT_FOUND), True),
                ("Search failed", rows_of(_SEARCH_FAILURES), False),
                ("Not searched yet", waiting, False),
            ),
        ),
        (
            "Rows found",
            (
                ("Several patients", rows_with(OutcomeStatus.SEVERAL_PATIENTS), True),
                ("Cannot be selected", rows_of(_SELECTION_FAILURES), False),
            ),
        ),
        ("Of one patient", (("Filtered", rows_with(OutcomeStatus.FILTERED), True),)),
        (
            "Rows to retrieve",
            (
                ("Partial", rows_with(OutcomeStatus.PARTIAL), True),
                ("Not verified", rows_with(OutcomeStatus.UNVERIFIED), False),
                ("No images", rows_with(OutcomeStatus.NO_IMAGES), False),
                ("Other identifiers", rows_with(OutcomeStatus.MISMATCH, but=others), False),
                ("Failed", rows_with(OutcomeStatus.FAILED, but=others), False),
                ("Not finished yet", pending - waiting, False),
            ),
        ),
    )
    steps, left = [], counts.rows
    for label, reasons in stages:
        leaving = tuple((name, number) for name, number, always in reasons if number or always)
        steps.append(FlowStep(label, left, leaving))
        left -= sum(number for _, number in leaving)
    return (*steps, FlowStep("Rows complete", left))
