"""The DIMSE archive against one that answers whatever a test wants (field guide, items 3 to 8, 12 to 17)."""

from __future__ import annotations

import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from pydicom.dataset import Dataset

from dicom_quarry.archive.dimse import DimseArchive, Patiences
from dicom_quarry.archive.port import Answered, Ask, Patience, Verdict
from dicom_quarry.errors import Lost, QueryFailed, Rejected, Unreachable
from dicom_quarry.model import AE, Arrival, Level, Selection, Study, Task, Writer
from tests.peers.process import free_port, wait_for
from tests.peers.relay import C_CANCEL, C_FIND, C_MOVE, Heard
from tests.peers.scripted import PENDING, SUCCESS, Conversation, Script, ScriptedArchive

pytestmark = pytest.mark.filterwarnings("ignore:Invalid value for VR UI")

STUDY = Ask("1.2")
STUDY_FIND = "1.2.840.10008.5.1.4.1.2.2.1"
BRISK = Patiences(connect=5, associate=5, query=0.3, cancel=0.3)


class NoSink:
    def begin(self, arrival: Arrival) -> Writer:
        raise AssertionError("C-MOVE brings nothing by way of the sink")


class Watching:
    """A watch that says what it is told to, and remembers the signs of life."""

    def __init__(self, *patiences: Patience) -> None:
        self.signs: list[tuple[int | None, int | None]] = []
        self.asked = 0
        self._patiences = list(patiences)

    def sign_of_life(self, completed: int | None, remaining: int | None) -> None:
        self.signs.append((completed, remaining))

    def patience(self) -> Patience:
        self.asked += 1
        return self._patiences.pop(0) if self._patiences else Patience.WAIT


@contextmanager
def archive(peer: AE, model: str = "study", **options: object) -> Iterator[DimseArchive]:
    one = DimseArchive(
        "main",
        peer,
        calling="QUARRY",
        destination="DEST",
        **{"model": model, "patiences": BRISK, **options},  # type: ignore[arg-type]
    )
    try:
        yield one
    finally:
        one.close()


def study(uid: str, **more: str) -> Dataset:
    ds = Dataset()
    ds.StudyInstanceUID = uid
    for keyword, value in more.items():
        setattr(ds, keyword, value)
    return ds


def answering(*rows: Dataset | bytes, final: int = SUCCESS, comment: str = "") -> Script:
    def script(peer: Conversation, request: Heard) -> None:
        for row in rows:
            peer.answer(request, PENDING, row)
        peer.answer(request, final, comment=comment)

    return script


def silent(peer: Conversation, request: Heard) -> None:
    peer.read()


# --- C-ECHO -----------------------------------------------------------------------------------------------


def test_probe_succeeds_with_an_archive_that_answers() -> None:
    with ScriptedArchive(answering()) as peer, archive(peer.ae) as pacs:
        pacs.probe()
        pacs.probe()
        assert peer.associations == 2


def test_probe_of_nobody_is_unreachable() -> None:
    with archive(AE("NOBODY", "127.0.0.1", free_port())) as pacs, pytest.raises(Unreachable):
        pacs.probe()


def test_probe_of_a_silent_archive_is_lost() -> None:
    with ScriptedArchive(silent) as peer, archive(peer.ae) as pacs, pytest.raises(Lost, match="C-ECHO"):
        pacs.probe()


def test_probe_that_is_refused_says_so() -> None:
    with ScriptedArchive(answering(final=0x0122)) as peer, archive(peer.ae) as pacs:
        with pytest.raises(QueryFailed) as failure:
            pacs.probe()
        assert failure.value.status == 0x0122


def test_a_service_that_is_not_accepted_is_a_permanent_rejection() -> None:
    with ScriptedArchive(silent, refused={STUDY_FIND}) as peer, archive(peer.ae) as pacs:
        with pytest.raises(Rejected, match="does not offer C-FIND in the Study Root model") as rejection:
            pacs.find({"AccessionNumber": "1"})
        assert rejection.value.permanent


# --- C-FIND -----------------------------------------------------------------------------------------------


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
    with ScriptedArchive(answering()) as peer, archive(peer.ae, charset=charset) as pacs:
        pacs.find({"PatientID": "Ä1"})
        (request,) = peer.requests
    # What the charset cannot hold goes as UTF-8: a question mark would match anything.
    declared, codec = declared or "ISO_IR 192", codec or "utf-8"
    value = "Ä1".encode(codec)
    assert request.identifier()["SpecificCharacterSet"] == declared
    assert struct.pack("<HHL", 0x10, 0x20, len(value) + len(value) % 2) + value in request.dataset


def test_find_gives_each_study_once_and_strips_padding() -> None:
    rows = [study("1.2.3"), study("1.2.3 "), study("1.2.3\0"), study("1.2.4", AccessionNumber=" A1 ")]
    with ScriptedArchive(answering(*rows)) as peer, archive(peer.ae) as pacs:
        found = pacs.find({"AccessionNumber": "A1"})
    assert [(s.study_uid, s.accession) for s in found.studies] == [("1.2.3", ""), ("1.2.4", "A1")]
    assert found.complete


def test_counts_that_are_missing_or_no_numbers_are_none() -> None:
    rows = [study("1.2.3"), study("1.2.4", NumberOfStudyRelatedInstances="")]
    raw = bytes.fromhex("20000d00 06000000") + b"1.2.5\0" + bytes.fromhex("20000812 04000000") + b"many"
    with ScriptedArchive(answering(*rows, raw)) as peer, archive(peer.ae) as pacs:
        found = pacs.find({"AccessionNumber": "A1"})
    assert [s.study_uid for s in found.studies] == ["1.2.3", "1.2.4", "1.2.5"]
    assert {(s.series_count, s.instance_count) for s in found.studies} == {(None, None)}


@pytest.mark.parametrize("uid", ["", "*", "1.2.?", "1.2\\1.3", "1.2\x1b[2J"])
def test_an_answer_without_a_usable_uid_is_skipped_and_said(uid: str) -> None:
    rows = [study("1.2.3"), study(uid, PatientID="P1")]
    with ScriptedArchive(answering(*rows)) as peer, archive(peer.ae) as pacs:
        found = pacs.find({"PatientID": "P1"})
    assert [s.study_uid for s in found.studies] == ["1.2.3"]
    assert not found.complete
    assert "StudyInstanceUID" in found.why


def test_an_answer_that_is_empty_throughout_hides_nothing() -> None:
    with ScriptedArchive(answering(study("1.2.3"), study(""), b"")) as peer, archive(peer.ae) as pacs:
        assert pacs.find({"PatientID": "P1"}).complete


def test_an_answer_that_cannot_be_read_makes_the_rest_incomplete() -> None:
    rows: list[Dataset | bytes] = [study("1.2.3"), b"\x08\x00\x50\x00\xff\x00\x00\x00A", study("1.2.4")]
    with ScriptedArchive(answering(*rows)) as peer, archive(peer.ae) as pacs:
        found = pacs.find({"PatientID": "P1"})
    assert [s.study_uid for s in found.studies] == ["1.2.3", "1.2.4"]
    assert not found.complete
    assert "cannot be read" in found.why


@pytest.mark.parametrize("final", [0xA700, 0xA900, 0xC000, 0xFE00, 0xB000, 0x0122])
def test_a_final_status_other_than_success_makes_answers_incomplete(final: int) -> None:
    script = answering(study("1.2.3"), final=final, comment="enough")
    with ScriptedArchive(script) as peer, archive(peer.ae) as pacs:
        found = pacs.find({"PatientID": "P1"})
        assert [s.study_uid for s in found.studies] == ["1.2.3"]
        assert not found.complete
        assert "enough" in found.why
        assert f"{final:04X}" in found.why


@pytest.mark.parametrize("final", [0xA700, 0xA900, 0xC000, 0x0122, 0x0124, 0x7777])
def test_a_failure_without_answers_is_raised(final: int) -> None:
    with ScriptedArchive(answering(final=final, comment="no")) as peer, archive(peer.ae) as pacs:
        with pytest.raises(QueryFailed, match="says: no") as failure:
            pacs.find({"PatientID": "P1"})
        assert failure.value.status == final


def test_a_query_cut_short_without_answers_is_not_an_empty_answer() -> None:
    with ScriptedArchive(answering(final=0xFE00)) as peer, archive(peer.ae) as pacs:
        found = pacs.find({"PatientID": "P1"})
        assert (found.studies, found.complete) == ((), False)


def test_endless_answers_are_cancelled_and_the_association_goes_on() -> None:
    def script(peer: Conversation, request: Heard) -> None:
        if request.identifier()["PatientID"] == "FEW":
            peer.answer(request, SUCCESS)
            return
        for number in range(8):
            peer.answer(request, PENDING, study(f"1.2.{number}"))
        assert peer.read().field == C_CANCEL
        peer.answer(request, 0xFE00)

    with ScriptedArchive(script) as peer, archive(peer.ae, answer_cap=5) as pacs:
        found = pacs.find({"PatientID": "MANY"})
        assert len(found.studies) == 5
        assert not found.complete
        assert "more than 5" in found.why
        assert pacs.find({"PatientID": "FEW"}).complete
        assert peer.associations == 1


def test_endless_answers_of_an_archive_that_ignores_c_cancel_end_with_an_abort(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("dicom_quarry.archive.query.CANCEL_PATIENCE", 0.3)

    def script(peer: Conversation, request: Heard) -> None:
        while True:
            peer.answer(request, PENDING, study("1.2.3"))

    with ScriptedArchive(script) as peer, archive(peer.ae, answer_cap=5) as pacs:
        found = pacs.find({"PatientID": "MANY"})
        assert [s.study_uid for s in found.studies] == ["1.2.3"]
        assert not found.complete


def test_a_query_that_falls_silent_is_lost_and_the_next_has_a_new_association() -> None:
    def script(peer: Conversation, request: Heard) -> None:
        if request.identifier()["PatientID"] == "SLOW":
            peer.answer(request, PENDING, study("1.2.3"))
            peer.read()
        peer.answer(request, SUCCESS)

    with ScriptedArchive(script) as peer, archive(peer.ae) as pacs:
        with pytest.raises(Lost, match="silent"):
            pacs.find({"PatientID": "SLOW"})
        wait_for(lambda: peer.ended == 1, "the archive to be told that nobody waits any more")
        assert pacs.find({"PatientID": "P1"}).complete
        assert peer.associations == 2


def test_an_abort_in_a_query_is_lost() -> None:
    def script(peer: Conversation, request: Heard) -> None:
        peer.answer(request, PENDING, study("1.2.3"))
        peer.abort()

    with ScriptedArchive(script) as peer, archive(peer.ae) as pacs, pytest.raises(Lost):
        pacs.find({"PatientID": "P1"})


def test_an_answer_to_another_question_is_lost() -> None:
    def script(peer: Conversation, request: Heard) -> None:
        request.command[0x0110] = b"\x2a\x00"
        peer.answer(request, SUCCESS)

    with (
        ScriptedArchive(script) as peer,
        archive(peer.ae) as pacs,
        pytest.raises(Lost, match="something else"),
    ):
        pacs.find({"PatientID": "P1"})


# --- associations -----------------------------------------------------------------------------------------


def test_an_association_is_kept_and_one_that_was_closed_when_idle_is_replaced() -> None:
    with ScriptedArchive(answering()) as peer, archive(peer.ae) as pacs:
        pacs.find({"PatientID": "P1"})
        pacs.find({"PatientID": "P1"})
        assert peer.associations == 1
        peer.hang_up()
        pacs.find({"PatientID": "P1"})
        assert peer.associations == 2


def test_a_move_on_an_association_that_was_closed_when_idle_goes_out_on_a_new_one() -> None:
    with ScriptedArchive(answering()) as peer, archive(peer.ae) as pacs:
        assert pacs.retrieve(STUDY, NoSink(), Watching()).verdict is Verdict.SUCCESS
        peer.hang_up()
        assert pacs.retrieve(STUDY, NoSink(), Watching()).verdict is Verdict.SUCCESS
        assert peer.associations == 2


def test_a_request_that_is_aborted_is_asked_again_once_and_only_on_a_kept_association() -> None:
    def script(peer: Conversation, request: Heard) -> None:
        if request.identifier()["PatientID"] == "BAD":
            peer.abort()
        peer.answer(request, SUCCESS)

    with ScriptedArchive(script) as peer, archive(peer.ae) as pacs:
        with pytest.raises(Lost):
            pacs.find({"PatientID": "BAD"})
        assert len(peer.requests) == 1
        pacs.find({"PatientID": "GOOD"})
        with pytest.raises(Lost):
            pacs.find({"PatientID": "BAD"})
        assert len(peer.requests) == 4


def test_message_ids_of_an_association_differ() -> None:
    with ScriptedArchive(answering()) as peer, archive(peer.ae) as pacs:
        for _ in range(3):
            pacs.find({"PatientID": "P1"})
        assert len({request.command[0x0110] for request in peer.requests}) == 3


def test_each_thread_has_its_own_association() -> None:
    with ScriptedArchive(answering()) as peer, archive(peer.ae) as pacs:

        def work() -> None:
            pacs.find({"PatientID": "P1"})
            pacs.hang_up()

        threads = [threading.Thread(target=work) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert peer.associations == 3


def test_hang_up_releases_in_order() -> None:
    with ScriptedArchive(answering()) as peer, archive(peer.ae) as pacs:
        pacs.find({"PatientID": "P1"})
        pacs.hang_up()
        wait_for(lambda: peer.released == 1, "the release")


def test_close_ends_what_another_thread_is_waiting_for_and_what_comes_after() -> None:
    patient = Patiences(query=60)
    ended: list[BaseException] = []
    with ScriptedArchive(silent) as peer, archive(peer.ae, patiences=patient) as pacs:

        def work() -> None:
            try:
                pacs.find({"PatientID": "P1"})
            except Lost as lost:
                ended.append(lost)

        thread = threading.Thread(target=work)
        thread.start()
        wait_for(lambda: bool(peer.requests), "the query")
        pacs.close()
        thread.join(10)
        assert len(ended) == 1
        with pytest.raises(Lost):
            pacs.find({"PatientID": "P1"})
        watch = Watching()
        assert pacs.retrieve(Ask("1.2.3"), NoSink(), watch).verdict is Verdict.LOST


# --- listing ----------------------------------------------------------------------------------------------


def task(count: int | None = None, *series: str) -> Task:
    return Task(1, "main", Study("1.2", "P1", instance_count=count), Selection(frozenset(series)))


def holding(series: dict[str, tuple[int | None, list[str]]], *, image_level: int = SUCCESS) -> Script:
    """Answers SERIES and IMAGE level: for every series, the claimed count and the instances listed."""

    def script(peer: Conversation, request: Heard) -> None:
        keys = request.identifier()
        final = SUCCESS
        if keys["QueryRetrieveLevel"] == Level.SERIES:
            for uid, (claim, _) in series.items():
                row = Dataset()
                row.SeriesInstanceUID = uid
                if claim is not None:
                    row.NumberOfSeriesRelatedInstances = claim
                peer.answer(request, PENDING, row)
        else:
            final = image_level
            for sop_uid in series[keys["SeriesInstanceUID"]][1] if final == SUCCESS else ():
                row = Dataset()
                row.SOPInstanceUID, row.SOPClassUID = sop_uid, "1.2.840.10008.5.1.4.1.1.2"
                peer.answer(request, PENDING, row)
        peer.answer(request, final)

    return script


def test_listing_names_every_instance_with_its_class() -> None:
    script = holding({"1.2.1": (2, ["1.2.1.1", "1.2.1.2"]), "1.2.2": (None, ["1.2.2.1"])})
    with ScriptedArchive(script) as peer, archive(peer.ae) as pacs:
        listing = pacs.list_instances(task(3))
        assert [r.identifier()["StudyInstanceUID"] for r in peer.requests] == ["1.2"] * 3
        assert all("PatientID" not in r.identifier() for r in peer.requests)
    assert [(r.study_uid, r.series_uid, r.sop_uid) for r in listing.instances] == [
        ("1.2", "1.2.1", "1.2.1.1"),
        ("1.2", "1.2.1", "1.2.1.2"),
        ("1.2", "1.2.2", "1.2.2.1"),
    ]
    assert {r.sop_class for r in listing.instances} == {"1.2.840.10008.5.1.4.1.1.2"}
    assert listing.series_uids == ("1.2.1", "1.2.2")
    assert (listing.by_image, listing.complete, listing.count) == (True, True, 3)


def test_listing_of_a_selection_asks_for_its_series_only() -> None:
    script = holding({"1.2.1": (2, ["1.2.1.1", "1.2.1.2"]), "1.2.2": (1, ["1.2.2.1"])})
    with ScriptedArchive(script) as peer, archive(peer.ae) as pacs:
        listing = pacs.list_instances(task(3, "1.2.2"))
        assert len(peer.requests) == 2
    assert [r.sop_uid for r in listing.instances] == ["1.2.2.1"]
    assert (listing.series_uids, listing.count) == (("1.2.2",), 1)


def test_an_instance_listed_in_two_series_is_one() -> None:
    script = holding({"1.2.1": (1, ["1.2.9"]), "1.2.2": (1, ["1.2.9"])})
    with ScriptedArchive(script) as peer, archive(peer.ae) as pacs:
        listing = pacs.list_instances(task())
    assert [(r.series_uid, r.sop_uid) for r in listing.instances] == [("1.2.1", "1.2.9")]
    assert listing.count == 2


@pytest.mark.parametrize(
    ("series", "study_count", "by_image", "count"),
    [
        ({"1.2.1": (2, [])}, None, False, 2),
        ({"1.2.1": (2, []), "1.2.2": (1, ["1.2.2.1"])}, 3, False, 3),
        ({"1.2.1": (None, [])}, 4, False, 4),
        ({}, 4, False, 4),
        ({"1.2.1": (0, [])}, 0, True, 0),
        ({}, None, True, None),
        ({"1.2.1": (2, ["1.2.1.1"])}, 5, True, 5),
        ({"1.2.1": (7, ["1.2.1.1"])}, 5, True, 7),
    ],
)
def test_a_list_that_is_shorter_than_the_claims_is_told_from_one_that_is_not_given(
    series: dict[str, tuple[int | None, list[str]]],
    study_count: int | None,
    by_image: bool,
    count: int | None,
) -> None:
    with ScriptedArchive(holding(series)) as peer, archive(peer.ae) as pacs:
        listing = pacs.list_instances(task(study_count))
    assert (listing.by_image, listing.count, listing.complete) == (by_image, count, True)


def test_a_series_that_is_listed_twice_claims_the_larger_number() -> None:
    def script(peer: Conversation, request: Heard) -> None:
        for claim in (5, 2) if request.identifier()["QueryRetrieveLevel"] == "SERIES" else ():
            row = Dataset()
            row.SeriesInstanceUID, row.NumberOfSeriesRelatedInstances = "1.2.1", claim
            peer.answer(request, PENDING, row)
        peer.answer(request, SUCCESS)

    with ScriptedArchive(script) as peer, archive(peer.ae) as pacs:
        listing = pacs.list_instances(task())
    assert (listing.series_uids, listing.count) == (("1.2.1",), 5)


def test_an_archive_without_the_image_level_is_asked_once() -> None:
    script = holding({"1.2.1": (2, []), "1.2.2": (1, [])}, image_level=0xA900)
    with ScriptedArchive(script) as peer, archive(peer.ae) as pacs:
        listing = pacs.list_instances(task(3))
        assert len(peer.requests) == 2
    assert (listing.instances, listing.by_image, listing.count) == ((), False, 3)
    assert listing.series_uids == ("1.2.1", "1.2.2")


def test_a_listing_that_fails_for_now_is_raised() -> None:
    with ScriptedArchive(holding({"1.2.1": (2, [])}, image_level=0xC001)) as peer, archive(peer.ae) as pacs:
        with pytest.raises(QueryFailed) as failure:
            pacs.list_instances(task(3))
        assert failure.value.status == 0xC001


def test_a_listing_that_was_cut_short_says_so() -> None:
    def script(peer: Conversation, request: Heard) -> None:
        row = Dataset()
        row.SeriesInstanceUID, row.SOPInstanceUID = "1.2.1", "1.2.1.1"
        peer.answer(request, PENDING, row)
        peer.answer(request, 0xFE00 if request.identifier()["QueryRetrieveLevel"] == "IMAGE" else SUCCESS)

    with ScriptedArchive(script) as peer, archive(peer.ae) as pacs:
        listing = pacs.list_instances(task())
    assert len(listing.instances) == 1
    assert not listing.complete
    assert "FE00" in listing.why


# --- C-MOVE -----------------------------------------------------------------------------------------------


def move(script: Script, watch: Watching, ask: Ask = STUDY, model: str = "study") -> tuple[Answered, Heard]:
    with ScriptedArchive(script) as peer, archive(peer.ae, model) as pacs:
        answered = pacs.retrieve(ask, NoSink(), watch)
        return answered, peer.requests[0]


def ending(status: int, dataset: Dataset | bytes = b"", comment: str = "", **counters: int) -> Script:
    return lambda peer, request: peer.answer(request, status, dataset, comment=comment, **counters)


@pytest.mark.parametrize(
    ("ask", "keys"),
    [
        (Ask("1.2", "P1"), {"QueryRetrieveLevel": "STUDY", "StudyInstanceUID": "1.2"}),
        (
            Ask("1.2", "P1", ("1.2.1", "1.2.2")),
            {"QueryRetrieveLevel": "SERIES", "StudyInstanceUID": "1.2", "SeriesInstanceUID": "1.2.1\\1.2.2"},
        ),
        (
            Ask("1.2", "P1", ("1.2.1",), ("1.2.1.1", "1.2.1.2")),
            {
                "QueryRetrieveLevel": "IMAGE",
                "StudyInstanceUID": "1.2",
                "SeriesInstanceUID": "1.2.1",
                "SOPInstanceUID": "1.2.1.1\\1.2.1.2",
            },
        ),
    ],
)
@pytest.mark.parametrize("model", ["study", "patient"])
def test_a_move_asks_by_uids_and_in_patient_root_by_patient(
    ask: Ask, keys: dict[str, str], model: str
) -> None:
    _, request = move(ending(SUCCESS), Watching(), ask, model)
    patient = {"PatientID": "P1"} if model == "patient" else {}
    assert request.field == C_MOVE
    assert request.text(0x0600) == "DEST"
    assert request.identifier() == {**keys, **patient}


def test_counters_and_their_absence_are_told_apart() -> None:
    answered, _ = move(ending(SUCCESS, completed=3, failed=0, warning=1), Watching())
    assert answered == Answered(Verdict.SUCCESS, 0, 3, 0, 1, (), "The archive reports success.")
    answered, _ = move(ending(SUCCESS), Watching())
    assert (answered.completed, answered.failed, answered.warning) == (None, None, None)


def test_a_partial_move_names_what_failed() -> None:
    failed = Dataset()
    failed.FailedSOPInstanceUIDList = ["1.2.1.1", "1.2.1.2"]
    answered, _ = move(ending(0xB000, failed, "disk", completed=3, failed=2), Watching())
    assert (answered.verdict, answered.status) == (Verdict.WARNING, 0xB000)
    assert answered.failed_uids == ("1.2.1.1", "1.2.1.2")
    assert "disk" in answered.comment


@pytest.mark.parametrize("dataset", [b"", b"\x08\x00\x58\x00\xff\x00\x00\x00spoilt"])
def test_a_partial_move_without_a_readable_list_names_nothing(dataset: bytes) -> None:
    answered, _ = move(ending(0xB000, dataset, completed=3, failed=2), Watching())
    assert (answered.verdict, answered.failed_uids) == (Verdict.WARNING, ())


@pytest.mark.parametrize(
    ("status", "counters", "verdict"),
    [
        (0xA801, {}, Verdict.CONFIGURATION),
        (0xA702, {}, Verdict.RETRY),
        (0xB000, {"completed": 0, "failed": 4}, Verdict.RETRY),
        (0x0000, {"completed": 0, "failed": 4}, Verdict.RETRY),
        (0xA900, {}, Verdict.UNSUPPORTED),
        (0xFE00, {}, Verdict.CANCELLED),
    ],
)
def test_a_move_is_judged_by_the_table(status: int, counters: dict[str, int], verdict: Verdict) -> None:
    answered, _ = move(ending(status, b"", "", **counters), Watching())
    assert (answered.verdict, answered.status) == (verdict, status)


def test_pending_responses_are_signs_of_life() -> None:
    def script(peer: Conversation, request: Heard) -> None:
        peer.answer(request, PENDING, remaining=2, completed=1)
        peer.answer(request, PENDING)
        peer.answer(request, SUCCESS)

    watch = Watching()
    move(script, watch)
    assert watch.signs == [(1, 2), (None, None)]


def test_the_watch_is_asked_while_the_archive_is_silent_and_may_abort() -> None:
    def script(peer: Conversation, request: Heard) -> None:
        peer.answer(request, PENDING, completed=1, remaining=9)
        peer.read()

    watch = Watching(Patience.WAIT, Patience.ABORT)
    answered, _ = move(script, watch)
    assert (answered.verdict, answered.status, answered.completed) == (Verdict.LOST, None, 1)
    assert watch.asked == 2


def test_the_watch_is_asked_although_the_archive_never_stops_talking() -> None:
    answered, _ = move(lambda peer, request: peer.flood(request, PENDING), Watching(Patience.ABORT))
    assert answered.verdict is Verdict.LOST


@pytest.mark.parametrize("final", [0xFE00, 0xB000])
def test_a_cancelled_move_ends_with_the_archives_final_response(final: int) -> None:
    def script(peer: Conversation, request: Heard) -> None:
        cancel = peer.read()
        assert cancel.field == C_CANCEL
        assert cancel.command[0x0120] == request.command[0x0110]
        peer.answer(request, final, completed=1, failed=0)

    answered, _ = move(script, Watching(Patience.CANCEL))
    assert (answered.verdict, answered.status, answered.completed) == (Verdict.CANCELLED, final, 1)


def test_an_archive_that_ignores_c_cancel_is_aborted_and_was_asked_once() -> None:
    with ScriptedArchive(silent) as peer, archive(peer.ae) as pacs:
        answered = pacs.retrieve(Ask("1.2"), NoSink(), Watching(*[Patience.CANCEL] * 20))
        assert answered.verdict is Verdict.LOST
        assert [r.field for r in peer.requests] == [C_MOVE]  # the script itself read the C-CANCEL


def test_an_abort_in_a_move_is_an_answer_with_the_last_counters() -> None:
    def script(peer: Conversation, request: Heard) -> None:
        peer.answer(request, PENDING, completed=2, failed=1, warning=0, remaining=4)
        wait_for(lambda: bool(watch.signs), "the pending response to be read")
        peer.abort()

    watch = Watching()
    answered, _ = move(script, watch)
    assert (answered.verdict, answered.status) == (Verdict.LOST, None)
    assert (answered.completed, answered.failed) == (2, 1)


def test_a_move_that_cannot_begin_is_raised() -> None:
    with archive(AE("NOBODY", "127.0.0.1", free_port())) as pacs, pytest.raises(Unreachable):
        pacs.retrieve(Ask("1.2"), NoSink(), Watching())


def test_queries_and_moves_have_associations_of_their_own() -> None:
    with ScriptedArchive(answering()) as peer, archive(peer.ae) as pacs:
        pacs.find({"PatientID": "P1"})
        pacs.retrieve(Ask("1.2"), NoSink(), Watching())
        pacs.find({"PatientID": "P1"})
        assert [r.field for r in peer.requests] == [C_FIND, C_MOVE, C_FIND]
        assert peer.associations == 2
