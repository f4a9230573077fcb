"""Asks the archives about a row, in their order, and enters what they answered in the ledger."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Protocol

from dicom_quarry.archive.port import Found
from dicom_quarry.errors import Lost, QueryFailed
from dicom_quarry.extraction.diagnosis import diagnose
from dicom_quarry.extraction.progress import Board
from dicom_quarry.extraction.resolve import Resolution, Rules, judge, search
from dicom_quarry.extraction.tools import Source
from dicom_quarry.ledger.ledger import Ledger
from dicom_quarry.model import Request, Selection

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
class Resolver:
    """Turns requests into tasks, or into outcomes; ``diagnosis`` asks about rows that matched nothing.

    ``attributes`` are keywords that the archive is to tell of every study, beside those always asked for.
    """

    tools: Desk
    rules: Rules
    diagnosis: bool
    attributes: tuple[str, ...] = ()

    def resolve(self, request: Request) -> Future[int]:
        """Ask about a row: the next archive for one that the archive before does not know.

        The future is the number of rows that are settled by it, once that is durable.
        """
        ledger = self.tools.ledger
        resolution = Resolution()
        for name, source in self.tools.sources.items():
            resolution = self._ask(request, source)
            if resolution.studies:
                _log.info("row %d: %d studies found in %s", request.row, len(resolution.studies), name)
                return ledger.resolve(request, name, resolution.studies, Selection())
            if resolution.code != "study_not_found":
                break
        if resolution.code == "study_not_found" and self.diagnosis:
            resolution = self._explained(request, resolution)
        _log.info("row %d: %s", request.row, resolution.code)
        return ledger.conclude_request(request, resolution.code, **resolution.details)

    def _ask(self, request: Request, source: Source) -> Resolution:
        tomorrow = datetime.now(UTC).date() + timedelta(days=1)
        try:
            found = search(_finder(source, self.attributes), dict(request.keys), tomorrow)
        except (QueryFailed, Lost) as error:
            self.tools.board.say(f"row {request.row}: {error}")
            return Resolution(code="query_failed", details={"status": str(error)})
        return judge(request, found, self.rules)

    def _explained(self, request: Request, resolution: Resolution) -> Resolution:
        for source in self.tools.sources.values():
            try:
                hint = diagnose(_finder(source), dict(request.keys))
            except (QueryFailed, Lost):
                continue  # the row is explained without it, too
            if hint:
                return Resolution(code="near_miss", details={**resolution.details, "hint": hint})
        return resolution


def _finder(source: Source, attributes: tuple[str, ...] = ()) -> Callable[[Mapping[str, str]], Found]:
    def find(keys: Mapping[str, str]) -> Found:
        asked = {**dict.fromkeys(attributes, ""), **keys}
        return source.gate.query(lambda: source.archive.find(asked))

    return find
