"""Delays between retries."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dicom_quarry.system.backoff import backoff, notification_retry_delay, on_complete_retry_delay


@given(st.integers(0, 50), st.floats(0, 1))
def test_the_delay_grows_to_a_maximum_and_is_spread(failures: int, jitter: float) -> None:
    delay = backoff(failures, jitter)
    assert 5 * 0.75 <= delay <= 600 * 1.25
    assert backoff(failures + 1, jitter) >= delay
    assert backoff(failures, 0.0) < backoff(failures, 1.0)


def test_a_failing_command_runs_again_until_its_time_is_over() -> None:
    assert on_complete_retry_delay(1, 0.0, 0.5) is None
    delays = [on_complete_retry_delay(tries, 3600.0, 0.5) for tries in range(1, 20)]
    assert delays[:4] == [1.0, 2.0, 4.0, 8.0]
    assert max(delay for delay in delays if delay) == 600.0
    last = delays.index(None)
    assert sum(delay for delay in delays[: last - 1] if delay) < 3600 <= sum(filter(None, delays[:last]))


def test_a_notification_is_given_up_after_a_few_tries() -> None:
    assert [notification_retry_delay(tries) for tries in range(1, 5)] == [1.0, 2.0, 4.0, None]
