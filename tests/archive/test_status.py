"""One line of the field guide, or of the standard, is one line here."""

from __future__ import annotations

import pytest

from dicom_quarry.archive.base import Verdict
from dicom_quarry.archive.dimse.status import interpret_find, interpret_move, is_pending

V = Verdict


@pytest.mark.parametrize(
    ("code", "verdict", "words"),
    [
        (0x0000, V.SUCCESS, "success"),
        (0x0001, V.WARNING, "optional"),
        (0x0105, V.UNSUPPORTED, "attribute"),
        (0x0106, V.UNSUPPORTED, "invalid"),
        (0x0107, V.WARNING, "attribute"),
        (0x0110, V.RETRY, "processing"),
        (0x0111, V.UNSUPPORTED, "duplicate"),
        (0x0112, V.RETRY, "does not find"),
        (0x0115, V.UNSUPPORTED, "argument"),
        (0x0116, V.WARNING, "range"),
        (0x0117, V.UNSUPPORTED, "UID"),
        (0x0118, V.UNSUPPORTED, "SOP class"),
        (0x0119, V.UNSUPPORTED, "conflict"),
        (0x0120, V.UNSUPPORTED, "requires another attribute"),
        (0x0121, V.UNSUPPORTED, "requires another value"),
        (0x0122, V.UNSUPPORTED, "model"),
        (0x0124, V.CONFIGURATION, "authorise"),
        (0x0210, V.RETRY, "duplicate"),
        (0x0211, V.UNSUPPORTED, "operation"),
        (0x0212, V.UNSUPPORTED, "malformed"),
        (0x0213, V.RETRY, "resources"),
    ],
)
def test_a_general_status_means_the_same_for_both_operations(code: int, verdict: Verdict, words: str) -> None:
    assert interpret_find(code) == interpret_move(code)
    assert interpret_find(code).verdict is verdict
    assert words in interpret_find(code).sentence


@pytest.mark.parametrize(
    ("code", "verdict", "words"),
    [
        (0xA700, V.RETRY, "out of resources"),
        (0xA900, V.UNSUPPORTED, "keys"),
        (0xC000, V.RETRY, "unable to process the request (C000)"),
        (0xC001, V.RETRY, "(C001)"),
        (0xCFFF, V.RETRY, "(CFFF)"),
        (0xFE00, V.CANCELLED, "limit of answers"),
    ],
)
def test_find(code: int, verdict: Verdict, words: str) -> None:
    meaning = interpret_find(code)
    assert meaning.verdict is verdict
    assert words in meaning.sentence
    assert meaning.next_step


@pytest.mark.parametrize(
    ("code", "counters", "verdict", "words", "next_step"),
    [
        (0x0000, (5, 0), V.SUCCESS, "success", ""),
        (0x0000, (None, None), V.SUCCESS, "success", ""),
        (0x0000, (0, 0), V.SUCCESS, "success", ""),
        (0x0000, (0, 5), V.RETRY, "every instance failed", "address and port"),
        (0x0000, (None, 5), V.RETRY, "every instance failed", "address and port"),
        (0x0000, (3, 2), V.WARNING, "some instances failed", "missing"),
        (0xA700, (None, None), V.RETRY, "out of resources", "later"),
        (0xA701, (None, None), V.RETRY, "cannot count", "by series"),
        (0xA702, (None, None), V.RETRY, "sub-operations", "address and port"),
        (0xA801, (None, None), V.CONFIGURATION, "destination", "Register"),
        (0xA900, (None, None), V.UNSUPPORTED, "keys", "other"),
        (0xB000, (3, 2), V.WARNING, "not send every", "missing"),
        (0xB000, (None, None), V.WARNING, "not send every", "missing"),
        (0xB000, (0, 5), V.RETRY, "sent nothing", "address and port"),
        (0xC000, (0, 0), V.RETRY, "could not start", "Register"),
        (0xC000, (None, None), V.RETRY, "could not start", "Register"),
        (0xC123, (4, 1), V.RETRY, "unable to process", "log"),
        (0xC502, (0, 5), V.RETRY, "could not connect", "address and port"),
        (0xFE00, (1, 0), V.CANCELLED, "cancelled", ""),
    ],
)
def test_move(
    code: int, counters: tuple[int | None, int | None], verdict: Verdict, words: str, next_step: str
) -> None:
    meaning = interpret_move(code, completed=counters[0], failed=counters[1])
    assert meaning.verdict is verdict
    assert words in meaning.sentence
    assert next_step in meaning.next_step
    assert bool(next_step) == bool(meaning.next_step)


@pytest.mark.parametrize(
    ("code", "verdict"),
    [
        (0xA123, V.RETRY),
        (0xB006, V.WARNING),
        (0xBFFF, V.WARNING),
        (0xFE01, V.CANCELLED),
        (0x0199, V.RETRY),
        (0x0299, V.RETRY),
        (0x7777, V.RETRY),
        (0xF000, V.RETRY),
        (0xFF02, V.RETRY),
    ],
)
def test_an_unknown_code_is_judged_by_its_range_and_named(code: int, verdict: Verdict) -> None:
    for meaning in (interpret_find(code), interpret_move(code, completed=1)):
        assert meaning.verdict is verdict
        assert f"{code:04X}" in meaning.sentence


def test_every_code_has_a_meaning_and_only_0000_is_success() -> None:
    for code in range(0x10000):
        for meaning in (interpret_find(code), interpret_move(code)):
            assert meaning.sentence
            assert (meaning.verdict is V.SUCCESS) == (code == 0)


def test_only_ff00_and_ff01_are_pending() -> None:
    assert [code for code in range(0x10000) if is_pending(code)] == [0xFF00, 0xFF01]
