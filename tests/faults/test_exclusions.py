"""Exclusion lists that are not understood completely, and identifiers that are hidden in images."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from dicom_quarry.errors import InputError
from tests.cohort.workbooks import LITERAL, number, sheet, text, workbook
from tests.e2e.command import files, quarry
from tests.faults.documented_tests import SHOWN, Shown, shows
from tests.faults.scenario import COMPLETE, STUDIES, by_accession
from tests.faults.scenario_runner import Stage, address, outcomes, stored
from tests.scripted.archive import ScriptedArchive
from tests.scripted.store_faults import Of, Spoiled

ITEM = 31
EXCLUDED = ("excluded", "excluded_on_arrival")
REFUSED = "ends with exit code 2 before the archive is queried; the message has the place and the remedy"
HIDDEN = "OPTED-OUT 7"

_HEADER = [text("MRN"), text("Note")]
_MERGED = '</sheetData><mergeCells><mergeCell ref="A2:A3"/></mergeCells><sheetData>'
_HIDDEN_COLUMN = '</sheetData><cols><col min="2" max="2" hidden="1"/></cols><sheetData>'


def _book(*sheets: str) -> bytes:
    return workbook(*((f"S{n}", one) for n, one in enumerate(sheets, 1)))


#: Name, the fault, the file, and a part of the message.
LISTS: tuple[tuple[str, str, str | bytes, str], ...] = (
    ("star", "a column MRN* beside EMPI", "EMPI,MRN*\n1,4711\n", "line 1: the header 'MRN*' of column 2"),
    (
        "number-sign",
        "a column Patient ID # beside Accession",
        "Accession,Patient ID #\n1,4711\n",
        "of column 2",
    ),
    (
        "brackets",
        "a column MRN (hospital) alone",
        "MRN (hospital)\n4711\n",
        "of column 1 resembles PatientID",
    ),
    ("misspelt", "a column Acession No beside MRN", "MRN,Acession No\n1,A7\n", "resembles AccessionNumber"),
    ("bare", "a column ID beside MRN", "MRN,ID\n1,4711\n", "the header 'ID' of column 2"),
    (
        "no-header",
        "a value below an empty header",
        "MRN,\n1,4711\n",
        "line 2: column 2 has a value, but no header",
    ),
    ("semicolon", "4711; 4712 in one cell", "MRN\n4711; 4712\n", "row 1, line 2: column 'MRN': "),
    ("slash", "4711/4712 in one cell", "MRN\n1\n4711/4712\n", "row 2, line 3: column 'MRN': "),
    ("lines", "two lines in one cell", 'MRN\n"4711\n4712"\n', "several lines"),
    ("remark", "4711 (withdrew) in one cell", "MRN\n4711 (withdrew)\n", "row 1, line 2: column 'MRN': "),
    ("range", "1001-1005 in one cell", "MRN\n1001-1005\n", "a range"),
    ("second-table", "a second table below the first", "MRN\n1\n\nAccession\nA7\n", '"Accession" is a word'),
    (
        "sheets",
        "a second sheet with values",
        _book(sheet([_HEADER, [text("1")]]), sheet([_HEADER])),
        "the sheet 'S2'",
    ),
    ("formula", "a formula without a result", _book(sheet([_HEADER, ['><f>A9&amp;"1"</f>']])), "cell A2"),
    (
        "format",
        "a number that is shown in another form",
        _book(sheet([_HEADER, [number("7", LITERAL)]])),
        "cell A2",
    ),
    (
        "hidden-row",
        "a row that a filter hides",
        _book(sheet([_HEADER, [text("1")], [text("4711")]]).replace('<row r="3"', '<row r="3" hidden="1"')),
        "1 row is hidden (row 3)",
    ),
    (
        "hidden-column",
        "a hidden column",
        _book(_HIDDEN_COLUMN + sheet([_HEADER, [text("1")]])),
        "'Note' is hidden",
    ),
    (
        "merged",
        "cells that are merged",
        _book(sheet([_HEADER, [text("1")], ["", text("x")]]) + _MERGED),
        "cell A3, column 'MRN': is merged with A2",
    ),
)
SHOWN.extend(
    Shown(ITEM, f"an exclusion list with {fault}", REFUSED, f"test_exclusions.py::test_refused[{name}]")
    for name, fault, _, _ in LISTS
)


def write(stage: Stage, content: str | bytes) -> Path:
    data = content.encode() if isinstance(content, str) else content
    path = stage.folder / ("optout.xlsx" if data.startswith(b"PK") else "optout.csv")
    path.write_bytes(data)
    return path


def archive_of(stage: Stage, *faults: Any) -> Any:
    return ScriptedArchive(STUDIES, faults, destinations={"QUARRY": ("127.0.0.1", stage.port)})


@pytest.mark.parametrize(("content", "message"), [one[2:] for one in LISTS], ids=[one[0] for one in LISTS])
def test_refused(stage: Stage, content: str | bytes, message: str) -> None:
    with archive_of(stage) as archive:
        path = write(stage, content)
        with pytest.raises(InputError, match="the exclusion list cannot be used") as refused:
            stage.extract(by_accession(), {"main": address(archive)}, {}, exclude=path)
        assert message in str(refused.value)
        assert str(path) in str(refused.value)
        config = stage.folder / "quarry.toml"
        cohort = stage.folder / "cohort.csv"
        done = quarry(
            *("extract", cohort, "--config", config, "--from", "main", "--to", stage.out, "--exclude", path)
        )
        assert done.code == 2
        assert message in done.err
        assert not archive.log
    assert files(stage.out) == set()


@shows(
    ITEM,
    "an exclusion list with columns that have no identifiers, and a decision about MRN* in quarry.toml",
    "reads the list, and names the columns that are not used",
)
def test_decided_by_its_owner(stage: Stage) -> None:
    path = write(stage, f"Name,MRN*,Accession,Reason,Date\nx,7,{STUDIES[0].accession},y,2024-01-01\n")
    with archive_of(stage) as archive:
        decided = {"file": str(path), "ignore": ["MRN*"]}
        result = stage.extract(by_accession(), {"main": address(archive)}, {}, exclude=[decided])
    assert outcomes(result) == [("excluded", "row_excluded"), COMPLETE]
    assert any("columns that are not used: Name, MRN*, Reason, Date" in one for one in stage.messages)


def _other_ids(dataset: Dataset) -> None:
    one, other = Dataset(), Dataset()
    one.PatientID, other.PatientID = "X1", HIDDEN
    dataset.OtherPatientIDsSequence = Sequence([one, other])


def _request(dataset: Dataset) -> None:
    one = Dataset()
    one.AccessionNumber = HIDDEN
    dataset.RequestAttributesSequence = Sequence([one])


def _original(dataset: Dataset) -> None:
    one, outer = Dataset(), Dataset()
    one.PatientID = HIDDEN
    outer.ModifiedAttributesSequence = Sequence([one])
    dataset.OriginalAttributesSequence = Sequence([outer])


def _own(dataset: Dataset) -> None:
    dataset.OtherPatientIDs = ["X1", "opted\N{SOFT HYPHEN}-out 7\N{ZERO WIDTH SPACE}"]
    dataset.SpecificCharacterSet = "ISO_IR 192"


#: Name, the place of the identifier, and the function that puts it there.
PLACES: tuple[tuple[str, str, Callable[[Dataset], None]], ...] = (
    ("other-patient-ids", "Other Patient IDs Sequence (0010,1002)", _other_ids),
    ("request", "Request Attributes Sequence (0040,0275)", _request),
    ("original", "a sequence inside Original Attributes Sequence (0400,0561)", _original),
    ("invisible", "Other Patient IDs (0010,1000), in lower case and with invisible characters", _own),
)
SHOWN.extend(
    Shown(
        ITEM,
        f"images of one study have an excluded identifier in {place}",
        "refuses all images of this study; the row is excluded, and the other row complete",
        f"test_exclusions.py::test_found_in_images[{name}]",
    )
    for name, place, _ in PLACES
)


@pytest.mark.parametrize("change", [one[2] for one in PLACES], ids=[one[0] for one in PLACES])
def test_found_in_images(stage: Stage, change: Callable[[Dataset], None]) -> None:
    def changed(data: bytes) -> bytes:
        dataset = pydicom.dcmread(io.BytesIO(data), force=True)
        change(dataset)
        stream = io.BytesIO()
        implicit = dataset.original_encoding[0]
        pydicom.dcmwrite(stream, dataset, implicit_vr=implicit, little_endian=True, enforce_file_format=False)
        return stream.getvalue()

    def run(listed: str, folder: Stage) -> Any:
        path = write(folder, f'MRN,Accession\n"{listed}","{listed}"\n')
        with archive_of(folder, Of(STUDIES[0], Spoiled(changed))) as archive:
            return folder.extract(
                by_accession(),
                {"main": address(archive)},
                {},
                exclude=[{"file": str(path), "verbatim": ["MRN", "Accession"]}],
            )

    result = run(HIDDEN, stage)
    assert outcomes(result) == [EXCLUDED, COMPLETE]
    assert stored(stage.out, STUDIES) == (0, 4, 0)
    # The same images are stored, under their own identity, if the list has another identifier.
    (stage.folder / "other").mkdir()
    other = Stage(stage.folder / "other")
    assert outcomes(run(f"{HIDDEN}8", other)) == [COMPLETE, COMPLETE]
    assert stored(other.out, STUDIES) == (4, 4, 0)
