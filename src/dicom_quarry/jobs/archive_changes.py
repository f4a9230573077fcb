"""The archives of a job that exists: the same under another name, another one, or one more."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from dicom_quarry.config.archive_profile import ArchiveProfile
from dicom_quarry.config.settings import Settings
from dicom_quarry.errors import InputError
from dicom_quarry.model import AE, BaseUri
from dicom_quarry.system.addresses import normalize_host, resolve


@dataclass(frozen=True, slots=True)
class ArchiveChanges:
    """The changes of a job's archives: old and new names of the same archives, and names of further ones."""

    renamed: tuple[tuple[str, str], ...] = ()
    moved: tuple[tuple[str, str], ...] = ()
    added: tuple[str, ...] = ()
    transports_differ: bool = False
    merges_ids_differ: bool = False

    @classmethod
    def find(cls, previous: Settings, settings: Settings, *, moved: bool = False) -> ArchiveChanges:
        """Compare the archives with those of the last run.

        An archive is the same if it has an address in common, or, with ``moved``, the name. Raises InputError
        for an archive at another address, and for one that is missing.
        """
        left = list(settings.archives)
        pairs = [(before, _take(left, before, _has_same_address)) for before in previous.archives]
        gone = [before for before, now in pairs if now is None]
        # One that has moved may have another name now.
        is_only_one = moved and len(gone) == len(left) == 1
        found: list[tuple[ArchiveProfile, ArchiveProfile]] = []
        for before, same in pairs:
            now = same or _take(left, before, lambda one, other: is_only_one or one.name == other.name)
            if now is None or (same is None and not moved):
                raise InputError(_describe_refusal(before, now, settings))
            found.append((before, now))
        return cls(
            tuple((before.name, now.name) for before, now in found if before.name != now.name),
            tuple((now.name, now.description) for before, now in found if before in gone),
            tuple(one.name for one in left),
            any(before.retrieve != now.retrieve for before, now in found),
            any(before.merged_ids != now.merged_ids for before, now in found),
        )

    def messages(self) -> Iterator[str]:
        """Yield what is to be reported."""
        for before, now in self.renamed:
            yield f"the archive {before} of this job is called {now} now"
        for name, address in self.moved:
            yield f"the archive {name} of this job is {address} now"


def _take(
    archives: list[ArchiveProfile],
    wanted: ArchiveProfile,
    is_same: Callable[[ArchiveProfile, ArchiveProfile], bool],
) -> ArchiveProfile | None:
    """Remove the first archive that is the same as the wanted one, and return it; None if there is none."""
    found = next((one for one in archives if is_same(wanted, one)), None)
    if found is not None:
        archives.remove(found)
    return found


def _describe_refusal(before: ArchiveProfile, now: ArchiveProfile | None, settings: Settings) -> str:
    if now is None:
        return (
            f"{settings.to} is filled from {before.name} ({before.description}): use that archive, or "
            "another folder. If this archive has another address now, give that and --archive-moved"
        )
    return (
        f"the archive {before.name} of this job was {before.description}, and is {now.description} now: give "
        "the old address, or another folder. If it is the same archive with a new address, run again with "
        "--archive-moved"
    )


def _has_same_address(one: ArchiveProfile, other: ArchiveProfile) -> bool:
    return any(_is_same(here, there) for here in one.addresses for there in other.addresses)


def _is_same(one: AE | BaseUri, other: AE | BaseUri) -> bool:
    """Return whether two addresses lead to the same archive; hosts with other names are resolved."""
    if isinstance(one, AE) and isinstance(other, AE):
        rest = one.title == other.title and one.port == other.port
    elif isinstance(one, BaseUri) and isinstance(other, BaseUri):
        rest = one.port == other.port and one.path == other.path
    else:
        return False
    return rest and (
        normalize_host(one.host) == normalize_host(other.host) or _resolve_alike(one.host, other.host)
    )


def _resolve_alike(one: str, other: str) -> bool:
    try:
        return not resolve(one).isdisjoint(resolve(other))
    except OSError:
        return False
