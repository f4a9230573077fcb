"""An archive that logs what a PACS administrator would see, and a job against it in this process."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

import dicom_quarry
from dicom_quarry.demo.dimse_operations import MoveOperation, RetrieveOperation
from dicom_quarry.demo.synthetic_studies import DemoStudy
from dicom_quarry.scheduling.throttle import ArchiveThrottle
from tests.peers.process import free_port
from tests.scripted.archive import Fault, ScriptedArchive


@dataclass(frozen=True, slots=True)
class Proposal:
    """An association request as it came."""

    calling: str
    sop_classes: tuple[str, ...]
    transfer_syntaxes: frozenset[str]
    max_pdu: int
    application_context: str
    negotiates: frozenset[str]


@dataclass
class Log:
    """Everything that came: association requests, the most that were open at once, destinations."""

    proposals: list[Proposal] = field(default_factory=list)
    most_open: int = 0
    destinations: list[str] = field(default_factory=list)


class LoggingArchive(ScriptedArchive):
    """A scripted archive whose ``seen`` is what its administrator can see."""

    def __init__(self, studies: Iterable[DemoStudy], faults: Iterable[Fault] = ()) -> None:
        super().__init__(studies, faults, title="PACS")
        self.seen = Log()
        self._seen_lock = threading.Lock()

    @property
    def open_count(self) -> int:
        """The associations that are open now."""
        return sum(1 for assoc in self.open_associations if assoc.is_alive() and assoc.is_established)

    def on_association_request(self, assoc: Any) -> None:
        requestor = assoc.requestor
        negotiates = {
            "asynchronous operations": requestor.asynchronous_operations != (1, 1),
            "user identity": requestor.user_identity is not None,
            "extended negotiation": bool(requestor.sop_class_extended),
            "roles": bool(requestor.role_selection),
        }
        contexts = requestor.requested_contexts
        proposal = Proposal(
            calling=str(requestor.primitive.calling_ae_title).strip(),
            sop_classes=tuple(str(one.abstract_syntax) for one in contexts),
            transfer_syntaxes=frozenset(str(uid) for one in contexts for uid in one.transfer_syntax),
            max_pdu=requestor.maximum_length,
            application_context=str(requestor.primitive.application_context_name),
            negotiates=frozenset(name for name, is_used in negotiates.items() if is_used),
        )
        with self._seen_lock:
            self.seen.proposals.append(proposal)
            # The one that is requested now is established in a moment.
            self.seen.most_open = max(self.seen.most_open, self.open_count + 1)
        super().on_association_request(assoc)

    def move(self, move: MoveOperation) -> None:
        self.seen.destinations.append(move.destination)
        super().move(move)


class Pause(Fault):
    """Calls ``reached`` in each retrieval after ``after`` instances, and waits until the test continues."""

    def __init__(self, after: int = 0) -> None:
        super().__init__()
        self.reached = threading.Event()
        self.go_on = threading.Event()
        self._after = after

    def between(self, archive: ScriptedArchive, move: RetrieveOperation, sent: int) -> None:
        if sent == self._after and not self.go_on.is_set():
            self.reached.set()
            while not (self.go_on.wait(0.02) or archive.stopped.is_set() or move.cancelled):
                pass


@dataclass
class Run:
    """A job in a thread; ``result`` or ``error`` when it has ended."""

    thread: threading.Thread
    result: dicom_quarry.Result | None = None
    error: BaseException | None = None

    def wait(self) -> dicom_quarry.Result:
        self.thread.join(60)
        if self.error is not None:
            raise self.error
        assert self.result is not None, "the job has not ended"
        return self.result


class Office:
    """A researcher's folder, and the settings of jobs against one archive."""

    def __init__(self, folder: Path, archive: LoggingArchive) -> None:
        self.folder = folder
        self.archive = archive
        self.port = free_port()
        archive.destinations["QUARRY"] = ("127.0.0.1", self.port)
        self.settings = folder / "quarry.toml"
        self.configure()

    def configure(self, *lines: str) -> None:
        """Write quarry.toml; ``lines`` are settings of the archive."""
        address = f"{self.archive.title}@{self.archive.host}:{self.archive.port}"
        text = [f'from = "main"\nas = "QUARRY@127.0.0.1:{self.port}"', "[archive.main]"]
        text += [f'address = "{address}"', "settle = 0.2", *lines]
        self.settings.write_text("\n".join(text) + "\n")

    def extract(self, rows: Iterable[str], **options: Any) -> dicom_quarry.Result:
        """Extract a table; its first row is the header."""
        table = self.folder / "cohort.csv"
        table.write_text("\n".join(rows) + "\n")
        return dicom_quarry.extract(table, to=self.folder / "out", config=self.settings, **options)

    @contextmanager
    def start(self, rows: Iterable[str], **options: Any) -> Iterator[Run]:
        """Extract in a thread."""

        def work() -> None:
            try:
                run.result = self.extract(rows, **options)
            except BaseException as error:  # noqa: BLE001 - Run.wait raises it
                run.error = error

        run = Run(threading.Thread(target=work))
        run.thread.start()
        try:
            yield run
        finally:
            self.archive.stop()
            run.thread.join(60)


class Hours:
    """The hour of the day as every throttle has it, in UTC; waits for the window are short."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, hour: int) -> None:
        self.hour = hour
        monkeypatch.setattr(ArchiveThrottle, "_now", lambda _: self.now)
        monkeypatch.setattr("dicom_quarry.scheduling.throttle._MAX_SLEEP", 0.02)
        monkeypatch.setattr("dicom_quarry.scheduling.window_guard._POLL_INTERVAL", 0.02)

    @property
    def now(self) -> datetime:
        return datetime(2026, 3, 4, self.hour, 30, tzinfo=UTC)
