"""A manifest is read as what another person gave: damaged, made up, or right."""

from __future__ import annotations

import gzip
import hashlib
from pathlib import Path

import pytest

from dicom_quarry import api
from dicom_quarry.errors import InputError
from dicom_quarry.verification import manifest
from dicom_quarry.verification.manifest import ManifestRecords

HEADER = "path,study_uid,series_uid,sop_uid,sop_class,transfer_syntax,bytes,sha256\r\n"
DIGEST = hashlib.sha256(b"x").hexdigest()


def line(path: str, size: object = 1, digest: str = DIGEST) -> str:
    return f"{path},1.2,1.2.3,1.2.3.4,,,{size},{digest}\r\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder that was handed over, with three files."""
    given = tmp_path / "given"
    for name in ("a/1.dcm", "a/2.dcm", "b/3.dcm"):
        path = given / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    text = HEADER + line("a/1.dcm") + line("./a/2.dcm") + line("b/3.dcm")
    (given / "manifest.csv.gz").write_bytes(gzip.compress(text.encode()))
    return given


def test_the_files_of_a_manifest(folder: Path) -> None:
    found = list(api.verify(folder))
    assert [(one.file.path, one.problem) for one in found] == [
        ("a/1.dcm", ""),
        ("a/2.dcm", ""),
        ("b/3.dcm", ""),
    ]
    (folder / "a" / "2.dcm").write_bytes(b"y")
    assert [one.code for one in api.verify(folder)] == ["", "content", ""]


def test_an_interrupted_verification_goes_on_with_the_same_manifest(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(manifest, "_PAGE", 1)
    (folder / "a" / "1.dcm").write_bytes(b"y")
    stopped = api.open_verification(folder, api.VerifyOptions(threads=1))
    with stopped, pytest.raises(KeyboardInterrupt):
        stopped.run(lambda _: None, lambda progress: stop_after(2, progress.done.files))
    with api.open_verification(folder, api.VerifyOptions(threads=1)) as again:
        assert again.files_done == 2
        summary = again.run(lambda _: None, lambda _: None)
        assert summary is not None
        assert (summary.files, summary.damaged, summary.unrecorded) == (3, 1, 0)
        assert [view.path for view in again.damaged_views()] == ["a/1.dcm"]
        again.finish()


def stop_after(number: int, done: int) -> None:
    if done == number:
        raise KeyboardInterrupt


@pytest.mark.parametrize(
    "path", ["../secret", "/etc/passwd", "a/../../x", "a//x", "", ".", "a/./x", "a/..", "a\0b"]
)
def test_a_path_that_leads_elsewhere_is_not_read(tmp_path: Path, path: str) -> None:
    (tmp_path / "m.csv").write_text(HEADER + line("a/1.dcm") + line(path), newline="")
    with pytest.raises(InputError, match=r"m\.csv cannot be used as a manifest"):
        ManifestRecords(tmp_path / "m.csv")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x1f\x8b",
        gzip.compress(HEADER.encode() + line("a").encode() * 1000)[:-20],
        HEADER.encode() + line("a", size=-1).encode(),
        HEADER.encode() + line("a", size="\u0661").encode(),
        HEADER.encode() + line("a", digest="00").encode(),
        HEADER.encode() + b"a,b\r\n",
        HEADER.encode() + b"\xff",
        HEADER.replace("sha256", "md5").encode(),
        HEADER.encode() + b'"' + b"x" * 200_000,
    ],
)
def test_what_is_no_manifest_is_a_sentence(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "manifest.csv.gz").write_bytes(content)
    with pytest.raises(InputError, match=r"cannot be used as a manifest .*: get it again"):
        list(api.verify(tmp_path))


def test_a_manifest_of_somebody_else_that_cannot_be_read(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_args: object, **_options: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(InputError, match=r"ask .*, its owner, for the right to read it"):
        ManifestRecords(folder / "manifest.csv.gz")


def test_a_record_of_somebody_else_is_not_needed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    is_file = Path.is_file

    def refuse(path: Path) -> bool:
        if ".quarry" in path.parts:
            raise PermissionError(13, "Permission denied")
        return is_file(path)

    (folder / ".quarry").mkdir()
    monkeypatch.setattr(Path, "is_file", refuse)
    assert [one.problem for one in api.verify(folder)] == ["", "", ""]
