"""The same against real archives: Orthanc, and DCMTK's dcmqrscp."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from dicom_quarry.demo.synthetic_instances import encode_dataset
from dicom_quarry.demo.synthetic_studies import DemoStudy, generate_studies
from dicom_quarry.extraction import inbound
from dicom_quarry.jobs import observer
from dicom_quarry.model import AE, InstanceInfo
from dicom_quarry.store.part10 import encode_file_head
from tests.e2e.command import check_folder, files
from tests.faults.documented_tests import shows
from tests.faults.query_faults import SPREAD
from tests.faults.scenario import COMPLETE, PENDING, by_accession
from tests.faults.scenario_runner import Stage, outcomes
from tests.peers.dcmtk import Dcmqrscp
from tests.peers.fixtures import Start
from tests.peers.orthanc import Orthanc
from tests.peers.process import free_port
from tests.peers.relay import C_FIND, C_GET, C_MOVE, Relay

pytestmark = pytest.mark.archive

HELD = tuple(generate_studies(4, seed=9, series=2, images=2))
#: Large enough that an archive can be killed in the middle of one.
LARGE = tuple(generate_studies(3, seed=10, profile="ct", images=24))

Archive = Orthanc | Dcmqrscp


def load(archive: Archive, studies: Sequence[DemoStudy]) -> None:
    archive.load(part10(instance) for study in studies for instance in study.instances())


def hold(start: Start, archive: Archive, studies: Sequence[DemoStudy]) -> None:
    """Have it run, and hold these: dcmqrscp is given them before its start, Orthanc after."""
    if isinstance(archive, Dcmqrscp):
        load(archive, studies)
    start(archive)
    if isinstance(archive, Orthanc):
        load(archive, studies)


def part10(instance: Any) -> bytes:
    syntax = instance.series.profile.syntax
    head = encode_file_head(InstanceInfo(instance.sop_class, instance.sop_uid, syntax))
    return head + b"".join(encode_dataset(instance, syntax))


def levels(relay: Relay) -> Counter[str]:
    """Count the C-MOVE requests of each level."""
    return Counter(one.identifier()["QueryRetrieveLevel"] for one in relay.requests(C_MOVE))


def run(stage: Stage, relay: Relay, cohort: str, profile: dict[str, Any], **options: Any) -> Any:
    return stage.extract(cohort, {"main": relay.ae}, profile, **options)


@shows(
    9,
    "Orthanc with SynchronousCMove false: success is reported before the first instance is sent",
    "waits for late instances, and retrieves nothing twice",
)
def test_orthanc_answers_before_it_sends(stage: Stage, start: Start) -> None:
    options = {"SynchronousCMove": False}
    orthanc = start(Orthanc(stage.folder / "orthanc", destinations=[stage.ae], options=options))
    load(orthanc, HELD)
    with Relay(orthanc.ae) as relay:
        result = run(stage, relay, by_accession(HELD), {"settle": 5.0})
        assert levels(relay) == {"STUDY": 4}
    assert (outcomes(result), result.exit_code) == ([COMPLETE] * 4, 0)
    assert len(files(stage.out)) == 16
    check_folder(stage.out)


@shows(
    8,
    "Orthanc with SynchronousCMove false, registered with another port of ours: success, and nothing",
    "success is no proof: retrieves smaller parts, and stops after three studies of which nothing came",
)
def test_orthanc_reports_success_and_cannot_reach_us(stage: Stage, start: Start) -> None:
    elsewhere = AE("QUARRY", "127.0.0.1", free_port())
    options = {"SynchronousCMove": False}
    orthanc = start(Orthanc(stage.folder / "orthanc", destinations=[elsewhere], options=options))
    load(orthanc, HELD)
    with Relay(orthanc.ae) as relay:
        result = run(stage, relay, by_accession(HELD), {"settle": 0.3})
        assert levels(relay)["STUDY"] == 3
        assert sum(levels(relay).values()) <= 40
    assert outcomes(result) == [*[("failed", "nothing_arrived")] * 2, PENDING, PENDING]
    assert (result.exit_code, files(stage.out)) == (4, set())


@shows(
    13,
    "Orthanc with LimitFindResults 4: more are not given, and the query ends with FE00",
    "repeats the query by ranges of dates until no answer is cut short",
)
def test_orthanc_limits_its_answers(stage: Stage, start: Start) -> None:
    options = {"LimitFindResults": 4}
    orthanc = start(Orthanc(stage.folder / "orthanc", destinations=[stage.ae], options=options))
    load(orthanc, SPREAD)
    with Relay(orthanc.ae) as relay:
        result = run(stage, relay, "EMPI\nMANY-13\n", {}, whole_patients=True)
        assert levels(relay) == {"STUDY": 6}
        assert len(relay.requests(C_FIND)) <= 40
    assert (outcomes(result), result.exit_code) == ([COMPLETE], 0)
    assert len(files(stage.out)) == 6
    check_folder(stage.out)


@pytest.mark.parametrize("kind", [Orthanc, Dcmqrscp])
@shows(
    7,
    "Orthanc (C000) and dcmqrscp (A801) have no entry for us",
    "stops, and names the AE title, address and port to register; after that the next run continues",
)
def test_an_archive_that_does_not_know_us(stage: Stage, start: Start, kind: type[Archive]) -> None:
    archive = kind(stage.folder / "archive")
    hold(start, archive, HELD)
    with Relay(archive.ae) as relay:
        result = run(stage, relay, by_accession(HELD), {})
        assert (outcomes(result), result.exit_code) == ([PENDING] * 4, 4)
        # Orthanc reports C000, as for a series that it cannot send: a few narrower requests are tried.
        assert levels(relay)["STUDY"] <= (6 if kind is Orthanc else 1)
        assert sum(levels(relay).values()) <= (40 if kind is Orthanc else 1)
        archive.register(stage.ae)
        relay.forget()
        result = run(stage, relay, by_accession(HELD), {})
        assert levels(relay) == {"STUDY": 4}
    assert (outcomes(result), result.exit_code) == ([COMPLETE] * 4, 0)
    check_folder(stage.out)


@pytest.mark.parametrize("kind", [Orthanc, Dcmqrscp])
@shows(
    7,
    "they have no entry for us, and retrieve is auto",
    "reports that once, and fetches everything by C-GET",
)
def test_an_archive_that_does_not_know_us_is_used_by_another_transport(
    stage: Stage, start: Start, kind: type[Archive]
) -> None:
    archive = kind(stage.folder / "archive")
    hold(start, archive, HELD)
    with Relay(archive.ae) as relay:
        result = run(stage, relay, by_accession(HELD), {"retrieve": "auto"})
        assert len(relay.requests(C_GET)) == 4
        assert sum(levels(relay).values()) <= (40 if kind is Orthanc else 1)
    assert (outcomes(result), result.exit_code) == ([COMPLETE] * 4, 0)
    assert sum("Using C-GET from now on" in message for message in stage.messages) == 1
    check_folder(stage.out)


@pytest.mark.parametrize("kind", [Orthanc, Dcmqrscp])
@shows(
    2,
    "Orthanc and dcmqrscp are killed in the middle of a C-MOVE, and started again",
    "waits with one probe at a time, then retrieves what is missing, and nothing that is complete",
)
def test_an_archive_is_killed_in_the_middle(
    stage: Stage, start: Start, kind: type[Archive], monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = kind(stage.folder / "archive", destinations=[stage.ae])
    hold(start, archive, LARGE)
    with Relay(archive.ae) as relay:
        Outage(archive, stage, monkeypatch)
        result = run(stage, relay, by_accession(LARGE), {})
        moves = relay.moves()
    assert (outcomes(result), result.exit_code) == ([COMPLETE] * 3, 0)
    assert any("not available" in message for message in stage.messages)
    assert sorted(moves.values()) == [1, 1, 2], "the study that was cut off, and no other, is retrieved again"
    assert len(files(stage.out)) == 72
    check_folder(stage.out)


class Outage:
    """Kills the archive in the middle of a study, and starts it again once the job has noticed."""

    def __init__(self, archive: Archive, stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
        self._archive, self._stage = archive, stage
        self._state = "before"
        arrived: Callable[..., bool] = inbound.InboundStudies.record

        def arrive(*arguments: Any) -> bool:
            is_recorded = arrived(*arguments)
            if len(files(stage.out)) == 30 and self._state == "before":
                self._state = "killed"
                archive.kill()
            return is_recorded

        monkeypatch.setattr(inbound.InboundStudies, "record", arrive)
        probe = observer.ProgressPublisher.publish

        def record(*arguments: Any) -> None:
            probe(*arguments)
            if self._state == "killed" and any("not available" in message for message in stage.messages):
                self._state = "again"
                archive.start()

        monkeypatch.setattr(observer.ProgressPublisher, "publish", record)
