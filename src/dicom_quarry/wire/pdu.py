"""Protocol data units (PS3.8 9.3): what travels on the transport connection."""

from __future__ import annotations

from typing import NamedTuple


class PDVFragment(NamedTuple):
    """A piece of a presentation data value (PS3.8 9.3.5.1); ``data`` is valid until the next read."""

    context_id: int
    is_command: bool
    is_last: bool
    data: memoryview
