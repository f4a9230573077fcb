"""The fuzzing harnesses on their corpus, on mutations of it, and on inputs made to be slow."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

import pytest
from fuzz.harnesses import HARNESSES
from fuzz.hostile import HOSTILE
from fuzz.mutation import mutated
from fuzz.run import CORPUS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

INPUTS = {name: [path.read_bytes() for path in sorted((CORPUS / name).iterdir())] for name in HARNESSES}


@pytest.mark.parametrize("name", HARNESSES)
def test_corpus(name: str) -> None:
    assert INPUTS[name]
    for data in INPUTS[name]:
        HARNESSES[name](data)


@pytest.mark.parametrize("name", HARNESSES)
def test_mutations_of_the_corpus(name: str) -> None:
    dice = random.Random(name)
    for number in range(1000):
        data = mutated(dice.choice(INPUTS[name]), dice)
        try:
            HARNESSES[name](data)
        except Exception as error:
            error.add_note(f"input {number}: {data[:2000].hex()}")
            raise


@pytest.mark.parametrize("name", HARNESSES)
@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.binary(max_size=400))
def test_any_bytes(name: str, data: bytes) -> None:
    HARNESSES[name](data)


@pytest.mark.parametrize(
    ("key", "make"), HOSTILE.items(), ids=lambda value: value[1] if type(value) is tuple else ""
)
def test_hostile_inputs_take_time_by_their_length(key: tuple[str, str], make: Callable[[], bytes]) -> None:
    data = make()
    begun = time.process_time()
    HARNESSES[key[0]](data)
    assert time.process_time() - begun < 8  # by the square it would be a minute
