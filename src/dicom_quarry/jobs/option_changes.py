"""The options of a job that exists: the effect of each on rows that have ended, and the messages about it.

No option is without an effect and without a message. docs/options-of-a-job.md has the same table for users.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from dicom_quarry.config.settings import Settings
from dicom_quarry.errors import InputError
from dicom_quarry.jobs.archive_changes import ArchiveChanges
from dicom_quarry.ledger.ledger import Ledger
from dicom_quarry.ledger.reopening import has_studies, rename_archives, reopen_rows_with_few_studies
from dicom_quarry.model import OutcomeStatus
from dicom_quarry.outcomes import codes_of


class Effect(StrEnum):
    """The effect of an option in a job that exists."""

    REOPENS = "re-opens rows"
    UPDATE = "needs --update"
    REFUSED = "is refused"
    LATER = "holds from now on"
    RUN = "holds for this run"


@dataclass(frozen=True, slots=True)
class OptionRule:
    """The effect of an option; ``fields`` are its settings."""

    effect: Effect
    fields: tuple[str, ...] = ()


#: The options of ``quarry extract`` and ``quarry retry``, by name. A test compares them with the commands.
RULES: dict[str, OptionRule] = {
    "--from": OptionRule(Effect.REOPENS, ("archives",)),
    "--archive-moved": OptionRule(Effect.RUN),
    "--as": OptionRule(Effect.REOPENS, ("local",)),
    "--retrieve": OptionRule(Effect.REOPENS),
    "--to": OptionRule(Effect.RUN, ("to",)),
    "--state": OptionRule(Effect.REFUSED, ("state",)),
    "--job": OptionRule(Effect.REFUSED, ("job",)),
    "--file-mode": OptionRule(Effect.LATER, ("file_mode",)),
    "--group": OptionRule(Effect.LATER, ("group",)),
    "--config": OptionRule(Effect.RUN),
    "--niffler": OptionRule(Effect.RUN),
    "--parallel": OptionRule(Effect.RUN, ("parallel",)),
    "--give-up-after": OptionRule(Effect.RUN, ("give_up_after",)),
    "--protocol": OptionRule(Effect.RUN, ("protocol",)),
    "--on-complete": OptionRule(Effect.RUN, ("on_complete",)),
    "--on-complete-env": OptionRule(Effect.RUN, ("on_complete_env",)),
    "--filepath": OptionRule(Effect.REFUSED, ("filepath",)),
    "--layout": OptionRule(Effect.REFUSED),
    "--portable-names": OptionRule(Effect.REFUSED, ("portable_names",)),
    "--map": OptionRule(Effect.UPDATE, ("map",)),
    "--ignore-column": OptionRule(Effect.UPDATE, ("ignore_column",)),
    "--verbatim": OptionRule(Effect.UPDATE, ("verbatim",)),
    "--hidden-rows": OptionRule(Effect.UPDATE, ("hidden_rows",)),
    "--where": OptionRule(Effect.UPDATE, ("where",)),
    "--rewrite": OptionRule(Effect.UPDATE, ("rewrite",)),
    "--pad": OptionRule(Effect.UPDATE, ("pad",)),
    "--date-format": OptionRule(Effect.UPDATE, ("date_format",)),
    "--long-identifiers": OptionRule(Effect.UPDATE, ("long_identifiers",)),
    "--exclude": OptionRule(Effect.LATER, ("exclude",)),
    "--allow-wildcards": OptionRule(Effect.REOPENS, ("allow_wildcards",)),
    "--whole-patients": OptionRule(Effect.REOPENS, ("whole_patients",)),
    "--series": OptionRule(Effect.REFUSED, ("series",)),
    "--series-not": OptionRule(Effect.REFUSED, ("series_not",)),
    "--min-instances": OptionRule(Effect.REFUSED, ("min_instances",)),
    "--allow-several-patients": OptionRule(Effect.REOPENS, ("allow_several_patients",)),
    "--max-studies": OptionRule(Effect.REOPENS, ("max_studies",)),
    "--yes": OptionRule(Effect.REOPENS),
    "--no-diagnosis": OptionRule(Effect.LATER, ("diagnosis",)),
    "--accept-mismatch": OptionRule(Effect.REOPENS, ("accept_mismatch",)),
    "--skip-bad-rows": OptionRule(Effect.RUN, ("skip_bad_rows",)),
    "--update": OptionRule(Effect.RUN),
    "--trust-owner": OptionRule(Effect.RUN, ("trust_owner",)),
    "--queue": OptionRule(Effect.RUN),
    "--detach": OptionRule(Effect.RUN),
    "--outcome": OptionRule(Effect.REOPENS),
    "--damaged": OptionRule(Effect.REOPENS),
    "--changed": OptionRule(Effect.REOPENS),
}

#: The settings of the choice of series, for which complete studies were proved.
_SERIES_OPTIONS = ("--series", "--series-not", "--min-instances")

#: Outcomes that another archive may change.
_ELSEWHERE = frozenset({"study_not_found", "near_miss"})
#: Outcomes that another transport, or another receiver, may change.
_NOT_SENT = frozenset(
    {
        *("instances_missing", "some_images_refused", "images_refused"),
        *("archive_refused", "nothing_arrived", "gave_up_waiting"),
    }
)
_WITHOUT_SERIES = frozenset({"no_series_wanted", "attribute_not_returned"})
_MISMATCHES = codes_of({OutcomeStatus.MISMATCH}) - {"answers_do_not_match"}


@dataclass(frozen=True, slots=True)
class OptionChanges:
    """The changes of the options of a job since its last run. Raises InputError for one that is refused."""

    previous: Settings
    settings: Settings
    archives: ArchiveChanges

    @classmethod
    def check(
        cls, ledger: Ledger, previous: Settings, settings: Settings, *, archive_moved: bool = False
    ) -> OptionChanges:
        """Compare the options with those of the last run; changes nothing."""
        if previous.exclude and not settings.exclude:
            raise InputError(
                f"this job was started with --exclude {previous.exclude[0].file}: give that list, or a newer "
                "one"
            )
        changes = cls(previous, settings, ArchiveChanges.find(previous, settings, moved=archive_moved))
        for option in _SERIES_OPTIONS:
            if changes._differs(option) and has_studies(ledger.database):
                raise InputError(
                    f"this job was run {changes._before(option)}, and its studies are complete for that "
                    f"choice of series: run it {changes._before(option)} again, or extract to another folder "
                    "with another choice"
                )
        return changes

    @property
    def update_reason(self) -> str:
        """The reason why rows would be searched in another way; empty if no option for that has changed."""
        changed = [
            name for name, rule in RULES.items() if rule.effect is Effect.UPDATE and self._differs(name)
        ]
        return "; ".join(f"this job was run {self._before(name)}, not {self._now(name)}" for name in changed)

    @property
    def rereads_table(self) -> bool:
        """True if rows of the table that could not be used are allowed now."""
        return any(
            getattr(self.settings, name) and not getattr(self.previous, name)
            for name in ("whole_patients", "allow_wildcards")
        )

    def apply(self, ledger: Ledger) -> Iterator[str]:
        """Re-open the rows and studies that the new options may change; yields messages for the user."""
        settings = self.settings
        rename_archives(ledger.database, self.archives.renamed)
        yield from self.archives.messages()
        if settings.allow_several_patients:
            yield from self._reopen("--allow-several-patients", ledger, {"several_patients"})
        reopen = reopen_rows_with_few_studies
        yield from self._report("--max-studies", lambda: reopen(ledger.database, settings.max_studies))
        if settings.accept_mismatch or self.archives.merges_ids_differ:
            # Instances in the folder for mismatches are compared again.
            yield from self._reopen("--accept-mismatch", ledger, _MISMATCHES)
        if any(map(self._differs, _SERIES_OPTIONS)):
            yield from self._reopen("--series", ledger, _WITHOUT_SERIES)
        if self.archives.added:
            yield from self._reopen(f"--from (also {', '.join(self.archives.added)})", ledger, _ELSEWHERE)
        if self.archives.transports_differ:
            yield from self._reopen("--retrieve", ledger, _NOT_SENT)
        if self._differs("--as"):
            yield from self._reopen("--as", ledger, _NOT_SENT)
        yield from self._notes()

    def _notes(self) -> Iterator[str]:
        """Yield notes on changed options that leave the rows and files that have ended as they are."""
        for option in ("--file-mode", "--group"):
            if self._differs(option):
                yield f"{option} holds for new files; files that are stored already keep theirs"
        if self._differs("--no-diagnosis"):
            given = "without" if self.settings.diagnosis else "with"
            yield f"{given} --no-diagnosis from now on; rows that were searched already stay as they are"
        for option in (
            "--allow-several-patients",
            "--accept-mismatch",
            "--whole-patients",
            "--allow-wildcards",
        ):
            if self._differs(option) and not self._value(self.settings, option):
                yield (
                    f"this job was run with {option}, and is without it from now on; rows that have ended "
                    "stay as they are"
                )
        if self.settings.max_studies < self.previous.max_studies:
            yield "--max-studies is lower from now on; rows that were searched already stay as they are"

    def _reopen(self, option: str, ledger: Ledger, codes: frozenset[str] | set[str]) -> Iterator[str]:
        return self._report(option, lambda: ledger.retry(codes))

    @staticmethod
    def _report(option: str, reopen: Callable[[], int]) -> Iterator[str]:
        if count := reopen():
            what = "row or study is" if count == 1 else "rows and studies are"
            yield f"{option}: {count:,} {what} tried again"

    @staticmethod
    def _value(settings: Settings, option: str) -> object:
        return getattr(settings, RULES[option].fields[0])

    def _differs(self, option: str) -> bool:
        return self._value(self.previous, option) != self._value(self.settings, option)

    def _before(self, option: str) -> str:
        return _describe(option, self._value(self.previous, option))

    def _now(self, option: str) -> str:
        return _describe(option, self._value(self.settings, option))


def _describe(option: str, value: object) -> str:
    """Describe how an option was given, such as "with --series Modality=CT"."""
    if not value:
        return f"without {option}"
    if value is True:
        return f"with {option}"
    values = value if isinstance(value, tuple) else (value,)
    return "with " + " ".join(f"{option} '{one}'" for one in values)
