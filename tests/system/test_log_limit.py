"""Log handlers never raise into what they log, and lines of one cause are limited in rate."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from dicom_quarry.system.log_limit import RepeatLimit, SafeFileHandler, SafeHandler


@pytest.fixture
def log() -> Iterator[logging.Logger]:
    logger = logging.Logger("dicom_quarry.receiver.session", logging.INFO)
    yield logger
    for handler in logger.handlers:
        handler.close()


class Broken(SafeHandler):
    def emit(self, record: logging.LogRecord) -> None:
        raise MemoryError


def test_a_handler_that_fails_raises_nothing_and_counts(log: logging.Logger) -> None:
    handler = Broken()
    log.addHandler(handler)
    log.warning("first")
    log.warning("a wrong format %d", "x")
    assert handler.lost == 2


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_costs_lines_alone(log: logging.Logger, capsys: pytest.CaptureFixture[str]) -> None:
    handler = SafeFileHandler(Path("/dev/full").open("w", encoding="utf-8"))  # noqa: SIM115 (the log closes it)
    log.addHandler(handler)
    log.warning("line")
    assert handler.lost == 1
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("address", ["10.0.0.1", "10.0.0.{}"], ids=["one sender", "many"])
def test_what_a_stranger_can_cause_is_limited(log: logging.Logger, tmp_path: Path, address: str) -> None:
    path = tmp_path / "log"
    log.addHandler(SafeFileHandler(path.open("w", encoding="utf-8")))
    for number in range(10_000):
        log.info("association with %s ended", address.format(number))
    assert 0 < len(path.read_text().splitlines()) <= 20


def test_lines_that_were_left_out_are_named_later() -> None:
    now = 0.0
    limit = RepeatLimit(lambda: now)
    assert [limit.admit("a", "x"), limit.admit("a", "x"), limit.admit("b", "x")] == ["x", "", "x"]
    now = 61.0
    assert limit.admit("a", "x") == "x (lines like this that were left out: 1)"
