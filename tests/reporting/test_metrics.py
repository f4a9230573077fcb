"""The metrics file: the text format, the numbers of the view, and a folder that cannot be used."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from dicom_quarry.jobs.opened_job import OpenedJob, open_job
from dicom_quarry.jobs.registry import job_key
from dicom_quarry.ledger.activity import ArchiveLoad, Slice
from dicom_quarry.reporting.job_view import read_job_view
from dicom_quarry.reporting.metrics import MetricsFile, render_job_metrics
from tests.e2e.finished_job import record_job

Sample = tuple[str, tuple[tuple[str, str], ...]]

_NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
_LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\[\\"n])*)"(?:,|$)')


def parse(text: str) -> dict[Sample, float]:
    """Read the text exposition format 0.0.4 as strictly as Prometheus, and group by group."""
    assert text.endswith("\n")
    found: dict[Sample, float] = {}
    groups: list[str] = []
    for line in text.splitlines():
        if line.startswith("# HELP "):
            name = re.fullmatch(rf"# HELP ({_NAME}) .+", line)
            assert name is not None and name[1] not in groups
            groups.append(name[1])
        elif line.startswith("# TYPE "):
            assert re.fullmatch(rf"# TYPE {groups[-1]} (gauge|counter)", line)
            assert line.endswith("counter") == groups[-1].endswith("_total")
        else:
            sample = re.fullmatch(rf"({_NAME})\{{(.*)\}} (\S+)", line)
            assert sample is not None and sample[1] == groups[-1], line
            labels = tuple((one[1], one[2]) for one in _LABEL.finditer(sample[2]))
            assert ",".join(f'{key}="{value}"' for key, value in labels) == sample[2]
            assert (sample[1], labels) not in found
            found[sample[1], labels] = float(sample[3])
    return found


@pytest.fixture
def job(tmp_path: Path) -> Iterator[OpenedJob]:
    record_job(tmp_path / "secret-name", 2, 3)
    with open_job(tmp_path / "secret-name") as opened:
        yield opened


def test_the_numbers_are_those_of_the_view(job: OpenedJob) -> None:
    view = read_job_view(job)
    found = parse(render_job_metrics(view, "0815", 12.5))
    assert {labels[0] for _, labels in found} == {("job", "0815")}
    values = {
        (name.removeprefix("quarry_job_"), *labels[1:]): value for (name, labels), value in found.items()
    }
    assert values["rows", ("outcome", "complete")] == view.rows == 2
    assert values["rows", ("outcome", "failed")] == 0
    assert values["studies", ("outcome", "complete")] == 2
    assert values["instances_stored",] == values["instances_expected",] == 6
    assert values["stored_bytes",] == view.size > 0
    assert values["updated_timestamp_seconds",] == 12.5
    assert values["created_timestamp_seconds",] == view.started_at.timestamp()
    states = {labels[1][1]: value for (name, labels), value in found.items() if name == "quarry_job_state"}
    assert [state for state, value in states.items() if value] == ["finished"]


def test_a_running_job_has_its_rate_and_its_state(job: OpenedJob) -> None:
    view = replace(
        read_job_view(job), state="waiting", waiting_for="x", bytes_per_second=1.5, seconds_left=60
    )
    text = render_job_metrics(view, "1", 0)
    found = {name: value for (name, labels), value in parse(text).items() if len(labels) == 1}
    assert found["quarry_job_receiving_bytes_per_second"] == 1.5
    assert found["quarry_job_left_seconds"] == 60
    assert found["quarry_job_waiting"] == 1
    assert 'state="waiting"} 1' in text
    assert 'state="killed"} 1' in render_job_metrics(replace(view, was_killed=True), "1", 0)
    assert 'state="stopping"} 1' in render_job_metrics(replace(view, is_stopping=True), "1", 0)


def test_the_load_is_by_archive_with_escaped_names(job: OpenedJob) -> None:
    view = read_job_view(job)
    load = ArchiveLoad({0: Slice(queries=3, refusals=1), 60: Slice(queries=1)}, failed_queries=2)
    view.activity.archives['a "b" \\ c\nd'] = load
    found = parse(render_job_metrics(view, "1", 0))
    label = ("archive", r"a \"b\" \\ c\nd")
    assert found["quarry_job_queries_total", (("job", "1"), label)] == 4
    assert found["quarry_job_refusals_total", (("job", "1"), label)] == 1
    assert found["quarry_job_failed_queries_total", (("job", "1"), label)] == 2


def test_a_file_a_job_that_everybody_may_read(job: OpenedJob, tmp_path: Path) -> None:
    folder, told = tmp_path / "metrics", list[str]()
    file = MetricsFile(folder, job, told.append)
    file.update()
    [message] = told
    assert f"metrics: {folder} cannot be written (No such file or directory)" in message
    folder.mkdir()
    file._next_at, began = 0.0, time.monotonic()
    file.update()
    [path] = folder.iterdir()
    assert path.name == f"quarry_{job_key(job.out)}.prom"
    assert path.stat().st_mode & 0o777 == 0o644
    text = path.read_text()
    assert parse(text)
    for word in ("secret-name", str(tmp_path), "P0000", "A0000", "2.25."):
        assert word not in text + path.name
    path.unlink()
    assert file._next_at > began, "reading the numbers takes time"
    file._next_at += 1000
    file.update()
    assert not path.exists(), "too early"
    folder.rmdir()
    folder.touch()
    file._next_at = 0.0
    file.update()
    assert told == [message]
