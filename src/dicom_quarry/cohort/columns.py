"""The DICOM key of each column of the user's table, decided by its header and by options."""

from __future__ import annotations

import re
from collections.abc import Container, Mapping, Sequence

from dicom_quarry.cohort.cell_values import QUERY_KEYS
from dicom_quarry.cohort.headers import (
    DATE_KEYS,
    HEADER_ALIASES,
    KEYWORDS_BY_NAME,
    RANGE_COLUMNS,
    REPORT_PREFIX,
    find_keyword,
    name_keyword,
    normalize_header,
    replace_unprintable,
    show_header,
    suggest_ignore,
    suggest_map,
)
from dicom_quarry.cohort.similar_headers import (
    find_possible_keyword,
    find_possible_range_end,
    find_similar_keyword,
    find_similar_range_end,
    guess_keyword,
)
from dicom_quarry.errors import ConfigError, InputError


def parse_keyword(name: str) -> str:
    """Return the key that an option names; raises ConfigError with the list of keys."""
    found = find_keyword(name) or KEYWORDS_BY_NAME.get(normalize_header(name), "")
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


def _check_columns_exist(header: Sequence[str], options: Sequence[tuple[str, str]]) -> None:
    present = {normalize_header(name) for name in header}
    for option, name in options:
        if normalize_header(name) not in present:
            shown = ", ".join(f"'{show_header(one)[:40]}'" for one in header[:12] if one.strip())
            raise InputError(f"{option}: there is no column '{name}'; the table has {shown}")


def _check_doubtful_columns(
    header: Sequence[str], explicit: Mapping[str, str], left_out: Container[int]
) -> None:
    """Refuse columns that resemble a key, or may mean one, unless an option decides; raises InputError."""
    decided = {
        at for at, name in enumerate(header) if at in left_out or normalize_header(name) in explicit
    } | {at for at, name in enumerate(header) if name.startswith(REPORT_PREFIX)}
    keys = {_find_mapped_keyword(name, explicit) for at, name in enumerate(header) if at not in left_out}
    lines = [
        f"the column '{show_header(name)}' ({position + 1}) is not searched by under this name: did you mean "
        f"{name_keyword(keyword)}? If so, add {suggest_map(name, keyword)}; if not, add "
        f"{suggest_ignore(name)}"
        for position, name in enumerate(header)
        if position not in decided and (keyword := _find_doubt(name, header, keys, explicit))
    ]
    if lines:
        raise InputError("\n  ".join(lines))


def _find_doubt(name: str, header: Sequence[str], keys: Container[str], explicit: Mapping[str, str]) -> str:
    """Return the key that a column may be meant as; empty if it is a key, or certainly none.

    A column that only may mean a key is in no doubt if the table has this key under its own name, or the
    study's UID, which needs no other key.
    """
    similar = find_similar_keyword(name) or find_similar_range_end(name, header)
    if similar:
        return "" if similar in explicit.values() else similar
    possible = find_possible_keyword(name) or _find_possible_range_end(name, header)
    if not possible or "StudyInstanceUID" in keys or (possible in keys and not find_keyword(name)):
        return ""
    has_date = "StudyDate" in keys or "StudyMonth" in keys or all(end in keys for end in RANGE_COLUMNS)
    return "" if possible in DATE_KEYS and has_date else possible


def _find_possible_range_end(name: str, header: Sequence[str]) -> str:
    """Return the end of a range that a column may mean: one of two, or alone if its name is the key's own."""
    end = find_possible_range_end(name)
    ends = {find_possible_range_end(one) or find_keyword(one) for one in header}
    return end if set(RANGE_COLUMNS) <= ends or find_keyword(name) else ""


def _duplicate_column_message(header: Sequence[str], first: int, second: int, keyword: str) -> str:
    one, other = replace_unprintable(header[first].strip()), replace_unprintable(header[second].strip())
    if normalize_header(one) == normalize_header(other):
        remedy = "rename the one that is not to be used"
    else:
        remedy = f"choose one of them, as in --map '{one}={keyword}'"
    return f"the columns '{one}' ({first + 1}) and '{other}' ({second + 1}) both mean {keyword}; {remedy}"


def _no_known_column_message(header: Sequence[str]) -> str:
    names = [cell.strip() for cell in header]
    if _looks_like_data(names):
        return (
            "this line looks like data, not like a header; add a header line such as EMPI,Accession above it"
        )
    shown = ", ".join(f"'{replace_unprintable(name)[:40]}'" for name in names[:12] if name)
    accepted = "; ".join(
        f"{keyword} (or {', '.join(names[1:])})" for keyword, names in HEADER_ALIASES.items()
    )
    guesses = ((name, guess_keyword(name)) for name in names)
    named, keyword = next((one for one in guesses if one[1]), ("HEADER", "KEYWORD"))
    return (
        f"no column name is recognised; the table has {shown}. Accepted names are {accepted}. Rename a "
        f"column, or name its meaning, as in {suggest_map(named, keyword)}. If this line is data "
        "already, add a header line such as EMPI,Accession above it"
    )


def _looks_like_data(names: Sequence[str]) -> bool:
    """Return whether a line without a known header has values: long numbers, or digits in every cell."""
    filled = [name for name in names if name]
    return any(re.search("[0-9]{3}", name) for name in filled) or all(
        any(char.isdigit() for char in name) for name in filled
    )
