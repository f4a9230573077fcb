"""Attributes, UIDs, value representations and character sets of the standard (PS3.5, PS3.6).

The tables of attributes and UIDs are pydicom's. They are loaded without pydicom, which at its import loads
its readers, its pixel decoders and NumPy: a third of the time from the start of a command to its first query.
"""

from __future__ import annotations

import re
from functools import cache
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any, Final

#: Value representations with a length of 32 bits in Explicit VR (PS3.5 7.1.2).
LONG_VRS: Final = frozenset(["OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV"])

#: The other ones.
SHORT_VRS: Final = frozenset(
    {
        *("AE", "AS", "AT", "CS", "DA", "DS", "DT", "FD", "FL", "IS", "LO"),
        *("LT", "PN", "SH", "SL", "SS", "ST", "TM", "UI", "UL", "US"),
    }
)

#: Those whose text is in the dataset's character set (PS3.5 6.1.2.3).
CHARSET_VRS: Final = frozenset(["LO", "LT", "PN", "SH", "ST", "UC", "UT"])

#: Characters that bring back the first character set (PS3.5 6.1.2.5.3).
TEXT_DELIMITERS: Final = frozenset(b"\t\n\f\r")

#: The default repertoire, read as Latin-1: senders use it for more than ASCII.
DEFAULT_CODEC: Final = "iso8859"

#: Python's codec for every defined term of SpecificCharacterSet (PS3.3 C.12.1.1.2).
CODECS: Final = {
    "": DEFAULT_CODEC,
    "ISO_IR 6": DEFAULT_CODEC,
    "ISO_IR 13": "shift_jis",
    "ISO_IR 100": "latin_1",
    "ISO_IR 101": "iso8859_2",
    "ISO_IR 109": "iso8859_3",
    "ISO_IR 110": "iso8859_4",
    "ISO_IR 126": "iso_ir_126",
    "ISO_IR 127": "iso_ir_127",
    "ISO_IR 138": "iso_ir_138",
    "ISO_IR 144": "iso_ir_144",
    "ISO_IR 148": "iso_ir_148",
    "ISO_IR 166": "iso_ir_166",
    "ISO 2022 IR 6": DEFAULT_CODEC,
    "ISO 2022 IR 13": "shift_jis",
    "ISO 2022 IR 58": "iso_ir_58",
    "ISO 2022 IR 87": "iso2022_jp",
    "ISO 2022 IR 100": "latin_1",
    "ISO 2022 IR 101": "iso8859_2",
    "ISO 2022 IR 109": "iso8859_3",
    "ISO 2022 IR 110": "iso8859_4",
    "ISO 2022 IR 126": "iso_ir_126",
    "ISO 2022 IR 127": "iso_ir_127",
    "ISO 2022 IR 138": "iso_ir_138",
    "ISO 2022 IR 144": "iso_ir_144",
    "ISO 2022 IR 148": "iso_ir_148",
    "ISO 2022 IR 149": "euc_kr",
    "ISO 2022 IR 159": "iso2022_jp_2",
    "ISO 2022 IR 166": "iso_ir_166",
    "ISO 2022 58": "GB2312",
    "ISO 2022 GBK": "GBK",
    "ISO_IR 192": "UTF8",
    "GB18030": "GB18030",
    "GBK": "GBK",
}

#: Terms that are never one of several (PS3.3 C.12.1.1.2).
STAND_ALONE_TERMS: Final = ("ISO_IR 192", "GBK", "GB18030")

#: Python's codec for the escape sequences of code extensions (PS3.3 table C.12-3, C.12-4).
ESCAPED_CODECS: Final = {
    b"\x1b(B": DEFAULT_CODEC,
    b"\x1b-A": "latin_1",
    b"\x1b)I": "shift_jis",
    b"\x1b(J": "shift_jis",
    b"\x1b$B": "iso2022_jp",
    b"\x1b-B": "iso8859_2",
    b"\x1b-C": "iso8859_3",
    b"\x1b-D": "iso8859_4",
    b"\x1b-F": "iso_ir_126",
    b"\x1b-G": "iso_ir_127",
    b"\x1b-H": "iso_ir_138",
    b"\x1b-L": "iso_ir_144",
    b"\x1b-M": "iso_ir_148",
    b"\x1b-T": "iso_ir_166",
    b"\x1b$)C": "euc_kr",
    b"\x1b$(D": "iso2022_jp_2",
    b"\x1b$)A": "iso_ir_58",
}

#: Codecs of Python that read and write the escape sequences themselves.
ESCAPING_CODECS: Final = ("iso2022_jp", "iso2022_jp_2", "iso_ir_58")


def vr_of_tag(tag: int) -> str:
    """Return the value representation of a standard attribute; raises KeyError for any other one."""
    return _entry(tag)[0]


def vm_of_tag(tag: int) -> str:
    """Return the value multiplicity of a standard attribute; raises KeyError for any other one."""
    return _entry(tag)[1]


def keyword_of_tag(tag: int) -> str:
    """Return the keyword of a standard attribute, empty for any other one."""
    entry = _attributes().get(tag)
    return entry[4] if entry else ""


def tag_of_keyword(keyword: str) -> int | None:
    """Return the tag of a standard attribute."""
    return _tags().get(keyword)


def name_of_uid(uid: str) -> str:
    """Return the name of a UID of the standard; any other UID is its own name."""
    entry = _uids().get(uid)
    return entry[0] if entry else uid


def is_sop_class(uid: str) -> bool:
    """Return True for a UID that the standard defines as a SOP class."""
    entry = _uids().get(uid)
    return entry is not None and entry[1] == "SOP Class"


def _entry(tag: int) -> tuple[str, str, str, str, str]:
    return _attributes().get(tag) or _repeating()[_repeating_mask(f"{tag:08x}")]


def _repeating_mask(text: str) -> str:
    """Return the key of a tag of a repeating group (PS3.5 7.6), empty for any other one."""
    masks = (mask for mask in _repeating() if re.fullmatch(mask.replace("x", "."), text, re.IGNORECASE))
    return "" if int(text[3], 16) % 2 else next(masks, "")


def _attributes() -> dict[int, tuple[str, str, str, str, str]]:
    """Return (VR, VM, name, retired, keyword) by tag."""
    found: dict[int, tuple[str, str, str, str, str]] = _table("_dicom_dict").DicomDictionary
    return found


def _repeating() -> dict[str, tuple[str, str, str, str, str]]:
    """Return the same for the repeating groups, by tags with ``x`` for any digit."""
    found: dict[str, tuple[str, str, str, str, str]] = _table("_dicom_dict").RepeatersDictionary
    return found


@cache
def _tags() -> dict[str, int]:
    return {entry[4]: tag for tag, entry in _attributes().items()}


def _uids() -> dict[str, tuple[str, str, str, str, str]]:
    """Return (name, type, info, retired, keyword) by UID."""
    found: dict[str, tuple[str, str, str, str, str]] = _table("_uid_dict").UID_dictionary
    return found


@cache
def _table(name: str) -> Any:
    """Return one of pydicom's modules of tables; it imports nothing itself."""
    package = find_spec("pydicom")
    folder = Path(package.origin).parent if package and package.origin else Path()
    spec = spec_from_file_location(f"{__name__}.{name}", folder / f"{name}.py")
    if spec is None or spec.loader is None:
        raise ImportError(f"pydicom has no module {name}", name=name)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
