"""The scenarios that need nothing but a scripted archive."""

from __future__ import annotations

from tests.faults import asking, moving, objects, on_the_way
from tests.faults.scenario import Scenario

SCENARIOS: tuple[Scenario, ...] = (
    *on_the_way.SCENARIOS,
    *moving.SCENARIOS,
    *asking.SCENARIOS,
    *objects.SCENARIOS,
)
