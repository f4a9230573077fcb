"""Kill -9 of the whole process group at random moments of a job whose archive fails now and then.

After every kill: no file has gone or changed, and whatever the ledger calls complete is whole on disk and
is never retrieved again. In the end a last run completes every row.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.e2e.command import check_folder, digests, outcomes
from tests.peers.process import free_port
from tests.scripted import faults
from tests.scripted.archive import Fault, ScriptedArchive
from tests.scripted.find_faults import FindStatus

from bench.figures import Figure, Part
from dicom_quarry import api
from dicom_quarry.demo.query_matching import QueryIdentifier
from dicom_quarry.demo.synthetic_studies import DemoStudy, generate_studies
from dicom_quarry.ledger.reader import LedgerReader, has_job
from dicom_quarry.model import OutcomeStatus

#: Steps of the archive in one life of the job, at most; and seconds after one until the kill.
_STEPS = 70
_LATER = 0.03
_PATIENCE = 120.0


@dataclass
class Lives:
    """Result of the kills."""

    kills: int = 0
    moves: int = 0
    studies: int = 0
    complete_at_kill: list[int] = field(default_factory=list)


class _Killer(Fault):
    """Kills a process group a moment after so many steps of the archive."""

    def __init__(self) -> None:
        super().__init__()
        self._steps = 0
        self._kill: threading.Timer | None = None
        self._mutex = threading.Lock()

    def arm(self, child: subprocess.Popen[bytes], chance: random.Random) -> None:
        """Choose the next victim, and its moment."""
        with self._mutex:
            self._steps = chance.randrange(1, _STEPS)
            self._kill = threading.Timer(chance.random() * _LATER, _kill, [child])

    def _step(self) -> None:
        with self._mutex:
            self._steps -= 1
            if self._steps == 0 and self._kill is not None:
                self._kill.start()

    def admit(self, *_: object) -> None:
        self._step()

    def interpret(self, query: QueryIdentifier) -> QueryIdentifier:
        self._step()
        return query

    def between(self, *_: object) -> None:
        self._step()

    def respond(self, *_: object) -> bool:
        self._step()
        return False


def _kill(child: subprocess.Popen[bytes]) -> None:
    if child.poll() is None:
        os.killpg(child.pid, signal.SIGKILL)


def _moods(chance: random.Random) -> Iterator[Fault]:
    """Some faults that strike once each, somewhere in one life of the job."""
    kinds = [
        lambda: faults.Lose(chance.randrange(4), cut=chance.random() < 0.5, times=1),
        lambda: faults.HalfSent(times=1),
        lambda: faults.SomeFailed(1, times=1),
        lambda: faults.AllFailed(times=1),
        lambda: faults.Late(0.05, times=1),
        lambda: faults.MoveStatus(0xA700, times=1),
        lambda: faults.Reject(times=1),
        lambda: FindStatus(0xA700, times=1),
    ]
    for make in chance.sample(kinds, 3):
        yield make().after(chance.randrange(4))


def crash(folder: Path, kills: int, seed: int = 1) -> Lives:
    """Kill a job so often, and let it end; raises AssertionError where anything was lost."""
    chance, studies = random.Random(seed), generate_studies(6 + 3 * kills, seed=11, images=4)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cohort.csv").write_text("\n".join(["Accession", *(s.accession for s in studies)]) + "\n")
    port, killer, lives = free_port(), _Killer(), Lives(studies=len(studies))
    with ScriptedArchive(studies, [killer], destinations={"QUARRY": ("127.0.0.1", port)}) as archive:
        (folder / "quarry.toml").write_text(
            f'[archive.main]\naddress = "{archive.title}@127.0.0.1:{archive.port}"\n'
            "settle = 0.2\nsilence = 5.0\nquery-timeout = 5.0\n"
        )
        watch = _Watch(folder / "out", studies, archive)
        while lives.kills < kills:
            archive.faults[1:] = _moods(chance)
            child = _start(folder, port)
            killer.arm(child, chance)
            code = child.wait(_PATIENCE)
            assert code == -signal.SIGKILL, (
                f"it ended with {code} before kill {lives.kills + 1}: {_said(folder)}"
            )
            lives.kills += 1
            lives.complete_at_kill.append(watch.look())
        archive.faults[1:] = []
        assert _start(folder, port).wait(_PATIENCE) == 0, _said(folder)
        lives.moves = sum(watch.moves().values())
    assert watch.look() == len(studies)
    assert outcomes(folder / "out") == [("complete", "all_listed_stored")] * len(studies)
    check_folder(folder / "out")
    return lives


def run(folder: Path, kills: int, _parallel: int) -> Part:
    """The part of ``make soak``."""
    lives = crash(folder, kills, seed=random.randrange(1 << 30))
    figures = [
        Figure("kills, and studies", f"{lives.kills}, {lives.studies}"),
        Figure("files lost or changed", "0", "0", met=True),
        Figure("complete, and not whole or retrieved again", "0", "0", met=True),
        Figure("C-MOVE requests for a study", f"{lives.moves / lives.studies:.2f}"),
    ]
    return Part("crash", f"Crash: kill -9 of the process group at {kills} random moments", figures)


def _start(folder: Path, port: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "tests.faults.short_delays", "extract", "cohort.csv", "--from", "main"]
    command += ["--as", f"QUARRY@127.0.0.1:{port}", "--to", "out", "--parallel", "2"]
    root = Path(__file__).parents[1]
    path = os.pathsep.join([str(root), *filter(None, [os.environ.get("PYTHONPATH")])])
    with (folder / "output.txt").open("ab") as output:
        return subprocess.Popen(
            command,
            cwd=folder,
            stdout=output,
            stderr=output,
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": path},
        )


def _said(folder: Path) -> str:
    return (folder / "output.txt").read_text()[-3000:]


class _Watch:
    """Compares what is found after a kill with what was found before."""

    def __init__(self, out: Path, studies: list[DemoStudy], archive: ScriptedArchive) -> None:
        self._out = out
        self._whole = {s.study_uid: {i.sop_uid for i in s.instances()} for s in studies}
        self._archive = archive
        self._files: dict[str, str] = {}
        self._moves_of_complete: dict[str, int] = {}

    def moves(self) -> Counter[str]:
        """C-MOVE requests by study."""
        return Counter(seen.keys["StudyInstanceUID"] for seen in self._archive.requests("move"))

    def look(self) -> int:
        """Assert that nothing was lost; returns how many studies are complete."""
        found = digests(self._out) if self._out.exists() else {}
        gone = {name for name, digest in self._files.items() if found.get(name) != digest}
        assert not gone, f"gone, or changed: {gone}"
        self._files = {name: digest for name, digest in found.items() if name.count("/") > 1}
        complete = _complete(self._out)
        moves = self.moves()
        for uid, stored in complete.items():
            assert stored == self._whole[uid], "complete, and not whole"
            before = self._moves_of_complete.setdefault(uid, moves[uid])
            assert moves[uid] == before, "complete, and retrieved again"
        assert self._moves_of_complete.keys() <= complete.keys(), "complete no more"
        return len(complete)


def _complete(out: Path) -> dict[str, set[str]]:
    """The instances, whole on disk, of each study that the ledger has as complete."""
    ledger = out / ".quarry" / "ledger.db"
    if not (ledger.is_file() and has_job(ledger)):
        return {}
    assert [one for one in api.verify(out) if one.problem] == []
    reader = LedgerReader(ledger)
    try:
        complete = {
            v.study.study_uid: set[str]()
            for v in reader.studies()
            if v.outcome.status is OutcomeStatus.COMPLETE
        }
    finally:
        reader.close()
    for one in api.verify(out, quick=True):
        if one.file.study_uid in complete:
            complete[one.file.study_uid].add(one.file.sop_uid)
    return complete
