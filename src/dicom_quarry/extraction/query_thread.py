"""Questions put to archives one after another, without a receiver: for a plan, and to look again."""

from __future__ import annotations

import threading
import time
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

from dicom_quarry.cohort.exclusion_list import NOBODY, Exclusions
from dicom_quarry.config.settings import Settings
from dicom_quarry.extraction.job_context import Source
from dicom_quarry.jobs.observer import Listener
from dicom_quarry.jobs.progress import Asking, Board
from dicom_quarry.scheduling.throttle import Guest
from dicom_quarry.system.shutdown import Stop, Stopped

#: Seconds between two looks at who asks.
_TICK = 0.25


@dataclass(frozen=True, slots=True)
class Errand:
    """What questions are put with: the settings, manners and ears of a run."""

    settings: Settings
    guests: Mapping[str, Guest]
    stop: Stop
    board: Board
    listener: Listener
    exclusions: Exclusions = NOBODY


class Asker(threading.Thread):
    """A thread that asks until nothing is left to ask, or it is stopped; ``error`` is what ended it before.

    ``settled`` counts what was answered and is durable.
    """

    def __init__(self, name: str, sources: Mapping[str, Source], stop: Stop) -> None:
        super().__init__(name=name, daemon=True)
        self.sources = sources
        self.stopping = stop
        self.settled = 0
        self.error: BaseException | None = None

    def run(self) -> None:
        """Ask."""
        try:
            self.ask()
        except Stopped:
            pass
        except BaseException as error:  # noqa: BLE001 - whatever ends the thread is raised by who waits for it
            self.error = error
        finally:
            for source in self.sources.values():
                source.archive.hang_up()

    @abstractmethod
    def ask(self) -> None:
        """Put the questions; may raise Stopped."""


def watch(errand: Errand, asker: Asker, what: str, number: int, before: int) -> None:
    """Tell how it gets on, to its end; raises the error that ended it.

    ``number`` of ``what``, rows or the like, are asked about; ``before`` were in an earlier run.
    """
    began, told_stop = time.monotonic(), False
    asker.start()
    while asker.is_alive():
        asker.join(_TICK)
        if errand.stop.requested and not told_stop:
            told_stop = True
            errand.board.say("stopping: run the same command again to go on")
        if errand.stop.urgent:
            for source in asker.sources.values():
                source.archive.close()
        for message in errand.board.messages():
            errand.listener.said(message)
        elapsed = time.monotonic() - began
        errand.listener.asking(_asking(errand, what, number, before, asker.settled, elapsed))
    if asker.error is not None:
        raise asker.error


def _asking(errand: Errand, what: str, number: int, before: int, settled: int, elapsed: float) -> Asking:
    rate = settled / max(elapsed, 0.001)
    return Asking(
        what=what,
        number=number,
        asked=before + settled,
        per_second=rate,
        seconds_left=(number - before - settled) / rate if settled else None,
        waiting=errand.board.waits_for,
        stopping=errand.stop.requested,
    )
