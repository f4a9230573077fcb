"""Options for reading a table, checked before the table is opened, and rewrites of its values.

Options come from command-line options or quarry.toml: mappings of columns, keys for every row, the format of
dates, wildcards. A :class:`Rewrite` changes the identifiers of a table: ``--pad`` replaces a value,
``--rewrite`` adds forms of it that are queried if the value as given matches nothing.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import product

from dicom_quarry.cohort.cell_values import QUERY_KEYS, parse_value
from dicom_quarry.cohort.columns import parse_ignored_columns, parse_keyword, parse_map
from dicom_quarry.cohort.date_formats import check_date_format
from dicom_quarry.cohort.headers import normalize_header
from dicom_quarry.errors import ConfigError
from dicom_quarry.model import Request
from dicom_quarry.system.text_safety import escape_text


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """Options for reading a table.

    ``mapping`` pairs headers with keywords. ``where`` are keys for every row. ``date_format`` is a format of
    strptime, or ``excel``. ``rewrites`` are applied in their order. ``ignored`` are headers of columns that
    are not keys, ``verbatim`` of those whose cells are identifiers as they are. ``hidden_rows`` decides on
    the hidden rows and columns of a workbook: ``take``, ``skip``, or empty, which refuses them. With
    ``long_identifiers`` identifiers may be longer than DICOM allows.
    """

    allow_wildcards: bool = False
    whole_patients: bool = False
    mapping: tuple[tuple[str, str], ...] = ()
    where: tuple[tuple[str, str], ...] = ()
    date_format: str = ""
    rewrites: tuple[Rewrite, ...] = ()
    ignored: tuple[str, ...] = ()
    verbatim: tuple[str, ...] = ()
    hidden_rows: str = ""
    long_identifiers: bool = False

    @classmethod
    def parse(
        cls,
        *,
        allow_wildcards: bool = False,
        whole_patients: bool = False,
        map: Sequence[str] = (),
        where: Sequence[str] = (),
        date_format: str = "",
        rewrite: Sequence[str] = (),
        pad: Sequence[str] = (),
        ignore_column: Sequence[str] = (),
        verbatim: Sequence[str] = (),
        hidden_rows: str = "",
        long_identifiers: bool = False,
    ) -> ReadOptions:
        """Parse the command-line options of the same names; raises ConfigError with the remedy.

        Padding comes before rewriting, so that a rewrite works on the complete value.
        """
        form = check_date_format(date_format) if date_format else ""
        rewrites = (*parse_pads(pad), *(parse_rewrite(text) for text in rewrite))
        if count_key_sets(rewrites) > MAX_KEY_SETS:
            raise ConfigError(
                f"these rewrites give up to {count_key_sets(rewrites)} values for a row, each a query; at "
                f"most {MAX_KEY_SETS} are allowed. Use fewer rewrites, or limit each to one column, as in "
                "AccessionNumber:s/…/…/"
            )
        if hidden_rows not in ("", "take", "skip"):
            raise ConfigError(f"--hidden-rows '{hidden_rows}': write take or skip")
        mapping = parse_map(map)
        return cls(
            allow_wildcards,
            whole_patients,
            mapping,
            parse_where(where, form),
            form,
            rewrites,
            parse_ignored_columns(ignore_column, mapping),
            tuple(text.strip() for text in verbatim),
            hidden_rows,
            long_identifiers,
        )

    def digest(self, table: str) -> str:
        """Return the digest of a table read so: its own, if the options leave its keys unchanged."""
        meaning: tuple[object, ...] = (
            self.mapping,
            self.where,
            self.date_format,
            tuple(one.name for one in self.rewrites),
        )
        decided = (self.ignored, self.verbatim, self.hidden_rows)
        if any(decided):
            meaning = (*meaning, decided)
        if self.long_identifiers:
            meaning = (*meaning, "long_identifiers")
        if not any(meaning):
            return table
        return hashlib.sha256(f"{table}{meaning!r}".encode("utf-8", "surrogatepass")).hexdigest()


#: The options of a command without any of them.
DEFAULT_READ_OPTIONS = ReadOptions()


def parse_pads(texts: Sequence[str]) -> tuple[Rewrite, ...]:
    """Parse ``--pad`` options; raises ConfigError if two are for the same keyword."""
    pads = tuple(parse_pad(text) for text in texts)
    if len({one.keywords for one in pads}) < len(pads):
        raise ConfigError("--pad: give only one width for each keyword")
    return pads


def parse_where(texts: Sequence[str], date_format: str = "") -> tuple[tuple[str, str], ...]:
    """Parse ``--where`` options such as ``Modality=CT``: keys for every row.

    Values may contain wildcards, but must not match everything. Modality means ModalitiesInStudy, because a
    study has no Modality. Raises ConfigError.
    """
    found: dict[str, str] = {}
    for text in texts:
        name, equals, given = text.partition("=")
        if not equals:
            raise ConfigError(f"--where '{text}': write KEYWORD=VALUE, as in Modality=CT")
        keyword = "ModalitiesInStudy" if normalize_header(name) == "modality" else parse_keyword(name)
        if keyword == "SeriesInstanceUID":
            raise ConfigError(
                f"--where '{text}': a study has many series; choose them with --series Modality=CT"
            )
        value = parse_value(keyword, given, allow_wildcards=True, date_format=date_format)
        if keyword == "ModalitiesInStudy" and ("," in given or "\\" in given):
            raise ConfigError(
                f"--where '{text}': only one modality is possible; for several, use --series Modality={given}"
            )
        if not value.text:
            raise ConfigError(f"--where '{text}': {value.problem or 'the value is missing; write one'}")
        keyword = "StudyDate" if keyword == "StudyMonth" else keyword
        if keyword in found or keyword in ("StudyDateFrom", "StudyDateUntil"):
            raise ConfigError(_duplicate_key_message(text, keyword))
        found[keyword] = value.text
    return tuple(found.items())


def _duplicate_key_message(text: str, keyword: str) -> str:
    if keyword.startswith("StudyDate"):
        return f"--where '{text}': write both ends as one range, StudyDate=20180101-20180131"
    return f"--where '{text}': {keyword} is given twice; give it once"


Keys = tuple[tuple[str, str], ...]

#: Maximum sets of keys for one row, each of which is a query.
MAX_KEY_SETS = 16

_IDENTIFIERS = frozenset({"AccessionNumber", "PatientID"})
_ACCESSION = frozenset({"AccessionNumber"})
_YEAR = re.compile(r"(?=(?:19[5-9]|20[0-9])[0-9])")
#: Length, and position of the year, of accessions in the former extractor's manual: BBBBBYYYYBBBBB.
_ACCESSION_LENGTH, _YEAR_OFFSET = 14, 5
#: The former extractor's rule: an accession of more than 16 characters loses the 8th and the 9th.
_MAX_ACCESSION_LENGTH, _CENTURY = 16, slice(7, 9)


@dataclass(frozen=True, slots=True)
class Rewrite:
    """A rule that changes the values of these keywords; ``name`` is the user's option.

    The new value replaces the old one if ``replaces_value``; otherwise it is an alternative.
    """

    name: str
    keywords: frozenset[str]
    apply: Callable[[str], str] = field(compare=False)
    replaces_value: bool = False


def parse_rewrite(text: str) -> Rewrite:
    """Parse a name, ``yyyy-to-yy`` or ``long-accession``, or ``[KEYWORD:]s/PATTERN/REPLACEMENT/[gi]``.

    Raises ConfigError for anything else.
    """
    if text in _NAMED_REWRITES:
        return Rewrite(text, _ACCESSION, _NAMED_REWRITES[text])
    match = re.fullmatch(r"(?:([^:/]+):)?s([^\w\s\\])(.*)", text, re.DOTALL)
    if not match:
        raise ConfigError(
            f"--rewrite '{text}': write {', '.join(_NAMED_REWRITES)} or s/PATTERN/REPLACEMENT/; to limit it "
            "to one column write AccessionNumber:s/PATTERN/REPLACEMENT/"
        )
    keywords = frozenset({_parse_text_keyword(match[1], text)}) if match[1] else _IDENTIFIERS
    return Rewrite(text, keywords, _make_substitution(text, match[2], match[3]))


def parse_pad(text: str) -> Rewrite:
    """Parse ``PatientID=8``, which adds zeros to numbers up to that width; raises ConfigError."""
    name, _, width = text.partition("=")
    if not re.fullmatch(r"[1-9][0-9]?", width):
        raise ConfigError(f"--pad '{text}': write KEYWORD=WIDTH, as in PatientID=8")
    keyword, digits = _parse_text_keyword(name, text), int(width)
    if digits > QUERY_KEYS[keyword][1]:
        raise ConfigError(
            f"--pad '{text}': {keyword} has at most {QUERY_KEYS[keyword][1]} characters in DICOM"
        )

    def pad(value: str) -> str:
        return value.zfill(digits) if value.isascii() and value.isdigit() else value

    return Rewrite(f"pad {keyword}={digits}", frozenset({keyword}), pad, replaces_value=True)


def count_key_sets(rewrites: Iterable[Rewrite]) -> int:
    """Return the maximum number of sets of keys that these rewrites make of one row."""
    counts = Counter(keyword for one in rewrites if not one.replaces_value for keyword in one.keywords)
    return int(2 ** sum(counts.values()))


def list_candidates(keyword: str, value: str, rewrites: Sequence[Rewrite]) -> list[tuple[str, str]]:
    """Return the values to query in place of one, in order, each with the names of its rewrites."""
    found = {value: ""}
    for rewrite in rewrites:
        if keyword not in rewrite.keywords:
            continue
        made: dict[str, str] = {}
        for old, names in found.items():
            new = rewrite.apply(old).strip()
            if not new or new == old:
                made.setdefault(old, names)
                continue
            if not rewrite.replaces_value:
                made.setdefault(old, names)
            made.setdefault(new, f"{names}, {rewrite.name}" if names else rewrite.name)
        # Values as given come before rewritten ones, in whichever order they were made.
        found = dict(sorted(made.items(), key=lambda item: item[0] not in found))
    return list(found.items())


def combine_keys(keys: Sequence[tuple[str, Sequence[str]]]) -> tuple[Keys, ...]:
    """Return every combination of values as a set of keys, those with the fewest changes first."""
    choices = product(*(list(enumerate(values)) for _, values in keys))
    ordered = sorted(choices, key=lambda choice: sum(at for at, _ in choice))
    return tuple(
        tuple((keyword, value) for (keyword, _), (_, value) in zip(keys, choice, strict=True))
        for choice in ordered
    )


def describe_rewrites(request: Request, used: Keys) -> str:
    """Return a note for the report: the values that were rewritten in the keys of a query."""
    changed = [
        f"{keyword} {escape_text(given)} searched as {escape_text(value)}"
        for (keyword, given), (_, value) in zip(request.keys, used, strict=True)
        if given != value
    ]
    return "; ".join([*([request.note] if request.note else []), *changed])


def _shorten_year(accession: str) -> str:
    """Shorten the year of an accession from YYYY to YY; unchanged if it has no year, or several."""
    years = [match.start() for match in _YEAR.finditer(accession)]
    if len(accession) == _ACCESSION_LENGTH and _YEAR_OFFSET in years:
        years = [_YEAR_OFFSET]
    if len(years) != 1:
        return accession
    return accession[: years[0]] + accession[years[0] + 2 :]


def _drop_century(accession: str) -> str:
    if len(accession) <= _MAX_ACCESSION_LENGTH:
        return accession
    return accession[: _CENTURY.start] + accession[_CENTURY.stop :]


_NAMED_REWRITES: dict[str, Callable[[str], str]] = {
    "yyyy-to-yy": _shorten_year,
    "long-accession": _drop_century,
}


def _parse_text_keyword(name: str, text: str) -> str:
    keyword = parse_keyword(name)
    if QUERY_KEYS[keyword][0] not in ("LO", "SH"):
        raise ConfigError(f"'{text}': {keyword} cannot be rewritten; only texts such as AccessionNumber can")
    return keyword


def _make_substitution(text: str, delimiter: str, rest: str) -> Callable[[str], str]:
    """Compile ``PATTERN/REPLACEMENT/FLAGS``; raises ConfigError if it does not have that form."""
    parts = re.split(rf"(?<!\\){re.escape(delimiter)}", rest)
    if len(parts) != 3 or not parts[0] or not set(parts[2]) <= set("gi"):
        raise ConfigError(f"--rewrite '{text}': write s/PATTERN/REPLACEMENT/, then g or i if needed")
    pattern, replacement = (part.replace(f"\\{delimiter}", delimiter) for part in parts[:2])
    flags = re.IGNORECASE if "i" in parts[2] else re.NOFLAG
    count = 0 if "g" in parts[2] else 1
    try:
        compiled = re.compile(pattern, flags)
        # A replacement is checked only when the pattern matches, as the empty alternative always does.
        re.sub(f"{pattern}|", replacement, "", flags=flags)
    except (re.error, IndexError, OverflowError, RecursionError) as error:
        raise ConfigError(f"--rewrite '{text}': {error}; write a Python regular expression") from error
    return lambda value: compiled.sub(replacement, value, count=count)
