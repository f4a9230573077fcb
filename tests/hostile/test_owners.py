"""Folders, files, settings and locks of another user: refused, read as data, never followed."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from dicom_quarry.demo.dimse_server import DemoArchive
from dicom_quarry.demo.synthetic_studies import generate_studies
from tests.hostile.users import User
from tests.peers.process import free_port

pytestmark = pytest.mark.hostile

STUDIES = generate_studies(1, seed=15, images=1)


@pytest.fixture
def archive() -> Iterator[DemoArchive]:
    with DemoArchive(STUDIES) as running:
        yield running


def extract(user: User, archive: DemoArchive, out: Path, *more: object) -> list[object]:
    """The words of an extraction of one study by this user."""
    cohort, port = user.home / "cohort.csv", free_port()
    cohort.write_text(f"Accession\n{STUDIES[0].accession}\n")
    archive.destinations["QUARRY"] = ("127.0.0.1", port)
    receiver, remote = f"QUARRY@127.0.0.1:{port}", f"{archive.title}@{archive.host}:{archive.port}"
    return ["extract", cohort, "--from", remote, "--as", receiver, "--to", out, "--no-diagnosis", *more]


def closed_files(folder: Path) -> set[str]:
    return {path.name for path in folder.rglob("*")}


def test_a_state_folder_of_another_user_is_refused_and_not_touched(
    alice: User, mallory: User, archive: DemoArchive, place: Path
) -> None:
    out = place / "out"
    mallory.shell(f"mkdir {mallory.home}/m && chmod 777 {mallory.home}/m")
    out = mallory.home / "m" / "out"
    mallory.shell(f"mkdir {out} {out}/.quarry; chmod 777 {out} {out}/.quarry")
    done = alice.quarry(*extract(alice, archive, out))
    assert done.code == 2
    assert f"{out}/.quarry is not used, because it belongs to the user 64002" in done.err
    assert "--trust-owner" in done.err
    assert closed_files(out) == {".quarry"}
    trusted = alice.quarry(*extract(alice, archive, out, "--trust-owner"))
    assert trusted.code == 0, trusted.err


def test_a_folder_that_others_may_write_to_is_refused(alice: User, archive: DemoArchive, place: Path) -> None:
    state = alice.home / "open"
    alice.shell(f"mkdir {state}; chmod 777 {state}")
    done = alice.quarry(*extract(alice, archive, alice.home / "out", "--state", state))
    assert done.code == 2
    assert f"{state} is not used, because every user of this computer may write to it" in done.err
    assert f"chmod go-w {state}" in done.err
    alice.shell(f"chmod go-w {state}")
    assert alice.quarry(*extract(alice, archive, alice.home / "out", "--state", state)).code == 0


@pytest.mark.parametrize(
    ("kind", "name"), [("file", "lock"), ("link", "quarry.log"), ("pipe", "lock"), ("link", "ledger.db-wal")]
)
def test_a_planted_file_is_not_written_to(
    alice: User, mallory: User, archive: DemoArchive, name: str, kind: str
) -> None:
    """The folder was open to all once; Mallory left something there."""
    state, victim = alice.home / "state-folder", alice.home / "victim"
    alice.shell(f"mkdir {state}; chmod 777 {state}; echo precious > {victim}")
    planted = state / name
    command = {
        "file": "touch {0}; chmod 666 {0}",
        "link": f"ln -s {victim} {{0}}",
        "pipe": "mkfifo -m 666 {0}",
    }
    mallory.shell(command[kind].format(planted))
    alice.shell(f"chmod 700 {state}")
    done = alice.quarry(*extract(alice, archive, alice.home / "out", "--state", state))
    assert done.code in (2, 3), done.out
    assert str(planted) in done.err or "state of another job" in done.err
    assert victim.read_text() == "precious\n"
    assert kind != "file" or planted.stat().st_size == 0


def test_readers_may_read_a_job_of_another_user(alice: User, mallory: User, archive: DemoArchive) -> None:
    out = mallory.home / "out"
    assert mallory.quarry(*extract(mallory, archive, out)).code == 0
    mallory.shell(f"chmod -R a+rX {out}")
    before = closed_files(out)
    assert alice.quarry("status", out).code == 0
    assert alice.quarry("explain", out, "--row", "1").code == 0
    assert alice.quarry("verify", out).code == 0
    assert closed_files(out) == before
    for words in (["retry", out], ["release", out], ["prune", out]):
        refused = alice.quarry(*words)
        assert refused.code == 2
        assert "belongs to the user 64002" in refused.err


def test_root_reads_and_writes_but_takes_no_orders(mallory: User, archive: DemoArchive) -> None:
    out, mark = mallory.home / "out", mallory.home / "mark"
    done = mallory.quarry(*extract(mallory, archive, out, "--on-complete", f"touch {mark}"))
    assert done.code == 0, done.err
    mark.unlink()
    root = User(0, mallory.home)
    refused = root.quarry("retry", out)
    assert refused.code == 2
    assert "on-complete" in refused.err
    assert root.quarry("status", out).code == 0
    assert root.quarry("release", out).code == 0
    assert not mark.exists()


@pytest.mark.parametrize(
    "command",
    ['on-complete = "touch {0}"', '[notify]\non-finish = "touch {0}"'],
)
@pytest.mark.parametrize("owner", ["mallory", "everybody"])
def test_commands_of_another_user_do_not_run(
    alice: User, mallory: User, archive: DemoArchive, command: str, owner: str
) -> None:
    mark, toml = mallory.home / "mark", mallory.home / "quarry.toml"
    toml.write_text(command.format(mark) + "\n")
    os.chown(toml, mallory.uid if owner == "mallory" else alice.uid, 0)
    toml.chmod(0o644 if owner == "mallory" else 0o666)
    done = alice.quarry(*extract(alice, archive, alice.home / "out", "--config", toml))
    assert done.code == 2
    assert f"{toml} has a command" in done.err
    assert not mark.exists()
    toml.write_text("keep-free = 0\n")
    assert alice.quarry(*extract(alice, archive, alice.home / "out", "--config", toml)).code == 0


def test_a_lock_that_names_a_process_of_another_user_ends_nothing(
    mallory: User, alice: User, archive: DemoArchive
) -> None:
    """Root stops the job in Mallory's folder, whose lock has the number of a process of Alice."""
    out = mallory.home / "out"
    assert mallory.quarry(*extract(mallory, archive, out)).code == 0
    lock = out / ".quarry" / "lock"
    sleeper = subprocess.Popen(alice.command("sleep", "600"))
    try:
        holder = subprocess.Popen(
            mallory.command(
                "sh", "-c", f"exec 9<>{lock}; flock 9; echo {sleeper.pid} >&9; echo x; sleep 600"
            ),
            stdout=subprocess.PIPE,
        )
        try:
            assert holder.stdout is not None
            holder.stdout.readline()
            done = User(0, mallory.home).quarry("stop", out)
            assert done.code == 2
            assert "gets no signal" in done.err
            assert sleeper.poll() is None
        finally:
            holder.kill()
            holder.wait()
    finally:
        sleeper.kill()
        sleeper.wait()
