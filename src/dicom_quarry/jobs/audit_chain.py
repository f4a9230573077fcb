"""The hash chain over the audit log: a changed, removed, added or moved record is found, and named.

The canonical form of a record is a JSON object (RFC 8785) of its cells by column, without the empty ones. The
chain's value after a record is the SHA-256 of the value before it, in hexadecimal, and the canonical form; it
begins with an empty value. docs/proof.md has the same rules for others.
"""

from __future__ import annotations

import hashlib
import json
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final

from dicom_quarry.plurals import format_count

#: Most values that are kept of a chain; with more records there is one for every 2, 4, 8, ... of them.
_MAX_VALUES: Final = 1000

#: Changed places that are searched for one by one; more of them are another log rather than a changed one.
_MAX_CHANGES: Final = 20

#: Records around its place in which a moved one is searched for, at least.
_MIN_WINDOW: Final = 64


@dataclass(frozen=True, slots=True)
class AuditChain:
    """The chain over ``records`` records: a value after ``every`` of them, and ``head`` after the last.

    ``started`` and ``ended`` are the times of the first start and the latest end of a run, or empty.
    """

    records: int
    head: str
    every: int = 1
    values: tuple[str, ...] = ()
    started: str = ""
    ended: str = ""


@dataclass(frozen=True, slots=True)
class ChainComparison:
    """The differences between an audit log and its chain; ``later`` records were appended since."""

    later: int
    differences: tuple[str, ...] = field(default=())


def compute_chain(log: Iterable[Mapping[str, str]]) -> AuditChain:
    """Compute the chain over the records of an audit log."""
    records, head, every = 0, "", 1
    values: list[str] = []
    started = ended = ""
    for record in log:
        records, head = records + 1, next_value(head, canonical_form(record))
        if records % every == 0:
            values.append(head)
            if len(values) > _MAX_VALUES:
                every, values = 2 * every, values[1::2]
        event, time = record.get("event"), record.get("time", "")
        started = started or (time if event == "started" else "")
        ended = time if event == "ended" else ended
    return AuditChain(records, head, every, tuple(values), started, ended)


def compare_chain(chain: AuditChain, read: Callable[[], Iterable[Mapping[str, str]]]) -> ChainComparison:
    """Compare an audit log with its chain, and name what differs; ``read`` returns the log's records."""
    number, head, agrees = 0, "", True
    ends = _segment_ends(chain)
    for record in read():
        number += 1
        if number <= chain.records:
            head = next_value(head, canonical_form(record))
            agrees = agrees and ends.get(number, head) == head
    if agrees and number >= chain.records:
        return ChainComparison(number - chain.records)
    forms = [canonical_form(record) for record in read()]
    return _ChangeFinder(chain, forms).find()


def canonical_form(record: Mapping[str, str]) -> str:
    """Return a record as canonical JSON; its keys are ASCII, so that their order is that of RFC 8785."""
    return json.dumps(record, ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def next_value(value: str, form: str) -> str:
    """Return the chain's value after a record in canonical form."""
    return hashlib.sha256(f"{value}{form}".encode()).hexdigest()


def _segment_ends(chain: AuditChain) -> dict[int, str]:
    """Return the known values of a chain, by the number of records before them."""
    known = {chain.every * number: value for number, value in enumerate(chain.values, 1)}
    return {0: "", **known, chain.records: chain.head}


@dataclass(frozen=True, slots=True)
class _Segment:
    """Records between two known values: ``first`` to ``last``, counted from 0, ``last`` excluded."""

    first: int
    last: int
    before: str
    after: str

    @property
    def length(self) -> int:
        return self.last - self.first

    @property
    def name(self) -> str:
        return _name(self.first, self.last)


class _ChangeFinder:
    """Finds each segment of a chain among the records of a log, and describes what is left over."""

    def __init__(self, chain: AuditChain, forms: Sequence[str]) -> None:
        ends = sorted(_segment_ends(chain).items())
        self._segments = [
            _Segment(first, last, before, after) for (first, before), (last, after) in pairwise(ends)
        ]
        self._forms = forms
        window = max(2 * chain.every, _MIN_WINDOW if chain.every > 1 else _MAX_VALUES)
        self._window = min(window, len(forms))  # the chain may come from another person

    def find(self) -> ChainComparison:
        """Return the differences; ``later`` is what follows the last record that the chain knows."""
        places = self._find_places()
        kept = _longest_increasing({at: place for at, place in enumerate(places) if place is not None})
        moved = {at: place for at, place in enumerate(places) if place is not None and at not in kept}
        differences = [
            f"{self._segments[at].name} {'is' if self._segments[at].length == 1 else 'are'} in another place"
            for at in moved
        ]
        expected = found = 0  # the first segment, and the first record, that are not explained yet
        for at in kept:
            place = places[at]
            assert place is not None
            differences += self._describe_gap(range(expected, at), range(found, place), moved)
            expected, found = at + 1, place + self._segments[at].length
        rest = range(expected, len(self._segments))
        missing = sum(self._segments[at].length for at in rest if at not in moved)
        # Behind the last known record, what is more than the chain has was appended.
        end = min(len(self._forms), found + missing) if rest else found
        differences += self._describe_gap(rest, range(found, end), moved)
        return ChainComparison(len(self._forms) - end, tuple(differences))

    def _find_places(self) -> list[int | None]:
        """Return for each segment the record at which it begins, None for one that is not there."""
        places: list[int | None] = []
        next_place = missing = 0
        for segment in self._segments:
            place = self._find_place(segment, next_place) if missing < _MAX_CHANGES else None
            places.append(place)
            missing += place is None
            next_place = (next_place if place is None else place) + segment.length
        return places

    def _find_place(self, segment: _Segment, expected: int) -> int | None:
        shifts = sorted(range(-self._window, self._window + 1), key=abs)
        return next((expected + one for one in shifts if self._fits(segment, expected + one)), None)

    def _fits(self, segment: _Segment, place: int) -> bool:
        if place < 0 or place + segment.length > len(self._forms):
            return False
        value = segment.before
        for form in self._forms[place : place + segment.length]:
            value = next_value(value, form)
        return value == segment.after

    def _describe_gap(
        self, segments: Iterable[int], records: range, moved: Mapping[int, int]
    ) -> Iterator[str]:
        """Describe segments without a place between two that have one, and the records that are there."""
        lost = [self._segments[at] for at in segments if at not in moved]
        known = {place + step for at, place in moved.items() for step in range(self._segments[at].length)}
        expected = sum(one.length for one in lost)
        found = sum(record not in known for record in records)
        if lost:
            name = _name(lost[0].first, lost[-1].last)
            if not found:
                yield f"{name} {'was' if expected == 1 else 'were'} removed"
            elif found == expected:
                yield f"{name} {'was' if expected == 1 else 'were'} changed" + (
                    "" if len(lost) == expected else " or reordered"
                )
            elif found < expected:
                yield f"{name}: {format_count(expected - found, 'record')} of them removed"
        if found > expected:
            where = f"behind record {records.start}" if records.start else "in front of record 1"
            yield f"{format_count(found - expected, 'record')} added {where}"


def _longest_increasing(places: Mapping[int, int]) -> list[int]:
    """Return the segments that are in order: the longest run whose places increase."""
    tails: list[int] = []
    chosen: list[int] = []
    before: dict[int, int | None] = {}
    for at, place in places.items():
        index = bisect_left(tails, place)
        before[at] = chosen[index - 1] if index else None
        tails[index : index + 1], chosen[index : index + 1] = [place], [at]
    kept: list[int] = []
    last = chosen[-1] if chosen else None
    while last is not None:
        kept.append(last)
        last = before[last]
    return kept[::-1]


def _name(first: int, last: int) -> str:
    return f"record {first + 1}" if last - first == 1 else f"records {first + 1} to {last}"
