"""Where a job's state is, who holds it, and which file systems will not do."""

from __future__ import annotations

import fcntl
import os
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dicom_quarry.errors import InputError, StartError
from dicom_quarry.jobs import folder as folders
from dicom_quarry.jobs import local_place
from dicom_quarry.jobs.local_place import LocalPlace, create_local, open_local
from dicom_quarry.jobs.place import Holder
from dicom_quarry.ledger.ledger import Ledger


def begun(folder: LocalPlace) -> LocalPlace:
    ledger = Ledger(folder.ledger)
    ledger.set_metadata(cohort="digest")
    ledger.close()
    return folder


def test_the_state_is_in_the_output_unless_it_is_put_elsewhere(tmp_path: Path) -> None:
    folder = begun(create_local(tmp_path / "new" / "out", None))
    assert folder.state == tmp_path / "new" / "out" / ".quarry"
    for path in (folder.out, folder.state, folder.incoming):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
    assert create_local(folder.out, None) == folder
    assert open_local(folder.out) == folder
    assert {path.parent for path in (folder.ledger, folder.log, folder.progress)} == {folder.state}


def test_a_state_elsewhere_is_found_again_without_being_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = begun(create_local(Path("out"), Path("st ate")))
    assert folder.state == tmp_path / "st ate"
    assert folder.incoming == Path("out/.quarry/incoming"), "on the file system of the images"
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert open_local(tmp_path / "out").state == folder.state
    assert create_local(tmp_path / "out", None).state == folder.state
    assert create_local(tmp_path / "out", tmp_path / "st ate").state == folder.state
    with pytest.raises(InputError, match=r"keeps its state in .*st ate: leave --state out"):
        create_local(tmp_path / "out", tmp_path / "other")


def test_a_state_is_not_moved_nor_shared(tmp_path: Path) -> None:
    begun(create_local(tmp_path / "out", None))
    with pytest.raises(InputError, match="leave --state out"):
        create_local(tmp_path / "out", tmp_path / "state")
    assert not (tmp_path / "state").exists()
    begun(create_local(tmp_path / "one", tmp_path / "state"))
    with pytest.raises(InputError, match="the state of another job"):
        create_local(tmp_path / "two", tmp_path / "state")
    assert not (tmp_path / "two").exists()


def test_a_crash_leaves_the_pointer_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", crash)
        with pytest.raises(KeyboardInterrupt):
            create_local(tmp_path / "out", tmp_path / "state")
    assert not (tmp_path / "out" / ".quarry" / "state-folder").exists()
    assert create_local(tmp_path / "out", tmp_path / "state").state == tmp_path / "state"


def test_no_job_is_a_sentence(tmp_path: Path) -> None:
    for out in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(InputError, match="holds no job"):
            open_local(out)
    create_local(tmp_path / "out", None)
    with pytest.raises(InputError, match="holds no job"):
        open_local(tmp_path / "out")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"file.* cannot be used"):
        create_local(tmp_path / "file" / "out", None)


# -- file systems


def test_a_network_file_system_is_refused_and_another_folder_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = tmp_path / "net"
    monkeypatch.setattr(folders, "file_system_type", lambda path: "nfs4" if net in path.parents else "ext4")
    with pytest.raises(InputError, match=r"network file system \(nfs4\).*--state DIR"):
        create_local(net / "out", None)
    with pytest.raises(InputError, match="network"):
        create_local(net / "out", net / "state")
    assert create_local(net / "out", tmp_path / "state").state == tmp_path / "state", "as the remedy says"


# -- who holds it

_HOLD = """
import sys
import time
from pathlib import Path
from dicom_quarry.jobs.local_place import create_local
with create_local(Path(sys.argv[1]), None).lock():
    print("held", flush=True)
    sys.stdin.readline()
"""


@contextmanager
def other_process(out: Path) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(out)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "held\n"
        try:
            yield child
        finally:
            child.kill()


def test_two_runs_on_one_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_place, "_LOCK_TIMEOUT", 0.05)
    folder = create_local(tmp_path / "out", None)
    assert folder.holder() is None
    with other_process(folder.out) as child:
        assert folder.holder() == Holder(child.pid)
        with pytest.raises(StartError, match=rf"process {child.pid}\) is already working on {folder.out}"):
            folder.lock().__enter__()
        assert folder.holder() == Holder(child.pid)
        child.kill()
        child.wait(10)
        assert folder.holder() is None, "kill -9 lets go"
        with folder.lock():
            assert folder.holder() == Holder(os.getpid())
    assert folder.holder() is None


def test_who_only_looks_does_not_keep_a_job_from_starting(tmp_path: Path) -> None:
    folder = create_local(tmp_path / "out", None)
    with folder.lock():
        pass
    looking = os.open(folder.state / "lock", os.O_RDONLY)
    fcntl.flock(looking, fcntl.LOCK_SH)
    assert folder.holder() is None, "another who looks is not taken for the job"
    # What ``quarry status`` does next, while the job tries again.
    closed: list[int] = []
    real = time.sleep

    def sleep(seconds: float) -> None:
        if not closed:
            closed.append(looking)
            os.close(looking)
        real(0)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(time, "sleep", sleep)
        with folder.lock():
            assert closed
