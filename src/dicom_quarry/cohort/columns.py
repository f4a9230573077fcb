"""Header names and their aliases: the DICOM key of each column of the user's table."""

from __future__ import annotations

import re
import shlex
import unicodedata
from collections.abc import Container, Mapping, Sequence

from dicom_quarry.cohort.cell_values import QUERY_KEYS
from dicom_quarry.errors import ConfigError, InputError

#: Headers as people write them, for each key that identifies studies. They match without regard to case,
#: spaces, dashes, underscores and dots. Every other column is only copied to the report, unless ``--map``
#: makes it a key: the 'Patient Name' or 'Study ID' of a table often differs from that of the PACS.
HEADER_ALIASES: dict[str, tuple[str, ...]] = {
    "PatientID": ("PatientID", "EMPI", "MRN", "Patient Identifier", "Patient MRN", "Medical Record Number"),
    "AccessionNumber": (
        "AccessionNumber",
        "Accession",
        "Accessions",
        "Accession Numbers",
        "Accession No",
        "Accession#",
        "Acc#",
        "Acc No",
        "Acc Number",
    ),
    "StudyDate": ("StudyDate", "Study Dates", "Exam Date"),
    "StudyMonth": ("StudyMonth", "Study Months", "Exam Month"),
    "StudyDateFrom": ("StudyDateFrom", "From", "Date From", "From Date"),
    "StudyDateUntil": (
        "StudyDateUntil",
        "Until",
        "Date Until",
        "Until Date",
        "To",
        "Date To",
        "To Date",
        "Study Date To",
    ),
    "StudyInstanceUID": ("StudyInstanceUID", "StudyInstanceUIDs", "Study UID", "SUID"),
    "SeriesInstanceUID": ("SeriesInstanceUID", "SeriesInstanceUIDs", "Series UID"),
}
#: The two columns of a range; one without the other is not a date, as 'From' may be a ward.
RANGE_COLUMNS = ("StudyDateFrom", "StudyDateUntil")

#: The columns that a report of Quarry adds to the table; a report can be used as a table again.
_REPORT_PREFIX = "quarry_"

_IGNORED = re.compile(r"[\s_.\-\u00ad\u200b-\u200f\u2060\ufeff]+")


def normalize_header(header: str) -> str:
    """Return a header without case, spaces, dashes, underscores, dots and invisible characters."""
    return _IGNORED.sub("", unicodedata.normalize("NFKC", header)).casefold()


_KEYWORDS_BY_HEADER = {
    normalize_header(alias): keyword for keyword, aliases in HEADER_ALIASES.items() for alias in aliases
}
_KEYWORDS_BY_NAME = {normalize_header(keyword): keyword for keyword in QUERY_KEYS}


def find_keyword(header: str) -> str:
    """Return the DICOM keyword of a header; empty if it has none."""
    return _KEYWORDS_BY_HEADER.get(normalize_header(header), "")


#: A header may have several names: ``Hospital number (MRN)``, ``MRN/Name``.
_NAME_SEPARATORS = re.compile(r"[/|;,:=&+()\[\]{}<>\n\r\t\\]| - |\b(?:and|or|und|oder)\b", re.IGNORECASE)
_CAMEL_CASE = re.compile(r"(?<=[a-z])(?=[A-Z])")
#: Cyrillic and Greek letters that look like Latin ones, in lower case.
_LOOKALIKES = str.maketrans("авсенікјморѕтухαβεζηικμνορτυχ", "abcehikjmopstyxabezhikmnoptyx")
#: A header that ends in one of these words is about something else: ``Patient Name``, ``Accession date``.
_OTHER_NOUN = re.compile(
    "address|age|birth(?:date|day)?|by|comments?|dates?|datum|department|description|dob|email|gender|grund"
    "|issuer|location|modality|names?|notes?|phone|reasons?|remarks?|room|sex|site|source|status|system|time"
    "|types?|ward"
)
_NUMBER_WORD = (
    r"(?:ids?|idents?|identifiers?|nos?|nrs?|nums?|numbers?|numer|numero|nummer|codes?|keys?|kennung)"
)
#: Other ways to write a name, as words and as letters alone.
_SIMILAR_NAMES = (
    (
        "PatientID",
        re.compile(
            r"\b(?:mrns?|empis?|e?mpi|pid|pids)\b"
            rf"|\b(?:patient|patients|patienten|pat|pt|pts)(?: \w+)? ?{_NUMBER_WORD}\b"
            rf"|\b{_NUMBER_WORD} (?:of |der |des )?(?:the )?(?:patients?|patienten|pat|pt)\b"
            r"|\b(?:medical|med|health|hospital|hosp) ?(?:record|rec)s?\b"
            r"|\b(?:hospital|hosp|chart|nhs) ?(?:no|nr|num|number|nummer)\b|patientid|patid"
        ),
    ),
    (
        "AccessionNumber",
        re.compile(
            rf"ac{{1,3}}es{{1,3}}ion|\b(?:acc|accn|acsn|access) ?{_NUMBER_WORD}\b|\b(?:acc|accn|acsn)\b"
        ),
    ),
    ("SeriesInstanceUID", re.compile(r"\bseries ?(?:instance|inst)? ?(?:uids?|uis?)\b|\bseries ?instance")),
    (
        "StudyInstanceUID",
        re.compile(r"\b(?:study|exam) ?(?:instance|inst)? ?(?:uids?|uis?)\b|\bstudy ?instance|\bsuids?\b"),
    ),
    ("StudyDate", re.compile(r"\b(?:study|exam|examination) ?(?:date|dates|dt|datum)\b")),
)


def find_similar_keyword(header: str) -> str:
    """Return the key whose name a header resembles; empty if it resembles none, or is the name itself.

    ``MRN*``, ``Patient ID #``, ``MRN (hospital)``, ``Pat-ID``, ``Old MRN`` and ``Acession No`` resemble a
    name. ``Patient Name`` and ``Accession date`` do not.
    """
    if find_keyword(header) or normalize_header(header) in _KEYWORDS_BY_NAME:
        return ""
    for part in (header, *_NAME_SEPARATORS.split(header)):
        letters = _split_words(part).replace(" ", "")
        if letters in _KEYWORDS_BY_LETTERS:
            return _KEYWORDS_BY_LETTERS[letters]
    words = _split_words(header)
    letters = words.replace(" ", "")
    if not words or _OTHER_NOUN.fullmatch(words.split()[-1]) or letters in _OTHER_KEYS_BY_LETTERS:
        return ""
    if "#" in header:
        words += " no"
    for keyword, pattern in _SIMILAR_NAMES:
        if pattern.search(words):
            return keyword
    return _find_misspelt_keyword(letters)


def _split_words(header: str) -> str:
    """Return the words of a header in lower case, without accents, digits and punctuation."""
    text = unicodedata.normalize("NFKD", header).translate(_INVISIBLE_CHARACTERS)
    text = _CAMEL_CASE.sub(" ", text).casefold().translate(_LOOKALIKES)
    text = "".join(char for char in text if not unicodedata.combining(char))
    return " ".join(re.findall(r"[^\W\d_]+", text))


def _find_misspelt_keyword(letters: str) -> str:
    for name, keyword in _KEYWORDS_BY_LETTERS.items():
        allowed = 2 if len(name) >= 10 else 1
        is_close = len(name) >= 8 and name[0] == letters[:1] and abs(len(name) - len(letters)) <= allowed
        if is_close and _count_edits(name, letters) <= allowed:
            return keyword
    return ""


def _count_edits(one: str, other: str) -> int:
    """Count the letters to insert, delete, replace or exchange with their neighbour."""
    before: list[int] = []
    last = list(range(len(other) + 1))
    for i, char in enumerate(one, 1):
        row = [i]
        for j, other_char in enumerate(other, 1):
            edits = min(last[j] + 1, row[j - 1] + 1, last[j - 1] + (char != other_char))
            if i > 1 and j > 1 and char == other[j - 2] and one[i - 2] == other_char:
                edits = min(edits, before[j - 2] + 1)
            row.append(edits)
        before, last = last, row
    return last[-1]


_INVISIBLE_CHARACTERS = dict.fromkeys([0xAD, *range(0x200B, 0x2010), 0x2060, 0xFEFF])
#: The aliases without digits and punctuation; 'From' and 'To' alone are too common.
_KEYWORDS_BY_LETTERS = {
    letters: keyword
    for keyword, aliases in HEADER_ALIASES.items()
    for alias in aliases
    if (letters := _split_words(alias).replace(" ", "")) not in ("from", "to", "until")
}
_RANGE_ENDS_BY_LETTERS = {
    _split_words(alias).replace(" ", ""): keyword
    for keyword in RANGE_COLUMNS
    for alias in HEADER_ALIASES[keyword]
}
_OTHER_KEYS_BY_LETTERS = {
    letters for keyword in QUERY_KEYS if (letters := keyword.casefold()) not in _KEYWORDS_BY_LETTERS
}


def parse_keyword(name: str) -> str:
    """Return the key that an option names; raises ConfigError with the list of keys."""
    found = find_keyword(name) or _KEYWORDS_BY_NAME.get(normalize_header(name), "")
    if not found:
        raise ConfigError(f"'{name.strip()}' is not a search key; use one of {', '.join(QUERY_KEYS)}")
    return found


def parse_map(texts: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Read ``Acc No=AccessionNumber``: pairs of header and keyword."""
    pairs: dict[str, tuple[str, str]] = {}
    for text in texts:
        header, equals, keyword = text.rpartition("=")
        if not (equals and normalize_header(header)):
            raise ConfigError(f"--map '{text}': write HEADER=KEYWORD, as in 'Acc No=AccessionNumber'")
        if normalize_header(header) in pairs:
            raise ConfigError(f"--map '{text}': the column '{header.strip()}' is mapped twice; map it once")
        pairs[normalize_header(header)] = (header.strip(), parse_keyword(keyword))
    return tuple(pairs.values())


def parse_ignored_columns(texts: Sequence[str], mapping: Sequence[tuple[str, str]]) -> tuple[str, ...]:
    """Read ``--ignore-column`` options; raises ConfigError if one is empty, or is mapped, too."""
    mapped = {normalize_header(name) for name, _ in mapping}
    for text in texts:
        if not normalize_header(text):
            raise ConfigError("--ignore-column: the header is missing; write the header of the column")
        if normalize_header(text) in mapped:
            raise ConfigError(
                f"the column '{text}' is both in --map and in --ignore-column; remove one of them"
            )
    return tuple(text.strip() for text in texts)


def find_columns(header: Sequence[str], option: str, names: Sequence[str]) -> frozenset[int]:
    """Return the positions of the columns that an option names; raises InputError if one does not exist."""
    _check_columns_exist(header, [(f"{option} '{name}'", name) for name in names])
    wanted = {normalize_header(name) for name in names}
    return frozenset(at for at, name in enumerate(header) if normalize_header(name) in wanted)


def map_columns(
    header: Sequence[str], mapping: Sequence[tuple[str, str]] = (), ignored: Sequence[str] = ()
) -> tuple[tuple[int, str], ...]:
    """Return the columns that are keys: position and DICOM keyword, in the table's order.

    ``mapping`` pairs headers with keywords, from the user; a keyword in it has no other column. ``ignored``
    are headers that are not keys. Raises InputError, without file and line in the message, if there is no key
    column, two for the same key, or a column that is probably a key.
    """
    explicit = {normalize_header(name): keyword for name, keyword in mapping}
    _check_columns_exist(header, [(f"--map '{name}={keyword}'", name) for name, keyword in mapping])
    left_out = find_columns(header, "--ignore-column", ignored)
    _check_doubtful_columns(header, explicit, left_out)
    found: dict[str, int] = {}
    for position, name in enumerate(header):
        keyword = "" if position in left_out else _find_mapped_keyword(name, explicit)
        if keyword and keyword in found:
            raise InputError(_duplicate_column_message(header, found[keyword], position, keyword))
        if keyword:
            found[keyword] = position
    if not set(RANGE_COLUMNS) <= found.keys():
        found = {key: at for key, at in found.items() if key not in RANGE_COLUMNS or key in explicit.values()}
    if not found:
        raise InputError(_no_known_column_message(header))
    return tuple((position, keyword) for keyword, position in found.items())


def is_key_header(header: str, mapping: Sequence[tuple[str, str]] = ()) -> bool:
    """True if a header is a key."""
    return bool(_find_mapped_keyword(header, {normalize_header(name): keyword for name, keyword in mapping}))


def _find_mapped_keyword(name: str, explicit: Mapping[str, str]) -> str:
    if keyword := explicit.get(normalize_header(name), ""):
        return keyword
    keyword = find_keyword(name)
    return "" if keyword in explicit.values() else keyword


def find_unused_columns(
    header: Sequence[str], used: Sequence[tuple[int, str]], ignored: Sequence[str] = ()
) -> tuple[str, ...]:
    """Return the columns that are not keys but have the name of a key, which the user may have meant."""
    positions = {position for position, _ in used} | find_columns(header, "--ignore-column", ignored)
    return tuple(
        replace_unprintable(name.strip())
        for position, name in enumerate(header)
        if position not in positions and normalize_header(name) in _KEYWORDS_BY_NAME
    )


def _check_columns_exist(header: Sequence[str], options: Sequence[tuple[str, str]]) -> None:
    present = {normalize_header(name) for name in header}
    for option, name in options:
        if normalize_header(name) not in present:
            shown = ", ".join(f"'{_show_header(one)[:40]}'" for one in header[:12] if one.strip())
            raise InputError(f"{option}: there is no column '{name}'; the table has {shown}")


def _check_doubtful_columns(
    header: Sequence[str], explicit: Mapping[str, str], left_out: Container[int]
) -> None:
    """Refuse columns whose header resembles a key's, unless an option decides; raises InputError."""
    doubtful = [
        (position, name, keyword)
        for position, name in enumerate(header)
        if (keyword := find_similar_keyword(name) or _find_similar_range_end(name, header))
        and normalize_header(name) not in explicit
        and position not in left_out
        and not name.startswith(_REPORT_PREFIX)
        and keyword not in explicit.values()
    ]
    if not doubtful:
        return
    lines = [
        f"the column '{_show_header(name)}' ({position + 1}) may be meant as {keyword}; to search by it use "
        f"--map {_quote_option(f'{_show_header(name)}={keyword}')}, to leave it out use --ignore-column "
        f"{_quote_option(_show_header(name))}"
        for position, name, keyword in doubtful
    ]
    raise InputError("; ".join(lines))


def _find_similar_range_end(name: str, header: Sequence[str]) -> str:
    """Return the end of a range that a header resembles, as ``From*`` does, if the table has both ends."""
    if find_keyword(name):
        return ""
    ends = {one: _RANGE_ENDS_BY_LETTERS.get(_split_words(one).replace(" ", ""), "") for one in header}
    return ends[name] if set(RANGE_COLUMNS) <= set(ends.values()) else ""


def _show_header(name: str) -> str:
    """Return a header for a message, on one line, as an option can repeat it."""
    return replace_unprintable(" ".join(name.split()))


def _quote_option(text: str) -> str:
    return f"'{text}'" if "'" not in text else shlex.quote(text)


def _duplicate_column_message(header: Sequence[str], first: int, second: int, keyword: str) -> str:
    one, other = replace_unprintable(header[first].strip()), replace_unprintable(header[second].strip())
    if normalize_header(one) == normalize_header(other):
        remedy = "rename the one that is not to be used"
    else:
        remedy = f"choose one of them, as in --map '{one}={keyword}'"
    return f"the columns '{one}' ({first + 1}) and '{other}' ({second + 1}) both mean {keyword}; {remedy}"


def _no_known_column_message(header: Sequence[str]) -> str:
    names = [cell.strip() for cell in header]
    if any(any(char.isdigit() for char in name) for name in names):
        return (
            "this line looks like data, not like a header; add a header line such as EMPI,Accession above it"
        )
    shown = ", ".join(f"'{replace_unprintable(name)[:40]}'" for name in names[:12] if name)
    accepted = "; ".join(
        f"{keyword} (or {', '.join(names[1:])})" for keyword, names in HEADER_ALIASES.items()
    )
    return (
        f"no column name is recognised; the table has {shown}. Accepted names are {accepted}. Rename a "
        "column, or use --map 'HEADER=KEYWORD'. If this line is data already, add a header line such as "
        "EMPI,Accession above it"
    )


def replace_unprintable(text: str) -> str:
    """Make text from outside safe for a message."""
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text)
