"""C-GET with real archives: no receiver, many kinds of images, an archive that goes away."""

from __future__ import annotations

import random
from collections import Counter
from datetime import date

import pytest

from dicom_quarry.demo.synthetic_instances import encode_dataset
from dicom_quarry.demo.synthetic_studies import (
    CR,
    CT,
    DX,
    MR,
    SR,
    US,
    generate_studies,
    make_patient,
    make_study,
)
from tests.e2e.command import check_folder, files
from tests.e2e.test_byte_identity import split
from tests.faults.documented_tests import shows
from tests.faults.scenario import COMPLETE, by_accession
from tests.faults.scenario_runner import Stage, outcomes
from tests.faults.test_archives import LARGE, Archive, Outage, hold, load, run
from tests.peers.dcmtk import Dcmqrscp
from tests.peers.fixtures import Start
from tests.peers.orthanc import Orthanc
from tests.peers.relay import C_GET, C_MOVE, Relay

pytestmark = pytest.mark.archive

BY_GET = {"retrieve": "get"}
_PATIENT = make_patient(random.Random(20), "GET-20")
#: Six SOP classes in four transfer syntaxes, big-endian and compressed among them.
MIXED = (
    make_study(_PATIENT, "20000", date(2019, 5, 1), *((kind, 1) for kind in (CT, MR, CR, DX, US, SR))),
    *generate_studies(1, seed=20, images=2),
)


@shows(
    20,
    "a study of six SOP classes in four transfer syntaxes",
    "retrieves once, proposing what the archive lists: every dataset is byte for byte that of the archive",
)
def test_every_kind_comes_as_it_is_held(stage: Stage, start: Start) -> None:
    orthanc = start(Orthanc(stage.folder / "orthanc"))
    load(orthanc, MIXED)
    with Relay(orthanc.ae) as relay:
        result = run(stage, relay, by_accession(MIXED), BY_GET)
        assert (len(relay.requests(C_GET)), relay.requests(C_MOVE)) == (2, [])
    assert (outcomes(result), result.exit_code) == ([COMPLETE] * 2, 0)
    kept = {
        uid: (syntax, data) for syntax, uid, data in (split(stage.out / name) for name in files(stage.out))
    }
    held = {}
    for one in (one for study in MIXED for one in study.instances()):
        syntax = one.series.profile.syntax
        held[one.sop_uid] = syntax, b"".join(encode_dataset(one, syntax))
    assert kept == held
    check_folder(stage.out)


@pytest.mark.parametrize("kind", [Orthanc, Dcmqrscp])
@shows(
    20,
    "Orthanc and dcmqrscp are killed in the middle of a C-GET, and started again",
    "keeps what came whole, waits with one probe at a time, then retrieves what is missing",
)
def test_killed_in_the_middle(
    stage: Stage, start: Start, kind: type[Archive], monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = kind(stage.folder / "archive")
    hold(start, archive, LARGE)
    with Relay(archive.ae) as relay:
        Outage(archive, stage, monkeypatch)
        result = run(stage, relay, by_accession(LARGE), BY_GET)
        requests = Counter(one.identifier()["StudyInstanceUID"] for one in relay.requests(C_GET))
    assert (outcomes(result), result.exit_code) == ([COMPLETE] * 3, 0)
    assert any("not available" in message for message in stage.messages)
    assert sorted(requests.values()) == [1, 1, 2], (
        "the study that was cut off, and no other, is retrieved again"
    )
    assert len(files(stage.out)) == 72
    check_folder(stage.out)
