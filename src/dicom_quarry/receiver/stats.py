"""What a receiver has done."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ReceiverStats:
    """What the receiver has done so far; ``associations`` are those that stand now."""

    open_associations: int = 0
    instances: int = 0
    bytes: int = 0
    rejected_instances: int = 0  # instances
    rejected_associations: int = 0  # associations
