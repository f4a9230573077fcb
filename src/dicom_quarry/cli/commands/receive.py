"""``quarry receive``: the receiver alone, for scripts that used the storescp of dcm4che or DCMTK."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from dicom_quarry import api
from dicom_quarry.api import FolderReceiver, ReceiverTls, Recovered, format_count
from dicom_quarry.cli import options
from dicom_quarry.cli.console import write_line
from dicom_quarry.cli.display.receiver import ReceiverDisplay, format_totals
from dicom_quarry.cli.display.warning_lines import log_warnings
from dicom_quarry.errors import ConfigError

_POLL_INTERVAL = 0.25

#: Seconds that instances in transfer have when the receiver stops.
_STOP_TIMEOUT = 30.0


class _StopNow(BaseException):
    """A second signal: instances in transfer are no longer waited for."""


def receive(
    context: typer.Context,
    bind: Annotated[str, typer.Option("--bind", "-b", help="Address to listen on: [AET[@IP]:]PORT.")],
    directory: Annotated[Path, typer.Option(help="Output folder.")] = Path(),
    filepath: Annotated[
        str | None,
        typer.Option(
            help="Pattern of file names; also {rnd} and {now,date,yyyyMMdd}.  "
            "[default: PatientID/Study/Series/SOP.dcm]"
        ),
    ] = None,
    layout: options.Layout = None,
    portable_names: options.PortableNames = False,
    file_mode: options.FileMode = None,
    group: options.Group = None,
    accept: Annotated[
        list[str] | None,
        typer.Option(metavar="AET…", help="AE titles that may send; repeatable.  [default: any]"),
    ] = None,
    accept_unknown: Annotated[
        bool, typer.Option("--accept-unknown", help="No effect: any SOP class is always accepted.")
    ] = False,
    trust_owner: options.TrustOwner = False,
    until_idle: Annotated[
        float | None, typer.Option(min=0, help="Stop after so many seconds without an association.")
    ] = None,
    idle_limit: options.IdleLimit = 3600.0,
    pid_file: Annotated[
        Path | None, typer.Option(help="File that contains the process id while it receives.")
    ] = None,
    tls_cert: Annotated[Path | None, typer.Option(help="Certificate (PEM): receive over TLS.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="Its key (PEM), if it is in another file.")] = None,
    tls_ca: Annotated[
        Path | None, typer.Option(help="Authority (PEM) that must have signed the senders' certificates.")
    ] = None,
    tls_profile: Annotated[
        str | None,
        typer.Option(help="bcp195, or aes for senders with the older AES profile, too.  [default: bcp195]"),
    ] = None,
) -> None:
    """Receive everything that is sent, without a job.

    Runs until Ctrl-C or SIGTERM. Every instance is safely on disk before it is acknowledged.

    Examples:
      quarry receive -b QUARRY:11112 --directory incoming/
      quarry receive -b QUARRY:11112 --accept PACS --until-idle 600
      quarry receive -b 2762 --tls-cert receiver.pem --tls-ca hospital.pem
    """
    del accept_unknown
    tls = _parse_tls(tls_cert, tls_key, tls_ca, tls_profile)
    senders = _merge_senders(accept or (), context.args)
    signals = _StopSignals()
    receiver = FolderReceiver(
        bind,
        directory,
        filepath=api.choose_filepath(filepath, layout),
        portable_names=portable_names,
        file_mode=file_mode,
        group=group,
        senders=senders,
        trust_owner=trust_owner,
        tls=tls,
        idle_limit=idle_limit or None,
    )
    with log_warnings(), receiver.open() as recovered:
        try:
            _show_recovered(recovered)
            with _write_pid_file(pid_file):
                receiver.start()
                address = f"port {bind}" if bind.isdigit() else bind
                write_line(f"ready: {address} (process {os.getpid()})")
                _show_until_stopped(receiver, signals.stop_requested, until_idle)
        finally:
            signals.stop(receiver)
    write_line(f"stopped: {format_totals(receiver.stats)}")


def _parse_tls(
    certificate: Path | None, key: Path | None, ca: Path | None, profile: str | None
) -> ReceiverTls | None:
    if certificate is None:
        if key or ca or profile:
            raise ConfigError("--tls-key, --tls-ca and --tls-profile need --tls-cert")
        return None
    if profile not in (None, "bcp195", "aes"):
        raise ConfigError(f"--tls-profile '{profile}': write bcp195 or aes")
    return ReceiverTls(certificate, key, ca, "aes" if profile == "aes" else "bcp195")


def _merge_senders(accept: Sequence[str], extra: Sequence[str]) -> tuple[str, ...]:
    """Join AE titles; as with dcm4che, one --accept may be followed by several, which are in ``extra``."""
    if extra and not accept:
        raise ConfigError(f"'{extra[0]}' is not an option. Write AE titles that may send behind --accept")
    return (*accept, *extra)


def _show_recovered(recovered: Recovered) -> None:
    if recovered.whole or recovered.incomplete:
        write_line(
            f"left over from a crash: {format_count(recovered.whole, 'instance')} recovered, "
            f"{recovered.incomplete} incomplete, kept in {recovered.incoming}"
        )


class _StopSignals:
    """SIGTERM and Ctrl-C: the first stops the receiver, the second does so without waiting for transfers."""

    def __init__(self) -> None:
        self.stop_requested = threading.Event()
        self._is_stopping = False
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._on_signal)

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self.stop_requested.set()
        if self._is_stopping:
            self._is_stopping = False
            raise _StopNow

    def stop(self, receiver: FolderReceiver) -> None:
        """Stop the receiver; instances in transfer may arrive within a time limit."""
        try:
            self._is_stopping = True
            receiver.stop(_STOP_TIMEOUT)
        except _StopNow:
            receiver.stop(0.0)
        finally:
            self._is_stopping = False


@contextmanager
def _write_pid_file(path: Path | None) -> Iterator[None]:
    content = f"{os.getpid()}\n"
    if path is not None:
        path.write_text(content, encoding="ascii")
    try:
        yield
    finally:
        # Another receiver may have written its process id there meanwhile.
        if path is not None and path.is_file() and path.read_text(encoding="ascii") == content:
            path.unlink()


def _show_until_stopped(
    receiver: FolderReceiver, stop_requested: threading.Event, until_idle: float | None
) -> None:
    """Show the progress until a signal comes, or no sender was connected for ``until_idle`` seconds."""
    busy_at = time.monotonic()
    last = receiver.stats
    with ReceiverDisplay(last) as display:
        while not stop_requested.wait(_POLL_INTERVAL):
            receiver.raise_if_ended()
            now, stats = time.monotonic(), receiver.stats
            if stats.open_associations or stats != last:
                busy_at = now
            last = stats
            if until_idle is not None and now - busy_at >= until_idle:
                return
            display.show(stats)
