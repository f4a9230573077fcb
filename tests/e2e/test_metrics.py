"""``metrics = "FOLDER"`` of a job that runs, and the same numbers in ``quarry status --json``."""

from __future__ import annotations

from pathlib import Path

from dicom_quarry import api
from dicom_quarry.demo.synthetic_studies import generate_studies
from tests.e2e.command import Running, status, until
from tests.e2e.paused_archive import GatedArchive
from tests.peers.process import free_port
from tests.reporting.test_metrics import parse

STUDIES = generate_studies(3, seed=5, images=3)


def test_the_numbers_of_a_job_while_it_runs_and_at_its_end(work: Path) -> None:
    table, out, folder = work / "cohort.csv", work / "out", work / "metrics"
    table.write_text("\n".join(["Accession", *[one.accession for one in STUDIES]]))
    (work / "quarry.toml").write_text('metrics = "metrics"\n')
    with GatedArchive(STUDIES) as archive:
        port = free_port()
        archive.destinations["QUARRY"] = ("127.0.0.1", port)
        archive.hold_after = 4
        command = ("extract", table, "--from", archive.ae, "--as", f"QUARRY@127.0.0.1:{port}", "--to", out)
        with Running(work / "output.txt", *command, cwd=work) as running:
            until(running, "the warning", lambda: "metrics: " in running.output)
            folder.mkdir()
            path = folder / f"quarry_{api.job_key(out)}.prom"
            until(running, "the first study", lambda: _value(path, "instances_stored") == 3)
            until(running, "its retrieval", lambda: _value(path, "retrievals_total", archive="DEMO") == 1)
            assert _value(path, "state", state="running") == 1
            shown = status(out)
            assert (shown["state"], shown["job"]) == ("running", api.job_key(out))
            assert (shown["instances_stored"], shown["rows_done"]) == (3, 1)
            archive.open()
            assert running.wait() == 0
            assert running.output.count("metrics: ") == 1
    shown = status(out)
    assert _value(path, "state", state="finished") == 1
    assert _value(path, "instances_stored") == shown["instances_stored"] == 9
    assert _value(path, "rows", outcome="complete") == shown["rows_by_outcome"]["complete"] == 3
    assert _value(path, "retrievals_total", archive="DEMO") == shown["archives"]["DEMO"]["retrievals"] == 3
    assert [one.name for one in folder.iterdir()] == [path.name]


def _value(path: Path, name: str, **labels: str) -> float | None:
    if not path.exists():
        return None
    wanted = (("job", path.stem.removeprefix("quarry_")), *labels.items())
    return parse(path.read_text()).get((f"quarry_job_{name}", wanted))
