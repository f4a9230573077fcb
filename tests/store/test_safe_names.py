"""Names are safe everywhere, and different values never share one."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from dicom_quarry.store.safe_names import RESERVED, NameRule, add_suffix, component, distinct, plain

#: Letters that fold, compose or expand, and characters with a meaning to file systems, shells or the scheme.
NASTY = (
    "aAbBkKsS\u212aßẞſéÉe\u0301µμσςΣıİiIǅᎠꭰ각가ᄀ\u11a8山ﬁ１①._ %~-=+@0123456789xX"
    '/\\:*?"<>|\0\n\x1b[\x7f\u202e\ud800'
    "\u3164\u115f\u1160ＡａＢﬁ"
)
nasty_text = (
    st.text(st.sampled_from(NASTY), max_size=12)
    | st.text(max_size=12)
    | st.sampled_from([*sorted(RESERVED), "MISMATCH", "Report.CSV", "ｍismatch", "mıſmatch"])
)
rules = st.sampled_from(NameRule)


def as_a_sloppy_file_system_sees(name: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def as_a_very_sloppy_file_system_sees(name: str) -> str:
    """Ignores compatible forms, as ZFS can, and letters that are not shown, as ext4 does."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
    return folded.translate(dict.fromkeys(map(ord, "\u115f\u1160\u3164\uffa0")))


#: A file system on which each rule must keep all names apart.
SEEN: dict[NameRule, Callable[[str], str]] = {
    NameRule.VALUES: str,
    NameRule.PORTABLE: as_a_very_sloppy_file_system_sees,
    NameRule.LEGACY: as_a_sloppy_file_system_sees,
}


def named(value: str, rule: NameRule) -> str:
    return component(distinct(value, rule), rule)


VARIATIONS = (
    str.upper,
    str.lower,
    str.swapcase,
    str.casefold,
    str.title,
    lambda text: unicodedata.normalize("NFC", text),
    lambda text: unicodedata.normalize("NFD", text),
    lambda text: unicodedata.normalize("NFKC", text),
    lambda text: text + ".",
    lambda text: text + " ",
    lambda text: text + "~",
    lambda text: component(distinct(text)),
)


@settings(max_examples=300, deadline=None)
@given(nasty_text, st.sampled_from(VARIATIONS) | nasty_text, rules)
def test_two_values_never_share_a_name(one: str, change: object, rule: NameRule) -> None:
    other = change(one) if callable(change) else str(change)
    assume(one != other)
    seen = [SEEN[rule](named(value, rule)) for value in (one, other)]
    assert seen[0] != seen[1]


@settings(max_examples=200, deadline=None)
@given(st.integers(100, 400), nasty_text, nasty_text, rules)
def test_long_values_that_begin_alike_stay_apart(length: int, one: str, other: str, rule: NameRule) -> None:
    assume(one != other)
    long = "x" * length
    names = {SEEN[rule](named(long + end, rule)) for end in (one, other)}
    assert len(names) == 2


@settings(max_examples=200, deadline=None)
@given(
    nasty_text,
    st.sampled_from(["", ".csv", "~", "~2"]),
    st.sampled_from([NameRule.VALUES, NameRule.PORTABLE]),
)
def test_no_value_meets_a_name_of_quarrys_own(value: str, end: str, rule: NameRule) -> None:
    for made in (distinct(value, rule), plain(value)):
        name = component(made + end, rule)
        assert as_a_sloppy_file_system_sees(name) not in RESERVED
        assert rule is NameRule.PORTABLE or not name.endswith("~")


@settings(max_examples=200, deadline=None)
@given(nasty_text | st.text(max_size=80))
def test_a_name_gives_its_value_back(value: str) -> None:
    name = named(value, NameRule.VALUES)
    assume("~~" not in name)
    assert name == unicodedata.normalize("NFC", name)
    decoded = re.sub(
        "(?:%[0-9A-F]{2})+",
        lambda found: bytes.fromhex(found[0].replace("%", "")).decode("utf-8", "surrogatepass"),
        name,
    )
    assert ("" if name == "_" else decoded) == value


def assert_safe(name: str) -> None:
    assert name not in ("", ".", "..")
    assert len(name.encode()) <= 180
    assert name.isprintable()
    assert not re.search(r'[/\\:*?"<>|]', name)
    assert name[0] not in ".-" and name[-1] not in ". "
    assert name.split(".")[0].rstrip().upper() not in {"CON", "PRN", "AUX", "NUL", "COM1", "LPT9"}


@settings(max_examples=300, deadline=None)
@given(nasty_text | st.text(max_size=400), st.booleans(), st.sampled_from(["", ".dcm"]), rules)
def test_every_name_is_safe(value: str, is_distinct: bool, extension: str, rule: NameRule) -> None:
    assert_safe(component((distinct(value, rule) if is_distinct else plain(value)) + extension, rule))


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ("4711", "4711"),
        ("ABC123", "ABC123"),
        ("abc123", "abc123~"),
        ("Smith^John", "Smith^John~1de"),
        ("1.2.840.113619.2.55", "1.2.840.113619.2.55"),
        ("A-1_B", "A-1_B"),
        ("DOE^JANE Q", "DOE^JANE Q"),
        ("MÜLLER", "MÜLLER"),
        ("山田^太郎", "山田^太郎"),
        ("", "_"),
        ("_", "%5F"),
        (".", "%2E"),
        ("..", "%2E%2E"),
        ("../../etc", "%2E.%2F..%2Fetc~"),
        ("/etc", "%2Fetc~"),
        ("-rf", "%2Drf~"),
        ("--", "%2D-"),
        ("-", "%2D"),
        ("A-", "A-"),
        (".HIDDEN", "%2EHIDDEN"),
        ("a\\b", "a%5Cb~"),
        ("A\0B", "A%00B"),
        ("A\nB", "A%0AB"),
        ("\x1b[31m", "%1B%5B31m~"),
        ("A.", "A%2E"),
        ("A ", "A%20"),
        ("CON", "%43ON"),
        ("nul.dcm", "%6Eul.dcm~"),
        ("50%", "50%25"),
        ("e\u0301", "e%CC%81~"),
    ],
)
def test_portable_names_of_values(value: str, name: str) -> None:
    assert named(value, NameRule.PORTABLE) == named(value, NameRule.LEGACY) == name


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ("MISMATCH", "%4DISMATCH"),
        ("NON-PATIENT", "%4EON-PATIENT"),
        ("SHA256SUMS", "%53HA256SUMS"),
        ("REPORT.XLSX", "%52EPORT.XLSX"),
        ("Ａ1", "%EF%BC%A11"),
    ],
)
def test_portable_names_that_were_not_protected_before(value: str, name: str) -> None:
    assert named(value, NameRule.PORTABLE) == name
    assert named(value, NameRule.LEGACY) == value


@pytest.mark.parametrize(
    "value",
    [
        "4711",
        "abc123",
        "case",
        "Case-17",
        "a b",
        "a.b@c+d=e_f",
        "müller",
        "МРТ",
        "山田",
        "ΣΑΣ",
        "ＡＢ",
        "e-mail@x.org",
    ],
)
def test_the_name_is_the_value(value: str) -> None:
    assert named(value, NameRule.VALUES) == value


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ("", "_"),
        ("_", "%5F"),
        ("abc~", "abc%7E"),
        ("a~2", "a%7E2"),
        ("-rf", "%2Drf"),
        (".quarry", "%2Equarry"),
        ("..", "%2E%2E"),
        ("a/b", "a%2Fb"),
        ("a ", "a%20"),
        ("Doe^Jane", "Doe%5EJane"),
        ("x(1)#,;'", "x%281%29%23%2C%3B%27"),
        ("50%", "50%25"),
        ("e\u0301", "e%CC%81"),
        ("\u212b", "%E2%84%AB"),
        ("mismatch", "%6Dismatch"),
        ("report.csv", "%72eport.csv"),
        ("SHA256SUMS", "%53HA256SUMS"),
        ("non-patient", "%6Eon-patient"),
        ("problems.csv", "%70roblems.csv"),
        ("con", "%63on"),
    ],
)
def test_what_is_not_safe_is_encoded(value: str, name: str) -> None:
    assert named(value, NameRule.VALUES) == name


@pytest.mark.parametrize("device", ["CON", "con", "Aux.dcm", "COM1", "lpt9.txt", "NUL .x"])
def test_device_names_are_defused_wherever_they_come_from(device: str) -> None:
    assert component(device).startswith("%")


@pytest.mark.parametrize(
    ("text", "name"), [("x.", "x%2E"), ("x ", "x%20"), (".dcm", "_.dcm"), ("..", "_.%2E"), ("-x", "_-x")]
)
def test_what_literal_text_makes_of_a_component_is_safe_too(text: str, name: str) -> None:
    assert component(text) == name


def test_long_names_are_cut_and_told_apart() -> None:
    names = {component(distinct("X" * 300 + end) + ".dcm") for end in "AB"}
    assert len(names) == 2
    assert all(len(name) == 124 and name.endswith(".dcm") for name in names)
    assert len({component("é" * 200 + end + ".dcm") for end in "AB"}) == 2
    assert len(component("é" * 200 + ".dcm").encode()) <= 180


@pytest.mark.parametrize(
    ("name", "suffix", "result"),
    [
        ("1.2.3.dcm", "2", "1.2.3~2.dcm"),
        ("1.2.3", "2", "1.2.3~2"),
        ("IM1", "1.2.3", "IM1~1.2.3"),
        ("é" * 120 + ".dcm", "2", "é" * 120 + "~2.dcm"),
    ],
)
def test_suffixes(name: str, suffix: str, result: str) -> None:
    assert add_suffix(name, suffix) == result


def test_a_suffix_fits_into_what_file_systems_take() -> None:
    name = add_suffix("é" * 90, "1." * 64)
    assert name.endswith("~" + "1." * 64)
    assert len(name.encode()) <= 255
