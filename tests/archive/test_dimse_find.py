"""C-ECHO and C-FIND, and the associations that they go over (field guide, items 4 and 12 to 17)."""

from __future__ import annotations

import struct
import time

import pytest
from pydicom.dataset import Dataset

from dicom_quarry.archive.dimse.associations import Timeouts
from dicom_quarry.archive.dimse.identifier import tag
from dicom_quarry.archive.instance_listing import get_count
from dicom_quarry.errors import ConnectionLost, LocalProtocolError, QueryFailed, Rejected, Unreachable
from dicom_quarry.model import AE, Study
from dicom_quarry.wire.dimse import VERIFICATION
from tests.archive.scripts import (
    PATIENT_FIND,
    STUDY_FIND,
    answering,
    archive,
    silent,
    study,
)
from tests.peers.process import free_port, wait_for
from tests.peers.relay import C_CANCEL, RelayedMessage
from tests.peers.scripted import PENDING, SUCCESS, Conversation, ScriptedArchive

pytestmark = pytest.mark.filterwarnings("ignore:Invalid value for VR UI")


def test_probe_succeeds_with_an_archive_that_answers() -> None:
    with ScriptedArchive(answering()) as peer, archive(peer.ae) as pacs:
        pacs.probe()
        pacs.probe()
        assert peer.associations == 2


def test_probe_without_an_archive_is_unreachable() -> None:
    with archive(AE("NOBODY", "127.0.0.1", free_port())) as pacs, pytest.raises(Unreachable):
        pacs.probe()


def test_probe_of_a_silent_archive_is_lost() -> None:
    with (
        ScriptedArchive(silent) as peer,
        archive(peer.ae, timeouts=Timeouts(associate=0.3)) as pacs,
        pytest.raises(ConnectionLost, match="C-ECHO"),
    ):
        pacs.probe()


def test_a_short_time_out_of_queries_is_none_for_c_echo() -> None:
    """An archive that is busy for a moment at the start of a job would not be used for it otherwise."""

    def slow(peer: Conversation, request: RelayedMessage) -> None:
        time.sleep(0.2)
        answering()(peer, request)

    with ScriptedArchive(slow) as peer, archive(peer.ae, timeouts=Timeouts(query=0.05)) as pacs:
        pacs.probe()
        with pytest.raises(ConnectionLost):
            pacs.find({"AccessionNumber": "1"})


def test_an_archive_that_refuses_c_echo_is_there() -> None:
    with ScriptedArchive(answering(final=0x0122)) as peer, archive(peer.ae) as pacs:
        pacs.probe()
        with pytest.raises(QueryFailed) as failure:
            pacs.echo()
        assert failure.value.status == 0x0122


def test_an_archive_without_c_echo_is_there_if_it_accepts_queries() -> None:
    with ScriptedArchive(silent, refused={VERIFICATION}) as peer, archive(peer.ae) as pacs:
        pacs.probe()
        assert peer.associations == 2
    with (
        ScriptedArchive(silent, refused={VERIFICATION, STUDY_FIND}) as peer,
        archive(peer.ae) as pacs,
        pytest.raises(Rejected, match="does not offer C-FIND"),
    ):
        pacs.probe()


def test_an_archive_that_aborts_at_c_echo_is_there_if_it_accepts_queries() -> None:
    def abort(peer: Conversation, _request: RelayedMessage) -> None:
        peer.abort()

    with ScriptedArchive(abort) as peer, archive(peer.ae) as pacs:
        pacs.probe()
        assert peer.associations == 2


def test_a_service_that_is_not_accepted_is_a_permanent_rejection() -> None:
    with ScriptedArchive(silent, refused={STUDY_FIND}) as peer, archive(peer.ae) as pacs:
        with pytest.raises(Rejected, match="does not offer C-FIND in the Study Root model") as rejection:
            pacs.find({"AccessionNumber": "1"})
        assert rejection.value.permanent


# -- the number of a patient's studies


def patient(count: str, name: str = "A", patient_id: str = "P1") -> Dataset:
    ds = Dataset()
    ds.PatientID, ds.PatientName, ds.NumberOfPatientRelatedStudies = patient_id, name, count
    return ds


@pytest.mark.parametrize(
    ("rows", "final", "expected"),
    [
        ([patient("7")], SUCCESS, 7),
        ([patient("7"), patient("7")], SUCCESS, 7),
        ([patient("7"), patient("7", "B"), patient("90", patient_id="P10")], SUCCESS, 14),
        ([patient("7"), patient("", "B")], SUCCESS, None),
        ([patient("7")], 0xFE00, None),
        ([patient("")], SUCCESS, None),
        ([], SUCCESS, None),
        ([], 0xA900, None),
    ],
    ids=["one", "repeated", "two patients", "not counted", "cut", "empty", "none", "refused"],
)
def test_the_number_of_a_patients_studies(rows: list[Dataset], final: int, expected: int | None) -> None:
    with ScriptedArchive(answering(*rows, final=final)) as peer, archive(peer.ae) as pacs:
        assert pacs.count_studies("P1") == expected
        keys = peer.requests[0].identifier()
        assert (keys["QueryRetrieveLevel"], keys["PatientID"]) == ("PATIENT", "P1")


def test_an_archive_without_the_patient_root_model_counts_nothing() -> None:
    with ScriptedArchive(answering(study("1.2.3")), refused={PATIENT_FIND}) as peer, archive(peer.ae) as pacs:
        assert pacs.find({"PatientID": "P1"}).complete
        assert pacs.count_studies("P1") is None
        assert pacs.find({"PatientID": "P1"}).complete, "queries of studies go on"


def test_find_reads_every_attribute_of_a_study() -> None:
    row = study(
        "1.2.3",
        SpecificCharacterSet="ISO_IR 192",
        PatientID="P1",
        AccessionNumber="A1",
        StudyDate="20190102",
        ModalitiesInStudy="CT\\SR",
        StudyDescription="Schädel",
        NumberOfStudyRelatedSeries="2",
        NumberOfStudyRelatedInstances="17",
    )
    with ScriptedArchive(answering(row)) as peer, archive(peer.ae) as pacs:
        found = pacs.find({"AccessionNumber": "A1"})
    assert found.complete
    assert found.studies == (Study("1.2.3", "P1", "A1", "20190102", "CT\\SR", "Schädel", 2, 17),)


def test_find_asks_for_what_it_reads_and_sends_the_keys_as_given() -> None:
    with ScriptedArchive(answering()) as peer, archive(peer.ae) as pacs:
        assert pacs.find({"AccessionNumber": "A1", "PatientID": "P*"}).studies == ()
        (request,) = peer.requests
    assert request.identifier() == {
        "StudyDate": "",
        "AccessionNumber": "A1",
        "QueryRetrieveLevel": "STUDY",
        "InstanceAvailability": "",
        "ModalitiesInStudy": "",
        "StudyDescription": "",
        "PatientID": "P*",
        "StudyInstanceUID": "",
        "NumberOfStudyRelatedSeries": "",
        "NumberOfStudyRelatedInstances": "",
    }


@pytest.mark.parametrize(
    ("charset", "declared", "codec"),
    [
        ("ISO_IR 192", "ISO_IR 192", "utf-8"),
        ("ISO_IR 100", "ISO_IR 100", "latin-1"),
        ("ISO_IR 144", None, None),
        ("ISO_IR 6", None, None),
        ("", None, None),
    ],
)
def test_find_declares_a_character_set_for_keys_that_are_not_ascii(
    charset: str, declared: str | None, codec: str | None
) -> None:
    with ScriptedArchive(answering(study("1.2"))) as peer, archive(peer.ae, charset=charset) as pacs:
        pacs.find({"PatientID": "Ä1"})
        (request,) = peer.requests
    # What the charset cannot hold goes as UTF-8: a question mark would match anything.
    declared, codec = declared or "ISO_IR 192", codec or "utf-8"
    value = "Ä1".encode(codec)
    assert request.identifier()["SpecificCharacterSet"] == declared
    assert struct.pack("<HHL", 0x10, 0x20, len(value) + len(value) % 2) + value in request.dataset


@pytest.mark.parametrize(
    ("own", "name", "sent"),
    [
        ("ISO_IR 100", "M\u00fcller", b"M\xfcller"),
        ("", "M\u00fcller", b"M\xfcller"),  # nothing is declared: most likely Latin-1
        ("ISO_IR 144", "\u0418\u0432\u0430\u043d", "\u0418\u0432\u0430\u043d".encode("iso8859_5")),
        ("\\ISO 2022 IR 87", "\u5c71\u7530", b"\x1b$B;3ED\x1b(B"),
    ],
)
def test_an_archive_that_compares_bytes_is_sent_its_own_character_set(
    own: str, name: str, sent: bytes
) -> None:
    def script(peer: Conversation, request: RelayedMessage) -> None:
        rows = []
        if request.identifier()["PatientID"] == "P1":
            rows = [study("1.2", SpecificCharacterSet=own) if own else study("1.2")]
        elif sent in request.dataset:
            rows = [study("1.3")]
        answering(*rows)(peer, request)

    with ScriptedArchive(script) as peer, archive(peer.ae) as pacs:
        pacs.find({"PatientID": "P1"})
        for _ in range(2):
            assert [one.study_uid for one in pacs.find({"PatientID": "", "PatientName": name}).studies] == [
                "1.3"
            ]
        assert len(peer.requests) == 4, "the character set is kept"
        assert pacs.find({"PatientName": "\u0634"}).studies == ()
        assert peer.requests[-1].identifier()["SpecificCharacterSet"] == "ISO_IR 192"
        assert len(peer.requests) == 5, "the archive's character set lacks this character"


def test_find_gives_each_study_once_and_strips_padding() -> None:
    rows = [study("1.2.3"), study("1.2.3 "), study("1.2.3\0"), study("1.2.4", AccessionNumber=" A1 ")]
    with ScriptedArchive(answering(*rows)) as peer, archive(peer.ae) as pacs:
        found = pacs.find({"AccessionNumber": "A1"})
    assert [(s.study_uid, s.accession) for s in found.studies] == [("1.2.3", ""), ("1.2.4", "A1")]
    assert found.complete


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("2147483647", 2147483647),
        ("2147483648", None),
        ("9223372036854775808", None),
        ("9" * 5000, None),
        ("0" * 5000 + "7", 7),
        ("+12", 12),
        ("-1", None),
        ("1e3", None),
        ("12.0", None),
        ("\u0663", None),
    ],
)
def test_a_count_is_an_integer_string_or_unknown(text: str, count: int | None) -> None:
    assert get_count({tag("NumberOfStudyRelatedInstances"): text}, "NumberOfStudyRelatedInstances") == count


def test_counts_that_are_missing_or_no_numbers_are_none() -> None:
    rows = [study("1.2.3"), study("1.2.4", NumberOfStudyRelatedInstances="")]
    raw = bytes.fromhex("20000d00 06000000") + b"1.2.5\0" + bytes.fromhex("20000812 04000000") + b"many"
    with ScriptedArchive(answering(*rows, raw)) as peer, archive(peer.ae) as pacs:
        found = pacs.find({"AccessionNumber": "A1"})
    assert [s.study_uid for s in found.studies] == ["1.2.3", "1.2.4", "1.2.5"]
    assert {(s.series_count, s.instance_count) for s in found.studies} == {(None, None)}


@pytest.mark.parametrize("uid", ["", "*", "1.2.?", "1.2\\1.3", "1.2\x1b[2J"])
def test_an_answer_without_a_usable_uid_is_skipped_and_reported(uid: str) -> None:
    rows = [study("1.2.3"), study(uid, PatientID="P1")]
    with ScriptedArchive(answering(*rows)) as peer, archive(peer.ae) as pacs:
        found = pacs.find({"PatientID": "P1"})
    assert [s.study_uid for s in found.studies] == ["1.2.3"]
    assert (found.complete, found.splittable, found.answer_count) == (False, False, 2)
    assert [s.patient_id for s in found.unidentified] == ["P1"]
    assert "StudyInstanceUID" in found.incomplete_reason


def test_a_series_without_a_usable_uid_is_not_left_out_of_a_list() -> None:
    rows = [study("1.2.3", SeriesInstanceUID=uid, Modality="CT") for uid in ("1.2.3.1", "")]
    with (
        ScriptedArchive(answering(*rows)) as peer,
        archive(peer.ae) as pacs,
        pytest.raises(QueryFailed, match="1 answer of the archive lacks a usable SeriesInstanceUID"),
    ):
        pacs.list_series(Study("1.2.3"))


def test_an_answer_that_is_empty_throughout_hides_nothing() -> None:
    with ScriptedArchive(answering(study("1.2.3"), study(""), b"")) as peer, archive(peer.ae) as pacs:
        assert pacs.find({"PatientID": "P1"}).complete


def test_an_answer_that_cannot_be_read_makes_the_rest_incomplete() -> None:
    rows: list[Dataset | bytes] = [study("1.2.3"), b"\x08\x00\x50\x00\xff\x00\x00\x00A", study("1.2.4")]
    with ScriptedArchive(answering(*rows)) as peer, archive(peer.ae) as pacs:
        found = pacs.find({"PatientID": "P1"})
    assert [s.study_uid for s in found.studies] == ["1.2.3", "1.2.4"]
    assert (found.complete, found.splittable) == (False, False)
    assert "cannot be read" in found.incomplete_reason


@pytest.mark.parametrize("final", [0xA700, 0xA900, 0xC000, 0xFE00, 0xB000, 0x0122])
def test_a_final_status_other_than_success_makes_answers_incomplete(final: int) -> None:
    script = answering(study("1.2.3"), final=final, comment="enough")
    with ScriptedArchive(script) as peer, archive(peer.ae) as pacs:
        found = pacs.find({"PatientID": "P1"})
        assert [s.study_uid for s in found.studies] == ["1.2.3"]
        assert not found.complete
        assert found.splittable == (final != 0xB000), "a warning is no limit"
        assert "enough" in found.incomplete_reason
        assert f"{final:04X}" in found.incomplete_reason


@pytest.mark.parametrize("final", [0xA700, 0xA900, 0xC000, 0x0122, 0x0124, 0x7777])
def test_a_failure_without_answers_is_raised(final: int) -> None:
    with ScriptedArchive(answering(final=final, comment="no")) as peer, archive(peer.ae) as pacs:
        with pytest.raises(QueryFailed, match="Message from the archive: no") as failure:
            pacs.find({"PatientID": "P1"})
        assert failure.value.status == final


def test_a_query_cut_short_without_answers_is_not_an_empty_answer() -> None:
    with ScriptedArchive(answering(final=0xFE00)) as peer, archive(peer.ae) as pacs:
        found = pacs.find({"PatientID": "P1"})
        assert (found.studies, found.complete) == ((), False)


def test_endless_answers_are_cancelled_and_the_association_goes_on() -> None:
    def script(peer: Conversation, request: RelayedMessage) -> None:
        if request.identifier()["PatientID"] == "FEW":
            peer.answer(request, SUCCESS)
            return
        for number in range(8):
            peer.answer(request, PENDING, study(f"1.2.{number}"))
        assert peer.read().field == C_CANCEL
        peer.answer(request, 0xFE00)

    with ScriptedArchive(script) as peer, archive(peer.ae, max_studies=5) as pacs:
        found = pacs.find({"PatientID": "MANY"})
        assert len(found.studies) == 5
        assert not found.complete
        assert "more than 5" in found.incomplete_reason
        assert pacs.find({"PatientID": "FEW"}).complete
        assert peer.associations == 1


def test_endless_answers_of_an_archive_that_ignores_c_cancel_end_with_an_abort(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("dicom_quarry.archive.dimse.find.CANCEL_TIMEOUT", 0.3)

    def script(peer: Conversation, request: RelayedMessage) -> None:
        while True:
            peer.answer(request, PENDING, study("1.2.3"))

    with ScriptedArchive(script) as peer, archive(peer.ae, max_studies=5) as pacs:
        found = pacs.find({"PatientID": "MANY"})
        assert [s.study_uid for s in found.studies] == ["1.2.3"]
        assert not found.complete


def test_a_query_that_falls_silent_is_lost_and_the_next_has_a_new_association() -> None:
    def script(peer: Conversation, request: RelayedMessage) -> None:
        if request.identifier()["PatientID"] == "SLOW":
            peer.answer(request, PENDING, study("1.2.3"))
            peer.read()
        peer.answer(request, SUCCESS)

    with ScriptedArchive(script) as peer, archive(peer.ae) as pacs:
        with pytest.raises(ConnectionLost, match="sent nothing for"):
            pacs.find({"PatientID": "SLOW"})
        wait_for(lambda: peer.ended == 1, "the archive to be told that nobody waits any more")
        assert pacs.find({"PatientID": "P1"}).complete
        assert peer.associations == 2


def test_an_abort_in_a_query_is_lost() -> None:
    def script(peer: Conversation, request: RelayedMessage) -> None:
        peer.answer(request, PENDING, study("1.2.3"))
        peer.abort()

    with ScriptedArchive(script) as peer, archive(peer.ae) as pacs, pytest.raises(ConnectionLost):
        pacs.find({"PatientID": "P1"})


def test_an_answer_to_another_question_is_lost() -> None:
    def script(peer: Conversation, request: RelayedMessage) -> None:
        request.command[0x0110] = b"\x2a\x00"
        peer.answer(request, SUCCESS)

    with (
        ScriptedArchive(script) as peer,
        archive(peer.ae) as pacs,
        pytest.raises(ConnectionLost, match="with another message"),
    ):
        pacs.find({"PatientID": "P1"})


@pytest.mark.parametrize("keys", [{}, {"PatientID": ""}])
def test_a_query_for_everything_is_never_sent(keys: dict[str, str]) -> None:
    with ScriptedArchive(answering()) as peer, archive(peer.ae) as pacs:
        with pytest.raises(LocalProtocolError):
            pacs.find(keys)
        assert not peer.requests
