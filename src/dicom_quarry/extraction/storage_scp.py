"""The job's receiver: let in the archive alone, heard by ourselves before anything is asked for."""

from __future__ import annotations

import logging
import socket
import ssl
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from ipaddress import IPv4Network, IPv6Network, ip_network

from dicom_quarry.config.credentials import TlsFiles
from dicom_quarry.config.settings import ArchiveProfile, Settings
from dicom_quarry.errors import ArchiveError, ConfigError, StartError
from dicom_quarry.model import AE, Sink
from dicom_quarry.receiver.server import AccessPolicy, Receiver, SenderRejected
from dicom_quarry.scheduling.port_queue import PortQueue
from dicom_quarry.wire.connection import Requestor
from dicom_quarry.wire.dimse import VERIFICATION, c_echo_rq
from dicom_quarry.wire.tls import acceptor_context, self_test_context

_log = logging.getLogger(__name__)

_IMPLICIT_LITTLE = "1.2.840.10008.1.2"

#: Seconds that instances in flight have when the job ends.
_GRACE = 5.0


@contextmanager
def run_receiver(
    settings: Settings,
    archives: Sequence[ArchiveProfile],
    sink: Sink,
    report: Callable[[str], None],
    port_queue: PortQueue,
) -> Iterator[Receiver]:
    """A receiver that these archives may send to."""
    local, tls = settings.local, _acceptor_tls(settings)
    networks = tuple(network for archive in archives for network in _sender_networks(archive))
    admission = AccessPolicy(called=frozenset({local.title}), networks=networks)
    reported: set[tuple[str, str]] = set()

    def on_refused(sender: SenderRejected) -> None:
        if (sender.address, sender.reason) not in reported:
            reported.add((sender.address, sender.reason))
            report(_refusal_message(sender, archives))

    receiver = Receiver(local, sink, access_policy=admission, on_event=on_refused, tls=tls)
    with port_queue.acquire(receiver.listen):
        try:
            receiver.start()
            _self_test(
                AE(local.title, local.host or "127.0.0.1", receiver.port), settings.tls if tls else None
            )
            _log.info("receiving as %s on port %d", local.title, receiver.port)
            yield receiver
        finally:
            receiver.stop(_GRACE)


def _sender_networks(archive: ArchiveProfile) -> tuple[IPv4Network | IPv6Network, ...]:
    """Where instances may come from: the archive's own addresses, and the networks configured."""
    host = archive.dimse_ae.host
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError as error:
        raise StartError(f"the archive's name {host} is not known here: {error.strerror}") from error
    own = {ip_network(str(address[0]).partition("%")[0]) for *_, address in found}
    return (*own, *archive.senders)


def _refusal_message(sender: SenderRejected, archives: Sequence[ArchiveProfile]) -> str:
    """What to tell of a sender that was refused, with the line to add if it is the archive's all the same."""
    text = f"a sender at {sender.address} was refused: {sender.reason}"
    if "address" not in sender.reason:
        return text
    if len(archives) > 1:
        line = f'senders = ["{sender.address}"]'
        return f"{text}; if it belongs to one of the archives, add  {line}  to its table in quarry.toml"
    archive = archives[0]
    known = "".join(f'"{network}", ' for network in archive.senders)
    line = f'senders = [{known}"{sender.address}"]'
    text += f"; if it belongs to the archive, add  {line}  to [archive.{archive.name}] in quarry.toml"
    if archive.name == archive.dimse_ae.title:
        text += f'  (a new table needs  address = "{archive.address}"  too, and --from {archive.name})'
    return text


def _acceptor_tls(settings: Settings) -> ssl.SSLContext | None:
    if all(archive.tls != "both" for archive in settings.archives):
        return None
    files = settings.tls
    if files.certificate is None:
        raise ConfigError('tls = "both" needs a certificate of ours: add [tls] to quarry.toml')
    return acceptor_context(files.certificate, files.key, files.ca)


def _self_test(receiver: AE, files: TlsFiles | None) -> None:
    """C-ECHO to our own receiver: what cannot hear itself will not hear an archive."""
    tls = self_test_context(files.certificate, files.key) if files and files.certificate else None
    try:
        requestor = Requestor.connect(
            receiver, calling=receiver.title, contexts=[(VERIFICATION, [_IMPLICIT_LITTLE])], tls=tls
        )
        context_id, _ = requestor.accepted[VERIFICATION]
        requestor.send(c_echo_rq(1), context_id=context_id)
        answer = requestor.receive(10.0)
        requestor.release()
    except (ArchiveError, KeyError) as error:
        raise StartError(f"the receiver {receiver} does not hear itself: {error}") from error
    if answer is None or answer.command.status != 0x0000:
        raise StartError(f"the receiver {receiver} does not answer itself")
