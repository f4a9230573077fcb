"""The job's receiver: it accepts the job's archives alone, and tests itself before the first retrieval."""

from __future__ import annotations

import logging
import ssl
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from ipaddress import ip_network

from dicom_quarry.config.archive_profile import ArchiveProfile
from dicom_quarry.config.credentials import TlsFiles
from dicom_quarry.config.settings import Settings
from dicom_quarry.errors import ArchiveError, ConfigError, StartError
from dicom_quarry.extraction.worker import JobSinks
from dicom_quarry.model import AE
from dicom_quarry.receiver.server import AccessPolicy, Receiver, SenderRejected
from dicom_quarry.receiver.stats import ReceiverStats
from dicom_quarry.scheduling.port_queue import PortQueue
from dicom_quarry.system.addresses import IPNetwork, resolve
from dicom_quarry.system.log_limit import RepeatLimit
from dicom_quarry.system.shutdown import Shutdown
from dicom_quarry.wire.dimse import VERIFICATION, c_echo_rq
from dicom_quarry.wire.requestor import Requestor
from dicom_quarry.wire.tls import TlsProfile, acceptor_context, self_test_context

_log = logging.getLogger(__name__)

_IMPLICIT_LITTLE = "1.2.840.10008.1.2"

#: Seconds for instances in transfer when the job ends.
_GRACE = 5.0

#: Seconds for the receiver's threads to end after the user has cancelled the job.
_CANCELLED = 0.5

#: Refusals that are remembered, so that each is reported once.
_MAX_REPORTED = 1000


@contextmanager
def run_receiver(
    settings: Settings,
    archives: Sequence[ArchiveProfile],
    sink: JobSinks,
    report: Callable[[str], None],
    port_queue: PortQueue,
    user_shutdown: Shutdown,
) -> Iterator[Callable[[], ReceiverStats]]:
    """Receive from these archives; yields a function that returns the receiver's counters.

    That function raises ReceiverEnded once the receiver accepts nothing more. ``report`` gets a message for
    rejected senders, limited in rate, and ``sink`` each of their attempts. After the user's second stop
    instances in transfer are not waited for. Raises StartError, and Stopped if the job is stopped while it
    waits for the port.
    """
    local, tls = settings.local, _acceptor_tls(settings)
    networks = tuple(network for archive in archives for network in _sender_networks(archive))
    access_policy = AccessPolicy(called=frozenset({local.title}), networks=networks)
    reported: set[tuple[str, str]] = set()
    limit = RepeatLimit()

    def on_rejected(sender: SenderRejected) -> None:
        message = _rejection_message(sender, archives)
        sink.add_sender(message, is_lasting=not sender.transient)
        # A sender can vary its AE title, which is in the reason.
        if (sender.address, sender.reason) not in reported and (line := limit.admit("sender", message)):
            if len(reported) < _MAX_REPORTED:
                reported.add((sender.address, sender.reason))
            report(line)

    def counters() -> ReceiverStats:
        receiver.raise_if_ended()
        return receiver.stats

    receiver = Receiver(local, sink, access_policy=access_policy, on_event=on_rejected, tls=tls)
    with port_queue.acquire(receiver.listen):
        try:
            receiver.start()
            _self_test(
                AE(local.title, local.host or "127.0.0.1", receiver.port), settings.tls if tls else None
            )
            _log.info("receiving as %s on port %d", local.title, receiver.port)
            yield counters
        finally:
            is_cancelled = user_shutdown.cancel_requested
            receiver.stop(
                0.0 if is_cancelled else _GRACE, abort_seconds=_CANCELLED if is_cancelled else _GRACE
            )
            if receiver.stats.errors or receiver.stats.gave_way:
                _log.info(
                    "waits for a thread, a file or memory: %d; idle associations that gave way: %d",
                    receiver.stats.errors,
                    receiver.stats.gave_way,
                )


def _sender_networks(archive: ArchiveProfile) -> tuple[IPNetwork, ...]:
    """Return the networks of an archive's instances: its own addresses, and the configured senders."""
    host = archive.dimse_ae.host
    try:
        found = resolve(host)
    except OSError as error:
        reason = error.strerror or error
        raise StartError(f"the archive's host name {host} cannot be resolved: {reason}") from error
    return (*map(ip_network, found), *archive.senders)


def _rejection_message(sender: SenderRejected, archives: Sequence[ArchiveProfile]) -> str:
    """Describe a rejected sender, with the line to add to quarry.toml if it belongs to the archive."""
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
    profiles = {archive.tls_profile for archive in settings.archives if archive.tls == "both"}
    if not profiles:
        return None
    files = settings.tls
    if files.certificate is None:
        raise ConfigError('tls = "both" needs a certificate of ours: add [tls] to quarry.toml')
    profile: TlsProfile = "aes" if "aes" in profiles else "bcp195"
    return acceptor_context(files.certificate, files.key, files.ca, profile=profile)


def _self_test(receiver: AE, files: TlsFiles | None) -> None:
    """Send a C-ECHO to our own receiver; raises StartError if it does not answer."""
    tls = self_test_context(files.certificate, files.key) if files and files.certificate else None
    failure = f"self-test failed: our own receiver {receiver} did not answer a C-ECHO"
    try:
        requestor = Requestor.connect(
            receiver, calling=receiver.title, contexts=[(VERIFICATION, [_IMPLICIT_LITTLE])], tls=tls
        )
        context_id, _ = requestor.accepted[VERIFICATION]
        requestor.send(c_echo_rq(1), context_id=context_id)
        answer = requestor.receive(10.0)
        requestor.release()
    except (ArchiveError, KeyError) as error:
        raise StartError(f"{failure}: {error}") from error
    if answer is None or answer.command.status != 0x0000:
        raise StartError(failure)
