"""What is told of a job: for people and for programs, without anything that could name a patient."""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Notification:
    """``event`` is ended, waiting or resumed; ``lines`` are for people, ``facts`` for programs."""

    event: str
    subject: str
    lines: tuple[str, ...]
    data: Mapping[str, object]

    @property
    def text(self) -> str:
        """For the body of a mail."""
        return "\n".join(self.lines) + "\n"

    @property
    def json(self) -> str:
        """For the standard input of a command."""
        return json.dumps(dict(self.data), indent=2) + "\n"


def build_notification(
    event: str, summary: str, out: Path, lines: tuple[str, ...], data: Mapping[str, object]
) -> Notification:
    """A notice of the job that fills ``out``, with where and when it was given."""
    folder, host = str(out.resolve()), socket.gethostname()
    now = datetime.now(UTC).isoformat(timespec="seconds")
    head = (f"Quarry on {host}: {summary}", f"folder: {folder}", f"time: {now}", "")
    context = {"event": event, "summary": summary, "folder": folder, "host": host, "time": now}
    return Notification(
        event, f"quarry: {summary} ({out.name} on {host})", (*head, *lines), {**context, **data}
    )
