"""This computer's side: the port that we receive on, the clock, the disk."""

from __future__ import annotations

import ctypes
import os
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime

from dicom_quarry.config.time_window import Hours
from dicom_quarry.diagnosis.context import Bench, Mark, Step
from dicom_quarry.errors import StartError
from dicom_quarry.receiver.listen_socket import listen

#: No computer that runs this version has an earlier year, if its clock is right.
_EARLIEST = 2024

#: What adjtimex(2) returns where nothing disciplines the clock.
_TIME_ERROR = 5


def here(bench: Bench, hours: Hours, now: datetime) -> Iterator[Step]:
    """Steps that need nobody else; ``hours`` in which the archive may be asked."""
    yield port(bench)
    yield clock(hours, now, synchronised=synchronised())
    yield disk(bench)


def port(bench: Bench) -> Step:
    """Whether our receiver could listen."""
    local = bench.local
    if not bench.profile.sends:
        return Step("our port", Mark.NOTE, "not needed: images come over our own association (C-GET)")
    try:
        listen(local).close()
    except StartError as error:
        return Step("our port", Mark.BAD, str(error))
    bench.learned.port_is_free = True
    where = local.host or "every interface"
    return Step("our port", Mark.GOOD, f"{local.port} is free on {where}, for {local.title}")


def clock(hours: Hours, now: datetime, *, synchronised: bool) -> Step:
    """Windows are by this clock, and TLS believes it."""
    said = f"{now.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
    if now.year < _EARLIEST:
        return Step("clock", Mark.BAD, f"{said}, which is long ago", "set the clock of this computer")
    closes = hours.next_close(now)
    said += (
        f"; by the window's clock {hours.spoken(now)}, open until {hours.spoken(closes)}" if closes else ""
    )
    if not synchronised:
        said = f"{said}; nothing keeps this clock right"
        return Step("clock", Mark.NOTE, said, "have it synchronised by NTP, if windows matter to your site")
    return Step("clock", Mark.GOOD, said)


def synchronised() -> bool:
    """What the kernel knows of its clock; True where it cannot be asked."""
    adjtimex = getattr(ctypes.CDLL(None), "adjtimex", None)
    # A struct timex of zeros (208 bytes on 64-bit Linux) asks and changes nothing.
    return adjtimex is None or adjtimex(ctypes.create_string_buffer(512)) != _TIME_ERROR


def disk(bench: Bench) -> Step:
    """Whether a job has room, and may write."""
    folder = bench.folder
    free, keep = shutil.disk_usage(folder).free, bench.settings.keep_free_bytes
    if not os.access(folder, os.W_OK):
        return Step("disk", Mark.BAD, f"{folder} cannot be written to", "give another folder as 'to'")
    if free <= keep:
        said = f"{free / 1e9:.1f} GB are free at {folder}, and {keep / 1e9:g} GB are to be left to others"
        return Step("disk", Mark.BAD, said, "make room: a job would wait for it")
    return Step("disk", Mark.GOOD, f"{free / 1e9:,.1f} GB free at {folder}")
