"""A receiver without a job: a Storage SCP that fills a folder."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from dicom_quarry.config.settings import DEFAULT_FILEPATH
from dicom_quarry.errors import ConfigError
from dicom_quarry.jobs.folder import JOB_FILE, apply_access, require_own_state
from dicom_quarry.jobs.local_place import LocalPlace, has_record
from dicom_quarry.jobs.naming import begin_or_continue_names
from dicom_quarry.model import AE, Header, InstanceAdmission, InstanceInfo
from dicom_quarry.receiver.server import AccessPolicy, Receiver, ReceiverLimits, ReceiverStats
from dicom_quarry.store.instance_store import InstanceStore
from dicom_quarry.store.path_template import PathTemplate
from dicom_quarry.system.permissions import make_permissions
from dicom_quarry.wire.tls import TlsProfile, acceptor_context

#: Seconds for instances that are being written when their connections are cut; and when a user cancels.
_ABORT_SECONDS = 5.0
_CANCEL_SECONDS = 3.0


@dataclass(frozen=True, slots=True)
class ReceiverTls:
    """PEM files to receive over TLS; with ``ca`` senders need a certificate that it has signed.

    ``profile`` is the TLS profile: ``aes`` also accepts the retired AES profile of PS3.15 B.3.
    """

    certificate: Path
    key: Path | None = None
    ca: Path | None = None
    profile: TlsProfile = "bcp195"


@dataclass(frozen=True, slots=True)
class Recovered:
    """Instances that an earlier receiver left: those recovered, and incomplete ones, kept in ``incoming``."""

    whole: int
    incomplete: int
    incoming: Path


class FolderReceiver:
    """Receives every instance that an admitted sender sends, and stores it under ``directory``.

    ``bind`` is ``AET[@IP]:PORT``, or a port alone to accept any called AE title. An empty ``senders`` admits
    every calling AE title. An association without a message for ``idle_limit`` seconds ends; None keeps it.
    An instance is durable before it is acknowledged. ``portable_names``: name the files of a new folder for
    disks that ignore case. Raises InputError.
    """

    def __init__(
        self,
        bind: str,
        directory: Path,
        *,
        filepath: str = DEFAULT_FILEPATH,
        portable_names: bool = False,
        file_mode: str | None = None,
        group: str | None = None,
        senders: Collection[str] = (),
        trust_owner: bool = False,
        tls: ReceiverTls | None = None,
        idle_limit: float | None = 3600.0,
    ) -> None:
        title, local = _parse_bind(bind)
        tls_context = acceptor_context(tls.certificate, tls.key, tls.ca, profile=tls.profile) if tls else None
        PathTemplate.parse(filepath, for_job=False)  # an error must not leave a folder
        access = make_permissions(file_mode, group)
        called = frozenset({title}) if title else frozenset()
        access_policy = AccessPolicy(called=called, calling=_parse_senders(senders))
        self._directory = directory
        state = directory / ".quarry"
        is_new = not state.exists()
        self._incoming = _make_incoming_folder(directory)
        require_own_state(LocalPlace(directory, state), trust_owner=trust_owner)
        names = begin_or_continue_names(directory, state, is_new=is_new, portable=portable_names)
        template = PathTemplate.parse(filepath, for_job=False, names=names)
        apply_access(directory, access)
        self._store = InstanceStore(
            directory,
            template,
            incoming=self._incoming,
            admit=_admit_all,
            sync_each=True,
            stores_non_patient=True,
            access=access,
        )
        limits = ReceiverLimits(idle_timeout=idle_limit)
        self._receiver = Receiver(
            local, self._store, access_policy=access_policy, limits=limits, tls=tls_context
        )

    @property
    def stats(self) -> ReceiverStats:
        """Return a snapshot of the counters."""
        return self._receiver.stats

    def raise_if_ended(self) -> None:
        """Raise ReceiverEnded once no connection is accepted any more, though nothing stopped it."""
        self._receiver.raise_if_ended()

    @contextmanager
    def open(self) -> Iterator[Recovered]:
        """Take port and folder, and recover what an earlier receiver left; senders wait until ``start``.

        Raises StartError where another process has the port or the folder, ConfigError for a job's folder.
        """
        self._receiver.listen()
        try:
            with self._folder_lock():
                found = [path is not None for path in self._store.recover()]
                yield Recovered(sum(found), len(found) - sum(found), self._incoming)
        finally:
            self._receiver.stop(0.0)

    def start(self) -> None:
        """Serve senders in threads of its own."""
        self._receiver.start()

    def stop(self, grace_seconds: float) -> None:
        """Stop, after at most ``grace_seconds`` for instances in transfer; may be called again with fewer."""
        self._receiver.stop(
            grace_seconds, abort_seconds=min(grace_seconds, _ABORT_SECONDS) or _CANCEL_SECONDS
        )

    @contextmanager
    def _folder_lock(self) -> Iterator[None]:
        # Recovery moves unfinished files, so no other process may be writing them.
        state = self._directory / ".quarry"
        if has_record(self._directory) or (state / JOB_FILE).exists():
            raise ConfigError(f"{self._directory} is the folder of a job: receive into another folder")
        with LocalPlace(self._directory, state).lock(runs_job=False):
            yield


def _parse_bind(bind: str) -> tuple[str, AE]:
    """Return the called AE title to insist on (empty where a port alone is given) and the address."""
    if bind.isdigit():
        return "", AE.parse_local(f"QUARRY:{bind}")
    local = AE.parse_local(bind)
    return local.title, local


def _parse_senders(senders: Collection[str]) -> frozenset[str]:
    titles = frozenset(title.strip() for title in senders)
    for title in titles:
        if not 0 < len(title) <= 16:
            raise ConfigError(f"'{title}' is not an AE title: AE titles have 1 to 16 characters")
    return titles


def _make_incoming_folder(directory: Path) -> Path:
    path = directory / ".quarry" / "incoming"
    for folder in (directory, path.parent, path):  # one by one: mkdir gives parents the umask's mode
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path


def _admit_all(_instance: InstanceInfo, _header: Header) -> InstanceAdmission:
    return InstanceAdmission()
