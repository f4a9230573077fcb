"""Actions of users on jobs: rows of the list of jobs, whose time and role the server writes."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from dicom_quarry.system.processes import user_name


@dataclass(frozen=True, slots=True)
class Action:
    """An action of ``person`` on ``host`` on a job, with a role of the database."""

    at: datetime
    role: str
    person: str
    host: str
    job: str
    action: str
    details: str


def record_action(connection: Any, job: str, action: str, details: str = "") -> None:
    """Record what this user does to the job of a name, in the transaction that does it."""
    connection.execute(
        "INSERT INTO quarry.actions (person, host, job, action, details) VALUES (%s, %s, %s, %s, %s)",
        (user_name(), socket.gethostname(), job, action, details),
    )


def list_actions(connection: Any, job: str) -> list[Action]:
    """Return what was done to the job of a name, in its order."""
    rows = connection.execute(
        "SELECT at, role, person, host, job, action, details FROM quarry.actions WHERE job = %s ORDER BY id",
        (job,),
    )
    return [Action(*row) for row in rows]
