"""What a worker shares among jobs: turns at a study, and a receiver that knows whose an instance is."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from dicom_quarry.errors import InstanceRefused
from dicom_quarry.extraction.refusals import RefusalLog
from dicom_quarry.extraction.worker import JobSinks, StudyTurns
from dicom_quarry.model import InstanceInfo
from dicom_quarry.system.shutdown import Shutdown, Stopped

TIMEOUT = 60.0
ARRIVAL = InstanceInfo("1.2.840.10008.5.1.4.1.1.2", "1.2.1.1.1", "1.2.840.10008.1.2.1")


def never() -> None:
    """Nothing ends the wait."""


def test_two_that_want_a_study_take_turns() -> None:
    turns, waits, done = StudyTurns(), threading.Event(), threading.Event()

    def second() -> None:
        turns.take("1.2.1", "second", waits.set)
        done.set()

    turns.take("1.2.1", "first", never)
    turns.take("1.2.1", "first", never)
    turns.take("1.2.2", "second", never)
    thread = threading.Thread(target=second)
    thread.start()
    assert waits.wait(TIMEOUT)
    assert not done.is_set()
    turns.end("1.2.1", "second")
    turns.end("1.2.1", "first")
    assert done.wait(TIMEOUT)
    thread.join(TIMEOUT)
    turns.end("1.2.1", "first")
    with pytest.raises(TimeoutError):
        turns.take("1.2.1", "third", _fail)


def _fail() -> None:
    raise TimeoutError


def test_a_cancel_ends_the_wait_for_a_turn() -> None:
    turns, shutdown = StudyTurns(), Shutdown()
    turns.take("1.2.1", "first", never)
    shutdown.request()
    shutdown.request()
    with pytest.raises(Stopped):
        turns.take("1.2.1", "second", shutdown.raise_if_cancelled)


class Sink:
    """A job's sink; ``expected`` is whether it has requested the instance."""

    def __init__(self, name: str, *, expected: bool) -> None:
        self.name, self.expected = name, expected
        self.refusals = RefusalLog()
        self.totals, self.refused = (2, 100), 1

    def expects(self, _: InstanceInfo) -> bool:
        return self.expected

    def begin(self, _: InstanceInfo) -> Any:
        return self.name


@pytest.mark.parametrize("expecting", ["first", "second", "none"])
def test_an_instance_goes_to_the_job_that_requested_it(expecting: str) -> None:
    first, second = (Sink(name, expected=name == expecting) for name in ("first", "second"))
    sinks: Any = JobSinks(first)  # type: ignore[arg-type]
    assert sinks.begin(ARRIVAL) == "first", "the only job"
    with sinks.open(second):
        assert sinks.begin(ARRIVAL) == ("second" if expecting == "second" else "first")
        assert sinks.totals == (4, 200, 2)
    assert sinks.begin(ARRIVAL) == "first"
    assert sinks.totals == (4, 200, 2), "what the second one has stored counts still"


def test_a_worker_without_a_job_takes_nothing() -> None:
    with pytest.raises(InstanceRefused):
        JobSinks().begin(ARRIVAL)


def test_a_refused_sender_is_in_the_log_of_every_job() -> None:
    jobs = [Sink(name, expected=False) for name in ("first", "second")]
    JobSinks(*jobs).add_sender("unknown title", is_lasting=True)  # type: ignore[arg-type]
    for job in jobs:
        refusal = job.refusals.find((), 0.0)
        assert refusal is not None
        assert refusal.reason == "unknown title"
