"""File names from values of the data: safe on every file system, and different for different values.

:func:`distinct` gives different values different names. With the rule ``VALUES``, for a file system that
distinguishes all names, the name of an ordinary value is the value itself:

- letters of both cases, digits, inner spaces and ``-_.+=@`` stay as they are, and so do letters and digits of
  other scripts in the composed Unicode form (NFC); all else becomes ``%XX`` (UTF-8, hexadecimal);
- a dot, a hyphen or a space at the beginning becomes ``%XX``, and a dot or a space at the end, so that no
  name is hidden, or an option of a command that gets it;
- a value of ``_`` becomes ``%5F``, since ``_`` is the name of an empty value;
- what is longer than 120 bytes is cut and gets ``~~`` and a digest of the value.

The rule ``PORTABLE`` is for file systems that ignore case (Windows, macOS, SMB) or the Unicode form, and for
folders that are copied to one:

- ``,()#^`` stay, too; letters of other scripts become ``%XX`` unless their case and form are unambiguous;
- small letters stay, and a mark at the end shows them: ``abc123`` becomes ``abc123~``;
  where both occur a hexadecimal number follows, one bit for each letter, the first one lowest: ``Smith~1e``.

With both a value never has the name of one of Quarry's own files and folders: its first character becomes
``%XX``. The rule ``LEGACY`` is ``PORTABLE`` as it was before rules were recorded, without that protection.

A name can be decoded to its value (or to its digest), so no two values share a name. :func:`plain` makes a
value safe only; different values may share its result.
"""

from __future__ import annotations

import hashlib
import re
import string
import unicodedata
from enum import StrEnum
from functools import lru_cache
from typing import Final, Literal

#: Limits in bytes of UTF-8. Most file systems allow 255; the rest is for the suffix of a version.
_COMPONENT_LIMIT: Final = 180
_VALUE_LIMIT: Final = 120
_NAME_LIMIT: Final = 255
_DIGEST_DIGITS: Final = 32

_ORDINARY: Final = re.compile(r"[A-Z0-9^](?:[A-Z0-9_.,+=@()#^ -]{0,62}[A-Z0-9_,+=@()#^-])?")
_ORDINARY_VALUE: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_.+=@ -]{0,62}[A-Za-z0-9_+=@-])?")
_UNESCAPED_VALUE: Final = frozenset(string.ascii_letters + string.digits + "-_.+=@ ")
_UNESCAPED: Final = _UNESCAPED_VALUE | frozenset(",()#^")
_UNESCAPED_PLAIN: Final = _UNESCAPED | frozenset("%~")
#: Letters that are not shown, and that some file systems ignore.
_INVISIBLE: Final = frozenset("\u115f\u1160\u3164\uffa0")
#: Unicode's categories of letters and decimal digits.
_LETTERS: Final = frozenset({"Lu", "Ll", "Lt", "Lm", "Lo", "Nd"})
#: Names that Windows keeps for devices, whatever extension follows.
_DEVICE: Final = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9]) *(\.|$)", re.IGNORECASE)
_EXTENSION: Final = re.compile(r"\.[A-Za-z][A-Za-z0-9]{0,7}$")

#: Quarry's own files and folders in an output folder, and in a state folder, which may be the same.
RESERVED: Final = frozenset(
    {
        *("mismatch", "non-patient"),
        *("report.csv", "report.xlsx", "studies.csv", "missing.csv", "problems.csv", "manifest.csv.gz"),
        *("damaged.csv", "changes.csv", "sha256sums", "report.html", "proof.json", "proof.json.sig"),
        *("ledger.db", "ledger.db-wal", "ledger.db-shm", "ledger.part", "lock", "release.lock"),
        *("audit.csv", "quarry.log", "output.log", "progress.json"),
    }
)


class NameRule(StrEnum):
    """A rule by which values become names; its value is recorded with a job or a folder."""

    VALUES = "values"
    PORTABLE = "portable"
    LEGACY = "legacy"


@lru_cache(maxsize=4096)
def distinct(value: str, rule: NameRule = NameRule.PORTABLE) -> str:
    """Make a safe name that no other value has; ``""`` for an empty value."""
    if (_ORDINARY_VALUE if rule is NameRule.VALUES else _ORDINARY).fullmatch(value):
        return value
    if value == "_":
        return "%5F"
    if rule is NameRule.VALUES:
        return _shorten("".join(_escape(value, _UNESCAPED_VALUE, rule)), "", _VALUE_LIMIT, value)
    pieces = _escape(value, _UNESCAPED, rule)
    return _shorten("".join(pieces) + _case_mark(pieces), "", _VALUE_LIMIT, value)


def _case_mark(pieces: list[str]) -> str:
    """Return the mark that shows which letters are small; empty if none is."""
    small = [piece.islower() for piece in pieces if len(piece) == 1 and piece.lower() != piece.upper()]
    if not any(small):
        return ""
    return "~" if all(small) else f"~{sum(1 << place for place, is_small in enumerate(small) if is_small):x}"


def plain(value: str) -> str:
    """Make a safe name, in which ``%`` and ``~`` stay; different values may share it."""
    return _shorten("".join(_escape(value, _UNESCAPED_PLAIN, NameRule.LEGACY)), "", _VALUE_LIMIT, value)


def component(text: str, rule: NameRule = NameRule.PORTABLE) -> str:
    """Make a component of a path from literal text and safe names: never empty, reserved or too long."""
    if not text or text[0] in ".-":
        text = "_" + text
    if text[-1] in (". ~" if rule is NameRule.VALUES else ". "):
        text = text[:-1] + _percent(text[-1])
    if _DEVICE.match(text) or (rule is not NameRule.LEGACY and text.casefold() in RESERVED):
        text = _percent(text[0]) + text[1:]
    if len(text) * (1 if text.isascii() else 4) <= _COMPONENT_LIMIT:
        return text
    extension = _extension(text)
    return _shorten(text.removesuffix(extension), extension, _COMPONENT_LIMIT, text)


def add_suffix(name: str, suffix: str) -> str:
    """Insert ``~suffix`` before the extension of a name that is taken."""
    extension = _extension(name)
    tail = f"~{suffix}{extension}"
    return _cut(name.removesuffix(extension), _NAME_LIMIT - len(tail.encode())) + tail


def _escape(value: str, unescaped: frozenset[str], rule: NameRule) -> list[str]:
    is_kept = _is_letter if rule is NameRule.VALUES else _has_stable_case
    pieces = [char if char in unescaped or is_kept(char, rule) else _percent(char) for char in value]
    if not value.isascii() and not _is_stable("".join(pieces), rule):
        pieces = [char if char in unescaped else _percent(char) for char in value]
    for end, unsafe in ((0, ".- "), (len(pieces) - 1, ". ")) if pieces else ():
        if pieces[end] in unsafe:
            pieces[end] = _percent(pieces[end])
    return pieces


def _percent(char: str) -> str:
    return "".join(f"%{byte:02X}" for byte in char.encode("utf-8", "surrogatepass"))


def _is_stable(text: str, rule: NameRule) -> bool:
    """Return True if no letters combine into others, whichever form the file system uses."""
    if rule is NameRule.VALUES:
        return unicodedata.normalize("NFC", text) == text
    form: Literal["NFC", "NFKC"] = "NFC" if rule is NameRule.LEGACY else "NFKC"
    return all(unicodedata.normalize(form, one) == one for one in (text, text.casefold()))


@lru_cache(maxsize=4096)
def _is_letter(char: str, rule: NameRule) -> bool:
    """Return True for a visible letter or digit beyond ASCII in its composed form."""
    if char.isascii() or char in _INVISIBLE or unicodedata.category(char) not in _LETTERS:
        return False
    return _is_stable(char, rule)


@lru_cache(maxsize=4096)
def _has_stable_case(char: str, rule: NameRule) -> bool:
    """Return True for a letter beyond ASCII without case, or with one small and one capital form."""
    if char.isascii() or unicodedata.category(char) not in ("Lo", "Lu", "Ll", "Nd"):
        return False
    if rule is not NameRule.LEGACY and char in _INVISIBLE:
        return False
    small, capital = char.lower(), char.upper()
    return small.casefold() == capital.casefold() == small == capital.lower() and capital == small.upper()


def _shorten(name: str, extension: str, limit: int, value: str) -> str:
    if len((name + extension).encode()) <= limit:
        return name + extension
    digest = hashlib.sha256(value.encode("utf-8", "surrogatepass")).hexdigest()[:_DIGEST_DIGITS]
    tail = f"~~{digest}{extension}"
    return _cut(name, limit - len(tail)) + tail


def _cut(name: str, limit: int) -> str:
    return name.encode()[:limit].decode("utf-8", "ignore")


def _extension(name: str) -> str:
    found = _EXTENSION.search(name)
    return found[0] if found else ""
