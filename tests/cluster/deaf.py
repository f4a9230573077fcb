"""A worker whose receiver ends by itself once a file is there; for the command server."""

from __future__ import annotations

import os
from pathlib import Path

from dicom_quarry.errors import ReceiverEnded
from dicom_quarry.receiver.server import Receiver

#: The variable that names the file.
DEAF = "QUARRY_TEST_DEAF"


def prepare() -> None:
    """Change the receiver of this process."""
    file = Path(os.environ[DEAF])

    def raise_if_ended(self: Receiver) -> None:
        if file.exists():
            raise ReceiverEnded("the receiver has ended")

    Receiver.raise_if_ended = raise_if_ended  # type: ignore[method-assign]
