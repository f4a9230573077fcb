"""Asks the archives about a row, in their order, and enters what they answered in the ledger."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import chain, repeat
from typing import Protocol

from dicom_quarry.archive.base import StudyQueryResult
from dicom_quarry.cohort.exclusion_list import NO_EXCLUSIONS, ExclusionList
from dicom_quarry.cohort.read_options import describe_rewrites
from dicom_quarry.cohort.study_filter import ALL_SERIES, SeriesFilter
from dicom_quarry.errors import ConnectionLost, QueryFailed
from dicom_quarry.errors import redact as failure_told
from dicom_quarry.extraction.job_context import ArchiveClient
from dicom_quarry.extraction.logged_queries import LoggedQueries
from dicom_quarry.extraction.matching import (
    ResolveResult,
    ResolveRules,
    classify,
    find_near_miss,
    find_with_date_split,
)
from dicom_quarry.jobs.progress import StatusBoard
from dicom_quarry.ledger.ledger import Ledger
from dicom_quarry.model import Level, Request, Selection, SeriesInfo, Study

_log = logging.getLogger(__name__)


class ResolverContext(Protocol):
    """What a resolver works with: the tools of a job, or those of a plan, which has fewer."""

    @property
    def clients(self) -> Mapping[str, ArchiveClient]:
        """The archives, in the order in which they are asked."""

    @property
    def ledger(self) -> Ledger:
        """Where the answers are entered."""

    @property
    def status_board(self) -> StatusBoard:
        """Where it is told what goes wrong."""


@dataclass(frozen=True, slots=True)
class _QueryTarget:
    """One way to ask about a row: of an archive, for a purpose; each question is noted."""

    queries: LoggedQueries
    client: ArchiveClient
    purpose: str

    def make_finder(
        self, attributes: tuple[str, ...] = ()
    ) -> Callable[[Mapping[str, str]], StudyQueryResult]:
        """Finds studies; of a search the questions after the first are for parts of its answer."""
        purposes = chain([self.purpose], repeat("near" if self.purpose == "near" else "part"))

        def find(keys: Mapping[str, str]) -> StudyQueryResult:
            query_keys = {**dict.fromkeys(attributes, ""), **keys}
            return self.queries.run(
                self.client,
                lambda: self.client.archive.find(query_keys),
                lambda found: (len(found.studies), found.incomplete_reason),
                purpose=next(purposes),
                level=Level.STUDY,
                keys=keys,
            )

        return find

    def list_series(self, study: Study) -> tuple[SeriesInfo, ...]:
        """The series of a study, to choose from."""
        return self.queries.run(
            self.client,
            lambda: self.client.archive.list_series(study),
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

    context: ResolverContext
    rules: ResolveRules
    explains_near_misses: bool
    attributes: tuple[str, ...] = ()
    series_filter: SeriesFilter = ALL_SERIES
    exclusions: ExclusionList = NO_EXCLUSIONS

    def resolve(self, request: Request) -> Future[int]:
        """Ask about a row: the next archive for one that the archive before does not know.

        The future is the number of rows that are settled by it, once that is durable.
        """
        ledger = self.context.ledger
        queries = LoggedQueries(ledger, row=request.row)
        excluded = self.exclusions.match_request(request)
        resolution = (
            ResolveResult(code="row_excluded", details={"keys": excluded}) if excluded else ResolveResult()
        )
        for keys, (name, client) in () if excluded else self._query_order(request):
            target = _QueryTarget(queries, client, "row" if keys == request.keys else "rewritten")
            resolution = self._find_studies(replace(request, keys=keys), target)
            if resolution.studies:
                _log.info("row %d: %d studies found in %s", request.row, len(resolution.studies), name)
                wanted, left_out = self._select_studies(request, resolution.studies, target)
                if isinstance(wanted, ResolveResult):
                    resolution = wanted
                    break
                return ledger.resolve_request(
                    request, name, wanted, _join_notes(describe_rewrites(request, keys), left_out)
                )
            if resolution.code != "study_not_found":
                break
        if resolution.code == "study_not_found" and self.explains_near_misses:
            resolution = self._explain_no_match(request, resolution, queries)
        _log.info("row %d: %s", request.row, resolution.code)
        return ledger.conclude_request(request, resolution.code, **resolution.details)

    def _query_order(
        self, request: Request
    ) -> Iterator[tuple[tuple[tuple[str, str], ...], tuple[str, ArchiveClient]]]:
        """Each archive in turn; and in each the keys as given, before those that a rewrite made of them."""
        for client in self.context.clients.items():
            for keys in (request.keys, *request.alternatives):
                yield keys, client

    def _find_studies(self, request: Request, target: _QueryTarget) -> ResolveResult:
        tomorrow = datetime.now(UTC).date() + timedelta(days=1)
        try:
            found = find_with_date_split(target.make_finder(self.attributes), dict(request.keys), tomorrow)
        except (QueryFailed, ConnectionLost) as error:
            return self._query_failed(request, error)
        return classify(request, found, self.rules)

    def _query_failed(self, request: Request, error: QueryFailed | ConnectionLost) -> ResolveResult:
        self.context.status_board.report(f"row {request.row}: {failure_told(error)}")
        return ResolveResult(code="query_failed", details={"status": str(error)})

    def _select_studies(
        self, request: Request, studies: Sequence[Study], target: _QueryTarget
    ) -> tuple[list[tuple[Study, Selection]] | ResolveResult, int]:
        """Of each study what is wanted, or the outcome of the row; and how many must not be taken."""
        excluded = {study.study_uid: self.exclusions.match_study(study) for study in studies}
        allowed = [study for study in studies if not excluded[study.study_uid]]
        if not allowed:
            keys = excluded[studies[0].study_uid]
            return ResolveResult(code="study_excluded", details={"keys": keys}), len(studies)
        return self._select_series(request, allowed, target), len(studies) - len(allowed)

    def _select_series(
        self, request: Request, studies: Sequence[Study], target: _QueryTarget
    ) -> list[tuple[Study, Selection]] | ResolveResult:
        """Of each study what is wanted; the outcome of the row where nothing is."""
        named = dict(request.keys).get("SeriesInstanceUID", "").split("\\")
        if not self.series_filter and named == [""]:
            return [(study, Selection()) for study in studies]
        wanted = []
        for study in studies:
            try:
                series = target.list_series(study)
            except (QueryFailed, ConnectionLost) as error:
                return self._query_failed(request, error)
            chosen = {one.series_uid for one in self.series_filter.select(series)}
            if named != [""]:
                chosen &= set(named)
            if chosen:
                wanted.append((study, Selection(frozenset(chosen))))
        return wanted or ResolveResult(code="no_series_wanted", details={"studies": len(studies)})

    def _explain_no_match(
        self, request: Request, resolution: ResolveResult, queries: LoggedQueries
    ) -> ResolveResult:
        for client in self.context.clients.values():
            try:
                hint = find_near_miss(
                    self._allowed_finder(_QueryTarget(queries, client, "near")), dict(request.keys)
                )
            except (QueryFailed, ConnectionLost):
                continue  # the row is explained without it, too
            if hint:
                return ResolveResult(code="near_miss", details={**resolution.details, "hint": hint})
        return resolution

    def _allowed_finder(self, target: _QueryTarget) -> Callable[[Mapping[str, str]], StudyQueryResult]:
        """Finds what may be told of: not of whom must not be taken."""
        find = target.make_finder()

        def find_allowed(keys: Mapping[str, str]) -> StudyQueryResult:
            found = find(keys)
            return replace(
                found, studies=tuple(s for s in found.studies if not self.exclusions.match_study(s))
            )

        return find_allowed


def _join_notes(note: str, left_out: int) -> str:
    if not left_out:
        return note
    studies = "1 study" if left_out == 1 else f"{left_out:,} studies"
    return "; ".join(filter(None, [note, f"{studies} left out: on the exclusion list"]))
