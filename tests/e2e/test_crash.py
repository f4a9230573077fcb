"""Killed ten times on its way, a job ends as if nothing had happened, and asks for nothing twice."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

from dicom_quarry.demo.synthetic_studies import generate_studies
from dicom_quarry.ledger.reader import LedgerReader, has_job
from dicom_quarry.model import AE, OutcomeStatus
from tests.e2e.command import Running, check_folder, digests, files, quarry, report, until
from tests.e2e.conftest import Site
from tests.e2e.paused_archive import GatedArchive
from tests.peers.process import free_port
from tests.peers.relay import C_FIND, Relay

KILLS = 10
#: What differs from run to run, and may.
CHANGING = {"quarry_proved_at"}


def moments(total: int) -> list[tuple[str, int]]:
    """When to kill: at so many files on disk, or at so many queries of one run; always the same."""
    chance = random.Random(20_261_123)
    found = [("files", count) for count in sorted(chance.sample(range(2, total - 120), KILLS - 3))]
    for _ in range(2):
        found.insert(chance.randrange(len(found)), ("queries", chance.randrange(1, 30)))
    found.insert(0, ("record", 1))
    return found


def begun(out: Path) -> bool:
    ledger = out / ".quarry" / "ledger.db"
    return ledger.is_file() and has_job(ledger)


def complete(out: Path) -> set[str]:
    """The studies that the ledger has as complete."""
    if not begun(out):
        return set()
    reader = LedgerReader(out / ".quarry" / "ledger.db")
    try:
        return {
            view.study.study_uid for view in reader.studies() if view.outcome.status is OutcomeStatus.COMPLETE
        }
    finally:
        reader.close()


def told(out: Path) -> list[dict[str, str]]:
    return [{name: value for name, value in row.items() if name not in CHANGING} for row in report(out)]


def test_killed_ten_times_and_restarted(orthanc: Site, work: Path) -> None:
    cohort = work / "cohort.csv"
    cohort.write_text("\n".join(["StudyInstanceUID", *orthanc.holding.studies, "1.2.3.4"]) + "\n")
    port = free_port()
    orthanc.register(AE("QUARRY", "127.0.0.1", port))
    calm, out = work / "calm", work / "out"
    receiver = f"QUARRY@127.0.0.1:{port}"
    assert quarry("extract", cohort, "--from", orthanc.ae, "--as", receiver, "--to", calm).code == 1
    total = len(files(calm))

    with Relay(orthanc.ae) as relay:
        command = ("extract", cohort, "--from", relay.ae, "--as", receiver, "--to", out)
        proved_with: dict[str, int] = {}
        for number, moment in enumerate(moments(total), start=1):
            # Without more moves the job does not end, however late the kill comes.
            relay.holds_moves = reached(moment, out, relay)
            with Running(work / f"run-{number}.txt", *command) as running:
                until(running, f"{moment}, the end of run {number}", relay.holds_moves)
                running.kill()
            if moment[0] == "record":
                assert quarry("status", out).code == (4 if begun(out) else 2)
            moves = relay.moves()
            for uid in complete(out):
                proved_with.setdefault(uid, moves[uid])
            print(f"kill {number} at {moment}: {len(files(out))} files, {len(proved_with)} studies complete")
        assert len(files(out)) < total
        relay.holds_moves = lambda: False
        last = quarry(*command)
        moves = relay.moves()
    assert last.code == 1, last.out + last.err
    assert told(out) == told(calm)
    assert digests(out) == digests(calm)
    check_folder(out)
    assert not list((out / ".quarry" / "incoming").iterdir())
    assert len(proved_with) > 10
    again = {uid: (count, moves[uid]) for uid, count in proved_with.items() if moves[uid] != count}
    assert not again, "moved again though verified"
    # At most one study was in flight at each kill, so few are asked for more than once.
    assert sum(moves.values()) <= len(moves) + 3 * KILLS
    assert moves.keys() == orthanc.holding.studies.keys()


def reached(moment: tuple[str, int], out: Path, relay: Relay) -> Callable[[], bool]:
    kind, count = moment
    if kind == "queries":
        asked = len(relay.requests(C_FIND)) + count
        return lambda: len(relay.requests(C_FIND)) >= asked
    if kind == "record":
        return (out / ".quarry" / "ledger.db").is_file
    wanted = max(count, len(files(out)) + 1)
    return lambda: len(files(out)) >= wanted


def test_a_study_cut_off_half_way_is_asked_for_what_is_missing_alone(work: Path) -> None:
    study = generate_studies(1, seed=6, images=12)[0]
    cohort, out, port = work / "cohort.csv", work / "out", free_port()
    cohort.write_text(f"Accession\n{study.accession}\n")
    with GatedArchive([study]) as archive:
        archive.destinations["QUARRY"] = ("127.0.0.1", port)
        archive.hold_after = 5
        command = ("extract", cohort, "--from", archive.ae, "--as", f"QUARRY@127.0.0.1:{port}", "--to", out)
        with Running(work / "run.txt", *command) as running:
            until(running, "the first five", lambda: archive.held.is_set() and len(files(out)) == 5)
            running.kill()
        archive.open()
        here = {Path(name).stem for name in files(out)}
        assert quarry(*command).code == 0
        first, *later = archive.asked
    assert (first.level, [query.level for query in later]) == ("STUDY", ["IMAGE"])
    missing = {instance.sop_uid for instance in study.instances()} - here
    assert set(later[0].values("SOPInstanceUID")) == missing
    assert len(files(out)) == 12
    check_folder(out)
