"""A receiver on a free loopback port."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from dicom_quarry.model import AE
from dicom_quarry.receiver.server import Receiver
from tests.receiver.helpers import MemorySink

Make = Callable[..., Receiver]


@pytest.fixture
def sink() -> MemorySink:
    return MemorySink()


@pytest.fixture
def make(sink: MemorySink) -> Iterator[Make]:
    with ExitStack() as stack:

        def start(**options: Any) -> Receiver:
            receiver = Receiver(AE("QUARRY", "127.0.0.1", 0), sink, **options)
            receiver.start()
            stack.callback(receiver.stop, 0.0)
            return receiver

        yield start


@pytest.fixture
def receiver(make: Make) -> Receiver:
    return make()
