"""Who is in front of a job at a port, and what it does without the folder in which jobs meet."""

from __future__ import annotations

from pathlib import Path

import pytest

from dicom_quarry.errors import PortInUse, StartError
from dicom_quarry.model import AE
from dicom_quarry.scheduling import host_state
from dicom_quarry.scheduling.port_queue import PortQueue, PortRegistry
from dicom_quarry.system.shutdown import Shutdown, Stopped

PORT = 11112


class Harbour:
    """A queue_for_port at an address; a job that is told to wait is stopped at once."""

    def __init__(self, shared: Path, host: str, *, queue: bool) -> None:
        self.waited: list[str] = []
        self._stop = Shutdown()
        local = AE("QUARRY", host, PORT)
        self.queue_for_port = PortQueue(
            local, shared / "out", shared, self._stop, queue=queue, on_wait=self._waits
        )

    def _waits(self, behind: str) -> None:
        self.waited.append(behind)
        self._stop.request()

    def enter(self) -> None:
        with self.queue_for_port.acquire(lambda: None):
            pass


@pytest.mark.parametrize(("ahead", "ours"), [("10.0.0.1", "10.0.0.1"), ("", "10.0.0.1"), ("10.0.0.1", "")])
def test_who_queued_earlier_for_the_same_address_is_in_front(tmp_path: Path, ahead: str, ours: str) -> None:
    harbour = Harbour(tmp_path, ours, queue=True)
    with (
        PortRegistry(tmp_path, PORT).register(ahead, tmp_path / "ahead", queued=True),
        pytest.raises(Stopped),
    ):
        harbour.enter()
    assert f"held by the job {tmp_path / 'ahead'} (user " in harbour.waited[0]


def test_who_has_another_address_is_not(tmp_path: Path) -> None:
    harbour = Harbour(tmp_path, "10.0.0.2", queue=True)
    with PortRegistry(tmp_path, PORT).register("10.0.0.1", tmp_path, queued=True):
        harbour.enter()
    assert not harbour.waited


def test_what_a_ticket_says_keeps_nobody_from_a_free_port(tmp_path: Path) -> None:
    with (
        PortRegistry(tmp_path, PORT).register("", tmp_path, queued=False),
        PortRegistry(tmp_path, PORT).register("", tmp_path, queued=True),
    ):
        Harbour(tmp_path, "", queue=False).enter()


def test_without_a_folder_to_meet_in_a_job_runs_but_does_not_queue(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "file"
    file.touch()
    monkeypatch.setattr(host_state, "FALLBACK_FOLDER", file)
    Harbour(file, "", queue=False).enter()
    with pytest.raises(StartError, match=f"install -d -m 1777 {file}"):
        Harbour(file, "", queue=True).enter()

    def taken() -> None:
        raise PortInUse("port 11112 is held by storescp")

    with (
        pytest.raises(PortInUse, match="storescp"),
        Harbour(file, "", queue=False).queue_for_port.acquire(taken),
    ):
        pass
