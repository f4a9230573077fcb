"""Faults of archives in C-FIND, each as a class; the numbers are those of the field guide's list."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from dataclasses import replace

from pydicom.datadict import tag_for_keyword

from dicom_quarry.demo.dimse_operations import PENDING, SUCCESS
from dicom_quarry.demo.encoding import Element
from dicom_quarry.demo.query_matching import QueryIdentifier, Record
from tests.scripted.archive import Answers, Fault, ScriptedArchive


class FindStatus(Fault):
    """7, 14. A final status and no answers; at one level only where it is named."""

    def __init__(self, status: int, *, level: str = "", times: int | None = None) -> None:
        super().__init__(times=times)
        self._status = status
        self._level = level

    def find(self, archive: ScriptedArchive, query: QueryIdentifier, answers: Answers) -> Answers:
        if self._level in ("", query.level) and self.strikes():
            return iter([(self._status, None)])
        return answers


class Ignore(Fault):
    """12. A key is not matched on, so that everything else is returned."""

    def __init__(self, keyword: str = "AccessionNumber") -> None:
        super().__init__()
        self._keyword = keyword

    def interpret(self, query: QueryIdentifier) -> QueryIdentifier:
        return replace(query, keys={k: "" if k == self._keyword else v for k, v in query.keys.items()})


class Prefix(Fault):
    """12. A value matches every value that begins with it."""

    def __init__(self, keyword: str) -> None:
        super().__init__()
        self._keyword = keyword

    def interpret(self, query: QueryIdentifier) -> QueryIdentifier:
        return replace(query, keys={k: f"{v}*" if k == self._keyword else v for k, v in query.keys.items()})


class EndlessAnswers(Fault):
    """12. Endless answers to every query at STUDY level, until the query is cancelled."""

    def find(self, archive: ScriptedArchive, query: QueryIdentifier, answers: Answers) -> Answers:
        return self._endless(archive, query) if query.level == "STUDY" else answers

    def _endless(self, archive: ScriptedArchive, query: QueryIdentifier) -> Answers:
        for number in itertools.count(1):
            if archive.stopped.wait(0.002):  # no faster than they can be sent
                return
            yield PENDING, {**query.keys, "StudyDate": "20180101", "StudyInstanceUID": f"2.25.{number}"}


class DatesOnly(Fault):
    """18. Any key that is a time, or a date in another form than YYYYMMDD or a range of two, is refused."""

    def find(self, archive: ScriptedArchive, query: QueryIdentifier, answers: Answers) -> Answers:
        date = query.keys.get("StudyDate", "")
        if "StudyTime" in query.keys or not re.fullmatch(r"(\d{8}(-\d{8})?)?", date):
            return iter([(0xA900, None)])
        return answers


class Capped(Fault):
    """13. At most ``limit`` answers, then a final status that may hide it; at one level where it is named."""

    def __init__(self, limit: int, status: int = SUCCESS, *, level: str = "") -> None:
        super().__init__()
        self._limit = limit
        self._status = status
        self._level = level

    def find(self, archive: ScriptedArchive, query: QueryIdentifier, answers: Answers) -> Answers:
        return self._capped(answers) if self._level in ("", query.level) else answers

    def _capped(self, answers: Answers) -> Answers:
        for number, (status, record) in enumerate(answers):
            if number == self._limit and status == PENDING:
                yield self._status, None
                return
            yield status, record


class NoRanges(Fault):
    """13. A range of dates matches nothing, or is refused with ``status``."""

    def __init__(self, status: int = SUCCESS) -> None:
        super().__init__()
        self._status = status

    def find(self, archive: ScriptedArchive, query: QueryIdentifier, answers: Answers) -> Answers:
        return iter([(self._status, None)]) if "-" in query.keys.get("StudyDate", "") else answers


class MergedByCounts(Fault):
    """14. All answers become the first one if a count is requested, ``with_totals`` or its own counts."""

    def __init__(self, *, with_totals: bool) -> None:
        super().__init__()
        self._with_totals = with_totals

    def find(self, archive: ScriptedArchive, query: QueryIdentifier, answers: Answers) -> Answers:
        counts = [keyword for keyword in query.keys if keyword.startswith("NumberOf")]
        return self._merge(answers, counts) if counts else answers

    def _merge(self, answers: Answers, counts: list[str]) -> Answers:
        all_answers = list(answers)
        records = [record for _, record in all_answers if record is not None]
        if records:
            totals = {one: str(sum(int(record.get(one, 0)) for record in records)) for one in counts}
            yield PENDING, {**records[0], **(totals if self._with_totals else {})}
        yield all_answers[-1]


class Repeated(Fault):
    """14. Every answer comes twice."""

    def find(self, archive: ScriptedArchive, query: QueryIdentifier, answers: Answers) -> Answers:
        for status, record in answers:
            yield status, record
            if record is not None:
                yield status, record


class Padded(Fault):
    """14. UIDs end in NULs or spaces: one or two, so that the length is even."""

    def __init__(self, padding: str = "\0") -> None:
        super().__init__()
        self._padding = padding

    def describe(self, elements: list[Element]) -> list[Element]:
        return [
            (tag, vr, _even(str(value), self._padding) if vr == "UI" and value else value)
            for tag, vr, value in elements
        ]


class Without(Fault):
    """14. Answers lack some attributes, such as NumberOfStudyRelatedInstances or the level's unique key.

    Those of one level where it is named.
    """

    def __init__(self, *keywords: str, level: str = "") -> None:
        super().__init__()
        self._keywords = keywords
        self._level = level

    def find(self, archive: ScriptedArchive, query: QueryIdentifier, answers: Answers) -> Answers:
        if self._level not in ("", query.level):
            return answers
        return _changed(answers, lambda record: {k: v for k, v in record.items() if k not in self._keywords})


class Nameless(Fault):
    """14. The first answers at STUDY level lack the Study Instance UID; the others are right."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self._count = count

    def find(self, archive: ScriptedArchive, query: QueryIdentifier, answers: Answers) -> Answers:
        for number, (status, record) in enumerate(answers):
            if record is not None and query.level == "STUDY" and number < self._count:
                record = {k: v for k, v in record.items() if k != "StudyInstanceUID"}
            yield status, record


class Undeclared(Fault):
    """17. Answers without SpecificCharacterSet, or with a wrong ``charset``, in this ``codec``."""

    def __init__(self, codec: str = "latin-1", charset: str = "") -> None:
        super().__init__()
        self._codec = codec
        self._charset: list[Element] = [(0x00080005, "CS", charset)] if charset else []

    def describe(self, elements: list[Element]) -> list[Element]:
        return self._charset + [
            (tag, vr, str(value).encode(self._codec) if vr in ("PN", "LO") else value)
            for tag, vr, value in elements
            if tag != 0x00080005
        ]


class Changed(Fault):
    """15. Answers at STUDY level have other values; ``twice``: they come before the right answers."""

    def __init__(self, change: Callable[[Record], Record], *, twice: bool = False) -> None:
        super().__init__()
        self._change = change
        self._twice = twice

    def find(self, archive: ScriptedArchive, query: QueryIdentifier, answers: Answers) -> Answers:
        for status, record in answers:
            if record is None or query.level != "STUDY":
                yield status, record
                continue
            changed = status, record | self._change(record)
            yield from [changed, (status, record)] if self._twice else [changed]


class CaseIgnored(Fault):
    """15. Accessions match without regard to case."""

    def interpret(self, query: QueryIdentifier) -> QueryIdentifier:
        return replace(
            query, keys={k: v.upper() if k == "AccessionNumber" else v for k, v in query.keys.items()}
        )


def _even(uid: str, padding: str) -> bytes:
    """The UID with one or two characters of padding, to an even length."""
    return (uid + padding * (2 - len(uid) % 2)).encode()


def _changed(answers: Answers, change: Callable[[Record], Record]) -> Answers:
    for status, record in answers:
        yield status, None if record is None else change(record)


class Values(Fault):
    """32. Answers have these values, by keyword, in place of the right ones; bytes are sent as they are."""

    def __init__(self, **values: str | bytes) -> None:
        super().__init__()
        self._values = {tag_for_keyword(keyword): value for keyword, value in values.items()}

    def describe(self, elements: list[Element]) -> list[Element]:
        return [(tag, vr, self._values.get(tag, value)) for tag, vr, value in elements]


class NeedsPatient(Fault):
    """33. A query without a Patient ID does not fit the information model (A900), as in Patient Root."""

    def find(self, archive: ScriptedArchive, query: QueryIdentifier, answers: Answers) -> Answers:
        return answers if query.values("PatientID") else iter([(0xA900, None)])
