"""A user's script as mypy --strict has to accept it, and the mistakes that it has to find.

Each ``ignore`` names the error that mypy must report there: an unused one is an error itself.
"""

from __future__ import annotations

from pathlib import Path

import dicom_quarry


class Progress(dicom_quarry.JobObserver):
    """Prints how far the job is."""

    def on_message(self, message: str) -> None:
        print(message)

    def on_progress(self, snapshot: dicom_quarry.Snapshot) -> None:
        print(snapshot.counts.instances_stored)


def fetch(archive: str, receiver: str, to: Path) -> list[str]:
    """Fetch two studies, and return the rows that need attention."""
    cohort = [{"EMPI": "Q-TEN", "Accession": "QA00003"}, {"EMPI": "Q-TEN", "Accession": "QA00004"}]
    result = dicom_quarry.extract(
        cohort,
        archive=archive,
        receiver=receiver,
        to=to,
        parallel=2,
        series_not={"Modality": ["SR"]},
        yes=True,
        observer=Progress(),
    )
    job: dicom_quarry.Job = dicom_quarry.open(to)
    status: dicom_quarry.JobStatus = job.status()
    assert status.state == "finished"
    damaged = [one.file.path for one in job.verify() if one.problem]
    rows = [row.outcome.reason for row in result.rows() if row.outcome.status != "complete"]
    with open(dicom_quarry.report(to).report, encoding="utf-8") as file:  # noqa: PTH123 - the builtin open
        assert file.readline()
    return [*damaged, *rows]


def mistakes(to: Path) -> None:
    """Calls that a type checker refuses; not run."""
    dicom_quarry.extract("cohort.csv", to=to, parallel="four")  # type: ignore[arg-type]
    dicom_quarry.extract("cohort.csv", to=to, paralel=4)  # type: ignore[call-arg]
    dicom_quarry.extract(4711, to=to)  # type: ignore[arg-type]
    dicom_quarry.plan("cohort.csv", accept_mismatch=True)  # type: ignore[call-arg]
    dicom_quarry.open(to).pause()  # type: ignore[attr-defined]
