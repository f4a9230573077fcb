"""Outside the window a job keeps no association to the archive, and sends nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.expected_outcomes import demo_holding
from tests.e2e.logging_archive import Hours, LoggingArchive, Office, Pause
from tests.peers.process import wait_for

NIGHT = 'window = "19:00-07:00"\ntime-zone = "UTC"'
ROWS = ("Accession", *(f"QA{number:05d}" for number in range(6)))


@pytest.fixture
def pause() -> Pause:
    return Pause(after=1)


@pytest.fixture
def archive(pause: Pause) -> Iterator[LoggingArchive]:
    with LoggingArchive(demo_holding(), [pause]) as server:
        yield server


@pytest.fixture
def office(tmp_path: Path, archive: LoggingArchive) -> Office:
    return Office(tmp_path, archive)


def test_the_idle_query_association_is_released_when_the_window_closes(
    office: Office, archive: LoggingArchive, pause: Pause, monkeypatch: pytest.MonkeyPatch
) -> None:
    hours = Hours(monkeypatch, 20)
    office.configure(NIGHT)
    with office.start(ROWS) as run:
        assert pause.reached.wait(60)
        wait_for(lambda: archive.open_count == 2, "a query association beside the retrieval")
        hours.hour = 8
        wait_for(lambda: archive.open_count == 1, "the release of the idle association")
        pause.go_on.set()  # the study in transfer is finished: after-window is "finish"
        wait_for(lambda: archive.open_count == 0, "the release of the other")
        requests = len(archive.log)
        wait_for((office.folder / "out/.quarry/progress.json").is_file, "the display")
        assert len(archive.log) == requests, "nothing is sent outside the window"
        hours.hour = 19
        assert run.wait().exit_code == 0
    assert archive.seen.most_open == 2


def test_a_listing_that_is_cut_by_the_window_goes_on_when_it_opens(
    office: Office, archive: LoggingArchive, pause: Pause, monkeypatch: pytest.MonkeyPatch
) -> None:
    pause.go_on.set()
    hours = Hours(monkeypatch, 20)
    office.configure(NIGHT)
    original = archive.on_request

    def close_at_series(kind: str, query: object) -> None:
        original(kind, query)  # type: ignore[arg-type]
        if archive.log[-1].level == "SERIES":
            hours.hour = 8

    monkeypatch.setattr(archive, "on_request", close_at_series)
    with office.start(ROWS[:2]) as run:
        wait_for(lambda: bool(archive.requests("find", "SERIES")), "the list of series")
        wait_for(lambda: archive.open_count == 0, "the release")
        assert not archive.requests("find", "IMAGE"), "the next query of the list waits"
        hours.hour = 19
        assert run.wait().exit_code == 0


def test_a_job_that_starts_outside_the_window_sends_nothing(
    office: Office, archive: LoggingArchive, pause: Pause, monkeypatch: pytest.MonkeyPatch
) -> None:
    pause.go_on.set()
    hours = Hours(monkeypatch, 12)
    office.configure(NIGHT)
    with office.start(ROWS[:2]) as run:
        wait_for((office.folder / "out/.quarry/progress.json").is_file, "the job")
        assert not archive.log
        hours.hour = 23
        assert run.wait().exit_code == 0
