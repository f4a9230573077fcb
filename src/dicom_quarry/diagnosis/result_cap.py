"""Whether the archive stops at a number of answers: longer and longer spans of study dates are asked for."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, timedelta

from dicom_quarry.archive.base import Found
from dicom_quarry.diagnosis.context import Bench, Mark, Step
from dicom_quarry.errors import ArchiveError

#: Days back from the newest.
_SPANS = (1, 7, 30, 180, 730, 3650)

#: A cap above this does not matter: no question of a cohort has so many answers.
MOST = 5_000

#: Asks for the studies of two dates and all between them.
Ask = Callable[[date, date], Found]


def probe(bench: Bench, newest: date) -> Step:
    """Ask the archive; a cap that is found is remembered."""
    archive = bench.archive(bench.learned.model or bench.profile.model, answer_cap=MOST)
    try:
        cap, most = find_cap(lambda first, last: archive.find(_within(first, last)), newest)
    except ArchiveError as error:
        return Step("result cap", Mark.NOTE, f"cannot be told: {error}")
    finally:
        archive.close()
    if cap is None:
        return Step("result cap", Mark.GOOD, f"none met, with up to {most:,} answers")
    bench.learned.result_cap = cap
    said = f"the archive never gives more than {cap:,} answers"
    return Step("result cap", Mark.NOTE, said, f"result-cap = {cap} in quarry.toml (--save writes it)")


def _within(first: date, last: date) -> dict[str, str]:
    return {"StudyDate": f"{first:%Y%m%d}-{last:%Y%m%d}"}


def find_cap(ask: Ask, newest: date) -> tuple[int | None, int]:
    """The cap, if one shows itself, and the largest number of answers that came.

    An archive may say that it stopped early. If it does not, the parts of a span bring more than the whole.
    """
    most = 0
    for days in _SPANS:
        start = newest - timedelta(days=days - 1)
        whole = ask(start, newest)
        most = max(most, len(whole.studies))
        if not whole.complete:
            return (None if most >= MOST else most or None), most
    # The longest span has the most answers, and if there is a cap, as many as that.
    return (most if most and _parts_bring_more(ask, start, newest, most) else None), most


def _parts_bring_more(ask: Ask, start: date, end: date, count: int) -> bool:
    first, last = start, end
    while first < last:
        middle = first + (last - first) // 2
        older = len(ask(first, middle).studies)
        newer = len(ask(middle + timedelta(days=1), last).studies)
        if older + newer > count:
            # Asked once more: a study that came in between two questions is no cap.
            return len(ask(start, end).studies) == count
        if older and newer:
            return False
        # All are on one side, which may have been cut short like the whole.
        first, last = (first, middle) if older else (middle + timedelta(days=1), last)
    return False
