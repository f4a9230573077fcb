"""Doubts about the text of a cell: signs that the archive does not have this text as an identifier.

Damage is never an identifier: a spreadsheet's error, a formula, lost characters. A doubt is a text that
spreadsheets and people write in place of an identifier: a number with separators, a date, several values. An
archive may have such an identifier, so the user can decide (``--verbatim``, or a text formula in the cell).
"""

from __future__ import annotations

import re
import unicodedata

_TEXT_REMEDY = "format the column as text and export it again"

#: The way a spreadsheet shows a number of many digits; ``1E10`` without a sign may be an accession.
_SCIENTIFIC = re.compile(r"[+-]?[0-9]+(?:[.,][0-9]+[eE][+-]?|[eE]\+)[0-9]+")
#: ``#N/A`` and ``#REF!``, in other languages ``#NV``, ``#N/D``, ``#BEZUG!``, ``#¡REF!``; of LibreOffice
#: ``Err:502``.
_SHEET_ERROR = re.compile(
    r"#(?:N/?[AVD]|GETTING_DATA|#+|[¡¿]?[^\W\d_][\w/]*[!?])|Err:[0-9]{3}|Loading\.\.\.|#+", re.IGNORECASE
)
#: UTF-8 that was read as Windows-1252, as in ``MÃ¼ller``.
_MISREAD = re.compile(
    "[\u00c2-\u00c5\u00d0\u00d1][\u0080-\u00bf\u0152-\u0192\u02c6\u02dc\u2013-\u203a\u20ac]"
)

_THOUSANDS = re.compile(r"[0-9]{1,3}(?:([.,' \u2019])[0-9]{3})(?:\1[0-9]{3})*(?:[.,][0-9]+)?")
_DECIMAL_COMMA = re.compile(r"[+-]?[0-9]+,[0-9]+")
_WHOLE_WITH_COMMA = re.compile(r"[0-9]+,0+")
_AMOUNT = re.compile(r"[+-]?[0-9][0-9.,]* ?%|\W*[$\u00a3\u00a5\u20ac] ?[0-9].*|[0-9].*[$\u00a3\u00a5\u20ac]")
_MONTH_NAME = (
    r"(?!(?-i:[A-Z]{3,}))(?:jan|feb|f[ée]v|mar|m[äa]r|mrz|apr|avr|ma[iyj]|jun|juin|jul|juil|aug|ao[uû]|ago|sep"
    r"|o[ck]t|nov|de[cz]|d[ée]c|ene|abr|dic)[a-zäéû]*\.?"
)
_DATE = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}(?:[ T][0-9].*)?"
    r"|[0-9]{4}/[0-9]{2}/[0-9]{2}(?: .*)?"
    r"|[0-9]{1,2}([./])[0-9]{1,2}\1(?:[0-9]{4}|[0-9]{2})(?: .*)?"
    r"|[0-9]{1,2}:[0-9]{2}(?::[0-9]{2}(?:\.[0-9]+)?)?(?: ?[ap]m)?"
    rf"|[0-9]{{1,2}}[-. ]{{1,2}}{_MONTH_NAME}(?:[-. ]{{1,2}}[0-9]{{2,4}})?"
    rf"|{_MONTH_NAME}[-. ]{{1,2}}[0-9]{{2,4}}",
    re.IGNORECASE,
)
_SEPARATOR = re.compile(r"[;,|&\t]| / | \+ | (?:and|or|und|oder|et|ou|y|o) ", re.IGNORECASE)
_IN_BRACKETS = re.compile(r"[(\[{<].*[)\]}>]|.*\s[(\[{<].*")
_QUOTE_MARKS = '"\u201c\u201d\u201e\u201f\u00ab\u00bb'


def find_damage(text: str) -> str:
    """Describe why a text is no value at all; empty if it may be one."""
    if _SCIENTIFIC.fullmatch(text):
        return f"was rounded by a spreadsheet, so digits are lost; {_TEXT_REMEDY}"
    if _SHEET_ERROR.fullmatch(text):
        return "is a spreadsheet error, not a value; correct the formula, or make the column wider"
    if text.startswith("="):
        return "is a formula, not a value; export the table with the values of its formulas"
    if text.isascii():
        return ""
    if "\N{REPLACEMENT CHARACTER}" in text:
        return "contains a character that was lost in a conversion; export the table again as 'CSV UTF-8'"
    if _MISREAD.search(text):
        return (
            "contains letters that were read in a wrong encoding; export the table again as 'CSV UTF-8', or "
            "correct the value"
        )
    if any(unicodedata.category(char) in ("Cf", "Co", "Cn") for char in text):
        return "contains a character that is not shown; write the value again"
    return ""


def find_doubt(text: str) -> str:
    """Describe why a text is probably not one identifier; empty if it is."""
    if not any(char.isalnum() for char in text):
        return "has no letter and no digit; write the value, or clear the cell"
    if _THOUSANDS.fullmatch(text):
        return f"may be a number with thousands separators; {_TEXT_REMEDY}"
    if _WHOLE_WITH_COMMA.fullmatch(text):
        return ""
    if _DECIMAL_COMMA.fullmatch(text):
        return f"is a number with decimals; {_TEXT_REMEDY}"
    if _AMOUNT.fullmatch(text):
        return f"is a percentage or an amount of money; {_TEXT_REMEDY}"
    if _DATE.fullmatch(text):
        return f"is a date or a time, which a spreadsheet may have made of another value; {_TEXT_REMEDY}"
    if _has_several_values(text):
        return "seems to contain several values; write each in a row of its own"
    if _IN_BRACKETS.fullmatch(text):
        return "contains a remark in brackets; write the value alone"
    if any(char in text for char in _QUOTE_MARKS):
        return "contains a quotation mark; write the value alone"
    return "" if text.isascii() else _find_odd_character(text)


def _has_several_values(text: str) -> bool:
    """Return whether a text has a separator between values, or words of the same form with digits."""
    if _SEPARATOR.search(text):
        return True
    words = text.split()
    if len(words) < 2 or not all(any(char.isdigit() for char in word) for word in words):
        return False
    forms = {re.sub("[0-9]", "9", re.sub("[^\\W\\d_]", "A", word)) for word in words}
    return len(forms) == 1 or all(sum(char.isdigit() for char in word) >= 4 for word in words)


def _find_odd_character(text: str) -> str:
    for char in filter(lambda one: not one.isascii(), text):
        if unicodedata.category(char) in ("Nd", "No", "Nl"):
            return f"contains the digit '{char}' of another script; write the digits 0 to 9"
        if unicodedata.category(char) == "Pd" or char == "\N{MINUS SIGN}":
            return f"contains the dash '{char}', which is not a '-'; write '-'"
    return ""
