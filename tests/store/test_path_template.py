"""Path patterns: dcm4che's forms with their vectors, mistakes, and paths that stay below the root."""

from __future__ import annotations

import re
import warnings
from pathlib import PurePosixPath

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dicom_quarry.errors import ConfigError
from dicom_quarry.store.path_template import PathTemplate
from dicom_quarry.store.safe_names import NameRule

HEADER = {
    0x00080008: "ORIGINAL\\PRIMARY\\AXIAL",
    0x00080018: "1.2.3.4.5",
    0x00080020: "20111012",
    0x00080030: "0930",
    0x00080050: "acc 1~&*",
    0x00100010: "Doe^Jane",
    0x00100020: "4711",
    0x0020000D: "1.2.3",
    0x0020000E: "1.2.3.4",
    0x00200013: "7",
    0x00280030: "0.5\\0.25",
}
DEFAULT = "{00100020}/{0020000D}/{0020000E}/{00080018}.dcm"


def rendered(pattern: str, header: dict[int, str] | None = None, **cells: str) -> str:
    template = PathTemplate.parse(pattern, columns=cells, for_job=False)
    return str(template.render(HEADER if header is None else header, cells))


def test_the_default_pattern() -> None:
    template = PathTemplate.parse(DEFAULT)
    assert template.tags == {0x00100020, 0x0020000D, 0x0020000E, 0x00080018}
    assert template.render(HEADER) == PurePosixPath("4711/1.2.3/1.2.3.4/1.2.3.4.5.dcm")


def test_dcm4ches_own_example() -> None:
    pattern = (
        "{00080020,date,yyyy/MM/dd}/{00080030,time,HH}/{0020000D,hash}/{0020000E,hash}/"
        "{00080008[1]}/{00080018}.dcm"
    )
    assert rendered(pattern) == "2011/10/12/09/02C82A3A/71668980/PRIMARY/1.2.3.4.5.dcm"


@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        ("{PatientID}", "4711"),
        ("{patient}", None),
        ("{00100010,upper}", "DOE^JANE"),
        ("{00100020,slice,1}", "711"),
        ("{00100020,slice,1,3}", "71"),
        ("{00100020,slice,-2}", "11"),
        ("{00100020,slice,-9,2}", "47"),
        ("{00100020,slice,0,-1}", "471"),
        ("{00100020,slice,1,99}", "711"),
        ("x{00100020,slice,9}", "x"),
        ("x{00100020,slice,3,1}", "x"),
        ("x{00100020,slice,0,-9}", "x"),
        ("{00200013,offset,100}", "107"),
        ("{00200013,offset,-10}", "_-3"),
        ("{00100010,offset,5}", "5"),
        ("{00200013,number,000}", "007"),
        ("{00200013,number,IM0000.dcm}", "IM0007.dcm"),
        ("{00280030,number,0.00}", "0.50"),
        ("{00280030[1],number,0.0}", "0.2"),  # half to even, as Java
        ("{00100020,number,#,##0}", "4,711"),
        ("{00100020,number}", "4,711"),
        ("{00100010,number,00}", "00"),
        ("{00200013,choice,0#low|5#mid|9#high}", "mid"),
        ("{00200013,choice,0#low|7<high}", "low"),
        ("{00200013,choice,8#eight|9#nine}", "eight"),
        ("{00080020,date,yyyyMMdd}", "20111012"),
        ("{00080020,date,yy-M-d}", "11-10-12"),
        ("{00080020,date,'y'yyyy'''x'}", "y2011'x"),
        ("{00080020,date,DDD}", "285"),
        ("{00080020,date-P1M,yyyyMMdd}", "20110912"),
        ("{00080020,date+P1Y2M3D,yyyyMMdd}", "20121215"),
        ("{00080020,date-P2W,yyyyMMdd}", "20110928"),
        ("{00080030,time,HHmmss}", "093000"),
        ("{00080030,time+PT30M,HHmm}", "1000"),
        ("{00080030,time-PT10H,HHmm}", "2330"),
        ("{0020000D,hash}", "02C82A3A"),
        ("{00080018,md5}", "08vpsu2l2shpb0kc3orpgfnhv0"),
        ("{00080050,urlencoded}", "acc+1%7E%26%2A"),
        ("{00080050}", "acc 1%7E%26%2A~"),
        ("{00080008}", "ORIGINAL"),
        ("{00080008[2]}", "AXIAL"),
        ("x{00080008[9]}", "x"),
        ("it''s '{00100020}'/x", "it's {00100020}/x"),
        ("a'b/c'd", "ab/cd"),
        ("{csv:Site}/{00080018}", "A%2FB/1.2.3.4.5"),
    ],
)
def test_forms(pattern: str, path: str | None) -> None:
    if path is None:
        with pytest.raises(ConfigError):
            rendered(pattern, Site="A/B")
    else:
        assert rendered(pattern, Site=" A/B ") == path


@pytest.mark.parametrize(
    ("pattern", "patient", "path"),
    [
        ("{00100020}/{00080018}", "case", "case/1.2.3.4.5"),
        ("{00100020}/{00080018}", "mismatch", "%6Dismatch/1.2.3.4.5"),
        ("x/{00100020}/{00080018}", "report.csv", "x/%72eport.csv/1.2.3.4.5"),
        # Values that make a reserved name together with text, or by a form that keeps no values apart.
        ("mis{00100020}/{00080018}", "match", "%6Dismatch/1.2.3.4.5"),
        ("{00100020}.csv/{00080018}", "report", "%72eport.csv/1.2.3.4.5"),
        ("{00100020,slice,0,8}/{00080018}", "mismatches", "%6Dismatch/1.2.3.4.5"),
        ("{00100020,urlencoded}/{00080018}", "SHA256SUMS", "%53HA256SUMS/1.2.3.4.5"),
        ("{00100020,slice,0,4}/{00080018}", "abc~1", "abc%7E/1.2.3.4.5"),
        # The user's own words below the first level stay.
        ("x/mismatch/{00100020}/{00080018}", "a", "x/mismatch/a/1.2.3.4.5"),
        ("x/{00080018}/report.csv", "a", "x/1.2.3.4.5/report.csv"),
        ("{00100020}/mismatch/{00080018}", "mismatch", "%6Dismatch/mismatch/1.2.3.4.5"),
        ("{csv:Site}/{00080018}", "", "Emory/1.2.3.4.5"),
    ],
)
def test_names_that_are_values(pattern: str, patient: str, path: str) -> None:
    template = PathTemplate.parse(pattern, columns=["Site"], names=NameRule.VALUES)
    assert str(template.render({**HEADER, 0x00100020: patient}, {"Site": "Emory"})) == path


@pytest.mark.parametrize("name", ["mismatch", "Report.csv", "'SHA256SUMS'", "non-patient"])
def test_a_pattern_cannot_begin_with_a_name_of_quarrys_own(name: str) -> None:
    for rule in (NameRule.VALUES, NameRule.PORTABLE):
        with pytest.raises(ConfigError, match="Quarry's own files"):
            PathTemplate.parse(f"{name}/{{00080018}}", names=rule)
    # A job that was begun so goes on.
    PathTemplate.parse(f"{name}/{{00080018}}", names=NameRule.LEGACY)


@pytest.mark.parametrize(
    ("form", "path"),
    [
        ("", "_"),
        (",upper", "_"),
        (",slice,0,2", "_"),
        (",offset,3", "3"),
        (",number,000", "000"),
        (",choice,0#none|1#some", "none"),
        (",date,yyyy", "null"),
        (",time,HH", "null"),
        (",hash", "null"),
        (",md5", "null"),
        (",urlencoded", "null"),
    ],
)
def test_missing_and_empty_attributes(form: str, path: str) -> None:
    assert rendered(f"{{00100020{form}}}", {}) == path
    assert rendered(f"{{00100020{form}}}", {0x00100020: ""}) == path


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("20240229", "2024-02-29 00:00:00.000"),
        ("2024.02.29", "2024-02-29 00:00:00.000"),
        ("20240229120060.5+0100", "2024-02-29 12:00:59.500"),
        ("2024", "2024-01-01 00:00:00.000"),
        ("20230229", "null"),
        ("yesterday", "null"),
    ],
)
def test_dates_in_all_their_forms(value: str, text: str) -> None:
    pattern = "{0008002A,date,yyyy-MM-dd HH}.{0008002A,date,mm}.{0008002A,date,ss.SSS}"
    assert rendered(pattern, {0x0008002A: value}).replace(".", ":", 2) in (text, "null:null:null")
    assert (text == "null") == ("null" in rendered(pattern, {0x0008002A: value}))


def test_a_shift_beyond_the_calendar_is_null() -> None:
    assert rendered("{00080020,date+P9999Y,yyyy}") == "null"
    assert rendered("{00080020,date-P3000Y,yyyy}") == "null"
    assert rendered("{00080020,date+P1M,MMdd}", {0x00080020: "20230131"}) == "0228"


def test_random_and_now_are_for_the_stand_alone_receiver() -> None:
    assert re.fullmatch(r"[0-9A-F]{8}", rendered("{rnd}"))
    assert re.fullmatch(r"[0-9a-f]{8}-[0-9a-f-]{27}", rendered("{rnd,uuid}"))
    assert re.fullmatch(r"2\.25\.\d{20,39}", rendered("{rnd,uid}"))
    assert re.fullmatch(r"2\d{7}/\d{6}", rendered("{now,date,yyyyMMdd}/{now,time,HHmmss}"))
    for pattern in ("{rnd}/{00080018}", "{now,date,yyyy}/{00080018}"):
        with pytest.raises(ConfigError, match="run again"):
            PathTemplate.parse(pattern)


@pytest.mark.parametrize(
    "part", ["{00080018}", "{SOPInstanceUID}", "{00080018,md5}", "{00080018,urlencoded}"]
)
def test_in_a_job_a_part_names_the_instance(part: str) -> None:
    PathTemplate.parse(f"x/{part}")


@pytest.mark.parametrize(
    "pattern",
    ["{00100020}", "{00080018,hash}", "{00080018,slice,1}", "{InstanceNumber}", "x", "'{00080018}'"],
)
def test_in_a_job_a_pattern_without_the_instance_is_refused(pattern: str) -> None:
    with pytest.raises(ConfigError, match="00080018"):
        PathTemplate.parse(pattern)


@pytest.mark.parametrize(
    "pattern",
    [
        "",
        "/{00080018}",
        "{00080018}/",
        "a//{00080018}",
        "../{00080018}",
        "./{00080018}",
        "a/../{00080018}",
        ".quarry/{00080018}",
        "a\\b{00080018}",
        "a\n{00080018}",
        "a\0{00080018}",
        "{00080018",
        "00080018}",
        "{{00080018}}",
        "'{00080018}",
        "{}",
        "{00080018,}x{",
        "{00080018,upper,x}",
        "{00080018,frobnicate}",
        "{00080018,slice}",
        "{00080018,slice,a}",
        "{00080018,offset}",
        "{00080018,offset,x}",
        "{00080018,number,abc}",
        "{00080018,choice,abc}",
        "{00080018,choice,2#a|1#b}",
        "{00080018,date}",
        "{00080018,date,QQ}",
        "{00080018,date,MMM}",
        "{00080018,date,'yy}",
        "{00080018,date-1M,yyyy}",
        "{00080018,date-PT1H,yyyy}",
        "{00080018,time+P1M,HH}",
        "{00080018,time+PT,HH}",
        "{NoSuchKeyword}",
        "{0008001}",
        "{00080018[x]}",
        "{00400275.00400007}",
        "{RequestAttributesSequence}",
        "{00020010}",
        "{7FE00010}",
        "{csv:Nope}",
        "{rnd,x}",
        "{now}",
        "{now,hash}",
        "a/" * 16 + "{00080018}",
    ],
)
def test_mistakes_are_errors_at_the_start(pattern: str) -> None:
    with pytest.raises(ConfigError):
        PathTemplate.parse(pattern, columns=["Site"], for_job=False)


values = st.text(max_size=80) | st.sampled_from(
    ["..", ".", "/", "../..", "a/../b", "\0", "CON", "x" * 300, ""]
)
fields = st.sampled_from(
    [
        "{00100020}",
        "{00100010,upper}",
        "{00100010,slice,0,2}",
        "{00080050,urlencoded}",
        "{00080008[1]}",
        "{00080020,date,yyyy/MM/dd}",
        "{00200013,choice,0#../..|1#//}",
        "{00200013,number,0}",
        "{00080020,date,/}",
        "{csv:Site}",
    ]
)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(fields | st.sampled_from(["x", "'..'", "x."]), min_size=1, max_size=4),
    st.lists(values, min_size=6, max_size=6),
    values,
    st.sampled_from(NameRule),
)
def test_no_value_leaves_the_root(parts: list[str], texts: list[str], cell: str, rule: NameRule) -> None:
    tags = (0x00100020, 0x00100010, 0x00080050, 0x00080008, 0x00080020, 0x00200013)
    pattern = "x" + "/".join(parts).replace("/'", "/x'")
    template = PathTemplate.parse(pattern, columns=["Site"], for_job=False, names=rule)
    path = template.render(dict(zip(tags, texts, strict=True)), {"Site": cell})
    assert not path.is_absolute()
    assert path.parts
    for part in path.parts:
        assert part not in ("", ".", "..")
        assert part.isprintable()
        assert part[0] not in ".-"
        assert "\\" not in part
        assert len(part.encode()) <= 180


@pytest.fixture(autouse=True)
def strict() -> None:
    warnings.simplefilter("error")
