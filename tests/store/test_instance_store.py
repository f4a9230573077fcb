"""One instance on its way to the disk: what is written, what is refused, what is left after a failure."""

from __future__ import annotations

import errno
import hashlib
import os
import resource
import shutil
import threading
import tracemalloc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path, PurePosixPath
from struct import pack

import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dicom_quarry.errors import ConfigError, InstanceRefused, LocalProtocolError, OutOfSpace
from dicom_quarry.model import Header, InstanceAdmission, InstanceInfo, StoreResult
from dicom_quarry.store import file_sync
from dicom_quarry.store.directories import Directories
from dicom_quarry.store.instance_store import InstanceStore
from dicom_quarry.store.part10 import encode_file_head
from dicom_quarry.store.path_template import PathTemplate
from dicom_quarry.system.permissions import Permissions
from dicom_quarry.version import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from dicom_quarry.wire.header_scan import ANYWHERE, scan_dataset
from tests.peers.process import wait_for
from tests.store.instances import (
    CT,
    DEFAULT,
    EXPLICIT,
    SOP_UID,
    anyone,
    arrival,
    dataset,
    element,
    files,
    make_store,
    put,
)
from tests.wire.test_header_scan import Sample, samples

PLACE = "4711/1.2.3/1.2.3.4/1.2.3.4.5.dcm"


def test_a_file_is_meta_and_the_dataset_as_it_came(tmp_path: Path) -> None:
    data = dataset()
    receipt = put(make_store(tmp_path), data)
    stored = (tmp_path / PLACE).read_bytes()
    assert stored.endswith(data)
    assert stored[:132] == bytes(128) + b"DICM"
    meta = pydicom.dcmread(BytesIO(stored)).file_meta
    assert meta.FileMetaInformationGroupLength == len(stored) - len(data) - 144
    assert meta.FileMetaInformationVersion == b"\0\1"
    assert (meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID) == (CT, SOP_UID)
    assert meta.TransferSyntaxUID == EXPLICIT
    assert meta.ImplementationClassUID == IMPLEMENTATION_CLASS_UID
    assert meta.ImplementationVersionName == IMPLEMENTATION_VERSION_NAME
    assert meta.SourceApplicationEntityTitle == "PACS"
    assert receipt.path == PurePosixPath(PLACE)
    assert (receipt.size, receipt.digest) == (len(stored), hashlib.sha256(stored).digest())
    assert (receipt.patient_id, receipt.accession, receipt.transfer_syntax) == ("4711", "A1", EXPLICIT)
    assert (receipt.ref.study_uid, receipt.ref.series_uid) == ("1.2.3", "1.2.3.4")
    assert (receipt.ref.sop_uid, receipt.ref.sop_class) == (SOP_UID, CT)
    assert receipt.result is StoreResult.STORED
    assert files(tmp_path) == [PLACE]


@pytest.mark.parametrize("private", [0, 10_000])
def test_what_came_as_a_file_stays_that_file(tmp_path: Path, private: int) -> None:
    """Its preamble and meta are kept, without a length (Type 1) or with more than most; and found again."""
    uids = encode_file_head(arrival())[144:]
    head = (
        b"II*\0".ljust(128, b"\7")
        + b"DICM"
        + uids
        + pack("<HH2sHL", 2, 0x102, b"OB", 0, private)
        + b"\1" * private
    )
    data = dataset()
    store = make_store(tmp_path)
    receipt = put(store, data, InstanceInfo(CT, SOP_UID, EXPLICIT, head=head))
    stored = (tmp_path / PLACE).read_bytes()
    assert stored == head + data
    assert (receipt.size, receipt.digest) == (len(stored), hashlib.sha256(stored).digest())
    assert list(store.read_receipts(PurePosixPath(PLACE).parent)) == [receipt]
    assert put(store, data).result is StoreResult.IDENTICAL  # the same dataset, by C-STORE


@pytest.mark.parametrize("announced", ["", "9.9.9"])
def test_a_file_that_names_itself_wrongly_is_what_its_dataset_is(tmp_path: Path, announced: str) -> None:
    store = make_store(tmp_path)
    head = encode_file_head(arrival("9.9.9"))
    receipt = put(store, dataset(), InstanceInfo(CT, announced, EXPLICIT, head=head))
    assert (receipt.ref.sop_uid, receipt.path) == (SOP_UID, PurePosixPath(PLACE))
    assert list(store.read_receipts(PurePosixPath(PLACE).parent)) == [receipt]


def test_values_of_the_meta_are_of_even_length(tmp_path: Path) -> None:
    receipt = put(make_store(tmp_path), dataset(), arrival(calling_ae="ORTHANC"))
    head = (tmp_path / receipt.path).read_bytes()[: -len(dataset())]
    assert len(head) % 2 == 0
    assert head.endswith(b"AE\x08\0ORTHANC ")
    assert b"UI\x0a\0" + SOP_UID.encode() + b"\0" in head


def test_files_and_folders_are_for_their_owner_only(tmp_path: Path) -> None:
    root = tmp_path / "out"
    put(make_store(root), dataset())
    modes = {path.relative_to(root): path.stat().st_mode & 0o777 for path in root.rglob("*")}
    assert modes.pop(Path(PLACE)) == 0o600
    assert set(modes.values()) == {0o700}
    assert len(modes) == 4


@pytest.mark.parametrize("sample", samples(), ids=lambda sample: sample.name)
def test_every_syntax_and_kind_is_stored_byte_for_byte(tmp_path: Path, sample: Sample) -> None:
    header = scan_dataset(sample.dataset, sample.transfer_syntax, {0x00080018, 0x0020000D, 0x0020000E})
    store = make_store(tmp_path)
    announced = arrival(header.get(0x00080018) or "1.2", transfer_syntax=sample.transfer_syntax)
    if len([uid for uid in header.values() if uid]) < 3:
        with pytest.raises(InstanceRefused, match="missing"):
            put(store, sample.dataset, announced)
        return
    receipt = put(store, sample.dataset, announced, piece=1000)
    stored = (tmp_path / receipt.path).read_bytes()
    assert stored.endswith(sample.dataset)
    assert pydicom.dcmread(BytesIO(stored), stop_before_pixels=True).file_meta
    assert list(make_store(tmp_path).read_receipts(receipt.path.parent)) == (
        [] if "truncated" in sample.name else [receipt]
    )


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_any_split_gives_the_same_file(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    whole = dataset(pixels=b"\1\2\3\4" * 300)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=10)))
    root = tmp_path_factory.mktemp("split")
    writer = make_store(root).begin(arrival())
    for begin, end in zip([0, *cuts], [*cuts, len(whole)], strict=True):
        buffer = bytearray(whole[begin:end])
        writer.write(memoryview(buffer))
        buffer[:] = bytes(len(buffer))  # the sender's memory is used again
    receipt = writer.commit()
    stored = (root / receipt.path).read_bytes()
    assert stored.endswith(whole)
    assert receipt.digest == hashlib.sha256(stored).digest()
    assert receipt.size == len(stored)


def test_admission_is_asked_once_before_anything_is_on_disk(tmp_path: Path) -> None:
    asked: list[tuple[InstanceInfo, dict[int, str]]] = []

    def admit(announced: InstanceInfo, header: Header) -> InstanceAdmission:
        assert files(tmp_path) == []
        asked.append((announced, dict(header)))
        return InstanceAdmission({"Site": "North"})

    receipt = put(make_store(tmp_path, "{csv:Site}/{00080018}", admit=admit), dataset(), piece=64)
    assert receipt.path == PurePosixPath("North~1e/1.2.3.4.5")
    expected = {0x00080018: SOP_UID, 0x00080050: "A1", 0x00100020: "4711"}
    expected |= {0x0020000D: "1.2.3", 0x0020000E: "1.2.3.4"}
    assert asked == [(arrival(), expected)]


def test_what_is_not_admitted_leaves_no_trace(tmp_path: Path) -> None:
    def admit(_announced: InstanceInfo, _header: Header) -> InstanceAdmission:
        raise InstanceRefused("nobody asked for this study", status=0x0124)

    writer = make_store(tmp_path, admit=admit).begin(arrival())
    with pytest.raises(InstanceRefused) as refused:
        writer.write(memoryview(dataset()))
    assert refused.value.status == 0x0124
    assert files(tmp_path) == []
    with pytest.raises(LocalProtocolError):
        writer.write(memoryview(b"more"))
    writer.abort()


def big_private_element(size: int) -> bytes:
    return pack("<HH2sHL", 0x0009, 0x1001, b"OB", 0, size) + bytes(size)


def test_an_undecided_dataset_waits_in_bounded_memory(tmp_path: Path) -> None:
    admitted = []

    def admit(_announced: InstanceInfo, _header: Header) -> InstanceAdmission:
        admitted.append(True)
        return InstanceAdmission()

    data = dataset(before=big_private_element(16 << 20))
    writer = make_store(tmp_path, admit=admit).begin(arrival())
    tracemalloc.start()
    for at in range(0, len(data), 1 << 16):
        writer.write(memoryview(data)[at : at + (1 << 16)])
        assert admitted or at < 16 << 20
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    receipt = writer.commit()
    assert (tmp_path / receipt.path).read_bytes().endswith(data)
    assert peak < 4 << 20


def test_an_undecided_dataset_that_is_refused_leaves_no_trace(tmp_path: Path) -> None:
    data = dataset("9.9", before=big_private_element(3 << 20))
    with pytest.raises(InstanceRefused):
        put(make_store(tmp_path), data)
    assert files(tmp_path) == []


def test_memory_does_not_grow_with_the_instance(tmp_path: Path) -> None:
    writer = make_store(tmp_path).begin(arrival())
    piece = memoryview(bytes(1 << 18))
    writer.write(memoryview(dataset(without=0x7FE00010)))
    writer.write(memoryview(pack("<HH2sHL", 0x7FE0, 0x0010, b"OW", 0, 200 << 20)))
    tracemalloc.start()
    for _ in range(800):
        writer.write(piece)
    receipt = writer.commit()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert receipt.size > 200 << 20
    assert peak < 1 << 20


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"", 0xA900),
        (dataset(without=0x00080018), 0xA900),
        (dataset(without=0x0020000D), 0xA900),
        (dataset(without=0x0020000E), 0xA900),
        (dataset(""), 0xA900),
        (dataset("1.2.3.4.6"), 0xA900),
        (dataset("../../x"), 0xA900),
        (dataset()[:30], 0xC000),
        (b"\xff" * 100, 0xA900),
    ],
    ids=[
        "empty",
        "no SOP",
        "no study",
        "no series",
        "empty SOP",
        "other SOP",
        "no UID",
        "cut",
        "garbage",
    ],
)
def test_what_cannot_be_taken_is_refused_without_a_trace(tmp_path: Path, data: bytes, status: int) -> None:
    store = make_store(tmp_path)
    with pytest.raises(InstanceRefused) as refused:
        put(store, data)
    assert refused.value.status == status
    assert files(tmp_path) == []
    assert not any(value in str(refused.value) for value in ("4711", "1.2.3", "A1"))


@pytest.mark.parametrize("uid", ["", "..", "../x", "1.2/3", "1.2\0", "1" * 129, "1.2\n", "１.２"])
def test_an_announced_uid_that_is_none_is_refused_at_once(tmp_path: Path, uid: str) -> None:
    with pytest.raises(InstanceRefused) as refused:
        make_store(tmp_path).begin(arrival(uid))
    assert refused.value.status == 0xA900


@pytest.mark.parametrize("uid", ["1." + "2" * 90, "1.02.007", "1.2.ABC-d"])
def test_a_uid_that_the_standard_does_not_allow_is_taken(tmp_path: Path, uid: str) -> None:
    receipt = put(make_store(tmp_path), dataset(uid), arrival(uid))
    assert receipt.ref.sop_uid == uid
    assert receipt.path.name.startswith(uid)


def test_two_uids_that_differ_in_case_alone_are_two_files(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    names = {put(store, dataset(uid), arrival(uid)).path.name.casefold() for uid in ("1.2.a", "1.2.A")}
    assert len(names) == 2


def test_the_suffix_of_a_name_that_is_taken_is_safe(tmp_path: Path) -> None:
    store = make_store(tmp_path, "{00100020}.dcm")
    put(store, dataset("1.2.3.1"), arrival("1.2.3.1"))
    receipt = put(store, dataset("1.2.:A"), arrival("1.2.:A"))
    assert receipt.path.name == "4711~1.2.%3AA.dcm"


@pytest.mark.parametrize(
    "patient", ["..", "../..", "/etc", "a/../../b", ".", "", "CON", "x" * 300, "\x1b[31m"]
)
def test_no_value_leads_out_of_the_root(tmp_path: Path, patient: str) -> None:
    root = tmp_path / "a" / "root"
    receipt = put(make_store(root), dataset(patient=patient))
    assert files(tmp_path) == [str((root / receipt.path).relative_to(tmp_path))]
    assert len(receipt.path.parts) == 4


def test_a_link_in_the_way_is_not_followed(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    outside.mkdir()
    store = make_store(root)
    (root / "4711").symlink_to(outside)
    with pytest.raises(InstanceRefused) as refused:
        put(store, dataset())
    assert refused.value.status == 0x0110
    assert files(outside) == []
    (root / "4711").unlink()
    (root / "4711").mkdir()
    (root / "4711" / "1.2.3").symlink_to(outside)
    with pytest.raises(InstanceRefused):
        put(store, dataset())
    assert files(outside) == []
    assert not list((root / ".incoming").iterdir())


def test_a_folder_that_vanished_is_made_again(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    first = put(store, dataset())
    (tmp_path / first.path).unlink()
    (tmp_path / first.path.parent).rmdir()
    assert put(store, dataset()).path == first.path
    assert files(tmp_path) == [PLACE]


def test_abort_may_come_at_any_time(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    store.begin(arrival()).abort()
    writer = store.begin(arrival())
    writer.write(memoryview(dataset()))
    assert len(files(tmp_path)) == 1
    writer.abort()
    writer.abort()
    assert files(tmp_path) == []
    with pytest.raises(LocalProtocolError):
        writer.commit()
    writer = store.begin(arrival())
    writer.write(memoryview(dataset()))
    writer.commit()
    writer.abort()
    assert files(tmp_path) == [PLACE]


@pytest.mark.parametrize("level", ["4711", "4711/1.2.3", "4711/1.2.3/1.2.3.4"])
def test_a_directory_that_is_replaced_by_a_link_leads_nowhere(tmp_path: Path, level: str) -> None:
    """As a colleague of --group can do between two instances, when the directory is known already."""
    root, outside = tmp_path / "root", tmp_path / "outside"
    store = make_store(root, access=Permissions(0o660, os.getgid()))
    put(store, dataset())
    (root / level).rename(outside)
    kept = files(outside)
    (root / level).symlink_to(outside)
    with pytest.raises(InstanceRefused):
        put(store, dataset("1.2.3.4.6"), arrival("1.2.3.4.6"))
    assert files(outside) == kept


def test_a_folder_for_temporary_files_that_is_replaced_is_not_used(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    outside.mkdir()
    store = make_store(root)
    (root / ".incoming").rename(root / "moved")
    (root / ".incoming").symlink_to(outside)
    writer = store.begin(arrival())
    writer.write(memoryview(dataset()))
    assert files(outside) == []
    assert (root / writer.commit().path).is_file()


def test_incoming_must_share_the_file_system(tmp_path: Path) -> None:
    elsewhere = Path("/dev/shm")  # a tmpfs on every Linux
    if elsewhere.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("the test's folder is on /dev/shm itself")
    with pytest.raises(ConfigError):
        InstanceStore(
            tmp_path, PathTemplate.parse(DEFAULT), incoming=elsewhere / f"quarry-{os.getpid()}", admit=anyone
        )
    (elsewhere / f"quarry-{os.getpid()}").rmdir()


class Recorder:
    """Passes calls of the os module on, notes their order, and fails where it is told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
        self.calls: list[tuple[str, str]] = []
        self.failing: dict[str, int] = {}
        self._root = root
        for name in ("fsync", "fdatasync", "writev", "link", "rename", "mkdir"):
            monkeypatch.setattr(os, name, self._recorded(name, getattr(os, name)))

    def _recorded(self, name: str, real: object) -> object:
        def call(first: int | str, *rest: object, **named: object) -> object:
            path = str(Path(f"/proc/self/fd/{first}").readlink()) if isinstance(first, int) else str(first)
            short = os.path.relpath(path, self._root)
            self.calls.append((name, "temporary" if short.endswith(".part") else short))
            if name in self.failing:
                raise OSError(self.failing[name], os.strerror(self.failing[name]))
            assert callable(real)
            return real(first, *rest, **named)

        return call

    def of(self, *names: str) -> list[tuple[str, str]]:
        return [call for call in self.calls if call[0] in names]


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Recorder]:
    yield Recorder(monkeypatch, tmp_path)


def test_the_stand_alone_receiver_has_the_name_on_disk_too(tmp_path: Path, recorder: Recorder) -> None:
    store = make_store(tmp_path, sync_each=True)
    put(store, dataset())
    assert recorder.of("fdatasync", "link", "fsync") == [
        ("fdatasync", "temporary"),
        ("link", "temporary"),
        ("fsync", "."),
        ("fsync", "4711"),
        ("fsync", "4711/1.2.3"),
        ("fsync", "4711/1.2.3/1.2.3.4"),
    ]
    recorder.calls.clear()
    put(store, dataset("1.2.3.4.6"), arrival("1.2.3.4.6"))
    assert recorder.of("fsync") == [("fsync", "4711/1.2.3/1.2.3.4")]


def test_a_job_syncs_no_single_instance(tmp_path: Path, recorder: Recorder) -> None:
    store = make_store(tmp_path)
    put(store, dataset())
    put(store, dataset())
    assert recorder.of("fdatasync", "fsync") == []


@pytest.mark.parametrize("unwritten", [None, 10**9], ids=["unable to sync all", "another program writes"])
def test_files_of_a_study_are_synced_one_by_one(
    tmp_path: Path, recorder: Recorder, monkeypatch: pytest.MonkeyPatch, unwritten: int | None
) -> None:
    monkeypatch.setattr(file_sync, "can_sync_whole", lambda _: unwritten is not None)
    monkeypatch.setattr(file_sync, "unwritten_bytes", lambda: unwritten)
    store = make_store(tmp_path)
    uids = [f"1.2.3.4.{number}" for number in range(5, 9)]
    store.sync(put(store, dataset(uid), arrival(uid)).path for uid in uids)
    names = [name for _, name in recorder.of("fdatasync")]
    assert sorted(names) == [f"4711/1.2.3/1.2.3.4/{uid}.dcm" for uid in uids]
    assert sorted(recorder.of("fsync")) == [
        ("fsync", "."),
        ("fsync", "4711"),
        ("fsync", "4711/1.2.3"),
        ("fsync", "4711/1.2.3/1.2.3.4"),
    ]
    for call in ("fsync", "fdatasync"):
        recorder.failing = {call: errno.EIO}
        with pytest.raises(InstanceRefused, match="Input/output error"):
            store.sync([PurePosixPath(PLACE)])


def test_a_whole_file_system_is_synced_once_for_all_who_wait(
    tmp_path: Path, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    began, may_end = threading.Event(), threading.Event()
    errors = [None, OSError(errno.EIO, "Input/output error")]
    synced: list[str] = []

    def sync(fd: int) -> None:
        synced.append(str(Path(f"/proc/self/fd/{fd}").readlink()))
        began.set()
        assert may_end.wait(30)
        if error := errors.pop(0):
            raise error

    monkeypatch.setattr(file_sync, "can_sync_whole", lambda _: True)
    monkeypatch.setattr(file_sync, "unwritten_bytes", lambda: 0)
    monkeypatch.setattr(file_sync, "sync_file_system", sync)
    store = make_store(tmp_path)
    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(store.sync, [PurePosixPath("a")])
        assert began.wait(30)
        others = [pool.submit(store.sync, [PurePosixPath(name)]) for name in "bcd"]
        wait_for(lambda: store._file_sync.group.waiting == 3, "three to wait", 30)
        may_end.set()
        assert first.result() is None
        for other in others:
            with pytest.raises(InstanceRefused, match="Input/output error"):
                other.result()
    assert synced == [str(tmp_path)] * 2
    assert recorder.of("fsync", "fdatasync") == []


def test_a_folder_whose_parents_are_durable_is_synced_by_each_association_itself(
    tmp_path: Path, recorder: Recorder
) -> None:
    """None waits until that of another is synced: the file system's journal groups their commits."""
    store = make_store(tmp_path, sync_each=True)
    put(store, dataset())
    recorder.calls.clear()
    with store.directories._names._pass_lock:
        assert put(store, dataset("1.2.3.4.6"), arrival("1.2.3.4.6")).result is StoreResult.STORED
    assert recorder.of("fsync") == [("fsync", "4711/1.2.3/1.2.3.4")]


def test_a_folder_that_was_removed_has_its_own_name_made_durable_again(
    tmp_path: Path, recorder: Recorder
) -> None:
    store = make_store(tmp_path, sync_each=True)
    folder = tmp_path / put(store, dataset()).path.parent
    shutil.rmtree(folder)
    recorder.calls.clear()
    put(store, dataset("1.2.3.4.6"), arrival("1.2.3.4.6"))
    assert ("fsync", "4711/1.2.3") in recorder.of("fsync")


def test_the_disk_that_fails_for_one_study_may_do_for_another(
    tmp_path: Path, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_sync, "can_sync_whole", lambda _: False)
    store = make_store(tmp_path)
    path = put(store, dataset()).path
    held = store._file_sync.group._pass_lock
    with ThreadPoolExecutor(2) as pool:
        with held:
            good = pool.submit(store.sync, [path])
            bad = pool.submit(store.sync, [path.with_name("gone.dcm")])
            wait_for(lambda: store._file_sync.group.waiting == 2, "both to wait", 30)
        assert good.result() is None
        with pytest.raises(InstanceRefused):
            bad.result()


def test_what_could_not_be_made_durable_is_removed(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    path = put(store, dataset()).path
    store.discard([path, path.with_name("gone.dcm")])
    assert files(tmp_path) == []
    assert put(store, dataset()).result is StoreResult.STORED


def test_after_a_restart_the_instances_of_a_study_are_doubtful_and_no_other_file(tmp_path: Path) -> None:
    store = make_store(tmp_path, "{PatientID}/{SOPInstanceUID}.dcm")
    synced = put(store, dataset("1.2.3.4.5")).path
    torn = put(store, dataset("1.2.3.4.6"), arrival("1.2.3.4.6")).path
    cut = put(store, dataset("1.2.3.4.7", pixels=bytes(500)), arrival("1.2.3.4.7")).path
    folder = tmp_path / synced.parent
    os.truncate(tmp_path / cut, (tmp_path / cut).stat().st_size - 300)
    (folder / "empty.dcm").touch()
    (folder / "zeros.dcm").write_bytes(bytes(5000))
    (folder / "notes.txt").write_text("not ours")
    (folder / "link.dcm").symlink_to(tmp_path / torn)
    found = {path.name for path in store.find_unsynced(synced.parent, "1.2.3", {synced})}
    assert found == {torn.name, cut.name, "empty.dcm", "zeros.dcm"}
    found = {path.name for path in store.find_unsynced(synced.parent, "1.2.9", ())}
    assert found == {"empty.dcm", "zeros.dcm"}
    assert list(store.find_unsynced(PurePosixPath("nowhere"), "1.2.3", ())) == []


def test_of_many_threads_one_makes_a_directory(tmp_path: Path, recorder: Recorder) -> None:
    directories = Directories(tmp_path)
    recorder.calls.clear()
    together = threading.Barrier(8)

    def make() -> None:
        together.wait(30)
        directories.create(PurePosixPath("4711/1.2.3/1.2.3.4"))

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(recorder.of("mkdir")) == 3


@pytest.mark.parametrize("call", ["writev", "fdatasync", "link", "mkdir"])
@pytest.mark.parametrize(
    ("code", "status"), [(errno.ENOSPC, 0xA700), (errno.EDQUOT, 0xA700), (errno.EIO, 0x0110)]
)
def test_a_failing_disk_refuses_and_keeps_nothing(
    tmp_path: Path, recorder: Recorder, call: str, code: int, status: int
) -> None:
    store = make_store(tmp_path, sync_each=True)
    recorder.failing[call] = code
    with pytest.raises(InstanceRefused) as refused:
        put(store, dataset())
    assert refused.value.status == status
    assert isinstance(refused.value, OutOfSpace) == (status == 0xA700)
    assert "4711" not in str(refused.value) and refused.value.__cause__ is None
    assert files(tmp_path) == []
    recorder.failing.clear()
    assert put(store, dataset()).result is StoreResult.STORED


def test_a_folder_that_cannot_be_synced_is_no_acknowledgement(tmp_path: Path, recorder: Recorder) -> None:
    store = make_store(tmp_path, sync_each=True)
    recorder.failing["fsync"] = errno.EIO
    with pytest.raises(InstanceRefused):
        put(store, dataset())
    recorder.failing.clear()
    assert put(store, dataset()).result is StoreResult.IDENTICAL


def test_a_real_limit_on_file_size_in_mid_file(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(InstanceRefused):
            put(make_store(tmp_path), dataset(pixels=bytes(200_000)), piece=30_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert files(tmp_path) == []


@pytest.mark.parametrize("most", [1, 7, 300, 1000])
def test_short_writes_lose_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    real = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: real(fd, data[:most]))
    monkeypatch.setattr(os, "writev", lambda fd, buffers: real(fd, b"".join(buffers)[:most]))
    data = dataset(pixels=bytes(range(256)) * 4)
    receipt = put(make_store(tmp_path), data, piece=100)
    stored = (tmp_path / PLACE).read_bytes()
    assert stored.endswith(data)
    assert receipt.digest == hashlib.sha256(stored).digest()


@pytest.mark.parametrize("tag", [0x00080018, 0x0020000D, 0x00100020, 0x00080005])
@pytest.mark.parametrize("piece", [1 << 17, 50])
def test_an_instance_with_another_identity_behind_its_pixels_is_refused(
    tmp_path: Path, tag: int, piece: int
) -> None:
    """Programs that take the last of several values would read another patient, or another study."""
    data = dataset() + element(tag, "LO", b"1.2.66")
    store = make_store(tmp_path)
    with pytest.raises(InstanceRefused, match="is behind a higher tag"):
        put(store, data, piece=piece)
    assert files(tmp_path) == []
    assert put(store, dataset() + element(0xFFFCFFFC, "OW", bytes(10)), piece=piece).path.name


def test_what_comes_behind_the_pixels_is_admitted_before_the_instance_gets_its_name(tmp_path: Path) -> None:
    def admit(_arrival: InstanceInfo, header: Header) -> InstanceAdmission:
        if "OUT-1" in header[0x00100020 | ANYWHERE]:
            raise InstanceRefused("it is on the exclusion list", status=0x0124)
        return InstanceAdmission()

    template = PathTemplate.parse(DEFAULT, columns=[], for_job=False)
    tags = frozenset({0x00100020 | ANYWHERE})
    store = InstanceStore(tmp_path, template, incoming=tmp_path / ".incoming", admit=admit, tags=tags)
    nested = element(0x00100020, "LO", b"OUT-1")
    for piece in (1 << 17, 50):
        with pytest.raises(InstanceRefused, match="exclusion list"):
            put(store, dataset(pixels=bytes(5000)) + element(0x7FE11010, "OW", nested), piece=piece)
        assert files(tmp_path) == []
    put(store, dataset(pixels=bytes(200) + nested), piece=50)
    assert files(tmp_path) == [PLACE]
