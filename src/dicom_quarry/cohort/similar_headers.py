"""Headers that resemble the name of a key, or may mean one: found by words and by typing errors.

A header *resembles* a key if it contains its name, is a form of it, or has a typing error: ``MRN*``,
``Accession Num``, ``Stduy Date``. It *may mean* a key if tables use it for the key and for other things, too:
a ``Patient`` may be a name, a ``Date`` the day of an operation. Neither is ever taken as the key without the
user's decision.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from dicom_quarry.cohort.cell_values import QUERY_KEYS
from dicom_quarry.cohort.headers import (
    DATE_KEYS,
    HEADER_ALIASES,
    KEYWORDS_BY_NAME,
    RANGE_COLUMNS,
    find_keyword,
    normalize_header,
)

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
_NUMBER = r"(?:ids?|idents?|identifiers?|nos?|nrs?|nbrs?|nums?|numbs?|numbe?rs?|numer[oa]?|nummer)"
_NUMBER_WORD = rf"(?:{_NUMBER}|codes?|keys?|kennung)"
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
            rf"|\b(?:mr|medrec|urn?|unit|chart|chi) ?{_NUMBER}\b"
        ),
    ),
    (
        "AccessionNumber",
        re.compile(
            r"ac{1,3}es{1,3}ion|\bac{1,3}e?s{1,3}(?:i?o?|oi)n|\bas{1,2}c?es{1,3}i?on"
            rf"|\b(?:acc|accn|acsn|access) ?{_NUMBER_WORD}\b|\b(?:acc|accn|acsn)\b"
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
    if find_keyword(header) or normalize_header(header) in KEYWORDS_BY_NAME:
        return ""
    for part in (header, *_NAME_SEPARATORS.split(header)):
        letters = _split_words(part).replace(" ", "")
        if letters in _KEYWORDS_BY_LETTERS:
            return _KEYWORDS_BY_LETTERS[letters]
    words = _split_words(header)
    letters = words.replace(" ", "")
    if not words or letters in _OTHER_KEYS_BY_LETTERS:
        return ""
    if _OTHER_NOUN.fullmatch(words.split()[-1]):
        misspelt = _find_misspelt_keyword(letters)
        return misspelt if misspelt in DATE_KEYS else ""
    if "#" in header:
        words += " no"
    for keyword, pattern in _SIMILAR_NAMES:
        if pattern.search(words):
            return keyword
    return _find_misspelt_keyword(letters)


#: Words for an examination, and for its order, in headers.
_EXAM = (
    "(?:exam|exams|examination|study|scan|scanning|imaging|image|radiology|rad|rx|procedure|proc|acquisition"
    "|acq|service|svc|ct|mri?|pet|xray|x ray|cxr|ultrasound|us|mammogram|mammography|mammo|untersuchungs?"
    "|studien|estudio|examen|esame|onderzoeks?)"
)
_ORDER = (
    "(?:exam|examination|order|placer|placer order|filler|filler order|requisition|req|request|requested"
    "|requested procedure|ris|pacs|radiology|rad|scan|imaging|procedure|proc|report|untersuchungs?|auftrags?"
    "|anforderungs?|zugangs?|esame|examen)"
)
_DATE = "(?:dates?|dt|datum|fecha|datetime|timestamp)"
_OF = "(?: of| der| des| de| del| d| dell)?(?: the| la| l)?"
_PERSON = "(?:patients?|pats?|pts?|patienten|patiente?|pacientes?|pazient[ei]|person|client|enterprise)"
#: Headers that may mean a key, as words from the first to the last.
_POSSIBLE_NAMES = (
    (
        "PatientID",
        re.compile(
            r"(?:the )?(?:patients?|pats?|pts?|patiente|pacientes?|pazient[ei])"
            rf"|{_PERSON} ?{_NUMBER}|{_NUMBER}{_OF} {_PERSON}|medical ?{_NUMBER}|chart|ipp|nhc"
            "|(?:numero )?historia clinica"
        ),
    ),
    ("AccessionNumber", re.compile(rf"{_ORDER} ?{_NUMBER}|{_NUMBER}{_OF} {_ORDER}")),
    (
        "StudyDate",
        re.compile(
            rf"{_DATE}(?: time)?|{_EXAM} ?{_DATE}(?: time)?|{_DATE}(?: time)?{_OF} {_EXAM}"
            r"|(?:date|dates) ?(?:done|performed|taken|scanned|imaged|examined)|data (?:esame|dell? esame)"
            r"|(?:scanned|imaged|examined|scan|exam) (?:on|day)|(?:day|tag)(?: of| der)?(?: the)? "
            rf"{_EXAM}|dos"
        ),
    ),
    (
        "StudyMonth",
        re.compile(rf"months?|monat|{_EXAM} ?(?:months?|monat)|months? of(?: the)? {_EXAM}"),
    ),
    ("StudyInstanceUID", re.compile(r"(?:dicom )?uids?")),
)
#: One end of a range of dates; both ends must be in the table.
_RANGE_ENDS = {
    "StudyDateFrom": "(?:from|start|starting|begin|beginning|first|earliest|since|after|min|von|ab)",
    "StudyDateUntil": "(?:to|until|till|end|ending|stop|last|latest|before|max|bis)",
}
_RANGE_END_NAMES = tuple(
    (keyword, re.compile(rf"(?:{_EXAM} )?(?:{words} ?{_DATE}|{_DATE} ?{words})"))
    for keyword, words in _RANGE_ENDS.items()
)
#: Words of tables on people: a number of such a person is rather a patient ID than an accession.
_OF_A_PERSON = re.compile(
    rf"(?:.*\b)?(?:{_PERSON}|subject|participant|case|record)s?(?: ?{_NUMBER})?|{_NUMBER}"
)
_ENDS_AS_DATE = re.compile(rf"(?!.*\b(?:birth|death)\b)(?:.*\b)?(?:{_DATE}|day|visit|encounter)")
_ENDS_AS_NUMBER = re.compile(rf"(?:.*\b)?(?:{_NUMBER}|exam|order|scan|study|imaging)")


def find_similar_range_end(name: str, header: Sequence[str]) -> str:
    """Return the end of a range that a header resembles, as ``From*`` does, if the table has both ends."""
    if find_keyword(name):
        return ""
    ends = {one: _RANGE_ENDS_BY_LETTERS.get(_split_words(one).replace(" ", ""), "") for one in header}
    return ends[name] if set(RANGE_COLUMNS) <= set(ends.values()) else ""


def find_possible_keyword(header: str) -> str:
    """Return the key that a header may mean, as ``Order Number``, ``Patient`` and ``Scan Date`` may.

    Empty for names of keys, for headers that resemble one, and for all others.
    """
    words = _split_words(header) + (" no" if "#" in header else "")
    if not words or find_keyword(header) or normalize_header(header) in KEYWORDS_BY_NAME:
        return ""
    for keyword, pattern in _POSSIBLE_NAMES:
        if pattern.fullmatch(words):
            return keyword
    letters = words.replace(" ", "")
    return "PatientID" if letters[:1] == "p" and _count_edits(letters, "patient") == 1 else ""


def find_possible_range_end(header: str) -> str:
    """Return the end of a range of dates that a header may mean, as ``Start Date`` and ``Date to`` may."""
    words = _split_words(header)
    return next((keyword for keyword, pattern in _RANGE_END_NAMES if pattern.fullmatch(words)), "")


def guess_keyword(header: str) -> str:
    """Return the most probable key of a column that is not used, for a suggestion; empty without a guess."""
    if found := find_similar_keyword(header) or find_possible_keyword(header):
        return found
    words = _split_words(header) + (" no" if "#" in header else "")
    if _ENDS_AS_DATE.fullmatch(words):
        return "StudyDate"
    if _OF_A_PERSON.fullmatch(words):
        return "PatientID"
    return "AccessionNumber" if _ENDS_AS_NUMBER.fullmatch(words) else ""


def _split_words(header: str) -> str:
    """Return the words of a header in lower case, without accents, digits and punctuation."""
    text = unicodedata.normalize("NFKD", header).translate(_INVISIBLE_CHARACTERS)
    text = _CAMEL_CASE.sub(" ", text).casefold().translate(_LOOKALIKES)
    text = "".join(char for char in text if not unicodedata.combining(char))
    return " ".join(re.findall(r"[^\W\d_]+", text))


def _find_misspelt_keyword(letters: str) -> str:
    for name, keyword in _KEYWORDS_BY_LETTERS.items():
        allowed = 2 if len(name) >= 10 else 1
        if len(name) < 8:
            # In a short name only two letters in exchanged order are a typing error: one other letter makes
            # another word.
            if _are_exchanged(name, letters):
                return keyword
        elif (
            abs(len(name) - len(letters)) <= allowed
            and _begin_alike(name, letters)
            and _count_edits(name, letters) <= allowed
        ):
            return keyword
    return ""


def _begin_alike(name: str, letters: str) -> bool:
    """Return whether the first letters are the same, exchanged, or one of them is missing."""
    return name[:1] == letters[:1] or name[1:3] == letters[:2] or name[:2] == letters[1::-1]


def _are_exchanged(name: str, letters: str) -> bool:
    """Return whether two neighbouring letters of a name of three or more are exchanged."""
    return len(name) >= 3 and any(
        letters == name[:at] + name[at + 1] + name[at] + name[at + 2 :] != name for at in range(len(name) - 1)
    )


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
