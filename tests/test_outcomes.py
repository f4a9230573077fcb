"""Every code of the catalogue makes an outcome; the worst study decides a row."""

from __future__ import annotations

import string

import pytest

from dicom_quarry.model import OutcomeStatus
from dicom_quarry.outcomes import CATALOGUE, make_outcome, worst_outcome


def _fields(template: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(template) if name}


@pytest.mark.parametrize("code", CATALOGUE)
def test_every_code_has_a_sentence_and_a_next_step(code: str) -> None:
    entry = CATALOGUE[code]
    details = dict.fromkeys(_fields(entry.reason) | _fields(entry.next_step), 2)
    outcome = make_outcome(code, **details)
    assert (outcome.status, outcome.code) == (entry.status, code)
    assert outcome.reason
    assert "{" not in outcome.reason + outcome.next_step
    assert bool(outcome.next_step) == (entry.status is not OutcomeStatus.COMPLETE)
    assert not _fields(entry.title)


def test_numbers_take_their_noun_with_them() -> None:
    assert make_outcome("instances_missing", missing=1, expected=1000).reason.startswith(
        "1 instance of 1,000 did"
    )
    assert make_outcome("query_cut_short", answers=500).reason == (
        "the archive ended its answer after 500 studies; there may be more"
    )


def test_a_detail_that_is_missing_is_a_defect() -> None:
    with pytest.raises(KeyError):
        make_outcome("instances_missing", missing=1)


def test_the_worst_study_decides() -> None:
    done, partial = (
        make_outcome("all_listed_stored", instances=1),
        make_outcome("instances_missing", missing=1, expected=2),
    )
    failed = make_outcome("gave_up_waiting", why="no answer", attempts=3)
    assert worst_outcome([done]) is done
    assert worst_outcome([done, partial, done]) is partial
    assert worst_outcome([partial, failed]) is failed
    assert worst_outcome([failed, make_outcome("pending")]).status is OutcomeStatus.PENDING
