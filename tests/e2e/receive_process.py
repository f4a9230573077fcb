"""``quarry receive`` in a process of its own, and DCMTK's senders."""

from __future__ import annotations

import re
import subprocess
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Self

from dicom_quarry.model import AE
from tests.e2e.command import Running, until
from tests.peers.corpus import write_study
from tests.peers.process import free_port


class Receiving(AbstractContextManager["Receiving"]):
    """A receiver that is ready when the context is entered; ``folder`` is what it fills."""

    def __init__(
        self,
        work: Path,
        *options: object,
        title: str = "QUARRY",
        folder: str = "in",
        port: int = 0,
        anew: bool = False,
    ) -> None:
        self.folder = work / folder
        self.ae = AE(title, "127.0.0.1", port or free_port())
        self._work = work
        self._options = options
        self._anew = anew
        self._stack = ExitStack()
        self._runs = 0

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def start(self) -> None:
        """Start, also once more on the same port and folder; returns when it says that it is ready."""
        self._runs += 1
        bind = f"{self.ae.title}@{self.ae.host}:{self.ae.port}"
        self.running = Running(
            self._work / f"{self.folder.name}-{self._runs}.txt",
            *("receive", "-b", bind, "--directory", self.folder, *self._options),
            anew=self._anew,
        )
        self._stack.enter_context(self.running)
        until(self.running, "ready", lambda: "ready: " in self.running.output)

    @property
    def said(self) -> str:
        """All that it has said since it was started last."""
        return self.running.output

    @property
    def incoming(self) -> Path:
        """Where instances are on their way."""
        return self.folder / ".quarry" / "incoming"


def send(tool: str, peer: AE, *words: object, calling: str = "SENDER") -> tuple[int, str]:
    """Run storescu, dcmsend or echoscu; how many instances were answered with success, and what it said."""
    options = [str(word) for word in words if not isinstance(word, Path)]
    files = [str(word) for word in words if isinstance(word, Path)]
    command = [tool, "-v", "-aet", calling, "-aec", peer.title, *options, peer.host, str(peer.port), *files]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    said = done.stdout + done.stderr
    return len(re.findall(r"Response \(Success\)", said)), said


def dicom(
    folder: Path, name: str = "study", *, patient: str = "P1", count: int = 1, pixel_bytes: int = 512
) -> list[Path]:
    """Instances of one series, as files."""
    items = write_study(
        folder / name, patient_id=patient, accession="A1", instances=count, pixel_bytes=pixel_bytes
    )
    return [item.path for item in items]
