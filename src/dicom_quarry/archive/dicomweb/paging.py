"""Pages of a search (PS3.18 8.3.4.4): the end of a list by evidence, and the limit that a server allows.

A page is the last one only if the next offset brings nothing new, whatever its size: servers have pages of
10, 12 or 100 results, and many of them ignore a limit above that. No further page is needed where the results
are as many as a count of the archive, or are those that the search names by their UIDs.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass, field
from http import HTTPStatus

from dicom_quarry.archive.base import QueryRows
from dicom_quarry.plurals import format_count

#: Results that are requested in one page.
PAGE_SIZE = 1000

#: Limits to try after a refusal that names none. After the last one the limit is left out.
_USUAL_LIMITS = (500, 250, 200, 100, 50, 25, 20, 10)

#: Refusals whose text is believed. Later ones may name numbers without an end.
_MAX_NAMED_LIMITS = 3

#: Statuses of a server that may refuse the limit.
_REFUSALS = frozenset(
    {
        HTTPStatus.BAD_REQUEST,
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE,
        HTTPStatus.UNPROCESSABLE_ENTITY,
    }
)

_MARKUP = re.compile(r"<(style|script)\b.*?</\1>|<[^>]*>", re.DOTALL | re.IGNORECASE)
#: UIDs, addresses, dates and times.
_OTHER_NUMBERS = re.compile(r"\d+(?:\.\d+){2,}|\d{4}-\d\d-\d\d\S*|\d+:\d\d\S*")
_LIMIT = re.compile(r"limit|page.?size|too many", re.IGNORECASE)
_LIMIT_NEARBY = re.compile(
    r"limit|size|max|exceed|most|less|larger|greater|between|range|up to|allow|support", re.IGNORECASE
)
#: Characters around a number that belong to it.
_NEARBY = 80

# A server's code for further results (RFC 7234 5.5.7). Others use it for warnings of any kind.
_WARNING_299 = re.compile(r"(?<![\w.:])299\b(.*)", re.DOTALL)
_MORE_RESULTS = re.compile(
    r"result|more|exceed|additional|further|limit|maximum|truncat|partial|incomplete|remain", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class Page:
    """The results of one request with this ``limit``; None for a request without one.

    ``announces_more`` is the server's statement that there are further results. ``is_partial`` is status
    206, which some servers send with every page, the last one included.
    """

    rows: list[dict[int, str]] = field(default_factory=list)
    limit: int | None = None
    announces_more: bool = False
    is_partial: bool = False


def announces_more(warning: str) -> bool:
    """Return True for a Warning header that announces further results (PS3.18 8.3.4.4)."""
    found = _WARNING_299.search(warning)
    return bool(found and ('"' not in found[1] or _MORE_RESULTS.search(found[1])))


class PagedResults:
    """The results of one search, page by page; ``unique`` is the tag of the level's unique key.

    ``expected_count`` is the number of results by a count of the archive. ``named_uids`` are the values of
    the unique key that the search names.
    """

    def __init__(self, unique: int, *, expected_count: int | None, named_uids: Collection[str]) -> None:
        self.found = QueryRows()
        self.received = 0
        self.last_page = Page()  # the last one that brought something new
        self._unique = unique
        self._expected_count = expected_count
        self._named_uids = named_uids
        self._seen: set[str] = set()
        self._repeated = 0
        self.list_changed = False  # answers were repeated on the way to a regular end
        self._announces_more = False

    def add(self, page: Page) -> bool:
        """Take what is new; return False for a page, after the first, that brings nothing new."""
        is_first = not self.received
        repeated = sum(1 for row in page.rows if row.get(self._unique) in self._seen)
        new = [row for row in page.rows if row.get(self._unique) not in self._seen]
        uids = {row[self._unique] for row in new if row.get(self._unique)}
        if not is_first and not uids:
            self._announces_more |= page.announces_more
            self.found.rows += [] if repeated else new  # answers without a UID are counted by the caller
            return False
        self.found.rows += new
        self.found.repeated += repeated
        self.received += len(page.rows)
        self.last_page = page
        self._seen |= uids
        self._repeated += repeated
        self._announces_more = page.announces_more
        return True

    @property
    def is_proved(self) -> bool:
        """True if the results are all that there are, without a look at the next page."""
        if self._named_uids:
            # A server that ignores the UID would send the whole archive.
            return len(self._named_uids) == 1 or self._seen.issuperset(self._named_uids)
        page = self.last_page
        return self._has_expected_count and not (page.announces_more or page.is_partial)

    @property
    def _has_expected_count(self) -> bool:
        return self._expected_count is not None and len(self._seen) == self._expected_count

    def end_by_empty_page(self) -> None:
        """Note what is doubtful after the next offset brought no result at all."""
        if self._has_expected_count:
            return
        if self._announces_more:
            self.found.incomplete_reason = "the archive announces more answers than it sends"
        elif self._repeated:
            self.list_changed = True
            self.found.incomplete_reason = (
                f"the archive's list changed while it was read: it repeated {self._repeated} of "
                f"{self.received} answers, so others may be missing"
            )

    def includes(self, other: PagedResults) -> bool:
        """Return True if these results have every UID of the other ones."""
        return self._seen >= other._seen

    @property
    def contradicts_end(self) -> bool:
        """True if there is evidence of further results, though the server sends none."""
        return self._announces_more or bool(self._repeated and not self._has_expected_count)

    def is_whole(self, longest_page: int) -> bool:
        """Return True if all results came from a server that repeats them, or refuses the next page.

        A server that ignores the offset sends everything at once, or cuts each page at the same length.
        ``longest_page`` is the longest that it ever sent: a shorter one is not cut, nor is a single result.
        """
        length = sum(1 for row in self.last_page.rows if any(row.values()))
        is_short = length <= 1 or (length < longest_page and length != self.last_page.limit)
        return not self.contradicts_end and (is_short or self._has_expected_count)

    def end_by_repetition(self) -> None:
        """Note that the server sends the same answers again."""
        self.found.incomplete_reason = (
            f"the archive repeats answers of its first {self.received} instead of sending the next"
        )

    def end_by_refusal(self, status: int) -> None:
        """Note that the server refuses the next page."""
        first = format_count(self.received, "answer")
        self.found.incomplete_reason = (
            f"the archive refuses to send what follows its first {first} (HTTP {status})"
        )


def may_refuse_limit(status: int, text: str, *, was_accepted: bool) -> bool:
    """Return True if a response may refuse the limit; ``was_accepted`` before, for another search."""
    if status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        return True
    return status in _REFUSALS and (not was_accepted or bool(_LIMIT.search(_strip_markup(text))))


def next_limit(text: str, limit: int, refusals: int) -> int | None:
    """Return the next limit to try after so many refusals; None for a request without a limit.

    It is the largest that the text of the refusal names, or else the next of the usual ones.
    """
    named = _named_limits(_strip_markup(text), limit) if refusals <= _MAX_NAMED_LIMITS else []
    return max(named, default=None) or next((usual for usual in _USUAL_LIMITS if usual < limit), None)


def _strip_markup(text: str) -> str:
    return _MARKUP.sub(" ", text)


def _named_limits(text: str, limit: int) -> list[int]:
    text = _OTHER_NUMBERS.sub(" ", text)
    statuses = {status.value for status in _REFUSALS}
    return [
        number
        for found in re.finditer(r"\d{1,6}", text)
        if 1 < (number := int(found[0])) < limit
        and number not in statuses
        and _LIMIT_NEARBY.search(text[max(0, found.start() - _NEARBY) : found.end() + _NEARBY])
    ]
