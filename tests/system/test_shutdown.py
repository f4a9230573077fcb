"""Graceful shutdown: the first request finishes the work in progress, the second cancels it."""

from __future__ import annotations

import threading

import pytest

from dicom_quarry.system.shutdown import Shutdown, Stopped


def test_the_first_request_stops_and_the_second_cancels() -> None:
    shutdown = Shutdown()
    shutdown.raise_if_requested()
    shutdown.wait_unless_stopping(0)
    assert not shutdown.requested
    shutdown.request()
    assert shutdown.requested and not shutdown.cancel_requested
    with pytest.raises(Stopped):
        shutdown.raise_if_requested()
    with pytest.raises(Stopped):
        shutdown.wait_unless_stopping(600)
    shutdown.wait_unless_cancelled(0)
    shutdown.request()
    assert shutdown.cancel_requested
    with pytest.raises(Stopped):
        shutdown.wait_unless_cancelled(600)


def test_a_request_wakes_the_threads_that_wait() -> None:
    shutdown = Shutdown()
    woken: list[str] = []

    def wait() -> None:
        try:
            shutdown.wait_unless_stopping(600)
        except Stopped:
            woken.append("woken")

    threads = [threading.Thread(target=wait) for _ in range(3)]
    for thread in threads:
        thread.start()
    shutdown.request()
    for thread in threads:
        thread.join(60)
    assert woken == ["woken"] * 3
