"""What a receiver has done."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Stats:
    """What the receiver has done so far; ``associations`` are those that stand now."""

    associations: int = 0
    instances: int = 0
    bytes: int = 0
    refused: int = 0  # instances
    rejected: int = 0  # associations
