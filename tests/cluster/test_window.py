"""The short window: its size, and the turns of the jobs."""

from __future__ import annotations

from collections import Counter

from dicom_quarry.cluster.window import Demand, share_out


def test_jobs_take_turns_however_much_they_have() -> None:
    jobs = share_out(6, [Demand(1, 1.0, 0, 100_000), Demand(2, 1.0, 0, 2), Demand(3, 1.0, 0, 5)])
    assert jobs == [1, 2, 3, 1, 2, 3]


def test_a_weight_is_a_share() -> None:
    given = Counter(share_out(12, [Demand(1, 3.0, 0, 100), Demand(2, 1.0, 0, 100)]))
    assert given == {1: 9, 2: 3}


def test_what_a_job_has_already_counts() -> None:
    assert share_out(3, [Demand(1, 1.0, 4, 9), Demand(2, 1.0, 0, 9)]) == [2, 2, 2]


def test_no_more_than_wanted_and_no_more_than_free() -> None:
    assert share_out(10, [Demand(1, 1.0, 0, 2), Demand(2, 1.0, 0, 0)]) == [1, 1]
    assert share_out(0, [Demand(1, 1.0, 0, 2)]) == []
    assert share_out(5, []) == []
