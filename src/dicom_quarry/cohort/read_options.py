"""How a table is to be read: everything that flags say about it, checked before the table is opened."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import product

from dicom_quarry.cohort.cell_values import QUERY_KEYS, check_date_format, parse_value
from dicom_quarry.cohort.columns import normalize_header, parse_keyword, parse_map
from dicom_quarry.errors import ConfigError
from dicom_quarry.model import Request
from dicom_quarry.system.text_safety import escape_text

#: Keys that come in several columns, and the one that they make together.
DATE_KEYS = frozenset({"StudyDate", "StudyMonth", "StudyDateFrom", "StudyDateUntil"})


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """The user's word on a table.

    ``mapping`` pairs headers with keywords. ``where`` are keys for every row. ``date_format`` is strptime's,
    or ``excel``. ``rewrites`` are tried in their order.
    """

    allow_wildcards: bool = False
    whole_patients: bool = False
    mapping: tuple[tuple[str, str], ...] = ()
    where: tuple[tuple[str, str], ...] = ()
    date_format: str = ""
    rewrites: tuple[Rewrite, ...] = ()

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
    ) -> ReadOptions:
        """Options from the texts of flags of the same names. Raises ConfigError with what to write instead.

        Padding comes before rewriting: it makes the value whole that a rewrite then looks at.
        """
        form = check_date_format(date_format) if date_format else ""
        rewrites = (*parse_pads(pad), *(parse_rewrite(text) for text in rewrite))
        if count_key_sets(rewrites) > MAX_KEY_SETS:
            raise ConfigError(
                f"these rewrites give up to {count_key_sets(rewrites)} values for a row, each a query; "
                f"at most {MAX_KEY_SETS} are asked for: leave some out, or name their keyword, AccessionNumber:s/…/…/"
            )
        return cls(allow_wildcards, whole_patients, parse_map(map), parse_where(where, form), form, rewrites)

    def digest(self, table: str) -> str:
        """The digest of a table read so: its own, where the options leave its keys as they stand."""
        meaning = (self.mapping, self.where, self.date_format, tuple(one.name for one in self.rewrites))
        if not any(meaning):
            return table
        return hashlib.sha256(f"{table}{meaning!r}".encode("utf-8", "surrogatepass")).hexdigest()


#: Without any flag.
DEFAULT_READ_OPTIONS = ReadOptions()


def parse_pads(texts: Sequence[str]) -> tuple[Rewrite, ...]:
    """Read ``--pad`` flags; raises ConfigError where two are for one keyword."""
    pads = tuple(parse_pad(text) for text in texts)
    if len({one.keywords for one in pads}) < len(pads):
        raise ConfigError("--pad: give one width for each keyword")
    return pads


def parse_where(texts: Sequence[str], date_format: str = "") -> tuple[tuple[str, str], ...]:
    """Read ``Modality=CT``: keys for every row. They may have wildcards, but not match everything.

    A study has no Modality: ModalitiesInStudy is meant.
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
                f"--where '{text}': one modality here; choose several with --series Modality={given}"
            )
        if not value.text:
            raise ConfigError(f"--where '{text}': {value.problem or 'there is no value; write one'}")
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

#: Sets of keys that one row may be asked for with: each is a query.
MAX_KEY_SETS = 16

_IDENTIFIERS = frozenset({"AccessionNumber", "PatientID"})
_ACCESSION = frozenset({"AccessionNumber"})
_YEAR = re.compile(r"(?=(?:19[5-9]|20[0-9])[0-9])")
#: Where the year stands in the accessions that the former extractor's page shows: BBBBBYYYYBBBBB.
_ACCESSION_LENGTH, _YEAR_OFFSET = 14, 5
#: The former extractor's rule: of more than 16 characters, the 8th and the 9th go.
_MAX_ACCESSION_LENGTH, _CENTURY = 16, slice(7, 9)


@dataclass(frozen=True, slots=True)
class Rewrite:
    """One rule: what it makes of a value of these keywords. ``name`` is how the user asked for it."""

    name: str
    keywords: frozenset[str]
    apply: Callable[[str], str] = field(compare=False)
    replaces_value: bool = False


def parse_rewrite(text: str) -> Rewrite:
    """Read a name, ``yyyy-to-yy`` or ``long-accession``, or ``[KEYWORD:]s/PATTERN/REPLACEMENT/[gi]``.

    Raises ConfigError where it is neither.
    """
    if text in _NAMED_REWRITES:
        return Rewrite(text, _ACCESSION, _NAMED_REWRITES[text])
    match = re.fullmatch(r"(?:([^:/]+):)?s([^\w\s\\])(.*)", text, re.DOTALL)
    if not match:
        raise ConfigError(
            f"--rewrite '{text}': write {', '.join(_NAMED_REWRITES)} or s/PATTERN/REPLACEMENT/, for one keyword "
            "AccessionNumber:s/PATTERN/REPLACEMENT/"
        )
    keywords = frozenset({_parse_text_keyword(match[1], text)}) if match[1] else _IDENTIFIERS
    return Rewrite(text, keywords, _make_substitution(text, match[2], match[3]))


def parse_pad(text: str) -> Rewrite:
    """Read ``PatientID=8``: numbers of that keyword have so many digits. Raises ConfigError."""
    name, _, width = text.partition("=")
    if not re.fullmatch(r"[1-9][0-9]?", width):
        raise ConfigError(f"--pad '{text}': write KEYWORD=WIDTH, as in PatientID=8")
    keyword, digits = _parse_text_keyword(name, text), int(width)
    if digits > QUERY_KEYS[keyword][1]:
        raise ConfigError(f"--pad '{text}': DICOM allows {QUERY_KEYS[keyword][1]} characters in {keyword}")

    def pad(value: str) -> str:
        return value.zfill(digits) if value.isascii() and value.isdigit() else value

    return Rewrite(f"pad {keyword}={digits}", frozenset({keyword}), pad, replaces_value=True)


def count_key_sets(rewrites: Iterable[Rewrite]) -> int:
    """How many sets of keys these rewrites can make of one row."""
    counts = Counter(keyword for one in rewrites if not one.replaces_value for keyword in one.keywords)
    return int(2 ** sum(counts.values()))


def list_candidates(keyword: str, value: str, rewrites: Sequence[Rewrite]) -> list[tuple[str, str]]:
    """What to ask for in place of a value, in order, each with the names of the rewrites that made it."""
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
        # As given before as rewritten, whatever the order in which they were made.
        found = dict(sorted(made.items(), key=lambda item: item[0] not in found))
    return list(found.items())


def combine_keys(keys: Sequence[tuple[str, Sequence[str]]]) -> tuple[Keys, ...]:
    """Every set of keys, those with the fewest later choices first."""
    choices = product(*(list(enumerate(values)) for _, values in keys))
    ordered = sorted(choices, key=lambda choice: sum(at for at, _ in choice))
    return tuple(
        tuple((keyword, value) for (keyword, _), (_, value) in zip(keys, choice, strict=True))
        for choice in ordered
    )


def describe_rewrites(request: Request, used: Keys) -> str:
    """For the report: which values were rewritten, where a request was asked for with these of its keys."""
    changed = [
        f"{keyword} {escape_text(given)} asked for as {escape_text(value)}"
        for (keyword, given), (_, value) in zip(request.keys, used, strict=True)
        if given != value
    ]
    return "; ".join([*([request.note] if request.note else []), *changed])


def _shorten_year(accession: str) -> str:
    """An accession with its one YYYY year as YY; as it is where no year, or more than one, is in it."""
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
        raise ConfigError(f"'{text}': {keyword} is not a text that can be rewritten")
    return keyword


def _make_substitution(text: str, delimiter: str, rest: str) -> Callable[[str], str]:
    """What ``PATTERN/REPLACEMENT/FLAGS`` does to a value; raises ConfigError where it is not of that form."""
    parts = re.split(rf"(?<!\\){re.escape(delimiter)}", rest)
    if len(parts) != 3 or not parts[0] or not set(parts[2]) <= set("gi"):
        raise ConfigError(f"--rewrite '{text}': write s/PATTERN/REPLACEMENT/, then g or i if they are needed")
    pattern, replacement = (part.replace(f"\\{delimiter}", delimiter) for part in parts[:2])
    flags = re.IGNORECASE if "i" in parts[2] else re.NOFLAG
    count = 0 if "g" in parts[2] else 1
    try:
        compiled = re.compile(pattern, flags)
        # A replacement is looked at when something matches; the empty alternative does.
        re.sub(f"{pattern}|", replacement, "", flags=flags)
    except (re.error, IndexError, OverflowError, RecursionError) as error:
        raise ConfigError(f"--rewrite '{text}': {error}; the pattern is Python's (re)") from error
    return lambda value: compiled.sub(replacement, value, count=count)
