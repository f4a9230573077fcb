"""Counters of a receiver."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ReceiverStats:
    """Counters of a receiver since its start; ``open_associations`` is the current number, without C-ECHO.

    ``gave_way`` are idle associations that ended for a new one; ``errors`` counts the waits for a thread, a
    file or memory, and connections that could not be served.
    """

    open_associations: int = 0
    instances: int = 0
    bytes: int = 0
    rejected_instances: int = 0
    rejected_associations: int = 0
    gave_way: int = 0
    errors: int = 0
