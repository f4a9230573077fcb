"""``quarry receive``: the receiver alone, for scripts that drove dcm4che's or DCMTK's storescp."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer
from rich.live import Live
from rich.text import Text

from dicom_quarry.cli import options
from dicom_quarry.cli.console import err, out
from dicom_quarry.config.settings import DEFAULT_FILEPATH
from dicom_quarry.errors import ConfigError
from dicom_quarry.jobs.folder import JobFolder, apply_access, job_lock
from dicom_quarry.model import AE, Header, InstanceAdmission, InstanceInfo
from dicom_quarry.receiver.server import AccessPolicy, Receiver, ReceiverStats
from dicom_quarry.reporting.formatting import format_size
from dicom_quarry.store.instance_store import InstanceStore
from dicom_quarry.store.path_template import PathTemplate
from dicom_quarry.system.permissions import make_permissions
from dicom_quarry.wire.tls import acceptor_context

_POLL_INTERVAL = 0.25

#: Seconds between two lines where nobody watches; what went wrong is not told again before that.
_INTERVAL = 60.0

#: Seconds that instances in flight have when the receiver stops.
_STOP_TIMEOUT = 30.0

_MAX_REMEMBERED = 1000


class _StopNow(BaseException):
    """A second signal: what is in flight is not waited for any more."""


def receive(
    context: typer.Context,
    bind: Annotated[str, typer.Option("--bind", "-b", help="[AET[@IP]:]PORT to listen on.")],
    directory: Annotated[Path, typer.Option(help="The folder to fill.")] = Path(),
    filepath: Annotated[
        str, typer.Option(help="Pattern of the file names; also {rnd} and {now,date,yyyyMMdd}.")
    ] = DEFAULT_FILEPATH,
    file_mode: options.FileMode = None,
    group: options.Group = None,
    accept: Annotated[
        list[str] | None,
        typer.Option(
            metavar="AET…", help="AE titles that may send, one or more; may be repeated.  [default: any]"
        ),
    ] = None,
    accept_unknown: Annotated[
        bool, typer.Option("--accept-unknown", help="Understood, and always so: any SOP class is taken.")
    ] = False,
    until_idle: Annotated[
        float | None, typer.Option(min=0, help="Stop after so many seconds without an association.")
    ] = None,
    pid_file: Annotated[
        Path | None, typer.Option(help="Where the process id stands while it receives.")
    ] = None,
    tls_cert: Annotated[Path | None, typer.Option(help="Certificate (PEM): receive over TLS.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="Its key (PEM), if it is in another file.")] = None,
    tls_ca: Annotated[
        Path | None, typer.Option(help="Authority (PEM) that must have signed the senders' certificates.")
    ] = None,
) -> None:
    """Receive whatever is sent, until SIGTERM or Ctrl-C; every instance is durable before it is acknowledged.

    Example:  quarry receive -b QUARRY:11112 --directory incoming/
    """
    del accept_unknown
    title, local = _parse_bind(bind)
    if tls_cert is None and (tls_key or tls_ca):
        raise ConfigError("--tls-key and --tls-ca need --tls-cert")
    tls = acceptor_context(tls_cert, tls_key, tls_ca) if tls_cert else None
    template = PathTemplate.parse(filepath, for_job=False)
    access = make_permissions(file_mode, group)
    called = frozenset({title}) if title else frozenset()
    admission = AccessPolicy(called=called, calling=_parse_allowed_senders(accept or (), context.args))
    signals = _StopSignals()
    incoming = _make_incoming_folder(directory)
    apply_access(directory, access)
    store = InstanceStore(
        directory, template, incoming=incoming, admit=_admit_all, sync_directory=True, access=access
    )
    receiver = Receiver(local, store, access_policy=admission, tls=tls)
    receiver.listen()
    try:
        with _folder_lock(directory), _log_to_stderr():
            _recover(store, directory)
            with _write_pid_file(pid_file):
                receiver.start()
                print(f"ready: {bind if title else f'port {bind}'} (process {os.getpid()})", flush=True)
                _show_until_stopped(receiver, signals.stop_requested, until_idle)
    finally:
        signals.stop(receiver)
    print(f"stopped: {_format_totals(receiver.stats)}", flush=True)


def _parse_bind(bind: str) -> tuple[str, AE]:
    """The title to insist on (none where a port alone is given, as with dcm4che) and the address."""
    if bind.isdigit():
        return "", AE.parse_local(f"QUARRY:{bind}")
    local = AE.parse_local(bind)
    return local.title, local


def _parse_allowed_senders(accept: Sequence[str], extra: Sequence[str]) -> frozenset[str]:
    """AE titles that may send; ``more`` are further ones behind a single --accept, as dcm4che takes them."""
    if extra and not accept:
        raise ConfigError(f"'{extra[0]}' is no option; AE titles that may send stand behind --accept")
    titles = frozenset(title.strip() for title in (*accept, *extra))
    for title in titles:
        if not 0 < len(title) <= 16:
            raise ConfigError(f"'{title}' is no AE title: these have 1 to 16 characters")
    return titles


def _make_incoming_folder(directory: Path) -> Path:
    path = directory / ".quarry" / "incoming"
    for folder in (directory, path.parent, path):  # each by itself: parents would be as the umask wants them
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path


def _admit_all(_arrival: InstanceInfo, _header: Header) -> InstanceAdmission:
    return InstanceAdmission()


@contextmanager
def _folder_lock(directory: Path) -> Iterator[None]:
    """The folder is this receiver's alone: what is half-way here must be nobody else's."""
    state = directory / ".quarry"
    if (state / "ledger.db").exists() or (state / "state-folder").exists():
        raise ConfigError(f"{directory} is the folder of a job: receive into another folder")
    with job_lock(JobFolder(directory, state), runs_job=False):
        yield


def _recover(store: InstanceStore, directory: Path) -> None:
    found = [path is not None for path in store.recover()]
    if found:
        whole, incoming = sum(found), _make_incoming_folder(directory)
        print(
            f"left over from a crash: {whole} instances recovered, {len(found) - whole} not whole, "
            f"set aside in {incoming}",
            flush=True,
        )


class _StopSignals:
    """SIGTERM and Ctrl-C: once, and the receiver stops; again, and it does not wait for what is in flight."""

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

    def stop(self, receiver: Receiver) -> None:
        """Let what is in flight arrive, within bounds."""
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
        # Somebody may have put a receiver of his own there meanwhile.
        if path is not None and path.is_file() and path.read_text(encoding="ascii") == content:
            path.unlink()


class _RateLimitedHandler(logging.Handler):
    """What goes wrong, on stderr; the same at most once in a while, however often a sender tries."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._last_logged: dict[str, float] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """Say it, unless it was said just now."""
        message, now = record.getMessage(), time.monotonic()
        if now - self._last_logged.get(message, -_INTERVAL) < _INTERVAL:
            return
        if len(self._last_logged) > _MAX_REMEMBERED:
            self._last_logged.clear()
        self._last_logged[message] = now
        stamp = datetime.now().astimezone().isoformat(timespec="seconds")
        # On a terminal by the console that draws the live line, above it.
        console = out if out.is_terminal and err.is_terminal else err
        console.print(f"{stamp} {message}", markup=False)


@contextmanager
def _log_to_stderr() -> Iterator[None]:
    root, handler = logging.getLogger("dicom_quarry"), _RateLimitedHandler()
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)


def _show_until_stopped(
    receiver: Receiver, stop_requested: threading.Event, until_idle: float | None
) -> None:
    """Show what arrives until a signal comes, or nobody has been connected for long enough."""
    busy = shown = time.monotonic()
    before = last = receiver.stats
    every = 1.0 if out.is_terminal else _INTERVAL
    with Live(console=out, auto_refresh=False, transient=True) as live:
        while not stop_requested.wait(_POLL_INTERVAL):
            now, stats = time.monotonic(), receiver.stats
            if stats.open_associations or stats != last:
                busy = now
            last = stats
            if until_idle is not None and now - busy >= until_idle:
                return
            if now - shown >= every:
                _show_stats(
                    live, stats, (stats.bytes - before.bytes) / (now - shown), changed=stats != before
                )
                before, shown = stats, now


def _show_stats(live: Live, stats: ReceiverStats, rate: float, *, changed: bool) -> None:
    line = f"{stats.open_associations} associations, {format_size(round(rate))}/s, {_format_totals(stats)}"
    if out.is_terminal:
        live.update(Text(line, no_wrap=True, overflow="ellipsis"), refresh=True)
    elif changed:
        print(f"{datetime.now().astimezone().isoformat(timespec='seconds')} {line}", flush=True)


def _format_totals(stats: ReceiverStats) -> str:
    text = f"{stats.instances:,} instances ({format_size(stats.bytes)})"
    if stats.rejected_instances:
        text += f", {stats.rejected_instances:,} refused"
    return (
        f"{text}, rejected associations: {stats.rejected_associations:,}"
        if stats.rejected_associations
        else text
    )
