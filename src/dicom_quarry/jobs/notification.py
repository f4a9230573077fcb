"""What is told of a job: for people and for programs, without anything that could name a patient."""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Notice:
    """``event`` is ended, waiting or "going on"; ``lines`` are for people, ``facts`` for programs."""

    event: str
    subject: str
    lines: tuple[str, ...]
    facts: Mapping[str, object]

    @property
    def text(self) -> str:
        """For the body of a mail."""
        return "\n".join(self.lines) + "\n"

    @property
    def json(self) -> str:
        """For the standard input of a command."""
        return json.dumps(dict(self.facts), indent=2) + "\n"


def notice(event: str, what: str, out: Path, lines: tuple[str, ...], facts: Mapping[str, object]) -> Notice:
    """A notice of the job that fills ``out``, with where and when it was given."""
    folder, host = str(out.resolve()), socket.gethostname()
    now = datetime.now(UTC).isoformat(timespec="seconds")
    head = (f"Quarry on {host}: {what}", f"folder: {folder}", f"time: {now}", "")
    place = {"event": event, "what": what, "folder": folder, "host": host, "time": now}
    return Notice(event, f"quarry: {what} ({out.name} on {host})", (*head, *lines), {**place, **facts})
