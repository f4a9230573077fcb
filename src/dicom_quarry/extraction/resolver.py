"""Resolving: query the archives for a row, in their order, and record its tasks or its outcome."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import chain, repeat

from dicom_quarry.archive.base import StudyQueryResult
from dicom_quarry.cohort.read_options import describe_rewrites
from dicom_quarry.errors import ConnectionLost, QueryFailed, redact
from dicom_quarry.extraction.archive_client import ArchiveClient, QueryLog
from dicom_quarry.extraction.lost_zeros import LostZeros
from dicom_quarry.extraction.matching import (
    ResolveResult,
    ResolveRules,
    classify,
    find_near_miss,
)
from dicom_quarry.extraction.partition import STUDY_COUNT, FindStudies, QueryBudget, find_in_parts
from dicom_quarry.extraction.query_context import QueryContext
from dicom_quarry.extraction.row_conditions import Keys, RowConditions
from dicom_quarry.jobs import record
from dicom_quarry.ledger.ledger import Ledger
from dicom_quarry.ledger.merged_answers import find_merging_archives
from dicom_quarry.model import Request, Selection, Study
from dicom_quarry.plurals import format_count

_log = logging.getLogger(__name__)


class Resolver:
    """Turns requests into tasks, or into outcomes.

    ``attributes`` are further keywords that the archive should return for every study.
    """

    def __init__(
        self,
        queries: QueryContext,
        clients: Mapping[str, ArchiveClient],
        ledger: Ledger,
        attributes: tuple[str, ...] = (),
    ) -> None:
        settings = queries.settings
        self._clients = clients
        self._ledger = ledger
        conditions = RowConditions(record.parse_read_options(settings).where)
        self._attributes = tuple(dict.fromkeys((*attributes, *conditions.attributes)))
        self._status_board = queries.status_board
        self._exclusions = queries.exclusions
        self._rules = ResolveRules(settings.allow_several_patients, settings.max_studies, conditions)
        self._series_filter = record.parse_series_filter(settings)
        self._explains_near_misses = settings.diagnosis
        self._zeros = LostZeros()
        self._query_limits = {
            name: queries.site_policy.row_query_limit(client.profile) for name, client in clients.items()
        }

    def note_merging_archives(self) -> None:
        """Query without counts where the job knows that the archive would merge its answers.

        Called after rows were claimed: what is found for rows of an earlier claim is refused.
        """
        for name in find_merging_archives(self._ledger.database):
            if name in self._clients:
                self._clients[name].archive.stop_requesting_counts()

    def resolve(self, request: Request) -> Future[int]:
        """Query for a row: the next archive if the one before does not know the study.

        The future is the number of rows that are settled, once that is durable.
        """
        log = QueryLog(self._ledger, row=request.row)
        budgets = {name: QueryBudget(limit) for name, limit in self._query_limits.items()}
        excluded = self._exclusions.match_request(request)
        result = (
            ResolveResult(code="row_excluded", details={"keys": excluded}) if excluded else ResolveResult()
        )
        filtered: ResolveResult | None = None
        for keys, client in () if excluded else self._query_order(request):
            budget, is_original = budgets[client.profile.name], keys == request.keys
            result = self._find_studies(replace(request, keys=keys), client, log, is_original, budget)
            if result.studies:
                self._zeros.note_match(dict(keys))
                name = client.profile.name
                found = format_count(len(result.studies), "study")
                _log.info("row %d: %s found in %s", request.row, found, name)
                wanted, excluded_count = self._select_studies(request, result.studies, client, log)
                if isinstance(wanted, ResolveResult):
                    result = wanted
                    break
                left_out = {"by your conditions (--where)": result.filtered_count}
                left_out["on the exclusion list"] = excluded_count
                notes = _join_notes(describe_rewrites(request, keys), left_out)
                return self._ledger.resolve_request(request, name, wanted, notes)
            if result.code == "study_filtered":
                # Another archive may have the study that the user means.
                filtered = filtered or result
            elif result.code != "study_not_found":
                break
        if result.code == "study_not_found" and filtered is not None:
            result = filtered
        if result.code == "study_not_found" and self._explains_near_misses:
            result = self._explain_no_match(request, result, log)
        _log.info("row %d: %s", request.row, result.code)
        return self._ledger.conclude_request(request, result.code, **result.details)

    def _query_order(self, request: Request) -> Iterator[tuple[Keys, ArchiveClient]]:
        """Yield for every archive the keys of the row, then those that a rewrite made of them."""
        for client in self._clients.values():
            for keys in (request.keys, *request.alternatives):
                yield keys, client

    def _find_studies(
        self, request: Request, client: ArchiveClient, log: QueryLog, is_original: bool, budget: QueryBudget
    ) -> ResolveResult:
        # After the first query of a row come those for parts of its result.
        purposes = chain(["row" if is_original else "rewritten"], repeat("part"))

        def find(keys: Mapping[str, str]) -> StudyQueryResult:
            purpose = "count" if STUDY_COUNT in keys else next(purposes)
            return client.find(keys, self._attributes, log=log, purpose=purpose)

        def count_studies(patient_id: str) -> int | None:
            return client.count_studies(patient_id, log=log)

        tomorrow = datetime.now(UTC).date() + timedelta(days=1)
        conditions = self._rules.conditions
        queried = replace(request, keys=conditions.query_keys(request.keys))
        own = replace(request, keys=conditions.own_keys(request.keys))
        try:
            found = find_in_parts(find, count_studies, dict(queried.keys), tomorrow, budget)
            result = self._classify(queried, found)
            if result.code == "study_not_found" and queried.keys != own.keys and _is_allowed(own, client):
                found = client.find(dict(own.keys), self._attributes, log=log, purpose="unfiltered")
                wider = self._classify(own, found)
                result = wider if wider.code == "study_filtered" else result
        except (QueryFailed, ConnectionLost) as error:
            return self._query_failed(request, error)
        return result

    def _classify(self, request: Request, found: StudyQueryResult) -> ResolveResult:
        """Classify a query result; no reason describes a study that is on an exclusion list."""
        result = classify(request, found, self._rules)
        if result.code != "study_filtered":
            return result
        excluded = {study.study_uid: self._exclusions.match_study(study) for study in found.studies}
        allowed = tuple(study for study in found.studies if not excluded[study.study_uid])
        if len(allowed) == len(found.studies):
            return result
        result = classify(request, replace(found, studies=allowed), self._rules)
        if result.code == "study_filtered":
            return result
        return ResolveResult(code="study_excluded", details={"keys": next(filter(None, excluded.values()))})

    def _query_failed(self, request: Request, error: QueryFailed | ConnectionLost) -> ResolveResult:
        self._status_board.report(f"row {request.row}: {redact(error)}")
        return ResolveResult(code="query_failed", details={"status": str(error)})

    def _select_studies(
        self, request: Request, studies: Sequence[Study], client: ArchiveClient, log: QueryLog
    ) -> tuple[list[tuple[Study, Selection]] | ResolveResult, int]:
        """Return the wanted part of every study, or the row's outcome; and the number of excluded studies."""
        excluded = {study.study_uid: self._exclusions.match_study(study) for study in studies}
        allowed = [study for study in studies if not excluded[study.study_uid]]
        if not allowed:
            keys = excluded[studies[0].study_uid]
            return ResolveResult(code="study_excluded", details={"keys": keys}), len(studies)
        return self._select_series(request, allowed, client, log), len(studies) - len(allowed)

    def _select_series(
        self, request: Request, studies: Sequence[Study], client: ArchiveClient, log: QueryLog
    ) -> list[tuple[Study, Selection]] | ResolveResult:
        """Return the wanted series of every study, or the outcome of the row if no series is wanted."""
        named = dict(request.keys).get("SeriesInstanceUID", "").split("\\")
        if not self._series_filter and named == [""]:
            return [(study, Selection()) for study in studies]
        wanted = []
        for study in studies:
            try:
                series = client.list_series(study, self._series_filter.attributes, log=log)
            except (QueryFailed, ConnectionLost) as error:
                return self._query_failed(request, error)
            if named != [""]:
                series = tuple(one for one in series if one.series_uid in named)
            if unknown := self._series_filter.undecided(series):
                return ResolveResult(code="attribute_not_returned", details={"keys": " and ".join(unknown)})
            chosen = {one.series_uid for one in self._series_filter.select(series)}
            if chosen:
                wanted.append((study, Selection(frozenset(chosen))))
        return wanted or ResolveResult(code="no_series_wanted", details={"studies": len(studies)})

    def _explain_no_match(self, request: Request, result: ResolveResult, log: QueryLog) -> ResolveResult:
        """Look in every archive for a study that is similar to the one of the row."""
        for client in self._clients.values():
            try:
                keys = dict(self._rules.conditions.own_keys(request.keys))
                hint = find_near_miss(self._allowed_finder(client, keys, log), keys, self._zeros)
            except (QueryFailed, ConnectionLost):
                continue  # the row has an outcome without a hint, too
            if suggestion := self._zeros.take_suggestion():
                self._status_board.report(suggestion)
            if hint:
                return ResolveResult(code="near_miss", details={**result.details, "hint": hint})
        return result

    def _allowed_finder(
        self, client: ArchiveClient, row_keys: Mapping[str, str], log: QueryLog
    ) -> FindStudies:
        """Return a function that finds studies, but none on an exclusion list.

        In the Patient Root model every query has the row's Patient ID (PS3.4 C.6.1.1.2). A query that is then
        that of the row itself, or of a row without one, is not sent.
        """
        patient = {}
        if client.requires_patient_id:
            patient = {"PatientID": row_keys.get("PatientID", "")}

        def find_allowed(keys: Mapping[str, str]) -> StudyQueryResult:
            keys = {**keys, **patient}
            if patient and (not keys["PatientID"] or keys == row_keys):
                return StudyQueryResult(())
            found = client.find(keys, log=log, purpose="near")
            allowed = [one for one in found.studies if not self._exclusions.match_study(one)]
            return replace(found, studies=tuple(allowed))

        return find_allowed


def _is_allowed(request: Request, client: ArchiveClient) -> bool:
    """Return True if a row may be queried by its own keys: in the Patient Root model with a Patient ID."""
    return not client.requires_patient_id or "PatientID" in dict(request.keys)


def _join_notes(note: str, left_out: Mapping[str, int]) -> str:
    """Add to a note the numbers of studies of the row that are not fetched, by their reason."""
    notes = [note]
    for reason, count in left_out.items():
        if count:
            notes.append(f"{format_count(count, 'study')} left out: {reason}")
    return "; ".join(filter(None, notes))
