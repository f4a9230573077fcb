"""Character sets: pydicom's reading of them, without what a stranger could do with it."""

from __future__ import annotations

import encodings
import random
import time
import warnings

import pytest
from pydicom.charset import CODES_TO_ENCODINGS, convert_encodings, decode_bytes, python_encoding
from pydicom.valuerep import TEXT_VR_DELIMS

from dicom_quarry.wire.charsets import codecs_of, decode, readings

TERMS = (*python_encoding, "ISO IR 100", "ISO-IR 144", "ISO-2022-IR 87", "FOO", "idna", "ISO_IR 999", "big5")
PIECES = (
    *CODES_TO_ENCODINGS,
    b"\x1b",
    b"\x1b$",
    b"\\",
    b"^",
    b"abc",
    b"\xe4\xf6",
    b"\xbb\xb3",
    b";3ED",
    b"\0",
)


def pydicoms(charset: str, raw: bytes) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = [
            "latin-1" if name in ("idna", "big5") else name for name in convert_encodings(charset.split("\\"))
        ]
        text = decode_bytes(raw, found, TEXT_VR_DELIMS)
    return raw.decode("latin-1") if "\ufffd" in text else text


def test_text_is_read_as_pydicom_reads_it() -> None:
    dice = random.Random(3)
    for _ in range(3000):
        charset = "\\".join(dice.choice(TERMS) for _ in range(dice.choice((1, 1, 2, 3))))
        raw = b"".join(dice.choice(PIECES) for _ in range(dice.randint(0, 8)))
        assert decode(raw, codecs_of(charset.encode())) == pydicoms(charset, raw)


@pytest.mark.parametrize("charset", ["", "FOO", "ISO_IR 6"])
def test_text_without_a_known_character_set_is_utf_8_if_it_can_be(charset: str) -> None:
    codecs = codecs_of(charset.encode())
    assert decode("Müller".encode(), codecs) == "Müller"
    assert decode("Müller".encode("latin-1"), codecs) == "Müller"


def test_a_declared_character_set_counts_if_the_bytes_fit_it() -> None:
    assert decode("Müller".encode(), codecs_of(b"ISO_IR 100")) == "MÃ¼ller"
    assert readings("MÃ¼ller") == {"MÃ¼ller", "Müller"}
    assert readings("Müller") == {"Müller"}
    assert decode("Müller".encode("latin-1"), codecs_of(b"ISO_IR 192")) == "Müller", "they do not fit"


@pytest.mark.parametrize(
    ("charset", "codec"),
    [
        (b"UTF-8", "utf_8"),
        (b"latin1 ", "latin_1"),
        (b"sjis", "shift_jis"),
        (b"a\0b", "iso8859"),
        (b"", "iso8859"),
    ],
)
def test_names_that_are_not_dicoms(charset: bytes, codec: str) -> None:
    assert codecs_of(charset) == (codec,)


def test_strange_terms_leave_no_trace() -> None:
    remembered = len(vars(encodings)["_cache"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for number in range(100):
            decode(b"\x1b?", codecs_of(b"X%d\\ISO_IR 192\\\x1b[31m" % number))
            decode(b"\xff\x1b$B\xff", codecs_of(b"\\ISO 2022 IR 87"))
    assert len(vars(encodings)["_cache"]) == remembered


def test_many_terms_and_many_escapes_take_no_longer_than_their_length() -> None:
    begun = time.perf_counter()
    decode(b"\x1b$B" * 20_000, codecs_of(b"\\" * 65_000))  # 17 s where each escape looks at each term
    assert time.perf_counter() - begun < 2
