"""Exclusion lists (opt-outs): patients, accessions and studies that must never be fetched.

The lists err on the safe side. Every value of a list excludes by itself, in any case, with any padding and
invisible characters, and in every form that the rewrites of the job make of it. A list that is not understood
completely is an error, so that no excluded patient is fetched by mistake; see :mod:`exclusion_table`.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property, lru_cache
from pathlib import Path

from dicom_quarry.cohort.exclusion_table import IDENTIFIER_LABELS, read_exclusion_table
from dicom_quarry.cohort.read_options import DEFAULT_READ_OPTIONS, ReadOptions, Rewrite, list_candidates
from dicom_quarry.config.exclusion_files import ExclusionFile
from dicom_quarry.errors import InputError
from dicom_quarry.model import Request, Study
from dicom_quarry.plurals import format_count
from dicom_quarry.wire.charsets import readings

_NONE: frozenset[str] = frozenset()


def _describe(values: Mapping[str, frozenset[str]]) -> str:
    """Return the number of identifiers of each kind, for messages; empty if there are none."""
    counts = [(IDENTIFIER_LABELS[keyword], len(found)) for keyword, found in values.items() if found]
    return ", ".join(format_count(count, noun) for noun, count in counts)


def _digest(values: Mapping[str, frozenset[str]]) -> str:
    if not values:
        return ""
    text = repr([(keyword, sorted(values[keyword])) for keyword in sorted(values)])
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _join(
    values: Mapping[str, frozenset[str]], more: Mapping[str, frozenset[str]]
) -> dict[str, frozenset[str]]:
    """Join values by keyword; of a list of millions no copy is made without need."""
    joined = {}
    for keyword in IDENTIFIER_LABELS:
        one, other = values.get(keyword, _NONE), more.get(keyword, _NONE)
        if one or other:
            joined[keyword] = one | other if one and other else one or other
    return joined


class ExclusionList:
    """The values that must not be fetched, by keyword; ``notes`` are remarks for the user on the tables.

    ``site_values`` are those of the site's lists, ``own_values`` all others. ``is_recorded``: the latter are
    from a job's record, not from their files. Each ``match`` method returns the name of the identifier that
    is on a list, such as ``patient ID``, or ``patient ID (list of this site)``; empty if none is.
    """

    def __init__(
        self,
        values: Mapping[str, frozenset[str]] | None = None,
        rewrites: Sequence[Rewrite] = (),
        notes: Sequence[str] = (),
        site_values: Mapping[str, frozenset[str]] | None = None,
        *,
        is_recorded: bool = False,
    ) -> None:
        self.is_recorded = is_recorded
        self.notes = tuple(notes)
        self.description = _describe(values or {})
        self.site_description = _describe(site_values or {})
        self._rewrites = tuple(rewrites)
        self.own_values = values or {}
        self._listed_values = _join(self.own_values, site_values or {})
        self._excluded_values = self._spell_all(self._listed_values)
        self._site_values = self._spell_all(site_values or {})

    def __bool__(self) -> bool:
        return bool(self._listed_values)

    @cached_property
    def digest(self) -> str:
        """The SHA-256 of all values, in any order; empty if there are none."""
        return _digest(self._listed_values)

    @cached_property
    def own_digest(self) -> str:
        """The SHA-256 of the values that are not the site's; empty if there are none."""
        return _digest(self.own_values)

    def match_values(self, values: Mapping[str, str]) -> str:
        """Match values by keyword."""
        for keyword, excluded in self._excluded_values.items():
            value = values.get(keyword, "")
            if value and not excluded.isdisjoint(self._spellings(keyword, value)):
                is_of_site = not self._site_values.get(keyword, _NONE).isdisjoint(
                    self._spellings(keyword, value)
                )
                return IDENTIFIER_LABELS[keyword] + (" (list of this site)" if is_of_site else "")
        return ""

    def match_request(self, request: Request) -> str:
        """Match a row, by its keys and by each of its alternatives."""
        key_sets = (request.keys, *request.alternatives)
        return next(filter(None, (self.match_values(dict(keys)) for keys in key_sets)), "")

    def match_study(self, study: Study) -> str:
        """Match a study as the archive describes it."""
        return self.match_values(
            {
                "PatientID": study.patient_id,
                "AccessionNumber": study.accession,
                "StudyInstanceUID": study.study_uid,
            }
        )

    def _spell_all(self, values: Mapping[str, frozenset[str]]) -> dict[str, frozenset[str]]:
        return {
            keyword: frozenset(form for value in found for form in self._spellings(keyword, value))
            for keyword, found in values.items()
        }

    def _spellings(self, keyword: str, text: str) -> Iterator[str]:
        """Yield every spelling of a value, and of each of its parts if it has several."""
        parts = {text, *text.split("\\")}
        for value in {form for part in parts for form in _list_readings(part)}:
            cleaned = _clean(value)
            if cleaned:
                yield cleaned.casefold()
                # A rewrite may depend on the case, or on a character that is cleaned away.
                for given in {value.strip(" \0"), cleaned} if self._rewrites else ():
                    for form, _ in list_candidates(keyword, given, self._rewrites):
                        yield _clean(form).casefold()


#: A list that excludes nothing.
NO_EXCLUSIONS = ExclusionList()


def read_exclusions(
    files: Sequence[ExclusionFile | Path],
    options: ReadOptions = DEFAULT_READ_OPTIONS,
    site_files: Sequence[ExclusionFile] = (),
    recorded: Mapping[str, frozenset[str]] | None = None,
) -> ExclusionList:
    """Read all of these tables; ``options`` are those of the cohort, for headers and rewrites.

    ``recorded`` are the values of ``files`` as a job's record has them: then the files are not read. Raises
    InputError if a table cannot be read, has no rows, or is not understood completely.
    """
    notes: list[str] = []
    values = recorded
    if values is None:
        values = _read_tables(files, options, notes, "the exclusion list")
    site_values = _read_tables(site_files, options, notes, "the exclusion list of this site")
    return ExclusionList(values, options.rewrites, notes, site_values, is_recorded=recorded is not None)


def _read_tables(
    files: Sequence[ExclusionFile | Path], options: ReadOptions, notes: list[str], name: str
) -> dict[str, frozenset[str]]:
    found: dict[str, set[str]] = {keyword: set() for keyword in IDENTIFIER_LABELS}
    for file in files:
        try:
            decided = file if isinstance(file, ExclusionFile) else ExclusionFile(file=file)
            notes += read_exclusion_table(decided, options, found)
        except InputError as error:
            raise InputError(f"{name} cannot be used: {error}") from error
    return {keyword: frozenset(texts) for keyword, texts in found.items() if texts}


def _list_readings(text: str) -> frozenset[str]:
    """Return every reading of a value's bytes; one is without separators that look like nothing."""
    if text.isascii() and text.isprintable():
        return frozenset((text,))
    found = readings(text)
    return found | {"".join(char for char in one if char.isprintable()) for one in found}


@lru_cache(maxsize=1 << 12)
def _clean(text: str) -> str:
    """Return a value in one Unicode form, without padding and characters that have no glyph.

    Case folding is left to the caller, since a rewrite may need the case.
    """
    text = unicodedata.normalize("NFKC", text)
    if not text.isascii() or not text.isprintable():
        text = "".join(char for char in text if not _is_invisible(char))
        text = unicodedata.normalize("NFKC", text)
    return " ".join(text.split())


def _is_invisible(char: str) -> bool:
    """True for control and format characters, and others that Unicode's default shows as nothing."""
    if unicodedata.category(char) in ("Cc", "Cf"):
        return not char.isspace()
    return char in _DEFAULT_IGNORABLE


#: Default_Ignorable_Code_Point beyond the category Cf: joiners, fillers and variation selectors.
_DEFAULT_IGNORABLE = frozenset(
    map(chr, [0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, *range(0x180B, 0x1810), 0x2065, 0x3164])
) | frozenset(map(chr, [*range(0xFE00, 0xFE10), 0xFFA0, *range(0xFFF0, 0xFFF9), *range(0xE0000, 0xE1000)]))
