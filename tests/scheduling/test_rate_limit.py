"""Rates and the throttle, by a clock that a test moves."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_quarry.scheduling.rate_limit import (
    SECONDS_BEFORE_INCREASE,
    SUCCESSES_BEFORE_INCREASE,
    AdaptiveConcurrency,
    RateLimiter,
)

seconds = st.floats(0.0, 100.0)


@given(st.floats(1e-3, 1e3), st.lists(seconds, max_size=50))
def test_what_is_granted_is_as_far_apart_as_the_rate_wants(rate: float, pauses: list[float]) -> None:
    pace, due, now, granted = RateLimiter(rate), 0.0, 1e6, list[float]()
    for pause in pauses:
        due, wait = pace.try_acquire(due, now)
        if not wait:
            granted.append(now)
        now += pause
    for before, after in pairwise(granted):
        assert after - before >= 1 / rate * (1 - 1e-6) - 1e-6


@given(st.floats(1e-2, 1e3), st.lists(seconds, min_size=1, max_size=50))
def test_who_waits_as_long_as_told_is_served(rate: float, pauses: list[float]) -> None:
    pace, due, now = RateLimiter(rate), 0.0, 1e6
    for pause in pauses:
        due, wait = pace.try_acquire(due, now)
        if wait:
            now += wait + 1e-9
            due, wait = pace.try_acquire(due, now)
        assert wait == 0
        now += pause


def test_a_pause_earns_no_burst() -> None:
    pace = RateLimiter(2.0)
    due, _ = pace.try_acquire(0.0, 1000.0)
    due, wait = pace.try_acquire(due, 5000.0)
    assert wait == 0
    assert pace.try_acquire(due, 5000.0) == (5000.5, 0.5)


def test_bytes_are_waited_for_as_long_as_they_should_have_taken() -> None:
    pace = RateLimiter(1e6)
    due, wait = pace.debit(0.0, 1000.0, 2e6)
    assert wait == 2.0
    due, wait = pace.debit(due, 1000.0, 1e6)
    assert wait == 3.0, "two receive at once: the rate is of both together"
    assert pace.debit(due, 1010.0, 1e6) == (1011.0, 1.0)


@given(st.floats(1e-3, 1e3), st.floats(0.0, 1e9))
def test_a_number_from_before_a_reboot_holds_nobody_up_for_long(rate: float, left: float) -> None:
    assert RateLimiter(rate).try_acquire(left, 5.0)[1] <= max(60.0, 1 / rate)
    assert RateLimiter(rate).debit(left, 5.0, 0.0)[1] <= max(60.0, 1 / rate)


def test_a_refusal_halves_and_it_comes_back_one_by_one() -> None:
    throttle = AdaptiveConcurrency(8)
    assert throttle.limit(0.0) == 8
    assert throttle.on_rejected(started_at=1.0, now=2.0)
    assert throttle.limit(2.0) == 4
    for _ in range(SUCCESSES_BEFORE_INCREASE - 1):
        throttle.on_success()
    assert throttle.limit(3.0) == 4
    throttle.on_success()
    assert throttle.limit(3.0) == 5
    assert throttle.limit(3.0) == 5
    assert throttle.limit(3.0 + SECONDS_BEFORE_INCREASE) == 6
    assert throttle.limit(4.0 + SECONDS_BEFORE_INCREASE) == 6


def test_refusals_of_the_same_moment_count_once() -> None:
    throttle = AdaptiveConcurrency(8)
    told = [throttle.on_rejected(started_at=1.0, now=now) for now in (2.0, 2.1, 2.2)]
    assert told == [True, False, False]
    assert throttle.current_limit == 4
    assert throttle.on_rejected(started_at=3.0, now=4.0)
    assert throttle.current_limit == 2


def test_who_was_served_before_a_refusal_does_not_hasten_the_return() -> None:
    throttle = AdaptiveConcurrency(4)
    for _ in range(SUCCESSES_BEFORE_INCREASE - 1):
        throttle.on_success()
    throttle.on_rejected(started_at=1.0, now=2.0)
    throttle.on_success()
    assert throttle.limit(3.0) == 2


@given(st.integers(1, 16), st.lists(st.tuples(st.booleans(), st.floats(0, 1000)), max_size=200))
def test_it_stays_between_one_and_the_ceiling(ceiling: int, events: list[tuple[bool, float]]) -> None:
    throttle, now = AdaptiveConcurrency(ceiling), 0.0
    for refused, pause in events:
        before = throttle.limit(now)
        if refused:
            throttle.on_rejected(now, now)
        else:
            throttle.on_success()
        now += pause
        assert 1 <= throttle.limit(now) <= min(ceiling, before + 1)


@pytest.mark.parametrize("ceiling", [1, 2])
def test_one_is_always_allowed(ceiling: int) -> None:
    throttle = AdaptiveConcurrency(ceiling)
    assert throttle.on_rejected(1.0, 1.0) == (ceiling > 1), "nothing is said where nothing changes"
    assert throttle.limit(1.0) == 1
