"""The collaborators of queries to archives: made once for a job, a plan or a comparison with the archive."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from dicom_quarry.cohort.exclusion_list import ExclusionList, read_exclusions
from dicom_quarry.config.settings import Settings
from dicom_quarry.config.site_policy import SitePolicy, describe_site_list, load_site_policy
from dicom_quarry.jobs import record
from dicom_quarry.jobs.observer import JobObserver
from dicom_quarry.jobs.progress import StatusBoard
from dicom_quarry.model import InstanceInfo
from dicom_quarry.scheduling.shared_state import SharedState
from dicom_quarry.scheduling.site_throttle import build_throttle
from dicom_quarry.scheduling.throttle import ArchiveThrottle
from dicom_quarry.system.shutdown import Shutdown


@dataclass(frozen=True, slots=True)
class QueryContext:
    """Settings, limits and messages of one run; ``throttles`` by the archive's name.

    ``stop`` requests both shutdowns. The end of a job's retrieval requests ``shutdown`` alone, so that an
    on-complete command can still finish.
    """

    settings: Settings
    observer: JobObserver
    status_board: StatusBoard
    shutdown: Shutdown
    user_shutdown: Shutdown
    site_policy: SitePolicy
    exclusions: ExclusionList
    throttles: Mapping[str, ArchiveThrottle]

    def stop(self) -> None:
        """Finish the transfers in progress and stop; a second call cancels them. For signal handlers, too."""
        self.shutdown.request()
        self.user_shutdown.request()

    def report_limits(self) -> None:
        """Report the site's limits, unencrypted connections and exclusion lists before the first query."""
        for archive in self.settings.archives:
            if archive.dicomweb is not None and archive.dicomweb.is_unencrypted:
                self.observer.on_message(
                    f"{archive.dicomweb} is not https: others on the network can read the data"
                )
            limits = self.site_policy.describe_limits(archive)
            if limits:
                self.observer.on_message(limits)
        if self.exclusions.site_description:
            self.observer.on_message(describe_site_list(self.exclusions.site_description))
        if self.exclusions.description:
            origin = "of the job's record" if self.exclusions.is_recorded else "(--exclude)"
            self.observer.on_message(f"exclusion list {origin}: {self.exclusions.description}")
        for note in self.exclusions.notes:
            self.observer.on_message(note)

    def bandwidth_limiter_for(self, info: InstanceInfo) -> Callable[[int], None] | None:
        """Return the function that delays the sender of an instance, None where its archive has no limit.

        The archive is found by the sender's AE title. Archives may send under another title than their own:
        then the limit of the first archive applies.
        """
        archives = self.settings.archives
        sender = next((one for one in archives if one.is_sender_of(info)), archives[0])
        throttle = self.throttles[sender.name]
        return throttle.throttle_bytes if throttle.has_byte_limit else None


def make_query_context(
    settings: Settings,
    observer: JobObserver,
    shared_state: SharedState | None = None,
    recorded_exclusions: Mapping[str, frozenset[str]] | None = None,
) -> QueryContext:
    """Read the site's policy and the exclusion lists, and make the throttle of every archive.

    ``shared_state`` has the numbers and slots of all limits, by default the folder of the host.
    ``recorded_exclusions`` are the identifiers of the settings' exclusion lists, if a job's record has them.
    Raises ConfigError and StartError where the site's policy forbids an archive or its shared counters cannot
    be used, and InputError where an exclusion list cannot be read.
    """
    site_policy, shutdown, status_board = load_site_policy(), Shutdown(), StatusBoard()
    settings = settings.model_copy(
        update={"archives": tuple(site_policy.apply(archive) for archive in settings.archives)}
    )
    return QueryContext(
        settings=settings,
        observer=observer,
        status_board=status_board,
        shutdown=shutdown,
        user_shutdown=Shutdown(),
        site_policy=site_policy,
        exclusions=read_exclusions(
            settings.exclude, record.parse_read_options(settings), site_policy.exclude, recorded_exclusions
        ),
        throttles={
            archive.name: build_throttle(
                archive, settings.parallel, site_policy, shutdown, status_board, shared_state
            )
            for archive in settings.archives
        },
    )
