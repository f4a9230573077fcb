"""Instances that arrive twice, differ, or want one name; and what is found after a crash."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path, PurePosixPath

import pytest

from dicom_quarry.errors import InstanceRefused
from dicom_quarry.model import StoreResult
from dicom_quarry.store.file_placement import PlacedFile, TempFile
from dicom_quarry.system.permissions import Permissions
from tests.store.instances import IMPLICIT, arrival, dataset, files, make_store, put

FOLDER = PurePosixPath("4711/1.2.3/1.2.3.4")
NAME = "1.2.3.4.5.dcm"


@pytest.fixture(params=[True, False], ids=["links", "no links"], autouse=True)
def hard_links(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything holds on file systems without hard links, too."""

    def link(_source: str, target: str, *, src_dir_fd: int | None, dst_dir_fd: int) -> None:
        del src_dir_fd
        if target in os.listdir(dst_dir_fd):
            raise FileExistsError(errno.EEXIST, "exists")
        raise OSError(errno.EPERM, "no links here")

    if not request.param:
        monkeypatch.setattr(os, "link", link)


def test_the_same_dataset_again_is_kept_once(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    first = put(store, dataset(), arrival(calling_ae="ONE"))
    again = put(store, dataset(), arrival(calling_ae="ANOTHER"))
    assert (first.result, again.result) == (StoreResult.STORED, StoreResult.IDENTICAL)
    assert again == replace(first, result=StoreResult.IDENTICAL)
    assert files(tmp_path) == [f"{FOLDER}/{NAME}"]


def test_another_encoding_of_it_is_not_kept(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    first = put(store, dataset())
    other = put(store, dataset(explicit=False), arrival(transfer_syntax=IMPLICIT))
    assert other == replace(first, result=StoreResult.OTHER_ENCODING)
    assert files(tmp_path) == [f"{FOLDER}/{NAME}"]


def test_other_content_is_kept_beside_it_and_known_again(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    contents = [b"\1\1", b"\2\2", b"\3\3\3\3"]
    receipts = [put(store, dataset(pixels=pixels)) for pixels in contents]
    assert [receipt.result for receipt in receipts] == [
        StoreResult.STORED,
        StoreResult.CONFLICT,
        StoreResult.CONFLICT,
    ]
    assert [receipt.path.name for receipt in receipts] == [NAME, "1.2.3.4.5~2.dcm", "1.2.3.4.5~3.dcm"]
    for receipt, pixels in zip(receipts, contents, strict=True):
        stored = (tmp_path / receipt.path).read_bytes()
        assert stored.endswith(dataset(pixels=pixels))
        assert receipt.digest == hashlib.sha256(stored).digest()
        again = put(store, dataset(pixels=pixels))
        assert (again.result, again.path) == (StoreResult.IDENTICAL, receipt.path)
    assert len(files(tmp_path)) == 3


def test_versions_end_somewhere(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    for number in range(99):
        put(store, dataset(pixels=number.to_bytes(2, "big")))
    with pytest.raises(InstanceRefused):
        put(store, dataset(pixels=b"\xff\xff"))
    assert len(files(tmp_path)) == 99


def test_another_instance_at_the_same_path_takes_a_suffix_from_its_uid(tmp_path: Path) -> None:
    store = make_store(tmp_path, "{00100020}.dcm")
    uids = ["1.2.3.4.5", "1.2.3.4.6", "1.2.3.4.7"]
    receipts = [put(store, dataset(uid), arrival(uid)) for uid in uids]
    assert [str(receipt.path) for receipt in receipts] == [
        "4711.dcm",
        "4711~1.2.3.4.6.dcm",
        "4711~1.2.3.4.7.dcm",
    ]
    assert {receipt.result for receipt in receipts} == {StoreResult.STORED}
    again = [put(store, dataset(uid), arrival(uid)) for uid in uids]
    assert [receipt.path for receipt in again] == [receipt.path for receipt in receipts]
    assert {receipt.result for receipt in again} == {StoreResult.IDENTICAL}
    conflict = put(store, dataset(uids[1], pixels=b"\7\7"), arrival(uids[1]))
    assert (str(conflict.path), conflict.result) == ("4711~1.2.3.4.6~2.dcm", StoreResult.CONFLICT)


@pytest.mark.parametrize("what", ["text", "empty", "folder", "link", "dangling link", "pipe", "cut"])
def test_whatever_is_in_the_way_stays_as_it_is(tmp_path: Path, what: str) -> None:
    root, outside = tmp_path / "root", tmp_path / "secret"
    store = make_store(root)
    place = root / FOLDER / NAME
    outside.write_bytes(b"secret")
    whole = root / put(store, dataset()).path
    first = whole.read_bytes()
    whole.unlink()
    obstacles: dict[str, Callable[[], object]] = {
        "text": lambda: place.write_text("hello"),
        "empty": lambda: place.write_bytes(b""),
        "folder": place.mkdir,
        "link": lambda: place.symlink_to(outside),
        "dangling link": lambda: place.symlink_to(tmp_path / "nowhere"),
        "pipe": lambda: os.mkfifo(place),
        "cut": lambda: place.write_bytes(first[:330]),
    }
    obstacles[what]()
    receipt = put(store, dataset())
    assert receipt.path == FOLDER / "1.2.3.4.5~1.2.3.4.5.dcm"
    assert (root / receipt.path).read_bytes() == first
    assert os.path.lexists(place)
    assert outside.read_bytes() == b"secret"
    assert not (tmp_path / "nowhere").exists()


def test_a_link_to_the_very_same_instance_is_not_taken_for_it(tmp_path: Path) -> None:
    elsewhere = put(make_store(tmp_path / "other"), dataset())
    store = make_store(tmp_path / "root")
    folder = tmp_path / "root" / FOLDER
    folder.mkdir(parents=True)
    (folder / NAME).symlink_to(tmp_path / "other" / elsewhere.path)
    receipt = put(store, dataset())
    assert (receipt.result, receipt.path.name) == (StoreResult.STORED, "1.2.3.4.5~1.2.3.4.5.dcm")


def test_a_file_that_was_not_made_durable_is_before_it_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    receipt = put(make_store(tmp_path), dataset())
    synced: list[Path] = []
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append(Path(f"/proc/self/fd/{fd}").readlink()))
    assert put(make_store(tmp_path, sync_each=True), dataset()).result is StoreResult.IDENTICAL
    assert synced[0] == tmp_path / receipt.path


@pytest.mark.parametrize("sync_each", [True, False])
def test_one_instance_arrives_eight_times_at_once(tmp_path: Path, sync_each: bool) -> None:
    store = make_store(tmp_path, sync_each=sync_each)
    for uid in ("1.2.3.4.5", "1.2.3.4.6", "1.2.3.4.7"):
        together = threading.Barrier(8)

        def send(_number: int, uid: str = uid, together: threading.Barrier = together) -> StoreResult:
            writer = store.begin(arrival(uid))
            writer.write(memoryview(dataset(uid)))
            together.wait()
            return writer.commit().result

        with ThreadPoolExecutor(8) as pool:
            kept = sorted(pool.map(send, range(8)))
        assert kept == [StoreResult.IDENTICAL] * 7 + [StoreResult.STORED]
    assert len(files(tmp_path)) == 3


def test_eight_versions_arrive_at_once(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    together = threading.Barrier(8)

    def send(number: int) -> tuple[StoreResult, PurePosixPath, bytes]:
        writer = store.begin(arrival())
        writer.write(memoryview(dataset(pixels=bytes([number, 0]))))
        together.wait()
        receipt = writer.commit()
        return receipt.result, receipt.path, receipt.digest

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(send, range(8)))
    assert sorted(kept for kept, _, _ in results) == [StoreResult.CONFLICT] * 7 + [StoreResult.STORED]
    assert len({path for _, path, _ in results}) == 8
    for _, path, digest in results:
        assert hashlib.sha256((tmp_path / path).read_bytes()).digest() == digest


def test_after_a_crash_whole_files_are_adopted_and_others_passed_over(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    uids = ["1.2.3.4.5", "1.2.3.4.6"]
    stored = [put(store, dataset(uid), arrival(uid)) for uid in uids]
    conflict = put(store, dataset(pixels=b"\7\7"))
    folder = tmp_path / FOLDER
    whole = (tmp_path / stored[0].path).read_bytes()
    (folder / "cut.dcm").write_bytes(whole[:-1])
    (folder / "cut in the meta.dcm").write_bytes(whole[:200])
    (folder / "empty.dcm").write_bytes(b"")
    (folder / "notes.txt").write_text("hello")
    (folder / "link.dcm").symlink_to(tmp_path / stored[0].path)
    (folder / "below").mkdir()
    os.mkfifo(folder / "pipe")
    (folder / "no uids.dcm").write_bytes(whole[: -len(dataset())] + dataset(without=0x0020000D))
    adopted = list(make_store(tmp_path).read_receipts(FOLDER))
    assert adopted == [stored[0], conflict, stored[1]]
    assert list(store.read_receipts(PurePosixPath("nothing/here"))) == []


def test_adoption_follows_no_link(tmp_path: Path) -> None:
    store = make_store(tmp_path / "root")
    put(make_store(tmp_path / "other"), dataset())
    (tmp_path / "root" / "4711").symlink_to(tmp_path / "other" / "4711")
    with pytest.raises(InstanceRefused):
        list(store.read_receipts(FOLDER))


@pytest.mark.skipif(os.geteuid() != 0, reason="root alone may give files to any group")
def test_mode_and_group_are_given_before_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    group = 1 + os.getegid()
    store = make_store(tmp_path, access=Permissions(0o640, group))
    place = store.placer.place
    seen: list[tuple[int, int]] = []

    def shown(path: Path) -> tuple[int, int]:
        return stat.S_IMODE(path.stat().st_mode), path.stat().st_gid

    def looked(new: TempFile, path: PurePosixPath) -> PlacedFile:
        seen.append(shown(tmp_path / ".incoming" / new.path))
        return place(new, path)

    monkeypatch.setattr(store.placer, "place", looked)
    writer = store.begin(arrival())
    writer.write(memoryview(dataset(pixels=bytes(4 << 20))))
    [part] = (tmp_path / ".incoming").iterdir()
    assert shown(part)[0] == 0o600, "on its way nobody else may look"
    receipt = writer.commit()
    assert seen == [(0o640, group)] and shown(tmp_path / receipt.path) == (0o640, group)
    assert {shown(tmp_path / folder) for folder in receipt.path.parents[:-1]} == {(0o2750, group)}
    assert shown(tmp_path / ".incoming")[0] == 0o700
