"""Checks of this computer: the port of our receiver, the clock, the disk."""

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
    """Run the steps that need no archive; ``hours`` are those in which the archive may be queried."""
    yield check_local_port(context)
    yield check_clock(hours, now, synchronised=is_clock_synchronised())
    yield check_disk(context)


def check_local_port(context: CheckContext) -> CheckStep:
    """Check that our receiver could listen."""
    local = context.local
    if not context.profile.needs_receiver:
        transport = context.profile.transports[0].label
        return CheckStep(
            "our port", StepStatus.NOTE, f"not needed: images arrive over our own connection ({transport})"
        )
    try:
        listen(local).close()
    except StartError as error:
        return CheckStep("our port", StepStatus.BAD, str(error))
    context.findings.port_is_free = True
    where = local.host or "every interface"
    return CheckStep("our port", StepStatus.GOOD, f"{local.port} is free on {where}, for {local.title}")


def check_clock(hours: Schedule, now: datetime, *, synchronised: bool) -> CheckStep:
    """Check the clock, which decides about time windows and TLS certificates."""
    message = f"{now.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
    if now.year < _EARLIEST_YEAR:
        return CheckStep(
            "clock", StepStatus.BAD, f"{message} is in the past", "set the clock of this computer"
        )
    closes = hours.next_close(now)
    message += (
        f"; time window: now {hours.format_time(now)}, open until {hours.format_time(closes)}"
        if closes
        else ""
    )
    if not synchronised:
        message = f"{message}. No time synchronisation found"
        return CheckStep("clock", StepStatus.NOTE, message, "set up NTP if you use time windows")
    return CheckStep("clock", StepStatus.GOOD, message)


def is_clock_synchronised() -> bool:
    """Return the kernel's state of the clock; True where the kernel has no such call."""
    adjtimex = getattr(ctypes.CDLL(None), "adjtimex", None)
    # A struct timex of zeros (208 bytes on 64-bit Linux) reads the state and changes nothing.
    return adjtimex is None or adjtimex(ctypes.create_string_buffer(512)) != _TIME_ERROR


def check_disk(context: CheckContext) -> CheckStep:
    """Check that a job could write, and has free space."""
    folder = context.folder
    free, keep = free_bytes(folder), context.settings.keep_free_bytes
    if not os.access(folder, os.W_OK):
        return CheckStep(
            "disk", StepStatus.BAD, f"{folder} cannot be written to", "name another output folder (to)"
        )
    if free <= keep:
        message = f"{free / 1e9:.1f} GB free at {folder}, Quarry keeps {keep / 1e9:g} GB free (keep-free)"
        return CheckStep("disk", StepStatus.BAD, message, "free some space: until then a job would wait")
    return CheckStep("disk", StepStatus.GOOD, f"{free / 1e9:,.1f} GB free at {folder}")
