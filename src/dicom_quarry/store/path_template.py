"""Path patterns in dcm4che's language, such as ``{00100020}/{0020000D}/{0020000E}/{00080018}.dcm``.

A part is ``{attribute[index],form,argument}``; the attribute is a tag in hexadecimal or a keyword, the index
counts from 0. ``{csv:COLUMN}`` is a column of the user's table. All other text is literal; an apostrophe
quotes, two are one apostrophe. Unlike in dcm4che no value can make a directory or leave the root, and a plain
``{attribute}`` gives different values different names (see :mod:`dicom_quarry.store.safe_names`).

Without an index, a pattern uses the whole value of an attribute with VM 1, and the first value of any other.
"""

from __future__ import annotations

import re
import secrets
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from pathlib import PurePosixPath
from typing import Final

from dicom_quarry.errors import ConfigError
from dicom_quarry.model import Header
from dicom_quarry.store import safe_names, template_functions
from dicom_quarry.store.safe_names import NameRule
from dicom_quarry.wire.data_dictionary import tag_of_keyword, vm_of_tag, vr_of_tag

_SOP_INSTANCE_UID: Final = 0x00080018
_PIXEL_DATA: Final = 0x7FE00000
_MAX_COMPONENTS: Final = 16
_MAX_PATTERN: Final = 1024

_FUNCTIONS: Final[dict[str, Callable[[str], template_functions.TemplateFunction]]] = {
    "upper": template_functions.upper,
    "slice": template_functions.slice_,
    "offset": template_functions.offset,
    "number": template_functions.number,
    "choice": template_functions.choice,
    "hash": template_functions.java_hash,
    "md5": template_functions.md5,
    "urlencoded": template_functions.url_encoded,
}
#: Forms that give different SOP Instance UIDs different names.
_UNIQUE_FUNCTIONS: Final = frozenset({"", "upper", "md5", "urlencoded"})
_RANDOM_MAKERS: Final[dict[str, Callable[[], str]]] = {
    "": lambda: secrets.token_hex(4).upper(),
    "uuid": lambda: str(uuid.uuid4()),
    "uid": lambda: f"2.25.{uuid.uuid4().int}",  # PS3.5 B.2
}
_BINARY_VRS: Final = frozenset({"SQ", "OB", "OD", "OF", "OL", "OV", "OW", "AT"})
_ATTRIBUTE: Final = re.compile(r"([0-9A-Fa-f]{8}|[A-Za-z][A-Za-z0-9]*)(?:\[(\d{1,4})\])?")
_DATE_OR_TIME: Final = re.compile(r"(date|time)([+-].*)?", re.DOTALL)

_PartRenderer = Callable[[Header, Mapping[str, str]], str]


@dataclass(frozen=True, slots=True)
class PathTemplate:
    """A parsed pattern; ``tags`` are the attributes that it needs, ``names`` is the rule of the names.

    ``has_columns`` is True if it needs the user's columns; ``_literals`` are the levels without a field.
    """

    pattern: str
    names: NameRule
    tags: frozenset[int]
    _literals: frozenset[str]
    has_columns: bool
    _parts: tuple[str | _PartRenderer, ...]

    @classmethod
    def parse(
        cls,
        pattern: str,
        *,
        columns: Collection[str] = (),
        for_job: bool = True,
        names: NameRule = NameRule.PORTABLE,
    ) -> PathTemplate:
        """Parse a pattern. Raises ConfigError.

        A pattern ``for_job`` must include the SOP Instance UID, and give an instance the same path each time.
        """
        _check_text(pattern)
        parser = _TemplateParser(columns, for_job, names)
        parts = tuple(
            part if not is_field else parser.parse_field(part) for part, is_field in _split(pattern)
        )
        levels = "".join(part if isinstance(part, str) else "\0" for part in parts).split("/")
        _check_levels(levels, names)
        if for_job and not parser.is_unique:
            raise ConfigError(
                f"'{pattern}': two instances could get one name; add {{00080018}}, the SOP Instance UID"
            )
        literals = frozenset(level for level in levels[1:] if "\0" not in level)
        return cls(pattern, names, frozenset(parser.tags), literals, parser.has_columns, parts)

    def render(self, header: Header, cells: Mapping[str, str] | None = None) -> PurePosixPath:
        """Make the path of an instance: relative and safe; an empty component becomes ``_``."""
        row = cells or {}
        text = "".join([part if isinstance(part, str) else part(header, row) for part in self._parts])
        *folders, name = text.split("/")
        if not folders:
            return PurePosixPath(safe_names.component(name, self.names))
        rule = NameRule.LEGACY if name in self._literals else self.names
        return _folder(tuple(folders), self.names, self._literals) / safe_names.component(name, rule)


@lru_cache(maxsize=512)
def _folder(components: tuple[str, ...], names: NameRule, literals: frozenset[str]) -> PurePosixPath:
    """Make the directory of a path; cached, as the instances of a series share it.

    Below the first level the user's own words are kept: Quarry has no files there.
    """
    first, *others = components
    rules = (NameRule.LEGACY if one in literals else names for one in others)
    return PurePosixPath(safe_names.component(first, names), *map(safe_names.component, others, rules))


class _TemplateParser:
    """Turns the fields of one pattern into functions, and collects the tags that they need."""

    def __init__(self, columns: Collection[str], for_job: bool, names: NameRule) -> None:
        self._columns = columns
        self._for_job = for_job
        self._names = names
        self.tags: set[int] = set()
        self.is_unique = False
        self.has_columns = False

    def parse_field(self, field: str) -> _PartRenderer:
        if field.startswith("csv:"):
            return self._parse_column(field[4:])
        name, _, rest = field.partition(",")
        kind, _, argument = rest.partition(",")
        if name in ("rnd", "now"):
            if self._for_job:
                raise ConfigError(
                    f"'{{{field}}}': a job that is run again could not find its files under this name"
                )
            return _render_random(kind) if name == "rnd" else _render_now(kind, argument)
        return self._parse_attribute(field, name, kind, argument)

    def _parse_column(self, column: str) -> _PartRenderer:
        if column not in self._columns:
            known = ", ".join(self._columns) or "none, as there is no table"
            raise ConfigError(f"'{{csv:{column}}}': no such column; columns: {known}")
        self.has_columns = True
        names = self._names
        return lambda _header, cells: safe_names.distinct(cells.get(column, "").strip(), names)

    def _parse_attribute(self, field: str, name: str, kind: str, argument: str) -> _PartRenderer:
        found = _ATTRIBUTE.fullmatch(name)
        if not found:
            inside = "." in name or "/" in name
            why = "attributes inside sequences cannot be used" if inside else "write {TAG} or {Keyword}"
            raise ConfigError(f"'{{{field}}}': {why}")
        tag = _parse_tag(found[1], field)
        vr = _usable_vr(tag, field)
        function = _make_function(kind, argument, vr, field, self._names)
        self.tags.add(tag)
        self.is_unique |= tag == _SOP_INSTANCE_UID and kind in _UNIQUE_FUNCTIONS and not int(found[2] or 0)
        if found[2] is None and _is_single_valued(tag):
            return lambda header, _cells: function(header.get(tag) or None)
        index = int(found[2] or 0)
        return lambda header, _cells: function(_pick_value(header.get(tag, ""), index))


def _split(pattern: str) -> Iterator[tuple[str, bool]]:
    """Yield the pattern's literal texts (False) and fields (True)."""
    text, inside, quoted, at = "", False, False, 0
    while at < len(pattern):
        char = pattern[at]
        at += 1
        if char == "'":
            if pattern[at : at + 1] == "'" and not inside:
                text, at = text + "'", at + 1
                continue
            quoted = not quoted
            text += char if inside else ""
        elif quoted or char not in "{}":
            text += char
        elif (char == "{") == inside:
            raise ConfigError(f"'{pattern}': the braces do not match")
        else:
            yield text, inside
            text, inside = "", not inside
    if inside or quoted:
        raise ConfigError(f"'{pattern}': a {'quote' if quoted else 'brace'} is not closed")
    yield text, False


def _check_text(pattern: str) -> None:
    if not pattern.isprintable() or "\\" in pattern:
        raise ConfigError("a path pattern holds printable characters only, and '/' between directories")
    if len(pattern) > _MAX_PATTERN or pattern.count("/") >= _MAX_COMPONENTS:
        raise ConfigError(
            f"a path pattern has at most {_MAX_PATTERN} characters and {_MAX_COMPONENTS} levels"
        )


def _check_levels(levels: list[str], names: NameRule) -> None:
    if len(levels) > 1 and not levels[0]:
        raise ConfigError("a path pattern is relative: it does not begin with '/'")
    if any(not level or level.startswith(".") for level in levels):
        raise ConfigError("no level of a path pattern may be empty or begin with '.'")
    if names is not NameRule.LEGACY and levels[0].casefold() in safe_names.RESERVED:
        raise ConfigError(
            f"the name {levels[0]} is for Quarry's own files: begin the pattern with another one"
        )


def _parse_tag(name: str, field: str) -> int:
    tag = int(name, 16) if re.fullmatch(r"[0-9A-Fa-f]{8}", name) else tag_of_keyword(name)
    if tag is None:
        raise ConfigError(f"'{{{field}}}': this is not the keyword of a DICOM attribute")
    if not 0x00080000 <= tag < _PIXEL_DATA:
        raise ConfigError(f"'{{{field}}}': only attributes from (0008,0000) up to the pixel data can be used")
    return tag


def _usable_vr(tag: int, field: str) -> str:
    try:
        vr = vr_of_tag(tag)
    except KeyError:
        return "LO"
    if vr in _BINARY_VRS:
        raise ConfigError(f"'{{{field}}}': an attribute of VR {vr} has no text")
    return vr


def _make_function(
    kind: str, argument: str, vr: str, field: str, names: NameRule
) -> template_functions.TemplateFunction:
    if not kind:
        return template_functions.distinct_value(argument, names)
    if _DATE_OR_TIME.fullmatch(kind):
        return template_functions.date_time(kind, argument, vr)
    if kind not in _FUNCTIONS:
        known = ", ".join(_FUNCTIONS)
        raise ConfigError(f"'{{{field}}}': '{kind}' is unknown; write one of {known}, date, time")
    return _FUNCTIONS[kind](argument)


def _is_single_valued(tag: int) -> bool:
    try:
        return vm_of_tag(tag) == "1"
    except KeyError:
        return False


def _pick_value(text: str, index: int) -> str | None:
    values = text.split("\\")
    return values[index] or None if index < len(values) else None


def _render_random(kind: str) -> _PartRenderer:
    if kind not in _RANDOM_MAKERS:
        raise ConfigError(f"'{{rnd,{kind}}}': write {{rnd}}, {{rnd,uuid}} or {{rnd,uid}}")
    make = _RANDOM_MAKERS[kind]
    return lambda _header, _cells: make()


def _render_now(kind: str, argument: str) -> _PartRenderer:
    if not _DATE_OR_TIME.fullmatch(kind):
        raise ConfigError("write {now,date,yyyyMMdd} or {now,time,HHmmss}")
    write = template_functions.datetime_formatter(kind, argument)
    return lambda _header, _cells: write(datetime.now())
