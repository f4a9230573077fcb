"""Killed ten times on its way, a job ends as if nothing had happened, and asks for nothing twice."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path

from dicom_quarry.ledger.reading import Reader
from dicom_quarry.model import AE, Word
from tests.e2e.command import Running, check_folder, digests, files, quarry, report, until
from tests.e2e.conftest import Site
from tests.peers.process import free_port
from tests.peers.relay import C_FIND, C_MOVE, Relay

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


def complete(out: Path) -> set[str]:
    """The studies that the ledger has as complete."""
    ledger = out / ".quarry" / "ledger.db"
    if not ledger.is_file():
        return set()
    reader = Reader(ledger)
    try:
        return {view.study.study_uid for view in reader.studies() if view.outcome.word is Word.COMPLETE}
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
            with Running(work / f"run-{number}.txt", *command) as running:
                until(running, f"{moment}, the end of run {number}", reached(moment, out, relay))
                running.kill()
            moves = relay.moves()
            for uid in complete(out):
                proved_with.setdefault(uid, moves[uid])
            print(f"kill {number} at {moment}: {len(files(out))} files, {len(proved_with)} studies complete")
        before = len(files(out))
        assert before < total, "the last kill came too late to be one"
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


def test_a_task_is_asked_for_what_is_missing_only(orthanc: Site, work: Path) -> None:
    """Of a study that was cut off half-way, the instances that are here are not asked for again."""
    uid = max(orthanc.holding.studies.values(), key=lambda study: len(study.sop_uids)).study_uid
    cohort = work / "cohort.csv"
    cohort.write_text(f"StudyInstanceUID\n{uid}\n")
    port, out = free_port(), work / "out"
    orthanc.register(AE("QUARRY", "127.0.0.1", port))
    with Relay(orthanc.ae) as relay:
        command = ("extract", cohort, "--from", relay.ae, "--as", f"QUARRY@127.0.0.1:{port}", "--to", out)
        with Running(work / "run.txt", *command) as running:
            until(running, "the first files", lambda: len(files(out)) >= 2)
            running.kill()
        here = {name.rsplit("/", 1)[1] for name in files(out)}
        relay.forget()
        assert quarry(*command).code == 0
        asked = asked_for(relay)
    missing = {f"{sop}.dcm" for sop in orthanc.holding.studies[uid].sop_uids} - here
    if missing:
        assert asked == {name.removesuffix(".dcm") for name in missing} or "STUDY" not in asked
    else:
        assert not asked
    check_folder(out)


def asked_for(relay: Relay) -> set[str]:
    """The UIDs of every C-MOVE: instances, or the level where it was a wider one."""
    found: set[str] = set()
    for heard in relay.requests(C_MOVE):
        keys = heard.identifier()
        uids: Sequence[str] = keys.get("SOPInstanceUID", "").split("\\")
        found |= {uid for uid in uids if uid} or {keys["QueryRetrieveLevel"]}
    return found
