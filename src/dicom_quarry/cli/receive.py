"""``quarry receive``: the receiver alone, for scripts that drove dcm4che's or DCMTK's storescp."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from dicom_quarry.cli.console import err, out
from dicom_quarry.config import DEFAULT_FILEPATH
from dicom_quarry.errors import ConfigError
from dicom_quarry.model import AE, Admitted
from dicom_quarry.receiver.server import Admission, Receiver, SenderRefused, Stats
from dicom_quarry.report import human_size
from dicom_quarry.store.files import InstanceStore
from dicom_quarry.store.template import Template
from dicom_quarry.wire.tls import acceptor_context

_TICK = 0.25

#: Seconds between two lines where nobody watches.
_EVERY = 60.0

#: Seconds that instances in flight have when the receiver stops.
_GRACE = 30.0


def receive(
    bind: Annotated[str, typer.Option("--bind", "-b", help="[AET[@IP]:]PORT to listen on.")],
    directory: Annotated[Path, typer.Option(help="The folder to fill.")] = Path(),
    filepath: Annotated[str, typer.Option(help="Pattern of the file names.")] = DEFAULT_FILEPATH,
    accept: Annotated[
        list[str] | None, typer.Option(help="AE titles that may send; may be repeated.  [default: any]")
    ] = None,
    accept_unknown: Annotated[
        bool, typer.Option("--accept-unknown", help="Understood, and always so: any SOP class is taken.")
    ] = False,
    until_idle: Annotated[
        float | None, typer.Option(help="Stop after so many seconds without an association.")
    ] = None,
    pid_file: Annotated[Path | None, typer.Option(help="Where to write the process id.")] = None,
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
    store = _store(directory, filepath)
    admission = Admission(
        called=frozenset({title}) if title else frozenset(), calling=frozenset(accept or ())
    )
    receiver = Receiver(local, store, admission=admission, tls=tls, on_event=_refused)
    stopped = _stopped_by_signals()
    with _pid(pid_file):
        receiver.start()
        try:
            print(f"ready: {local} (process {os.getpid()})", flush=True)
            _watch(receiver, stopped, until_idle)
        finally:
            receiver.stop(_GRACE)
    print(_line(receiver.stats, 0.0), flush=True)


def _local(bind: str) -> tuple[str, AE]:
    """The title to insist on (none where a port alone is given, as with dcm4che) and the address."""
    if bind.isdigit():
        return "", AE.local(f"QUARRY:{bind}")
    local = AE.local(bind)
    return local.title, local


def _store(directory: Path, filepath: str) -> InstanceStore:
    incoming = directory / ".quarry" / "incoming"
    incoming.mkdir(mode=0o700, parents=True, exist_ok=True)
    store = InstanceStore(
        directory,
        Template.parse(filepath, job=False),
        incoming=incoming,
        admit=lambda _arrival, _header: Admitted(),
        sync_directory=True,
    )
    whole = damaged = 0
    for path in store.recover():
        whole += path is not None
        damaged += path is None
    if whole or damaged:
        print(f"left over from a crash: {whole} instances recovered, {damaged} not whole in {incoming}")
    return store


def _refused(sender: SenderRefused) -> None:
    err.print(f"refused {sender.calling} at {sender.address}: {sender.why}", markup=False, soft_wrap=True)


def _stopped_by_signals() -> threading.Event:
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    return stopped


@contextmanager
def _pid(path: Path | None) -> Iterator[None]:
    if path is not None:
        path.write_text(f"{os.getpid()}\n", encoding="ascii")
    try:
        yield
    finally:
        if path is not None:
            path.unlink(missing_ok=True)


def _watch(receiver: Receiver, stopped: threading.Event, until_idle: float | None) -> None:
    """Show what arrives until a signal comes, or nobody has been connected for long enough."""
    busy = shown = time.monotonic()
    before = receiver.stats
    while not stopped.wait(_TICK):
        now, stats = time.monotonic(), receiver.stats
        if stats.associations or stats.instances != before.instances:
            busy = now
        if until_idle is not None and now - busy >= until_idle:
            return
        if now - shown >= (1.0 if out.is_terminal else _EVERY):
            line = _line(stats, (stats.bytes - before.bytes) / (now - shown))
            if out.is_terminal:
                out.print(line, end="\r")
            elif stats != before:
                print(line, flush=True)
            before, shown = stats, now


def _line(stats: Stats, rate: float) -> str:
    return (
        f"{stats.associations} associations, {stats.instances:,} instances "
        f"({human_size(stats.bytes)}), {human_size(round(rate))}/s, {stats.refused:,} refused"
    )
