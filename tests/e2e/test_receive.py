"""``quarry receive`` as the replacement of a storescp: real processes on both sides."""

from __future__ import annotations

import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

import pydicom
import pytest

from dicom_quarry.cli.main import main
from dicom_quarry.model import AE, InstanceInfo
from dicom_quarry.store.part10 import encode_file_head
from dicom_quarry.wire import dimse
from tests.e2e import command
from tests.e2e.command import Running, files, quarry, until
from tests.e2e.file_systems import small_disk
from tests.e2e.receive_process import Receiving, dicom, send
from tests.e2e.test_terminal import Terminal
from tests.peers.process import free_port, wait_for
from tests.receiver.helpers import CT, EXPLICIT, RawPeer
from tests.store.instances import dataset

pytestmark = pytest.mark.archive

PLACE = "4711/1.2.3/1.2.3.4/1.2.3.4.5.dcm"


def sent_dataset(path: Path) -> bytes:
    """What follows the file meta information."""
    data = path.read_bytes()
    return data[144 + int.from_bytes(data[140:144], "little") :]


# ---- the command line of dcm4che's users


def test_the_line_of_a_dcm4che_script(work: Path) -> None:
    port = free_port()
    folder, pid = work / "in", work / "receive.pid"
    pattern = "{00100020}/{0020000D}/{0020000E}/{00080018}.dcm"
    line = ["receive", "--accept-unknown", "--directory", folder, "--filepath", pattern]
    paths = dicom(work, count=3)
    with Running(work / "out.txt", *line, "-b", f"QBNIFFLER:{port}", "--pid-file", pid) as running:
        until(running, "ready", lambda: "ready: " in running.output)
        assert running.output == f"ready: QBNIFFLER:{port} (process {running.pid})\n"
        assert pid.read_text() == f"{running.pid}\n"
        peer = AE("QBNIFFLER", "127.0.0.1", port)
        assert send("storescu", peer, *paths)[0] == 3
        during = files(folder)
        count, said = send("storescu", AE("STORESCP", "127.0.0.1", port), paths[0])
        assert (count, "Called AE Title Not Recognized" in said) == (0, True), said
        running.terminate()
        assert running.wait() == 0
    for path in paths:
        ds = pydicom.dcmread(path)
        name = f"{ds.PatientID}/{ds.StudyInstanceUID}/{ds.SeriesInstanceUID}/{ds.SOPInstanceUID}.dcm"
        assert sent_dataset(folder / name) == sent_dataset(path)
        assert pydicom.dcmread(folder / name) == ds
        during.remove(name)
    assert during == set()
    assert not pid.exists()
    assert "called the AE title STORESCP" in running.output
    assert "stopped: 3 instances" in running.output


def test_a_port_alone_takes_any_title_and_stops_when_idle(work: Path) -> None:
    port = free_port()
    options = ["receive", "-b", port, "--directory", work / "in", "--until-idle", 1]
    with Running(work / "out.txt", *options) as running:
        until(running, "ready", lambda: f"ready: port {port} " in running.output)
        for title in ("ONE", "ANOTHER"):
            paths = dicom(work, title, patient=title)
            assert send("dcmsend", AE(title, "127.0.0.1", port), *paths)[0] == 1
        assert running.wait() == 0
    assert len(files(work / "in")) == 2


def test_names_of_folders_are_those_with_which_it_was_begun(work: Path) -> None:
    def tops(receiving: Receiving, patient: str) -> set[str]:
        assert send("storescu", receiving.ae, *dicom(work, patient, patient=patient))[0] == 1
        return {name.partition("/")[0] for name in files(receiving.folder)}

    with Receiving(work) as receiving:
        tops(receiving, "mismatch")
        assert tops(receiving, "case7") == {"case7", "%6Dismatch"}
        receiving.running.terminate()
        assert receiving.running.wait() == 0
        late = quarry("receive", "-b", free_port(), "--directory", receiving.folder, "--portable-names")
        assert late.code == 2
        assert "named without --portable-names, and they keep their names" in " ".join(late.err.split())
        (receiving.folder / ".quarry" / "names").unlink()  # a folder of an earlier version
        receiving.start()
        assert tops(receiving, "case8") == {"case7", "%6Dismatch", "case8~"}
    with Receiving(work, "--portable-names", "--layout", "accession", folder="new") as receiving:
        assert tops(receiving, "case9") == {"A1"}
        assert (receiving.folder / ".quarry" / "names").read_text() == "portable\n"


def test_not_idle_while_somebody_is_connected(work: Path) -> None:
    with Receiving(work, "--until-idle", 1) as receiving:
        with RawPeer(receiving.ae.port) as peer:
            peer.associate()
            with pytest.raises(subprocess.TimeoutExpired):
                receiving.running.wait(2.5)
            assert peer.store(dataset(), "1.2.3.4.5").status == dimse.SUCCESS
        assert receiving.running.wait() == 0
    assert files(receiving.folder) == {PLACE}


@pytest.mark.parametrize(
    "accept", [["--accept", "MR1", "CT 2"], ["--accept", "MR1", "--accept", "CT 2"]], ids=["one", "two"]
)
def test_senders_by_title(work: Path, accept: list[str]) -> None:
    (path,) = dicom(work)
    with Receiving(work, *accept) as receiving:
        for _ in range(3):
            assert send("storescu", receiving.ae, path, calling="CT1")[0] == 0
        assert send("storescu", receiving.ae, path, calling="CT 2")[0] == 1
        assert send("storescu", receiving.ae, path, calling="MR1")[0] == 1
        assert receiving.said.count("its AE title CT1 is not in the list of allowed senders") == 1


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["-b", "QUARRY"], "write AET[@IP]:PORT"),
        (["-b", "QUARRY:0"], "a port is a number"),
        (["-b", "0"], "a port is a number"),
        (["-b", "QUARRY:11112", "CT1"], "'CT1' is not an option"),
        (["-b", "QUARRY:11112", "--accept", "A" * 17], "is not an AE title"),
        (["-b", "QUARRY:11112", "--filepath", "{00100020"], "{00100020"),
        (["-b", "QUARRY:11112", "--tls-ca", "ca.pem"], "need --tls-cert"),
        (["-b", "QUARRY:11112", "--tls-cert", "none.pem"], "none.pem cannot be read"),
    ],
)
def test_a_mistake_is_a_sentence(
    work: Path,
    options: list[str],
    sentence: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("sys.argv", ["quarry", "receive", *options])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert sentence in capsys.readouterr().err.replace("\n", " ")
    assert not list(work.iterdir())


# ---- one port, one folder


def test_a_second_one_is_told_who_is_there(work: Path) -> None:
    pid = work / "pid"
    with Receiving(work, "--pid-file", pid) as first:
        process = first.running.pid
        same_port = quarry(
            *("receive", "-b", f"{first.ae.title}@127.0.0.1:{first.ae.port}"),
            *("--directory", work / "other", "--pid-file", pid),
        )
        assert same_port.code == 3
        assert f"port {first.ae.port} is held by quarry (process {process})" in same_port.err
        same_folder = quarry("receive", "-b", f"Q@127.0.0.1:{free_port()}", "--directory", first.folder)
        assert same_folder.code == 3
        assert f"process {process}" in same_folder.err
        job = quarry("extract", cohort(work), "--from", "PACS@127.0.0.1:1", "--to", first.folder)
        assert job.code == 3
        assert f"process {process}" in job.err
        assert pid.read_text() == f"{process}\n"
        (path,) = dicom(work)
        assert send("storescu", first.ae, path)[0] == 1


@pytest.mark.parametrize("mark", ["ledger.db", "state-folder"])
def test_not_into_the_folder_of_a_job(work: Path, mark: str) -> None:
    hidden = work / "out" / ".quarry"
    incoming = hidden / "incoming"
    incoming.mkdir(parents=True)
    (hidden / mark).write_text("")
    (incoming / "1.part").write_bytes(left_over("1.2.3.4.5", dataset()))
    done = quarry("receive", "-b", f"Q@127.0.0.1:{free_port()}", "--directory", work / "out")
    assert (done.code, "is the folder of a job" in done.err) == (2, True), done.err
    assert [path.name for path in incoming.iterdir()] == ["1.part"]


def cohort(work: Path) -> Path:
    path = work / "cohort.csv"
    path.write_text("Accession\nA1\n")
    return path


# ---- stopping


@contextmanager
def half_way(receiving: Receiving, size: int = 3 << 20) -> Iterator[tuple[RawPeer, bytes]]:
    """A sender with half of an instance sent, which is in its temporary file; and the other half."""
    with RawPeer(receiving.ae.port) as peer:
        peer.associate()
        data = peer.message(3, dimse.c_store_rq(1, CT, "1.2.3.4.5"), dataset(pixels=bytes(size)))
        peer.send(data[: len(data) // 2])
        wait_for(lambda: any(p.stat().st_size > size // 4 for p in receiving.incoming.glob("*.part")), "half")
        yield peer, data[len(data) // 2 :]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_what_is_in_flight_arrives_before_it_stops(work: Path, number: signal.Signals) -> None:
    with Receiving(work, "--pid-file", work / "pid") as receiving:
        with half_way(receiving) as (peer, rest):
            receiving.running.signal(number)
            wait_for(lambda: refuses(receiving.ae.port), "no new connections")
            assert not receiving.running.ended
            peer.send(rest)
            assert peer.response().status == dimse.SUCCESS
            assert peer.is_closed()
        assert receiving.running.wait() == 0
    assert files(receiving.folder) == {PLACE}
    assert list(receiving.incoming.iterdir()) == []
    assert not (work / "pid").exists()


def test_a_second_signal_does_not_wait(work: Path) -> None:
    with Receiving(work, "--pid-file", work / "pid") as receiving, half_way(receiving):
        receiving.running.interrupt()
        wait_for(lambda: refuses(receiving.ae.port), "no new connections")
        receiving.running.interrupt()
        assert receiving.running.wait(15) == 0
    assert files(receiving.folder) == set()
    assert list(receiving.incoming.iterdir()) == []
    assert not (work / "pid").exists()


def refuses(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return True
    return False


# ---- after a crash


def test_killed_in_mid_transfer(work: Path) -> None:
    with Receiving(work, "--pid-file", work / "pid") as receiving:
        with half_way(receiving) as (peer, _):
            # Acknowledged on another association just before.
            with RawPeer(receiving.ae.port) as other:
                other.associate()
                assert other.store(dataset("1.2.3.4.6"), "1.2.3.4.6").status == dimse.SUCCESS
            receiving.running.kill()
            assert peer.next_event() is None
        (part,) = receiving.incoming.glob("*.part")
        assert files(receiving.folder) == {PLACE.replace("5.dcm", "6.dcm")}
        receiving.start()
        assert "0 instances recovered, 1 incomplete" in receiving.said
        assert (work / "pid").read_text() == f"{receiving.running.pid}\n"
        assert [path.name for path in receiving.incoming.iterdir()] == [f"{part.stem}.damaged"]
        with RawPeer(receiving.ae.port) as peer:
            peer.associate()
            assert peer.store(dataset(), "1.2.3.4.5").status == dimse.SUCCESS
    assert files(receiving.folder) == {PLACE, PLACE.replace("5.dcm", "6.dcm")}


def left_over(sop_uid: str, data: bytes) -> bytes:
    return encode_file_head(InstanceInfo(CT, sop_uid, EXPLICIT)) + data


def test_what_a_crash_left_whole_is_recovered(work: Path) -> None:
    receiving = Receiving(work)
    receiving.incoming.mkdir(parents=True)
    whole = left_over("1.2.3.4.5", dataset())
    (receiving.incoming / "a-1.part").write_bytes(whole)
    (receiving.incoming / "a-2.part").write_bytes(whole)  # the same once more
    (receiving.incoming / "a-3.part").write_bytes(left_over("1.2.3.4.6", dataset("1.2.3.4.6"))[:-1])
    (receiving.incoming / "a-4.part").write_bytes(b"")
    (receiving.incoming / "a-5.part").symlink_to("/etc/passwd")
    with receiving:
        assert "2 instances recovered, 3 incomplete" in receiving.said
        assert receiving.said.index("recovered") < receiving.said.index("ready:")
        assert files(receiving.folder) == {PLACE}
        assert (receiving.folder / PLACE).read_bytes() == whole
        kept = sorted(path.name for path in receiving.incoming.iterdir())
        assert kept == ["a-3.damaged", "a-4.damaged", "a-5.damaged"]


# ---- names, durability, a full disk, memory


def test_random_names_and_today(work: Path) -> None:
    (path,) = dicom(work)
    with Receiving(work, "--filepath", "{now,date,yyyyMMdd}/{rnd}-{rnd,uuid}.dcm") as receiving:
        assert send("storescu", receiving.ae, path, path)[0] == 2
    names = sorted(files(receiving.folder))
    assert len(names) == 2
    assert all(len(name) == len("20261123/12345678-.dcm") + 36 for name in names)


LISTENER = """
import os, sys
real = {name: getattr(os, name) for name in ("fsync", "fdatasync", "link")}
def tell(name):
    def called(first, *rest, **more):
        if isinstance(first, int):
            path = os.readlink(f"/proc/self/fd/{first}")
        else:
            path = os.path.join(os.readlink(f"/proc/self/fd/{more['dst_dir_fd']}"), rest[0])
        print("SYNC", name, path, file=sys.stderr, flush=True)
        return real[name](first, *rest, **more)
    return called
for name in real:
    setattr(os, name, tell(name))
from dicom_quarry.cli.main import main
main()
"""


def test_durable_with_its_name_before_it_is_acknowledged(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = work / "quarry"
    script.write_text(f"#!{command.QUARRY.with_name('python')}\n{LISTENER}")
    script.chmod(0o700)
    monkeypatch.setattr(command, "QUARRY", script)
    with Receiving(work, anew=True) as receiving, RawPeer(receiving.ae.port) as peer:
        peer.associate()
        assert peer.store(dataset(), "1.2.3.4.5").status == dimse.SUCCESS
        said = [line.split(" ", 2)[1:] for line in receiving.said.splitlines() if line.startswith("SYNC")]
    final = receiving.folder / PLACE
    kinds = [kind for kind, _ in said]
    said = said[kinds.index("fdatasync") :]  # the rule of the names was recorded before
    assert [kind for kind, _ in said[:2]] == ["fdatasync", "link"], said
    assert said[0][1].endswith(".part") and said[1][1] == str(final)
    synced = {path for kind, path in said[2:] if kind == "fsync"}
    assert synced >= {str(folder) for folder in final.parents if folder >= receiving.folder}


def test_a_full_disk_refuses_and_recovers(work: Path) -> None:
    with small_disk(work / "disk", "3m") as disk, Receiving(disk.parent, folder=disk.name) as receiving:
        with RawPeer(receiving.ae.port) as peer:
            peer.associate()
            for number in range(3):
                assert peer.store(dataset(pixels=bytes(4 << 20)), "1.2.3.4.5", number).status == 0xA700
            assert list(receiving.incoming.iterdir()) == []
            assert peer.store(dataset(pixels=bytes(1 << 20)), "1.2.3.4.5").status == dimse.SUCCESS
        wait_for(lambda: "no space left on the disk" in receiving.said, "the reason")
        assert receiving.said.count("no space left on the disk") == 1
        assert files(receiving.folder) == {PLACE}


def test_memory_is_flat(work: Path) -> None:
    large = [dicom(work, f"large-{n}", patient=f"L{n}", pixel_bytes=120 << 20)[0] for n in range(2)]
    small = dicom(work, "small", count=200)
    with Receiving(work, anew=True) as receiving:
        assert send("dcmsend", receiving.ae, *small)[0] == 200
        before = receiving.running.peak()
        threads = [Thread(target=send, args=("storescu", receiving.ae, path)) for path in large]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        peak = receiving.running.peak()
        assert len(files(receiving.folder)) == 202
    assert 10_000_000 < before <= peak < 120_000_000
    assert peak < before + 12_000_000


# ---- on a terminal


def test_a_live_line(work: Path) -> None:
    ae = AE("QUARRY", "127.0.0.1", free_port())
    paths = dicom(work, count=2)
    terminal = Terminal("receive", "-b", f"QUARRY@127.0.0.1:{ae.port}", "--directory", work / "in")
    try:
        terminal.wait_for("ready: QUARRY@127.0.0.1")
        assert send("storescu", ae, *paths)[0] == 2
        terminal.wait_for("0 associations, ")
        terminal.wait_for("2 instances (")
        assert send("storescu", AE("NOBODY", "127.0.0.1", ae.port), *paths)[0] == 0
        terminal.wait_for("called the AE title NOBODY")
        with RawPeer(ae.port) as peer:
            peer.associate()
            terminal.wait_for("1 association, ")
        terminal.type("\x03")
        assert terminal.end() == 0
    finally:
        terminal.child.kill()
        terminal.child.wait()
    assert "stopped: 2 instances" in terminal.shown
