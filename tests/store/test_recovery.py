"""Files that get their names later: left half-way by a crash, or kept apart until a person decided."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

from dicom_quarry.errors import InstanceRefused
from dicom_quarry.model import Header, InstanceAdmission, InstanceInfo, Receipt, StoreResult
from dicom_quarry.store.instance_store import InstanceStore
from dicom_quarry.store.part10 import encode_file_head
from tests.store.instances import CT, EXPLICIT, SOP_UID, arrival, dataset, files, make_store, put

PLACE = "4711/1.2.3/1.2.3.4/1.2.3.4.5.dcm"


def part(store: InstanceStore, root: Path, name: str, data: bytes, sop_uid: str = SOP_UID) -> bytes:
    whole = encode_file_head(InstanceInfo(CT, sop_uid, EXPLICIT)) + data
    (root / ".incoming" / f"{name}.part").write_bytes(whole)
    return whole


def left(root: Path) -> list[str]:
    return sorted(path.name for path in (root / ".incoming").iterdir())


def test_whole_ones_get_their_names(tmp_path: Path) -> None:
    store = make_store(tmp_path, "{00100020}/{00080018}.dcm")
    whole = part(store, tmp_path, "1", dataset())
    part(store, tmp_path, "2", dataset("1.9", patient="../x"), "1.9")
    assert [str(path) for path in store.recover() if path] == ["4711/1.2.3.4.5.dcm", files(tmp_path)[0]]
    assert (tmp_path / "4711/1.2.3.4.5.dcm").read_bytes() == whole
    assert left(tmp_path) == []
    assert not list(tmp_path.parent.glob("x*"))


@pytest.mark.parametrize("cut", [1, 60, 150, 200, len(dataset())])
def test_what_is_not_whole_is_set_aside(tmp_path: Path, cut: int) -> None:
    store = make_store(tmp_path)
    part(store, tmp_path, "1", dataset()[:-cut])
    assert list(store.recover()) == [None]
    assert left(tmp_path) == ["1.damaged"]
    assert list(store.recover()) == []


def test_links_folders_and_other_files_are_left_alone(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    incoming = tmp_path / ".incoming"
    secret = tmp_path / "secret"
    secret.write_bytes(encode_file_head(InstanceInfo(CT, SOP_UID, EXPLICIT)) + dataset())
    (incoming / "1.part").symlink_to(secret)
    (incoming / "2.part").write_bytes(b"")
    (incoming / "3.dcm").write_bytes(b"mine")
    assert list(store.recover()) == [None, None]
    assert left(tmp_path) == ["1.damaged", "2.damaged", "3.dcm"]
    assert secret.exists()


def test_beside_what_is_there(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    put(store, dataset())
    part(store, tmp_path, "1", dataset())
    part(store, tmp_path, "2", dataset(pixels=b"\3\4" * 50))
    assert [str(path) for path in store.recover()] == [PLACE, PLACE.replace(".dcm", "~2.dcm")]
    assert left(tmp_path) == []


# ---- kept apart


def apart(_arrival: InstanceInfo, _header: Header) -> InstanceAdmission:
    return InstanceAdmission(subdirectory="mismatch")


def kept_apart(root: Path, data: bytes = b"", calling: str = "PACS") -> tuple[InstanceStore, Receipt]:
    store = make_store(root, admit=apart)
    receipt = put(store, data or dataset(), arrival(calling_ae=calling))
    assert str(receipt.path) == f"mismatch/{PLACE}"
    return make_store(root), receipt


def check(root: Path, receipt: Receipt) -> None:
    """A receipt tells the truth about the file at its path."""
    data = (root / receipt.path).read_bytes()
    assert (receipt.size, receipt.digest) == (len(data), hashlib.sha256(data).digest())


def test_brought_in(tmp_path: Path) -> None:
    store, receipt = kept_apart(tmp_path)
    before = (tmp_path / receipt.path).read_bytes()
    moved = store.relocate(receipt, "mismatch")
    assert (str(moved.path), moved.result) == (PLACE, StoreResult.STORED)
    assert (tmp_path / PLACE).read_bytes() == before
    check(tmp_path, moved)
    assert files(tmp_path) == [PLACE]
    assert not (tmp_path / "mismatch").exists()


def test_folders_with_others_in_them_stay(tmp_path: Path) -> None:
    store, receipt = kept_apart(tmp_path)
    (tmp_path / "mismatch" / "4711" / "note.txt").write_text("")
    store.relocate(receipt, "mismatch")
    assert files(tmp_path) == [PLACE, "mismatch/4711/note.txt"]
    # What was removed can be made again.
    again, _ = kept_apart(tmp_path, dataset(pixels=b"\5\6" * 50))
    assert again.relocate(receipt, "mismatch").result is StoreResult.CONFLICT


@pytest.mark.parametrize(
    ("other", "kept", "where"),
    [
        (dataset(), StoreResult.IDENTICAL, PLACE),
        (dataset(pixels=b"\3\4" * 50), StoreResult.CONFLICT, PLACE.replace(".dcm", "~2.dcm")),
    ],
)
def test_brought_in_beside_what_is_there(tmp_path: Path, other: bytes, kept: StoreResult, where: str) -> None:
    # By another sender: the same dataset in a file that differs.
    put(make_store(tmp_path), other, arrival(calling_ae="ANOTHER"))
    store, receipt = kept_apart(tmp_path)
    moved = store.relocate(receipt, "mismatch")
    assert (moved.result, str(moved.path)) == (kept, where)
    check(tmp_path, moved)
    assert files(tmp_path) == sorted({PLACE, where})


@pytest.mark.parametrize("call", ["unlink", "link"])
def test_a_crash_at_any_step_loses_nothing(
    tmp_path: Path, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, receipt = kept_apart(tmp_path)
    content = (tmp_path / receipt.path).read_bytes()

    class PowerCut(BaseException):
        pass

    def cut(*_: object, **__: object) -> Callable[..., None]:
        raise PowerCut

    with monkeypatch.context() as patched:
        patched.setattr(f"dicom_quarry.store.file_placement.os.{call}", cut)
        with pytest.raises(PowerCut):
            store.relocate(receipt, "mismatch")
    assert {(tmp_path / name).read_bytes() for name in files(tmp_path)} == {content}
    moved = make_store(tmp_path).relocate(receipt, "mismatch")
    assert (str(moved.path), files(tmp_path)) == (PLACE, [PLACE])


def test_what_is_gone_or_no_dicom_is_refused(tmp_path: Path) -> None:
    store, receipt = kept_apart(tmp_path)
    (tmp_path / receipt.path).write_bytes(b"no DICOM")
    with pytest.raises(InstanceRefused):
        store.relocate(receipt, "mismatch")
    (tmp_path / receipt.path).unlink()
    with pytest.raises(InstanceRefused):
        store.relocate(receipt, "mismatch")
