"""proof.json: every kind of change is found and named, in the job's folder and in one that was delivered."""

from __future__ import annotations

import csv
import gzip
import hashlib
import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from dicom_quarry import api
from dicom_quarry.errors import ConfigError, InputError
from dicom_quarry.jobs.audit_log import AuditFile
from dicom_quarry.jobs.local_place import open_local
from dicom_quarry.ledger.ledger import Ledger
from dicom_quarry.ledger.reader import LedgerReader
from dicom_quarry.reporting import proof as proof_module
from tests.docs.pages import ROOT, parts
from tests.e2e.command import Done, quarry
from tests.e2e.damage import flip
from tests.e2e.finished_job import record_job

Change = Callable[[Path], object]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A job of three studies with its audit log, its reports and its proof."""
    out = tmp_path_factory.mktemp("finished") / "out"
    record_job(out, 3, 4)
    with AuditFile(open_local(out).audit, "IRB-1") as log:
        log.write("started", details="cohort 123")
        for row in (1, 2, 3):
            log.write("study", row=row, patient_id=f"PATIENT-{row}")
        log.write("ended", outcome="finished")
    api.report(out)
    return out


@pytest.fixture
def out(finished: Path, tmp_path: Path) -> Path:
    return shutil.copytree(finished, tmp_path / "out")


@pytest.fixture
def given(out: Path) -> Path:
    shutil.rmtree(out / ".quarry")
    return out


def verify(folder: Path, *options: object) -> Done:
    done = quarry("verify", folder, "--proof", "--threads", "1", *options)
    assert ("The proof holds" in done.out) == (done.code == 0), done.out
    return done


def read(out: Path) -> dict[str, Any]:
    values = json.loads((out / "proof.json").read_bytes())
    assert isinstance(values, dict)
    return values


def edit(*path: str, value: object) -> Change:
    """Change one value of proof.json."""

    def change(out: Path) -> None:
        values = part = read(out)
        for name in path[:-1]:
            part = part[name]
        part[path[-1]] = value
        (out / "proof.json").write_text(json.dumps(values, indent=2) + "\n")

    return change


def edit_lines(name: str, change: Callable[[list[str]], list[str]]) -> Change:
    """Change the lines of a file, packed or not."""

    def work(out: Path) -> None:
        path = out / name
        raw = path.read_bytes()
        text = (gzip.decompress(raw) if name.endswith(".gz") else raw).decode()
        changed = "\r\n".join(change(text.split("\r\n"))).encode()
        path.write_bytes(gzip.compress(changed) if name.endswith(".gz") else changed)

    return work


def damage(out: Path) -> None:
    flip(sorted(out.rglob("*.dcm"))[0])


def _replace(out: Path, old: str, new: str) -> None:
    text = (out / "proof.json").read_text()
    assert old in text
    (out / "proof.json").write_text(text.replace(old, new))


AUDIT = ".quarry/audit.csv"

EVERYWHERE: dict[str, tuple[Change, str]] = {
    "line removed": (
        edit_lines("manifest.csv.gz", lambda lines: lines[:3] + lines[4:]),
        "manifest.csv.gz was changed: it lists 11 files, and the proof has 12",
    ),
    "line changed": (
        edit_lines(
            "manifest.csv.gz", lambda lines: [*lines[:3], lines[3].replace("1.2.1", "1.2.2"), *lines[4:]]
        ),
        "manifest.csv.gz was changed: it has another SHA-256 than the proof states",
    ),
    "manifest cut": (
        lambda out: os.truncate(out / "manifest.csv.gz", 100),
        "manifest.csv.gz cannot be read as a manifest",
    ),
    "rows": (edit("rows", "by_outcome", value={"complete": 2}), "rows.by_outcome.complete is 2, and "),
    "studies": (edit("studies", "total", value=4), "studies.total is 4, and "),
    "instances": (edit("instances", "stored", value=13), "instances.stored is 13, and "),
    "files": (edit("manifest", "files", value=13), "manifest.files is 13, and manifest.csv.gz has 12"),
    "no number": (edit("manifest", "files", value="12"), "proof.json was changed, and cannot be read"),
    "true is not 1": (edit("rows", "total", value=3.0), "rows.total is 3.0, and "),
    "member added": (edit("note", value="complete"), "its members are not those of a proof"),
    "member twice": (
        lambda out: _replace(out, '  "rows": {', '  "rows": {"total": 99},\n  "rows": {'),
        "it has not the form in which Quarry writes it",
    ),
    "digest": (edit("audit", "values", value=["\ud800" * 64] * 5), "a digest is missing"),
    "packed again": (
        lambda out: (out / "manifest.csv.gz").open("ab").write(gzip.compress(b"")),
        "manifest.csv.gz was packed again",
    ),
    "no JSON": (
        lambda out: os.truncate(out / "proof.json", 99),
        "proof.json was changed, and cannot be read",
    ),
}
IN_THE_JOB: dict[str, tuple[Change, str]] = {
    "cell": (
        edit_lines(AUDIT, lambda lines: [*lines[:2], lines[2].replace("PATIENT-1", "P"), *lines[3:]]),
        "audit.csv: record 2 was changed",
    ),
    "removed": (
        edit_lines(AUDIT, lambda lines: lines[:2] + lines[3:]),
        "audit.csv: record 2 was removed",
    ),
    "moved": (
        edit_lines(AUDIT, lambda lines: [*lines[:2], lines[4], *lines[2:4], *lines[5:]]),
        "audit.csv: record 4 is in another place",
    ),
    "cut": (
        edit_lines(AUDIT, lambda lines: [*lines[:4], ""]),
        "audit.csv: records 4 to 5 were removed",
    ),
    "gone": (lambda out: (out / AUDIT).unlink(), "audit.csv: records 1 to 5 were removed"),
    "chain": (edit("audit", "head", value="0" * 64), "audit.csv: record 5 was changed"),
    "archive": (edit("archives", value=[]), "proof.json: archives is [], and the job has "),
    "time": (edit("times", "ended", value="2026"), 'proof.json: times.ended is "2026", and the job has '),
    "later": (
        lambda out: _append(out, "released"),
        "the proof is outdated: audit.csv has 1 record of later work",
    ),
}


def _append(out: Path, event: str) -> None:
    with AuditFile(out / AUDIT) as log:
        log.write(event)


def test_an_unchanged_job(out: Path) -> None:
    done = verify(out)
    assert done.code == 0
    assert hashlib.sha256((out / "proof.json").read_bytes()).hexdigest() in done.out
    assert "differs" not in done.out and "not checked" not in done.out
    assert "unchanged: audit.csv: the chain over 5 records" in done.out


@pytest.mark.parametrize("name", EVERYWHERE | IN_THE_JOB)
def test_a_change_in_the_job_is_named(out: Path, name: str) -> None:
    change, named = (EVERYWHERE | IN_THE_JOB)[name]
    change(out)
    check = api.check_proof(out)
    assert named in "\n".join([*check.differences, check.outdated]) and not check.holds


@pytest.mark.parametrize("name", EVERYWHERE)
def test_a_change_in_a_delivered_folder_is_named(given: Path, name: str) -> None:
    change, named = EVERYWHERE[name]
    change(given)
    check = api.check_proof(given)
    assert named in "\n".join(check.differences) and not check.holds


def test_the_command_shows_what_was_found(out: Path) -> None:
    IN_THE_JOB["cell"][0](out)
    IN_THE_JOB["later"][0](out)
    done = verify(out, "--quick")
    assert done.code == 1
    assert "\n  differs: audit.csv: record 2 was changed\n" in done.out
    assert f"1 record of later work. To write a new one: quarry report {out}\n" in done.out
    api.report(out)
    damage(out)
    done = verify(out)
    assert done.code == 1 and "differs" not in done.out
    assert "has other content" in done.err and f"quarry retry {out} --damaged" in done.out


def test_the_command_in_a_delivered_folder(given: Path) -> None:
    EVERYWHERE["manifest cut"][0](given)
    done = verify(given)
    assert done.code == 1
    assert "differs: manifest.csv.gz cannot be read" in done.out
    assert "The files were not compared: " in done.out


def test_a_delivered_folder_shows_what_was_not_checked(given: Path) -> None:
    assert "not checked: the audit log: it is in the job's record" in verify(given).out
    (given / "report.csv").unlink()
    (given / "studies.csv").write_text("rows;outcome\n")
    (given / "manifest.csv").write_bytes(gzip.decompress((given / "manifest.csv.gz").read_bytes()))
    done = verify(given, "--quick", "--manifest", given / "manifest.csv")
    assert done.code == 0
    assert "not checked: the counts of rows: report.csv is not here" in done.out
    assert "not checked: the counts of studies and instances: studies.csv is not here" in done.out
    assert "unchanged: manifest.csv: its SHA-256" in done.out
    (given / "proof.json").unlink()
    assert quarry("verify", given, "--proof").code == 2
    assert "quarry report writes it" in quarry("verify", given, "--proof").err


def test_a_report_that_was_cut_off_differs(given: Path) -> None:
    with (given / "report.csv").open("a") as file:
        file.write("1\r\n")
    assert "rows.total is 3, and report.csv has 4" in "\n".join(api.check_proof(given).differences)


def test_a_proof_with_much_behind_it_is_refused(out: Path) -> None:
    with (out / "proof.json").open("a") as file:
        file.write(" " * (1 << 20))
    with pytest.raises(InputError, match="larger than any that Quarry writes"):
        api.check_proof(out)


def test_another_version_is_no_change(out: Path) -> None:
    edit("format", value="quarry-proof-9")(out)
    with pytest.raises(InputError, match="use the version that wrote it"):
        api.check_proof(out)


def test_nothing_in_it_names_a_patient(finished: Path) -> None:
    text = (finished / "proof.json").read_text()
    with (finished / "studies.csv").open(newline="") as stream:
        lines = list(csv.DictReader(stream))
    identifiers = {line[name] for line in lines for name in ("patient_id", "accession", "study_uid")}
    identifiers |= {"PATIENT", "IRB-1", str(finished)}
    assert len(identifiers) > 6
    assert not [one for one in identifiers if one in text]
    assert "proves nothing against its maker, unless its SHA-256 was deposited elsewhere" in text
    assert (finished / "proof.json").stat().st_mode & 0o777 == 0o600


def test_a_proof_that_is_still_true_stays(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    edit("times", "written", value="2026-01-01T00:00:00Z")(out)
    before = (out / "proof.json").read_bytes()
    api.report(out)
    assert (out / "proof.json").read_bytes() == before
    _append(out, "released")
    api.report(out)
    assert read(out)["audit"]["records"] == 6 and read(out)["times"]["written"] > "2026-01-01"


def test_a_kill_before_the_proof_leaves_one_that_is_outdated(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (out / "proof.json").read_bytes()
    ledger = out / ".quarry" / "ledger.db"
    _remove_last_study(ledger)
    _append(out, "started")

    def kill(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("dicom_quarry.api.reports.write_proof", kill)
        api.report(out)
    assert (out / "proof.json").read_bytes() == before
    check = api.check_proof(out)
    assert "outdated" in check.outdated and not check.differences
    assert "manifest.csv.gz: it was written after the proof" in check.unchecked
    # In the middle of the write: the former proof is there, and whole.
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("dicom_quarry.system.atomic_file.replace_file", kill)
        proof_module.write_proof(*_reader(out))
    assert (out / "proof.json").read_bytes() == before
    api.report(out)
    assert api.check_proof(out).holds


def _remove_last_study(ledger: Path) -> None:
    with closing(sqlite3.connect(ledger)) as database, database:
        database.execute("DELETE FROM instances WHERE task_id = 3")


def _reader(out: Path) -> Any:
    folder = open_local(out)
    return folder, LedgerReader(folder.ledger)


# -- the signature


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """A key, its public key, and that of another one."""
    folder = tmp_path_factory.mktemp("keys")
    for name in ("site", "other"):
        key, public = folder / f"{name}.key", folder / f"{name}.pub"
        subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", key], check=True)
        subprocess.run(["openssl", "pkey", "-in", key, "-pubout", "-out", public], check=True)
    return folder / "site.key", folder / "site.pub", folder / "other.pub"


def test_a_signature_is_checked(out: Path, keys: tuple[Path, Path, Path]) -> None:
    key, public, other = keys
    assert "proof.json is not signed" in api.check_proof(out, public_key=public).differences[0]
    assert quarry("report", out, "--sign", key).code == 0
    assert "the signature" in api.check_proof(out).unchecked[0]
    assert f"the signature: that of {public}" in api.check_proof(out, public_key=public).checked
    shown = f"proof.json.sig is no signature of this proof.json with the key of {other}"
    assert api.check_proof(out, public_key=other).differences == [shown]
    api.report(out)
    done = verify(out, "--public-key", public)
    assert done.code == 0, "the proof stayed, and so did its signature"
    edit("times", "written", value="2026")(out)
    [shown] = api.check_proof(out, public_key=public).differences
    assert "is no signature of this proof.json" in shown
    _append(out, "released")
    api.report(out)
    assert not (out / "proof.json.sig").exists(), "it was that of another proof"
    assert quarry("verify", out, "--public-key", public).code == 2


def test_the_key_of_the_settings_signs_every_proof(out: Path, keys: tuple[Path, Path, Path]) -> None:
    key = Path(shutil.copy(keys[0], out.parent / "site.key"))
    _change_settings(out, sign=str(key))
    assert api.report(out).sign_problem == ""
    assert f"the signature: that of {keys[1]}" in api.check_proof(out, public_key=keys[1]).checked
    key.chmod(0o604)
    _append(out, "released")
    done = quarry("report", out)
    assert done.code == 0 and f"proof.json is not signed: --sign: others can read {key}" in done.err
    assert not (out / "proof.json.sig").exists() and api.check_proof(out).holds
    resumed = quarry("resume", out)
    assert resumed.code == 2, "before the archive is queried"
    assert f"run  chmod 600 {key}" in resumed.err


def _change_settings(out: Path, **values: object) -> None:
    with closing(Ledger(out / ".quarry" / "ledger.db")) as ledger:
        settings = json.loads(ledger.metadata()["settings"])
        ledger.set_metadata(settings=json.dumps({**settings, **values}))


def test_keys_that_are_refused(
    out: Path, keys: tuple[Path, Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_key = tmp_path / "open.key"
    open_key.write_bytes(keys[0].read_bytes())
    open_key.chmod(0o640)
    before = (out / "proof.json").stat().st_mtime_ns
    done = quarry("report", out, "--sign", open_key)
    assert done.code == 2 and f"others can read {open_key}: run  chmod 600 {open_key}" in done.err
    locked = tmp_path / "locked.key"
    subprocess.run(
        ["openssl", "pkey", "-in", keys[0], "-aes256", "-passout", "pass:secret", "-out", locked], check=True
    )
    public = tmp_path / "public.key"
    public.write_bytes(keys[1].read_bytes())
    public.chmod(0o600)
    for path, message in (
        (tmp_path / "none.key", "cannot be read"),
        (public, "is not an Ed25519 key"),
        (locked, "is protected by a password"),
    ):
        with pytest.raises(ConfigError, match=message):
            api.report(out, sign=path)
    with pytest.raises(InputError, match="is not a public Ed25519 key"):
        api.check_proof(out, public_key=keys[0])
    monkeypatch.setitem(sys.modules, "cryptography", None)
    with pytest.raises(ConfigError, match=r"pip install 'dicom-quarry\[sign\]'"):
        api.report(out, sign=keys[0])
    assert (out / "proof.json").stat().st_mtime_ns == before


# -- the lines of docs/proof.md


def test_the_lines_of_the_page_find_the_same(
    out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    [lines] = [part.text for part in parts(ROOT / "docs" / "proof.md") if part.kind == "python"]
    script = tmp_path / "check_proof.py"
    script.write_text(lines)

    def check(folder: Path) -> str:
        done = subprocess.run(
            [sys.executable, "-I", script, folder], capture_output=True, text=True, check=False
        )
        assert (done.returncode == 0) == (not done.stderr)
        return done.stderr.strip()

    assert check(out) == ""
    for number, (change, named) in enumerate(
        [
            (EVERYWHERE["line removed"][0], "changed: manifest.csv.gz, the counts"),
            (damage, "changed: P"),
            (EVERYWHERE["files"][0], "changed: the counts"),
            (IN_THE_JOB["cell"][0], "changed: audit.csv"),
            (IN_THE_JOB["removed"][0], "changed: audit.csv"),
            (IN_THE_JOB["moved"][0], "changed: audit.csv"),
        ]
    ):
        folder = shutil.copytree(out, tmp_path / f"changed-{number}")
        change(folder)
        assert check(folder).startswith(named)
    shutil.rmtree(out / ".quarry")
    assert check(out) == ""
