"""``quarry verify`` over real files in real processes: damage, strays, interruptions, samples, copies."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil
import pytest

from dicom_quarry import api
from dicom_quarry.cli.commands.verify import verify as command
from dicom_quarry.errors import InputError
from dicom_quarry.jobs.open_place import open_existing
from dicom_quarry.ledger.ledger import Ledger
from dicom_quarry.ledger.releases import Releases
from dicom_quarry.verification.results import VerifyOptions, VerifySummary
from dicom_quarry.verification.sampling import Sample, max_undetected_damage
from dicom_quarry.verification.verifier import VerificationRun
from tests.e2e.command import Running, quarry, until
from tests.e2e.damage import flip
from tests.e2e.file_systems import small_disk
from tests.e2e.finished_job import record_job

LARGE = 30 << 30  # sparse; minutes of hashing


def damaged(folder: Path) -> list[dict[str, str]]:
    with (folder / "damaged.csv").open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def found(folder: Path) -> dict[str, str]:
    return {row["path"]: row["code"] for row in damaged(folder)}


def inside(folder: Path, path: Path) -> str:
    return str(path.relative_to(folder))


def size(path: Path) -> int:
    return path.stat().st_size


def look(folder: Path, **manner: Any) -> tuple[VerifySummary, float | None, Sample | None]:
    """What the command does, in this process: what it came to, since when it goes on, and its sample."""
    asked = VerifyOptions(**manner)
    with VerificationRun(open_existing(folder), asked) as verification:
        verified = verification.run(lambda _: None, lambda _: None)
        api.write_damaged_list(verification, verified, is_full=asked.is_full)
        verification.finish()
        return verified, verification.interrupted_at, verification.sample


@pytest.fixture
def out(work: Path) -> Path:
    return work / "out"


# -- what is found


def test_damaged_grown_missing_and_unreadable_files_are_listed(out: Path) -> None:
    files = record_job(out, 3, 30)
    flip(files[3])
    with files[31].open("ab") as grown:
        grown.write(b"x")
    files[40].unlink()
    files[61].unlink()
    files[61].mkdir()
    shutil.rmtree(files[89].parent)
    done = quarry("verify", out)
    assert done.code == 1
    gone = {inside(out, path): "missing" for path in files[85:]}
    codes = {3: "content", 31: "size", 40: "missing", 61: "unreadable"}
    assert found(out) == {inside(out, files[at]): code for at, code in codes.items()} | gone
    assert "90 files compared by SHA-256: 9 damaged or missing" in done.out
    assert f"quarry retry {out} --damaged" in done.out
    assert {row["rows"] for row in damaged(out)} == {"1", "2", "3"}
    assert (out / "damaged.csv").stat().st_mode & 0o777 == 0o600
    assert not (out / ".quarry" / "verify.json").exists(), "it has ended"


def test_a_redirected_output_names_nobody(out: Path) -> None:
    files = record_job(out, 2, 30)
    for path in files[:25]:
        path.unlink()
    done = quarry("verify", out)
    assert "P0000" not in done.out + done.err
    assert done.err.count("is missing") == 20 and "and 5 more" in done.err


def test_a_list_goes_when_everything_was_found_in_order(out: Path) -> None:
    files = record_job(out, 1, 5)
    before = files[2].read_bytes()
    flip(files[2])
    assert look(out)[0].damaged == 1
    files[2].write_bytes(before)
    assert look(out, quick=True)[0].damaged == 0
    assert (out / "damaged.csv").exists(), "sizes alone prove nothing of what the list tells"
    assert look(out)[0].damaged == 0
    assert not (out / "damaged.csv").exists()


def test_a_quicker_look_leaves_the_damage_that_it_cannot_find_in_the_record(out: Path) -> None:
    files = record_job(out, 1, 5)
    flip(files[1])
    flip(files[2])
    files[3].unlink()
    assert quarry("verify", out).code == 1
    assert quarry("verify", out, "--quick").code == 1
    assert "3 files are damaged or missing (found by quarry verify," in quarry("status", out).out


def test_files_that_nobody_recorded_are_told_of(out: Path) -> None:
    files = record_job(out, 3, 30)
    (out / "notes.txt").write_text("the user's own, beside the reports")
    strays = [files[3].with_name("copy.dcm"), out / "P9" / "a" / "x.dcm", out / "lying.dcm"]
    for stray in strays:
        stray.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(files[0], stray)
    # One is missing and another in its place: the number of files is right.
    files[40].rename(files[40].with_name("renamed.dcm"))
    odd = os.fsencode(files[3].parent) + b"/\xff\n.dcm"
    Path(os.fsdecode(odd)).write_bytes(b"")
    done = quarry("verify", out)
    told = [inside(out, path) for path in (*strays, files[40].with_name("renamed.dcm"))]
    told.append(f"{inside(out, files[3].parent)}/\\xff\n.dcm")
    assert {path for path, code in found(out).items() if code == "stray"} == set(told)
    assert done.code == 1 and "5 files were not stored by Quarry" in done.out
    files[40].with_name("renamed.dcm").rename(files[40])
    assert look(out, quick=True)[0] == VerifySummary(90, sum(map(size, files)), 0, unrecorded=4, uncompared=0)


def test_what_went_elsewhere_is_neither_missing_nor_strange(out: Path) -> None:
    files = record_job(out, 3, 10)
    ledger = Ledger(out / ".quarry" / "ledger.db")
    study = files[10].parent.parent.name
    assert Releases(ledger.database).mark_released(study, removing=True)
    ledger.close()
    for path in files[10:19]:
        path.unlink()  # one is left by a crash
    assert look(out)[0] == VerifySummary(
        20, sum(map(size, files[:10] + files[20:])), 0, unrecorded=0, uncompared=0, released=10
    )
    files[25].unlink()
    done = quarry("verify", out)
    assert "20 files compared by SHA-256: 1 damaged or missing" in done.out
    assert "10 files of released studies were not compared" in done.out


# -- interrupted


class Slow:
    """A hundred small studies, of which one file is damaged, and one with a file that takes minutes."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.files = record_job(out, 101, 1)
        flip(self.files[7])
        os.truncate(self.files[100], LARGE)
        with closing(sqlite3.connect(out / ".quarry" / "ledger.db")) as raw, raw:
            raw.execute("update instances set size = ? where task_id = 101", (LARGE,))

    def running(self, *options: object) -> Running:
        """The command, when it has looked at all but the large file."""
        running = Running(self.out.parent / "output.txt", "verify", self.out, *options)
        until(running, "the bookmark", (self.out / ".quarry" / "verify.json").exists)
        return running

    def shorten(self) -> None:
        """The large file is found damaged at once."""
        os.truncate(self.files[100], 1)


@pytest.fixture
def slow(out: Path) -> Slow:
    return Slow(out)


def bookmark(out: Path) -> dict[str, Any]:
    kept: dict[str, Any] = json.loads((out / ".quarry" / "verify.json").read_text())
    return kept


def test_killed_and_run_again_it_goes_on(slow: Slow) -> None:
    with slow.running() as running:
        children = psutil.Process(running.pid).children()
        running.kill()
    assert bookmark(slow.out)["position"]["done"] == 100
    _, alive = psutil.wait_procs(children, timeout=60)
    assert not alive, "nobody waits for their answers"
    slow.shorten()
    # What was compared is not compared again: this would be found.
    slow.files[20].unlink()
    done = quarry("verify", slow.out)
    assert done.code == 1
    assert "Resuming after 100 files (interrupted " in done.out
    assert "101 files compared by SHA-256: 2 damaged or missing" in done.out
    codes = {7: "content", 100: "size"}
    assert found(slow.out) == {inside(slow.out, slow.files[at]): code for at, code in codes.items()}
    again = quarry("verify", slow.out)
    assert "Resuming" not in again.out and "3 damaged or missing" in again.out


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_it_says_how_to_go_on(slow: Slow, number: signal.Signals) -> None:
    with slow.running() as running:
        running.signal(number)
        assert running.wait() == 4
    assert "Interrupted after 100 files. Run the same command again to continue" in running.output
    assert not (slow.out / "damaged.csv").exists()


def test_what_does_not_fit_begins_anew(slow: Slow) -> None:
    with slow.running() as running:
        running.kill()
    slow.shorten()
    kept = (slow.out / ".quarry" / "verify.json").read_text()
    found_before = (slow.out / ".quarry" / "verify.findings").read_bytes()

    def looked(**manner: Any) -> float | None:
        (slow.out / ".quarry" / "verify.json").write_text(kept)
        (slow.out / ".quarry" / "verify.findings").write_bytes(found_before)
        verified, since, _ = look(slow.out, **manner)
        assert verified.files == 101
        return since

    assert looked() is not None
    assert looked(restart=True) is looked(quick=True) is looked(sample_share=1.0) is None
    kept = json.dumps({**json.loads(kept), "time": time.time() - 8 * 86_400})
    assert looked() is None
    kept = "{"
    assert looked() is None


def test_two_at_once_do_not_mix_their_bookmarks(slow: Slow) -> None:
    with slow.running():
        second = quarry("verify", slow.out)
    assert second.code == 3 and "another quarry verify is checking" in second.err


def test_a_process_that_is_ended_from_outside_is_a_sentence(slow: Slow) -> None:
    with slow.running("--threads", 2) as running:
        children = psutil.Process(running.pid).children()
        assert len(children) == 2
        for child in children:
            child.kill()
        assert running.wait() == 3
    assert "run the command again with fewer --threads" in running.output


# -- a part of the files


def test_a_sample_can_be_repeated_and_says_what_it_does_not_prove(out: Path) -> None:
    files = record_job(out, 4, 100)
    done = quarry("verify", out, "--sample", "25%")
    seed = re.search(r"--seed (\w+)", done.out)
    chosen = re.search(r"(\d+) files compared", done.out)
    assert done.code == 0 and seed and chosen
    number = int(chosen[1])
    assert 50 < number < 150, "a quarter of 400, give or take six sigma"
    assert f"at most {max_undetected_damage(number, 400)} of the unread files are damaged" in done.out
    for path in files:
        flip(path)
    again = quarry("verify", out, "--sample", "25 %", "--seed", seed[1])
    assert again.code == 1 and len(damaged(out)) == number
    assert "To find all, run quarry verify without --sample" in again.out
    first = found(out)
    assert look(out, sample_share=0.25, seed=seed[1])[0].damaged == number and found(out) == first
    assert look(out, sample_share=0.25, seed="another") and found(out) != first
    assert look(out, sample_share=1e-9)[0] == VerifySummary(
        0, 0, 0, unrecorded=0, uncompared=0, max_undetected_damage=400
    )


def test_an_interrupted_sample_goes_on_with_its_seed(slow: Slow) -> None:
    with slow.running("--sample", "100%") as running:
        running.interrupt()
        assert running.wait() == 4
    seed = re.search(r"--seed (\w+)", running.output)
    slow.shorten()
    verified, since, sample = look(slow.out, sample_share=1.0)
    assert verified.files == 101 and since is not None
    assert seed and sample == Sample(1.0, seed[1])


@pytest.mark.parametrize("looked_at", [1, 10, 99, 100])
def test_how_many_may_be_damaged(looked_at: int) -> None:
    """By trying: with one damaged file more, less than one sample in twenty would have shown none."""
    most = max_undetected_damage(looked_at, 100)
    assert 0 <= most <= 100 - looked_at
    assert (1 - (most + 1) / 100) ** looked_at < 0.05 or most == 100 - looked_at


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"sample": "0%"}, "such as 1% or 0.5%"),
        ({"sample": "101%"}, "such as 1% or 0.5%"),
        ({"sample": "5"}, "such as 1% or 0.5%"),
        ({"seed": "x"}, "give both"),
        ({"against_archive": True, "quick": True}, "reads no files"),
    ],
)
def test_what_cannot_be_meant(out: Path, options: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        command(out, **options)


# -- elsewhere


def test_a_read_only_copy_can_be_verified(out: Path, work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(work / "home"))
    files = record_job(out, 2, 10)
    with small_disk(work / "disk", "20m") as disk:
        copy = disk / "copy"
        shutil.copytree(out, copy)
        flip(copy / inside(out, files[4]))
        before = sorted(disk.rglob("*"))
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        done = quarry("verify", copy)
        assert sorted(disk.rglob("*")) == before
    assert done.code == 1 and "1 damaged or missing" in done.out, done.err
    [listed] = (work / "home").rglob("damaged.csv")
    assert str(listed) in done.out and found(listed.parent) == {inside(out, files[4]): "content"}


def test_from_python_every_file_is_told_of(out: Path) -> None:
    files = record_job(out, 2, 30)
    flip(files[8])
    told = {str(out / one.file.path): one.code for one in api.verify(out, threads=3)}
    assert told == {str(path): "content" if path == files[8] else "" for path in files}
