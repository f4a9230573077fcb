"""This computer's side: the port that we receive on, the clock, the disk."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from datetime import UTC, datetime

from dicom_quarry.config.time_window import Schedule
from dicom_quarry.diagnosis.context import CheckContext, CheckStep, StepStatus
from dicom_quarry.errors import StartError
from dicom_quarry.receiver.listen_socket import listen
from dicom_quarry.system.file_systems import free_bytes

#: No computer that runs this version has an earlier year, if its clock is right.
_EARLIEST_YEAR = 2024

#: What adjtimex(2) returns where nothing disciplines the clock.
_TIME_ERROR = 5


def check_local(context: CheckContext, hours: Schedule, now: datetime) -> Iterator[CheckStep]:
    """Steps that need nobody else; ``hours`` in which the archive may be asked."""
    yield check_local_port(context)
    yield check_clock(hours, now, synchronised=is_clock_synchronised())
    yield check_disk(context)


def check_local_port(context: CheckContext) -> CheckStep:
    """Whether our receiver could listen."""
    local = context.local
    if not context.profile.needs_receiver:
        return CheckStep(
            "our port", StepStatus.NOTE, "not needed: images come over our own association (C-GET)"
        )
    try:
        listen(local).close()
    except StartError as error:
        return CheckStep("our port", StepStatus.BAD, str(error))
    context.findings.port_is_free = True
    where = local.host or "every interface"
    return CheckStep("our port", StepStatus.GOOD, f"{local.port} is free on {where}, for {local.title}")


def check_clock(hours: Schedule, now: datetime, *, synchronised: bool) -> CheckStep:
    """Windows are by this clock, and TLS believes it."""
    message = f"{now.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
    if now.year < _EARLIEST_YEAR:
        return CheckStep(
            "clock", StepStatus.BAD, f"{message}, which is long ago", "set the clock of this computer"
        )
    closes = hours.next_close(now)
    message += (
        f"; by the window's clock {hours.format_time(now)}, open until {hours.format_time(closes)}"
        if closes
        else ""
    )
    if not synchronised:
        message = f"{message}; nothing keeps this clock right"
        return CheckStep(
            "clock", StepStatus.NOTE, message, "have it synchronised by NTP, if windows matter to your site"
        )
    return CheckStep("clock", StepStatus.GOOD, message)


def is_clock_synchronised() -> bool:
    """What the kernel knows of its clock; True where it cannot be asked."""
    adjtimex = getattr(ctypes.CDLL(None), "adjtimex", None)
    # A struct timex of zeros (208 bytes on 64-bit Linux) asks and changes nothing.
    return adjtimex is None or adjtimex(ctypes.create_string_buffer(512)) != _TIME_ERROR


def check_disk(context: CheckContext) -> CheckStep:
    """Whether a job has room, and may write."""
    folder = context.folder
    free, keep = free_bytes(folder), context.settings.keep_free_bytes
    if not os.access(folder, os.W_OK):
        return CheckStep(
            "disk", StepStatus.BAD, f"{folder} cannot be written to", "give another folder as 'to'"
        )
    if free <= keep:
        message = f"{free / 1e9:.1f} GB are free at {folder}, and {keep / 1e9:g} GB are to be left to others"
        return CheckStep("disk", StepStatus.BAD, message, "make room: a job would wait for it")
    return CheckStep("disk", StepStatus.GOOD, f"{free / 1e9:,.1f} GB free at {folder}")
