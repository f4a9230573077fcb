"""The contract of every archive adapter, on every archive that is installed.

A new adapter, or archive, joins by one more line in ``KINDS``.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator

import pytest

from dicom_quarry.archive.base import MonitorAction, RetrieveRequest, Verdict
from dicom_quarry.model import InstanceRef, Selection, Study, Task
from tests.archive import sites, web_sites
from tests.archive.sites import HeldStudy, PatientWatch, Site
from tests.peers.corpus import TEN_STUDIES_PATIENT, TWIN_ACCESSION, TWIN_PATIENT, UMLAUT_PATIENT, Corpus
from tests.peers.permanent import CANCEL, CLASSES, COUNTS, FIRST_TIME, PARALLEL, PERMANENT, UID_LISTS
from tests.peers.process import wait_for

KINDS = [
    "demo",
    pytest.param("orthanc", marks=pytest.mark.archive),
    pytest.param("dcmqrscp", marks=pytest.mark.archive),
    "demo-get",
    pytest.param("orthanc-get", marks=pytest.mark.archive),
    pytest.param("dcmqrscp-get", marks=pytest.mark.archive),
    "demo-web",
    pytest.param("orthanc-web", marks=pytest.mark.archive),
    *(
        pytest.param(f"{name}{ending}", marks=pytest.mark.peers)
        for name in ("next-orthanc", "next-dcmqrscp", "pixelmed", "qrscp", "dcmjs")
        for ending in ("", "-get")
    ),
    *(pytest.param(f"{name}-web", marks=pytest.mark.peers) for name in ("next-orthanc", "tiny-pacs")),
]


@pytest.fixture(scope="module", params=KINDS)
def running(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, corpus: Corpus
) -> Iterator[Site]:
    name = re.sub("-(get|web)$", "", request.param)
    if name in PERMANENT:
        if reason := PERMANENT[name].lacks():
            pytest.skip(reason)
        corpus = corpus.smaller()
    make = web_sites.site if request.param.endswith("-web") else sites.site
    with make(request.param, tmp_path_factory.mktemp(request.param), corpus) as site:
        yield site


@pytest.fixture
def site(running: Site) -> Iterator[Site]:
    running.fresh()
    yield running
    while running.cleanup:
        running.cleanup.pop().close()


def several_series(site: Site) -> HeldStudy:
    """A study of the patient with ten that has more than one series, of more than one instance."""
    for study in site.of_patient(TEN_STUDIES_PATIENT):
        if len(study.series) > 1 and len(study.sop_uids) > 3:
            return study
    raise AssertionError("the corpus has no such study")


def task(study: HeldStudy, *series: str) -> Task:
    return Task(1, "main", Study(study.study_uid, study.patient_id), Selection(frozenset(series)))


def arrived(site: Site, expected: set[str]) -> None:
    wait_for(lambda: expected <= set(site.sink.kept), f"{len(expected)} instances")
    assert set(site.sink.kept) == expected


# --- find -------------------------------------------------------------------------------------------------


def test_the_archive_answers(site: Site) -> None:
    site.adapter().probe()


def test_find_by_accession(site: Site) -> None:
    wanted = several_series(site)
    found = site.adapter().find({"AccessionNumber": wanted.accession})
    assert found.complete
    (study,) = [study for study in found.studies if study.accession == wanted.accession]
    assert (study.study_uid, study.patient_id) == (wanted.study_uid, wanted.patient_id)
    assert study.study_date == wanted.study_date
    if COUNTS not in site.omits:
        assert (study.series_count, study.instance_count) == (len(wanted.series), len(wanted.sop_uids))
    else:
        assert (study.series_count, study.instance_count) == (None, None)


def test_find_all_studies_of_a_patient(site: Site) -> None:
    found = site.adapter().find({"PatientID": TEN_STUDIES_PATIENT})
    assert found.complete
    expected = {study.study_uid for study in site.of_patient(TEN_STUDIES_PATIENT)}
    assert {study.study_uid for study in found.studies} == expected
    assert len(found.studies) == 10


def test_find_by_patient_and_date(site: Site) -> None:
    wanted = several_series(site)
    found = site.adapter().find({"PatientID": wanted.patient_id, "StudyDate": wanted.study_date})
    assert [study.study_uid for study in found.studies] == [wanted.study_uid]


def test_find_two_studies_under_one_accession(site: Site) -> None:
    found = site.adapter().find({"AccessionNumber": TWIN_ACCESSION})
    assert {s.study_uid for s in found.studies} == {s.study_uid for s in site.of_patient(TWIN_PATIENT)}
    assert len(found.studies) == 2


def test_find_a_patient_whose_id_is_not_ascii(site: Site) -> None:
    found = site.adapter().find({"PatientID": UMLAUT_PATIENT})
    (study,) = found.studies
    assert study.patient_id == UMLAUT_PATIENT


def test_find_nothing(site: Site) -> None:
    found = site.adapter().find({"AccessionNumber": "NO-SUCH"})
    assert (found.studies, found.complete, found.incomplete_reason) == ((), True, "")


def test_the_number_of_a_patients_studies_is_right_where_the_archive_has_one(site: Site) -> None:
    archive = site.adapter()
    assert archive.count_studies(TEN_STUDIES_PATIENT) in (10, None)
    assert archive.count_studies("NO-SUCH") is None
    assert len(archive.find({"PatientID": TEN_STUDIES_PATIENT}).studies) == 10


def test_find_by_study_uid_gives_every_study_that_was_loaded(site: Site) -> None:
    archive = site.adapter()
    for study_uid in site.studies:
        found = archive.find({"StudyInstanceUID": study_uid})
        assert [study.study_uid for study in found.studies] == [study_uid]


# --- list -------------------------------------------------------------------------------------------------


def test_list_names_every_instance_of_every_study(site: Site) -> None:
    archive = site.adapter()
    for study in site.studies.values():
        listing = archive.list_instances(task(study))
        assert set(listing.instances) == {
            InstanceRef(study.study_uid, series_uid, sop_uid, "" if CLASSES in site.omits else sop_class)
            for series_uid, instances in study.series.items()
            for sop_uid, sop_class in instances.items()
        }
        assert len(listing.instances) == len(study.sop_uids)
        assert set(listing.series_uids) == set(study.series)
        assert (listing.lists_instances, listing.complete) == (True, True)
        assert listing.count == (None if COUNTS in site.omits else len(study.sop_uids))


def test_list_a_selection(site: Site) -> None:
    study = several_series(site)
    series_uid = max(study.series)
    listing = site.adapter().list_instances(task(study, series_uid))
    assert {ref.sop_uid for ref in listing.instances} == set(study.series[series_uid])
    assert listing.series_uids == (series_uid,)


def test_list_a_study_that_the_archive_does_not_have(site: Site) -> None:
    listing = site.adapter().list_instances(task(HeldStudy("1.2.3.4", "P", "A", "", {})))
    assert (listing.instances, listing.series_uids) == ((), ())


# --- retrieve ---------------------------------------------------------------------------------------------


def test_retrieve_brings_every_study_whole_and_byte_for_byte(site: Site) -> None:
    if FIRST_TIME in site.omits:
        pytest.skip("the archive sends some images only when they are requested once more")
    archive = site.adapter()
    for study in site.studies.values():
        answered = archive.retrieve(site.ask(study), site.sink, PatientWatch())
        assert answered.verdict is Verdict.SUCCESS, (study, answered)
        assert answered.completed == len(study.sop_uids)
    arrived(site, {sop_uid for study in site.studies.values() for sop_uid in study.sop_uids})
    assert site.sink.kept == site.relay.stored()


def test_retrieve_some_series(site: Site) -> None:
    study = several_series(site)
    series = sorted(study.series)[: 1 if UID_LISTS in site.omits else 2]
    request = site.ask(study, series)
    assert site.adapter().retrieve(request, site.sink, PatientWatch()).verdict is Verdict.SUCCESS
    arrived(site, {sop_uid for series_uid in series for sop_uid in study.series[series_uid]})


def test_retrieve_some_instances_of_a_series(site: Site) -> None:
    study = several_series(site)
    series_uid = max(study.series, key=lambda uid: len(study.series[uid]))
    wanted = sorted(study.series[series_uid])[: 1 if UID_LISTS in site.omits else 2]
    request = site.ask(study, [series_uid], wanted)
    assert site.adapter().retrieve(request, site.sink, PatientWatch()).verdict is Verdict.SUCCESS
    arrived(site, set(wanted))


def test_an_instance_that_is_refused_is_never_success_and_comes_with_the_next_request(site: Site) -> None:
    study = several_series(site)
    series_uid = max(study.series, key=lambda uid: len(study.series[uid]))
    missing = max(study.series[series_uid])
    site.sink.refuse = {missing}
    archive = site.adapter()
    answered = archive.retrieve(site.ask(study), site.sink, PatientWatch())
    assert answered.verdict in (Verdict.WARNING, Verdict.RETRY)
    assert missing not in site.sink.kept

    site.fresh()
    request = site.ask(study, [series_uid], [missing])
    assert archive.retrieve(request, site.sink, PatientWatch()).verdict is Verdict.SUCCESS
    arrived(site, {missing})


def test_a_study_that_the_archive_does_not_have_brings_nothing(site: Site) -> None:
    answered = site.adapter().retrieve(RetrieveRequest("1.2.3.4", "P"), site.sink, PatientWatch())
    assert answered.verdict is not Verdict.LOST
    assert not answered.completed
    assert not site.sink.kept


def test_an_unknown_destination_needs_registering(site: Site) -> None:
    if not site.moves:
        pytest.skip("only C-MOVE has a destination")
    study = several_series(site)
    archive = site.adapter("NOBODY")
    answered = archive.retrieve(site.ask(study), site.sink, PatientWatch())
    assert answered.verdict in (Verdict.CONFIGURATION, Verdict.RETRY)
    assert "Register" in answered.comment
    assert not site.sink.kept


def test_a_cancelled_retrieval_ends_and_leaves_the_archive_usable(site: Site) -> None:
    if CANCEL in site.omits:
        pytest.skip("the archive passes over C-CANCEL")
    study = several_series(site)
    site.gate.clear()
    calls = 0

    def cancel() -> MonitorAction:
        nonlocal calls
        calls += 1
        if calls > 1:  # the C-CANCEL is on its way: the archive, held up so far, may go on
            site.gate.set()
        return MonitorAction.CANCEL

    archive = site.adapter()
    answered = archive.retrieve(site.ask(study), site.sink, PatientWatch(cancel))
    assert answered.verdict is Verdict.CANCELLED
    assert len(site.sink.kept) < len(study.sop_uids)
    site.gate.set()
    assert archive.find({"AccessionNumber": study.accession}).complete
    again = archive.retrieve(site.ask(study), site.sink, PatientWatch())
    assert again.verdict is Verdict.SUCCESS
    arrived(site, study.sop_uids)


def test_an_aborted_retrieval_is_lost_and_leaves_the_archive_usable(site: Site) -> None:
    study = several_series(site)
    site.gate.clear()
    archive = site.adapter()
    monitor = PatientWatch(lambda: MonitorAction.ABORT)
    answered = archive.retrieve(site.ask(study), site.sink, monitor)
    assert answered.verdict is Verdict.LOST
    site.gate.set()
    assert archive.find({"AccessionNumber": study.accession}).complete
    again = archive.retrieve(site.ask(study), site.sink, PatientWatch())
    assert again.verdict is Verdict.SUCCESS
    arrived(site, study.sop_uids)


# --- threads ----------------------------------------------------------------------------------------------


def test_several_threads_retrieve_at_once(site: Site) -> None:
    if PARALLEL in site.omits:
        pytest.skip("the archive fails in part if it is requested in parallel")
    studies = site.of_patient(TEN_STUDIES_PATIENT)
    archive = site.adapter()
    verdicts: list[Verdict] = []

    def work(mine: list[HeldStudy]) -> None:
        for study in mine:
            request = site.ask(study)
            assert archive.list_instances(task(study)).complete
            verdicts.append(archive.retrieve(request, site.sink, PatientWatch()).verdict)
        archive.release_thread()

    threads = [threading.Thread(target=work, args=(studies[n::4],)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert verdicts == [Verdict.SUCCESS] * 10
    arrived(site, {sop_uid for study in studies for sop_uid in study.sop_uids})


def test_an_archive_that_was_hung_up_on_is_called_again(site: Site) -> None:
    archive = site.adapter()
    assert archive.find({"AccessionNumber": "NO-SUCH"}).complete
    archive.release_thread()
    assert archive.find({"AccessionNumber": "NO-SUCH"}).complete
