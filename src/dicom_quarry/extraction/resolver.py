"""Asks the archives about a row, in their order, and enters what they answered in the ledger."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import chain, repeat
from typing import Protocol

from dicom_quarry.archive.base import Found
from dicom_quarry.cohort.exclusion_list import NOBODY, Exclusions
from dicom_quarry.cohort.series_filter import ALL_SERIES, SeriesFilter
from dicom_quarry.cohort.value_rewrites import told
from dicom_quarry.errors import Lost, QueryFailed
from dicom_quarry.errors import told as failure_told
from dicom_quarry.extraction.job_context import Source
from dicom_quarry.extraction.logged_queries import Questions
from dicom_quarry.extraction.matching import Resolution, Rules, judge, search
from dicom_quarry.extraction.near_misses import diagnose
from dicom_quarry.jobs.progress import Board
from dicom_quarry.ledger.ledger import Ledger
from dicom_quarry.model import Level, Request, Selection, SeriesInfo, Study

_log = logging.getLogger(__name__)


class Desk(Protocol):
    """What a resolver works with: the tools of a job, or those of a plan, which has fewer."""

    @property
    def sources(self) -> Mapping[str, Source]:
        """The archives, in the order in which they are asked."""

    @property
    def ledger(self) -> Ledger:
        """Where the answers are entered."""

    @property
    def board(self) -> Board:
        """Where it is told what goes wrong."""


@dataclass(frozen=True, slots=True)
class _Way:
    """One way to ask about a row: of an archive, for a purpose; each question is noted."""

    questions: Questions
    source: Source
    purpose: str

    def finder(self, attributes: tuple[str, ...] = ()) -> Callable[[Mapping[str, str]], Found]:
        """Finds studies; of a search the questions after the first are for parts of its answer."""
        purposes = chain([self.purpose], repeat("near" if self.purpose == "near" else "part"))

        def find(keys: Mapping[str, str]) -> Found:
            asked = {**dict.fromkeys(attributes, ""), **keys}
            return self.questions.ask(
                self.source,
                lambda: self.source.archive.find(asked),
                lambda found: (len(found.studies), found.why),
                purpose=next(purposes),
                level=Level.STUDY,
                keys=keys,
            )

        return find

    def series(self, study: Study) -> tuple[SeriesInfo, ...]:
        """The series of a study, to choose from."""
        return self.questions.ask(
            self.source,
            lambda: self.source.archive.list_series(study),
            lambda series: (len(series), ""),
            purpose="series",
            level=Level.SERIES,
            keys=("StudyInstanceUID",),
        )


@dataclass(frozen=True, slots=True)
class Resolver:
    """Turns requests into tasks, or into outcomes; ``diagnosis`` asks about rows that matched nothing.

    ``attributes`` are keywords that the archive is to tell of every study, beside those always asked for;
    ``series`` says which of its series are wanted, ``exclusions`` what must not be taken.
    """

    tools: Desk
    rules: Rules
    diagnosis: bool
    attributes: tuple[str, ...] = ()
    series: SeriesFilter = ALL_SERIES
    exclusions: Exclusions = NOBODY

    def resolve(self, request: Request) -> Future[int]:
        """Ask about a row: the next archive for one that the archive before does not know.

        The future is the number of rows that are settled by it, once that is durable.
        """
        ledger = self.tools.ledger
        questions = Questions(ledger, row=request.row)
        excluded = self.exclusions.request(request)
        resolution = Resolution(code="row_excluded", details={"keys": excluded}) if excluded else Resolution()
        for keys, (name, source) in () if excluded else self._ways(request):
            way = _Way(questions, source, "row" if keys == request.keys else "rewritten")
            resolution = self._ask(replace(request, keys=keys), way)
            if resolution.studies:
                _log.info("row %d: %d studies found in %s", request.row, len(resolution.studies), name)
                wanted, left_out = self._wanted(request, resolution.studies, way)
                if isinstance(wanted, Resolution):
                    resolution = wanted
                    break
                return ledger.resolve(request, name, wanted, _noted(told(request, keys), left_out))
            if resolution.code != "study_not_found":
                break
        if resolution.code == "study_not_found" and self.diagnosis:
            resolution = self._explained(request, resolution, questions)
        _log.info("row %d: %s", request.row, resolution.code)
        return ledger.conclude_request(request, resolution.code, **resolution.details)

    def _ways(self, request: Request) -> Iterator[tuple[tuple[tuple[str, str], ...], tuple[str, Source]]]:
        """Each archive in turn; and in each the keys as given, before those that a rewrite made of them."""
        for source in self.tools.sources.items():
            for keys in (request.keys, *request.alternatives):
                yield keys, source

    def _ask(self, request: Request, way: _Way) -> Resolution:
        tomorrow = datetime.now(UTC).date() + timedelta(days=1)
        try:
            found = search(way.finder(self.attributes), dict(request.keys), tomorrow)
        except (QueryFailed, Lost) as error:
            return self._failed(request, error)
        return judge(request, found, self.rules)

    def _failed(self, request: Request, error: QueryFailed | Lost) -> Resolution:
        self.tools.board.say(f"row {request.row}: {failure_told(error)}")
        return Resolution(code="query_failed", details={"status": str(error)})

    def _wanted(
        self, request: Request, studies: Sequence[Study], way: _Way
    ) -> tuple[list[tuple[Study, Selection]] | Resolution, int]:
        """Of each study what is wanted, or the outcome of the row; and how many must not be taken."""
        excluded = {study.study_uid: self.exclusions.study(study) for study in studies}
        allowed = [study for study in studies if not excluded[study.study_uid]]
        if not allowed:
            keys = excluded[studies[0].study_uid]
            return Resolution(code="study_excluded", details={"keys": keys}), len(studies)
        return self._selected(request, allowed, way), len(studies) - len(allowed)

    def _selected(
        self, request: Request, studies: Sequence[Study], way: _Way
    ) -> list[tuple[Study, Selection]] | Resolution:
        """Of each study what is wanted; the outcome of the row where nothing is."""
        named = dict(request.keys).get("SeriesInstanceUID", "").split("\\")
        if not self.series and named == [""]:
            return [(study, Selection()) for study in studies]
        wanted = []
        for study in studies:
            try:
                series = way.series(study)
            except (QueryFailed, Lost) as error:
                return self._failed(request, error)
            chosen = {one.uid for one in self.series.select(series)}
            if named != [""]:
                chosen &= set(named)
            if chosen:
                wanted.append((study, Selection(frozenset(chosen))))
        return wanted or Resolution(code="no_series_wanted", details={"studies": len(studies)})

    def _explained(self, request: Request, resolution: Resolution, questions: Questions) -> Resolution:
        for source in self.tools.sources.values():
            try:
                hint = diagnose(self._near(_Way(questions, source, "near")), dict(request.keys))
            except (QueryFailed, Lost):
                continue  # the row is explained without it, too
            if hint:
                return Resolution(code="near_miss", details={**resolution.details, "hint": hint})
        return resolution

    def _near(self, way: _Way) -> Callable[[Mapping[str, str]], Found]:
        """Finds what may be told of: not of whom must not be taken."""
        find = way.finder()

        def near(keys: Mapping[str, str]) -> Found:
            found = find(keys)
            return replace(found, studies=tuple(s for s in found.studies if not self.exclusions.study(s)))

        return near


def _noted(note: str, left_out: int) -> str:
    if not left_out:
        return note
    studies = "1 study" if left_out == 1 else f"{left_out:,} studies"
    return "; ".join(filter(None, [note, f"{studies} left out: on the exclusion list"]))
