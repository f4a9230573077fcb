"""A plan: the studies of a cohort, their size and the time to fetch them, found by queries alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

from dicom_quarry.api.boundary import clear_errors
from dicom_quarry.api.cohort_rows import Cohort, as_table
from dicom_quarry.api.options import PlanOptions, StrPath, Texts, check_bools, make_flags, make_path
from dicom_quarry.api.progress import open_progress
from dicom_quarry.config.settings import Settings, load_settings
from dicom_quarry.config.site_policy import load_site_policy
from dicom_quarry.errors import InputError
from dicom_quarry.extraction.query_context import make_query_context
from dicom_quarry.jobs.local_place import LocalPlace
from dicom_quarry.jobs.observer import JobObserver
from dicom_quarry.ledger.plan_reader import PlannedRow, PlanReader
from dicom_quarry.planning.past_throughput import compute_past_throughput
from dicom_quarry.planning.planner import PlanResult, make_plan
from dicom_quarry.plurals import format_count
from dicom_quarry.reporting.cohort_content import CohortContent
from dicom_quarry.reporting.estimate import DataVolume, make_forecast
from dicom_quarry.reporting.plan_files import plan_dict, write_plan_csv, write_plan_json
from dicom_quarry.reporting.plan_summary import PlanSummary, count_rows, plan_lines
from dicom_quarry.system.file_systems import free_bytes

if TYPE_CHECKING:
    # A notebook's alone: imported where it is used.
    from dicom_quarry.reporting.arrow_table import ArrowTable


@dataclass(frozen=True, slots=True, repr=False)
class Plan:
    """A plan's summary, and its rows one by one; ``problem`` is what an operator has to do, if anything."""

    folder: LocalPlace
    summary: PlanSummary
    detailed: bool = False
    problem: str = ""

    def __repr__(self) -> str:
        counts, studies = self.summary.counts, format_count(self.summary.studies, "study")
        return f"<Plan of {format_count(counts.rows, 'row')}: {studies}; {self.summary.verdict}>"

    @property
    def exit_code(self) -> int:
        """0 every row has studies to fetch, 1 some have none, 4 not every row was queried."""
        return self.summary.exit_code

    def rows(self) -> Iterator[PlannedRow]:
        """Read every row of the table with the studies found for it."""
        with closing(PlanReader(self.folder.ledger)) as reader:
            yield from reader.planned_rows()

    def to_dict(self) -> dict[str, object]:
        """Return the numbers of the plan, as ``json`` can write them and without descriptions of studies."""
        return plan_dict(self.summary)

    @clear_errors
    def rows_table(self) -> ArrowTable:
        """Return the user's table with what was found for every row, for a DataFrame."""
        from dicom_quarry.reporting.plan_tables import plan_rows_table

        return plan_rows_table(self.folder.ledger)

    @clear_errors
    def studies_table(self) -> ArrowTable:
        """Return every study that was found, for a DataFrame."""
        from dicom_quarry.reporting.plan_tables import plan_studies_table

        return plan_studies_table(self.folder.ledger)

    def instances_table(self) -> ArrowTable:
        """Return the table of stored instances, which is empty: a plan fetches nothing."""
        from dicom_quarry.reporting.plan_tables import no_instances_table

        return no_instances_table()

    @clear_errors
    def show(self, *, identifiers: bool = False) -> None:
        """Show the plan: as an output of the notebook, or else as text.

        ``identifiers`` adds the first rows with their cells, and the studies that were found for them.
        """
        from dicom_quarry.api.outputs import make_shown_plan, show_output
        from dicom_quarry.reporting.html.notebook import plan_output

        shown = None
        if identifiers:
            with closing(PlanReader(self.folder.ledger)) as reader:
                rows, total = reader.planned_rows(), self.summary.counts.rows
                shown = make_shown_plan(reader.columns(), rows, total)
        html = plan_output(self.summary, note=self._note(identifiers=identifiers), shown=shown)
        lines = plan_lines(self.summary, descriptions=identifiers)
        show_output(html, [*lines, self._note(identifiers=identifiers)], shown)

    def _repr_html_(self) -> str:
        from dicom_quarry.reporting.html.notebook import plan_output

        return plan_output(self.summary, note=self._note(identifiers=False))

    def _note(self, *, identifiers: bool) -> str:
        if not self.problem or identifiers:
            return self.problem
        return "The plan needs the help of a person: read its attribute problem."

    @clear_errors
    def write(self, path: StrPath) -> Path:
        """Write the plan, readable by its owner alone: as JSON where the name ends in .json, else as CSV."""
        path = make_path(path, "path")
        if not path.absolute().parent.is_dir():
            raise InputError(f"{path}: there is no folder {path.parent}. Make it, or name another file")
        if path.suffix.casefold() == ".json":
            write_plan_json(path, self.summary, self.rows(), detailed=self.detailed)
        else:
            write_plan_csv(path, self.rows(), detailed=self.detailed)
        return path


@clear_errors
def plan(
    cohort: Cohort,
    *,
    archive: Texts | None = None,
    to: StrPath | None = None,
    receiver: str | None = None,
    config: StrPath | None = None,
    detailed: bool = False,
    observer: JobObserver | None = None,
    progress: bool = False,
    **options: Unpack[PlanOptions],
) -> Plan:
    """Query the archive for every row and fetch nothing; parameters are those of :func:`extract`.

    ``detailed`` requests more attributes of every study. A later extraction of the same cohort from the same
    archives, with the same rules, uses the query results. ``progress`` shows how far it is. Raises
    InputError, StartError or LedgerError.
    """
    check_bools(detailed=detailed, progress=progress)
    path = None if config is None else make_path(config, "config")
    flags = make_flags("plan", options, PlanOptions, archive=archive, to=to, receiver=receiver)
    with as_table(cohort) as table:
        settings = load_plan_settings(path, flags)
        with open_progress("Plan", observer, progress=progress) as (shown_to, output):
            queries = make_query_context(settings, shown_to)
            made = build_plan(settings, make_plan(queries, table, detailed=detailed), detailed=detailed)
            if output is not None:
                counts = made.summary.counts
                output.finish(counts.rows, counts.rows, made.summary.verdict)
        return made


def load_plan_settings(path: Path | None, flags: Mapping[str, object]) -> Settings:
    """Load the settings of a plan. Without an output folder the free space of the current folder counts."""
    return load_settings(path, flags, {"to": "."})


def build_plan(settings: Settings, end: PlanResult, *, detailed: bool) -> Plan:
    """Summarise a plan that has just been made."""
    amounts = {archive.name: DataVolume() for archive in settings.archives}
    content = CohortContent()
    with closing(PlanReader(end.folder.ledger)) as reader:
        counts = count_rows(reader.planned_rows())
        for archive, study in reader.found_studies():
            amounts[archive].add(study)
            content.add(study)
    policy, now = load_site_policy(), datetime.now(UTC)
    forecasts = tuple(
        make_forecast(
            archive.name,
            amounts[archive.name],
            [archive, *policy.limits_for(archive).values()],
            compute_past_throughput(archive.addresses),
            now,
        )
        for archive in settings.archives
    )
    existing = next(
        path for path in (settings.to.absolute(), *settings.to.absolute().parents) if path.exists()
    )
    free = max(0, free_bytes(existing) - settings.keep_free_bytes)
    filtered = bool(settings.series or settings.series_not or settings.min_instances)
    summary = PlanSummary(counts, forecasts, settings.to, free, filtered, content)
    return Plan(end.folder, summary, detailed, end.problem)
