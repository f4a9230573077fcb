"""An archive that goes away and comes back: the job waits, says so, and goes on by itself."""

from __future__ import annotations

import re
from pathlib import Path

from dicom_quarry.model import AE
from tests.e2e.command import Running, check_folder, files, outcomes, status, until
from tests.peers.corpus import write_study
from tests.peers.orthanc import Orthanc
from tests.peers.process import free_port

STUDIES, INSTANCES = 40, 5


def test_the_archive_is_killed_and_started_again(work: Path) -> None:
    items = [
        item
        for number in range(STUDIES)
        for item in write_study(
            work / "data" / str(number),
            patient_id=f"OUT-{number}",
            accession=f"OA{number}",
            instances=INSTANCES,
            pixel_bytes=100_000,
        )
    ]
    cohort, out = work / "cohort.csv", work / "out"
    cohort.write_text("\n\n".join(["Accession", *(f"OA{number}" for number in range(STUDIES))]) + "\n")
    port = free_port()
    receiver = AE("QUARRY", "127.0.0.1", port)
    with Orthanc(work / "orthanc", destinations=[receiver]) as archive:
        archive.load(item.path for item in items)
        command = ("extract", cohort, "--from", archive.ae, "--as", f"QUARRY@127.0.0.1:{port}", "--to", out)
        with Running(work / "output.txt", *command) as running:
            until(running, "the middle", lambda: len(files(out)) >= 2 * INSTANCES)
            archive.kill()
            until(running, "the job to wait", lambda: status(out).get("waiting_for"))
            waiting = status(out)
            stored = len(files(out))
            until(running, "the job to say so", lambda: "not available" in running.output)
            archive.start()
            code = running.wait()
        said = running.output
    assert waiting["waiting_for"] == "the archive to answer"
    assert waiting["running"] and waiting["exit code"] == 4
    assert 2 * INSTANCES <= stored < STUDIES * INSTANCES, "the outage was not in the middle"
    assert code == 0, said
    assert said.index("the archive is not available") < said.index("the archive answers again after")
    assert outcomes(out) == [("complete", "all_listed_stored")] * STUDIES
    assert len(files(out)) == STUDIES * INSTANCES
    check_folder(out)
    after = status(out)
    assert after["waiting_for"] is None and not after["running"] and after["exit code"] == 0
    # Under nohup every line says when, until the summary of 40 rows.
    lines = said[: said.index("40 rows: 40 complete")].splitlines()
    assert lines and all(re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d\d:\d\d ", line) for line in lines)
