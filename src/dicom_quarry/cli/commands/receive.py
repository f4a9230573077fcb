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
from dicom_quarry.jobs.folder import JobFolder, held, share
from dicom_quarry.model import AE, Admitted, Arrival, Header
from dicom_quarry.receiver.server import Admission, Receiver, Stats
from dicom_quarry.reporting.formatting import human_size
from dicom_quarry.store.instance_store import InstanceStore
from dicom_quarry.store.path_template import Template
from dicom_quarry.system.permissions import access_of
from dicom_quarry.wire.tls import acceptor_context

_TICK = 0.25

#: Seconds between two lines where nobody watches; what went wrong is not told again before that.
_EVERY = 60.0

#: Seconds that instances in flight have when the receiver stops.
_GRACE = 30.0

_MAX_TOLD = 1000


class _Hurry(BaseException):
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
    title, local = _local(bind)
    if tls_cert is None and (tls_key or tls_ca):
        raise ConfigError("--tls-key and --tls-ca need --tls-cert")
    tls = acceptor_context(tls_cert, tls_key, tls_ca) if tls_cert else None
    template = Template.parse(filepath, job=False)
    shared = access_of(file_mode, group)
    called = frozenset({title}) if title else frozenset()
    admission = Admission(called=called, calling=_senders(accept or (), context.args))
    signals = _Signals()
    incoming = _incoming(directory)
    share(directory, shared)
    store = InstanceStore(
        directory, template, incoming=incoming, admit=_anything, sync_directory=True, access=shared
    )
    receiver = Receiver(local, store, admission=admission, tls=tls)
    receiver.listen()
    try:
        with _held(directory), _told():
            _recover(store, directory)
            with _pid(pid_file):
                receiver.start()
                print(f"ready: {bind if title else f'port {bind}'} (process {os.getpid()})", flush=True)
                _watch(receiver, signals.stopped, until_idle)
    finally:
        signals.stop(receiver)
    print(f"stopped: {_amounts(receiver.stats)}", flush=True)


def _local(bind: str) -> tuple[str, AE]:
    """The title to insist on (none where a port alone is given, as with dcm4che) and the address."""
    if bind.isdigit():
        return "", AE.local(f"QUARRY:{bind}")
    local = AE.local(bind)
    return local.title, local


def _senders(accept: Sequence[str], more: Sequence[str]) -> frozenset[str]:
    """AE titles that may send; ``more`` are further ones behind a single --accept, as dcm4che takes them."""
    if more and not accept:
        raise ConfigError(f"'{more[0]}' is no option; AE titles that may send stand behind --accept")
    titles = frozenset(title.strip() for title in (*accept, *more))
    for title in titles:
        if not 0 < len(title) <= 16:
            raise ConfigError(f"'{title}' is no AE title: these have 1 to 16 characters")
    return titles


def _incoming(directory: Path) -> Path:
    path = directory / ".quarry" / "incoming"
    for folder in (directory, path.parent, path):  # each by itself: parents would be as the umask wants them
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path


def _anything(_arrival: Arrival, _header: Header) -> Admitted:
    return Admitted()


@contextmanager
def _held(directory: Path) -> Iterator[None]:
    """The folder is this receiver's alone: what is half-way here must be nobody else's."""
    state = directory / ".quarry"
    if (state / "ledger.db").exists() or (state / "state-folder").exists():
        raise ConfigError(f"{directory} is the folder of a job: receive into another folder")
    with held(JobFolder(directory, state), watched=False):
        yield


def _recover(store: InstanceStore, directory: Path) -> None:
    found = [path is not None for path in store.recover()]
    if found:
        whole, incoming = sum(found), _incoming(directory)
        print(
            f"left over from a crash: {whole} instances recovered, {len(found) - whole} not whole, "
            f"set aside in {incoming}",
            flush=True,
        )


class _Signals:
    """SIGTERM and Ctrl-C: once, and the receiver stops; again, and it does not wait for what is in flight."""

    def __init__(self) -> None:
        self.stopped = threading.Event()
        self._waiting = False
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._take)

    def _take(self, _number: int, _frame: FrameType | None) -> None:
        self.stopped.set()
        if self._waiting:
            self._waiting = False
            raise _Hurry

    def stop(self, receiver: Receiver) -> None:
        """Let what is in flight arrive, within bounds."""
        try:
            self._waiting = True
            receiver.stop(_GRACE)
        except _Hurry:
            receiver.stop(0.0)
        finally:
            self._waiting = False


@contextmanager
def _pid(path: Path | None) -> Iterator[None]:
    mine = f"{os.getpid()}\n"
    if path is not None:
        path.write_text(mine, encoding="ascii")
    try:
        yield
    finally:
        # Somebody may have put a receiver of his own there meanwhile.
        if path is not None and path.is_file() and path.read_text(encoding="ascii") == mine:
            path.unlink()


class _Teller(logging.Handler):
    """What goes wrong, on stderr; the same at most once in a while, however often a sender tries."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._told: dict[str, float] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """Say it, unless it was said just now."""
        message, now = record.getMessage(), time.monotonic()
        if now - self._told.get(message, -_EVERY) < _EVERY:
            return
        if len(self._told) > _MAX_TOLD:
            self._told.clear()
        self._told[message] = now
        stamp = datetime.now().astimezone().isoformat(timespec="seconds")
        # On a terminal by the console that draws the live line, above it.
        console = out if out.is_terminal and err.is_terminal else err
        console.print(f"{stamp} {message}", markup=False)


@contextmanager
def _told() -> Iterator[None]:
    root, teller = logging.getLogger("dicom_quarry"), _Teller()
    root.addHandler(teller)
    try:
        yield
    finally:
        root.removeHandler(teller)


def _watch(receiver: Receiver, stopped: threading.Event, until_idle: float | None) -> None:
    """Show what arrives until a signal comes, or nobody has been connected for long enough."""
    busy = shown = time.monotonic()
    before = last = receiver.stats
    every = 1.0 if out.is_terminal else _EVERY
    with Live(console=out, auto_refresh=False, transient=True) as live:
        while not stopped.wait(_TICK):
            now, stats = time.monotonic(), receiver.stats
            if stats.associations or stats != last:
                busy = now
            last = stats
            if until_idle is not None and now - busy >= until_idle:
                return
            if now - shown >= every:
                _show(live, stats, (stats.bytes - before.bytes) / (now - shown), changed=stats != before)
                before, shown = stats, now


def _show(live: Live, stats: Stats, rate: float, *, changed: bool) -> None:
    line = f"{stats.associations} associations, {human_size(round(rate))}/s, {_amounts(stats)}"
    if out.is_terminal:
        live.update(Text(line, no_wrap=True, overflow="ellipsis"), refresh=True)
    elif changed:
        print(f"{datetime.now().astimezone().isoformat(timespec='seconds')} {line}", flush=True)


def _amounts(stats: Stats) -> str:
    text = f"{stats.instances:,} instances ({human_size(stats.bytes)})"
    if stats.refused:
        text += f", {stats.refused:,} refused"
    return f"{text}, rejected associations: {stats.rejected:,}" if stats.rejected else text
