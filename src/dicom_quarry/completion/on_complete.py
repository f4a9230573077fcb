"""Complete studies are handed over to a command of the user's, a few at a time, beside the retrieval."""

from __future__ import annotations

import json
import logging
import random
import threading
import time
from pathlib import Path
from typing import Self

from dicom_quarry.config.settings import Settings
from dicom_quarry.extraction.retry_policy import hand_over_again
from dicom_quarry.jobs.audit_log import Audit
from dicom_quarry.jobs.folder import JobFolder
from dicom_quarry.jobs.progress import Board
from dicom_quarry.ledger.ledger import Ledger
from dicom_quarry.ledger.on_complete_queue import HandOver, HandOvers
from dicom_quarry.ledger.reader import Derive, Reader
from dicom_quarry.ledger.views import InstanceView
from dicom_quarry.outcomes import CATALOGUE
from dicom_quarry.system import subprocess_runner
from dicom_quarry.system.shutdown import Stop

_log = logging.getLogger(__name__)

#: Seconds between two looks for a study to hand over.
_TICK = 0.25

_FOLDER = "{folder}"


def words_of(settings: Settings) -> tuple[str, ...]:
    """The command, empty for none; raises ConfigError if there is no such program."""
    if not settings.on_complete:
        return ()
    words = subprocess_runner.parsed(settings.on_complete)
    subprocess_runner.check("on-complete", words)
    return words


class Handing:
    """A context in which complete studies are handed over. Without ``on_complete`` it does nothing.

    ``begun``: there was something to hand over from the start. Leaving the context ends the threads; an
    exception ends the commands, too, and the next run has them again.
    """

    def __init__(
        self,
        settings: Settings,
        folder: JobFolder,
        ledger: Ledger,
        derive: Derive,
        audit: Audit,
        board: Board,
        stop: Stop,
    ) -> None:
        self._settings = settings
        self._words = words_of(settings)
        self._out = folder.out.resolve()
        self._reader = Reader(folder.ledger)
        self._hand_overs = HandOvers(ledger.database)
        self._derive = derive
        self._audit = audit
        self._board = board
        self._stop = stop  # the user's: the job's own end must not take the command with it
        self._end = Stop()
        self._in_hand: set[int] = set()
        self._lock = threading.Lock()
        self._error: BaseException | None = None
        self.begun = False
        number = settings.on_complete_parallel if self._words else 0
        names = [f"on-complete-{each}" for each in range(1, number + 1)]
        self._threads = [threading.Thread(target=self._guarded, name=name, daemon=True) for name in names]

    def __enter__(self) -> Self:
        self.begun = self._hand_overs.begin(wanted=bool(self._words)) > 0
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self._end.request()
        if kind is not None:
            self._end.request()
        for thread in self._threads:
            thread.join()
        self._reader.close()

    def offer(self, task_id: int) -> None:
        """A task has ended complete."""
        if self._words:
            self._hand_overs.offer(task_id)

    @property
    def busy(self) -> bool:
        """Whether anything is still to be handed over in this run; raises what ended a thread."""
        if self._error is not None:
            raise self._error
        if not self._words:
            return False
        with self._lock:
            in_hand = bool(self._in_hand)
        return in_hand or (not self._stop.requested and self._hand_overs.waiting() > 0)

    def _guarded(self) -> None:
        try:
            while not (self._stop.requested or self._end.requested):
                one = self._take()
                if one is None:
                    time.sleep(_TICK)
                else:
                    self._hand(one)
        except BaseException as error:  # noqa: BLE001 - whatever ends a thread must end the job, and be seen
            self._error = self._error or error

    def _take(self) -> HandOver | None:
        with self._lock:
            one = self._hand_overs.due(time.time(), self._in_hand)
            if one is not None:
                self._in_hand.add(one.task_id)
            return one

    def _hand(self, one: HandOver) -> None:
        try:
            files = list(self._reader.instances(self._derive, task_id=one.task_id))
            ended = self._run(one, files)
            if not ended.problem:
                self._audit.write(
                    "handed over", one.study, row=one.row, instances=one.instances, bytes=one.size
                )
                gone = bool(files) and not any((self._out / file.path).exists() for file in files)
                self._hand_overs.done(one, time.time(), released=gone)
                _log.info("row %d: handed over%s", one.row, ", and released" if gone else "")
            elif not self._cancelled():
                self._failed(one, ended)
        finally:
            with self._lock:
                self._in_hand.discard(one.task_id)

    def _run(self, one: HandOver, files: list[InstanceView]) -> subprocess_runner.Ended:
        folder = self._out / one.folder
        if folder == self._out and any(_FOLDER in word for word in self._words):
            return subprocess_runner.Ended(f"the study has no folder of its own for {_FOLDER}", "")
        return subprocess_runner.run(
            [word.replace(_FOLDER, str(folder)) for word in self._words],
            self._told(one, folder, files),
            limit=self._settings.on_complete_limit,
            cancelled=self._cancelled,
            variables={
                "QUARRY_OUT": str(self._out),
                "QUARRY_FOLDER": str(folder),
                "QUARRY_STUDY_UID": one.study.study_uid,
            },
        )

    def _cancelled(self) -> bool:
        return self._stop.urgent or self._end.urgent

    def _failed(self, one: HandOver, ended: subprocess_runner.Ended) -> None:
        now, tries = time.time(), one.tries + 1
        pause = hand_over_again(tries, self._settings.on_complete_patience, random.random())
        said = f"{ended.problem}: {ended.said}" if ended.said else ended.problem
        self._hand_overs.failed(one, said, now, None if pause is None else now + pause)
        then = "given up in this run" if pause is None else f"again in {pause:.0f} s"
        # What the command said may name a patient: it goes to studies.csv alone.
        self._board.say(f"row {one.row}: on-complete failed, {ended.problem}; {then}")

    def _told(self, one: HandOver, folder: Path, files: list[InstanceView]) -> str:
        study = one.study
        facts = {
            "out": str(self._out),
            "folder": str(folder),
            "folders": sorted({str((self._out / file.path).parent) for file in files}),
            "study_uid": study.study_uid,
            "patient_id": study.patient_id,
            "accession": study.accession,
            "study_date": study.study_date,
            "modalities": study.modalities,
            "description": study.description,
            "archive": one.archive,
            "rows": one.rows,
            "outcome": CATALOGUE[one.code].word,
            "code": one.code,
            "try": one.tries + 1,
            "instances": one.instances,
            "bytes": one.size,
            "files": [
                {
                    "path": str(file.path),
                    "series_uid": file.ref.series_uid,
                    "sop_uid": file.ref.sop_uid,
                    "bytes": file.size,
                    "sha256": file.digest.hex(),
                }
                for file in files
            ],
        }
        return json.dumps(facts) + "\n"
