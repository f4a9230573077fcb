"""Whether the archive stops at a number of answers: longer and longer spans of study dates are asked for."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, timedelta

from dicom_quarry.archive.base import StudyQueryResult
from dicom_quarry.diagnosis.context import CheckContext, CheckStep, StepStatus
from dicom_quarry.errors import ArchiveError

#: Days back from the newest.
_SPAN_DAYS = (1, 7, 30, 180, 730, 3650)

#: A cap above this does not matter: no question of a cohort has so many answers.
MAX_RESULTS = 5_000

#: Asks for the studies of two dates and all between them.
QueryDateRange = Callable[[date, date], StudyQueryResult]


def probe_result_cap(context: CheckContext, newest: date) -> CheckStep:
    """Ask the archive; a cap that is found is remembered."""
    archive = context.open_archive(context.findings.model or context.profile.model, answer_cap=MAX_RESULTS)
    try:
        cap, largest = find_result_cap(lambda first, last: archive.find(_date_range_key(first, last)), newest)
    except ArchiveError as error:
        return CheckStep("result cap", StepStatus.NOTE, f"cannot be told: {error}")
    finally:
        archive.close()
    if cap is None:
        return CheckStep("result cap", StepStatus.GOOD, f"none met, with up to {largest:,} answers")
    context.findings.result_cap = cap
    message = f"the archive never gives more than {cap:,} answers"
    return CheckStep(
        "result cap", StepStatus.NOTE, message, f"result-cap = {cap} in quarry.toml (--save writes it)"
    )


def _date_range_key(first: date, last: date) -> dict[str, str]:
    return {"StudyDate": f"{first:%Y%m%d}-{last:%Y%m%d}"}


def find_result_cap(query: QueryDateRange, newest: date) -> tuple[int | None, int]:
    """The cap, if one shows itself, and the largest number of answers that came.

    An archive may say that it stopped early. If it does not, the parts of a span bring more than the whole.
    """
    largest = 0
    for days in _SPAN_DAYS:
        start = newest - timedelta(days=days - 1)
        whole = query(start, newest)
        largest = max(largest, len(whole.studies))
        if not whole.complete:
            return (None if largest >= MAX_RESULTS else largest or None), largest
    # The longest span has the most answers, and if there is a cap, as many as that.
    return (largest if largest and _halves_exceed_whole(query, start, newest, largest) else None), largest


def _halves_exceed_whole(query: QueryDateRange, start: date, end: date, count: int) -> bool:
    first, last = start, end
    while first < last:
        middle = first + (last - first) // 2
        older = len(query(first, middle).studies)
        newer = len(query(middle + timedelta(days=1), last).studies)
        if older + newer > count:
            # Asked once more: a study that came in between two questions is no cap.
            return len(query(start, end).studies) == count
        if older and newer:
            return False
        # All are on one side, which may have been cut short like the whole.
        first, last = (first, middle) if older else (middle + timedelta(days=1), last)
    return False
