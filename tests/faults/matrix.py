"""The scenarios that need nothing but a scripted archive."""

from __future__ import annotations

from tests.faults import (
    association_faults,
    blame_faults,
    instance_faults,
    partition_faults,
    query_faults,
    retrieval_faults,
    value_faults,
)
from tests.faults.scenario import Scenario

SCENARIOS: tuple[Scenario, ...] = (
    *association_faults.SCENARIOS,
    *retrieval_faults.SCENARIOS,
    *query_faults.SCENARIOS,
    *partition_faults.SCENARIOS,
    *instance_faults.SCENARIOS,
    *value_faults.SCENARIOS,
    *blame_faults.SCENARIOS,
)
