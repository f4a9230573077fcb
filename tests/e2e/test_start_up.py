"""What a command loads before it can begin: no more than it needs, as every module takes time."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.command import Done, quarry
from tests.e2e.conftest import Site

#: What only other commands need, or other roads.
OWN = (
    "dicom_quarry.diagnosis",
    "dicom_quarry.demo",
    "dicom_quarry.config.niffler",
    "dicom_quarry.reporting.live_display",
    "dicom_quarry.cohort.xlsx_table",
    "dicom_quarry.reporting.row_history",
    "dicom_quarry.reporting.plan_files",
    "dicom_quarry.reporting.xlsx_report",
)
LIBRARIES = ("psutil", "pynetdicom", "rich.live", "tomlkit", "xlsxwriter")

OTHER_VERBS = (
    "dicom_quarry.planning.planner",
    "dicom_quarry.verification",
    "dicom_quarry.completion.release",
)
HTTP = (
    "dicom_quarry.archive.dicomweb.archive",
    "dicom_quarry.archive.dicomweb.http_client",
    "dicom_quarry.archive.dicomweb.connection",
)
DIMSE = (
    "dicom_quarry.archive.dimse.associations",
    "dicom_quarry.archive.dimse.archive",
    "dicom_quarry.wire.association",
    "dicom_quarry.wire.negotiation",
    "dicom_quarry.wire.connection",
)
RECEIVER = ("dicom_quarry.extraction.storage_scp", "dicom_quarry.receiver.server")
JOB = ("dicom_quarry.archive", "dicom_quarry.extraction.runner", "dicom_quarry.extraction.archive_client")


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> None:
    """The interpreter names every module that it loads, as it does for ``-X importtime``."""
    monkeypatch.setenv("PYTHONPROFILEIMPORTTIME", "1")


def needless(done: Done, *unwanted: str) -> list[str]:
    """Those of the modules that were loaded all the same, with whatever is in them."""
    loaded = [line.rpartition("|")[2].strip() for line in done.err.splitlines() if "import time:" in line]
    assert "dicom_quarry.cli.main" in loaded, done.err
    return [one for one in loaded if any(f"{one}.".startswith(f"{name}.") for name in unwanted)]


def of_one_study(verb: str, site: Site, *more: str) -> Done:
    """Run ``extract`` or ``plan`` for a table of one row."""
    Path("cohort.csv").write_text(f"StudyInstanceUID\n{next(iter(site.holding.studies))}\n")
    done = quarry(verb, "cohort.csv", "--from", site.remote, "--to", "out", *more)
    assert done.code == 0, done.out + done.err
    return done


@pytest.mark.usefixtures("work", "told")
def test_the_version_is_told_without_any_of_it() -> None:
    done = quarry("--version")
    assert done.out.startswith("quarry ")
    own = ("api", "archive", "config", "extraction", "ledger", "reporting", "wire")
    assert not needless(done, "pydantic", "pydicom", "sqlalchemy", *(f"dicom_quarry.{one}" for one in own))


@pytest.mark.usefixtures("work", "told")
def test_a_job_over_dicomweb_loads_neither_dimse_nor_a_receiver(demo_web: Site) -> None:
    done = of_one_study("extract", demo_web)
    assert needless(done, *HTTP) and not needless(done, *DIMSE, *RECEIVER, *OTHER_VERBS, *OWN, *LIBRARIES)


@pytest.mark.usefixtures("work", "told")
def test_a_job_over_dimse_loads_no_http(demo: Site) -> None:
    done = of_one_study("extract", demo, "--retrieve", "get")
    assert needless(done, *DIMSE) and not needless(done, *HTTP, *RECEIVER, *OTHER_VERBS, *OWN, *LIBRARIES)


@pytest.mark.usefixtures("work", "told")
def test_a_plan_loads_no_receiver(demo_web: Site) -> None:
    assert not needless(of_one_study("plan", demo_web), *DIMSE, *RECEIVER, *LIBRARIES)


@pytest.mark.usefixtures("work", "told")
def test_what_looks_at_a_job_loads_none_of_its_machinery(demo_web: Site) -> None:
    of_one_study("extract", demo_web)
    for verb in ("status", "report", "verify"):
        done = quarry(verb, "out")
        assert done.code == 0, done.out + done.err
        assert not needless(done, *JOB, *HTTP, *DIMSE, *RECEIVER, *OWN, "xlsxwriter"), verb
    assert not needless(
        quarry("status", "out"),
        "pydicom",
        "dicom_quarry.config.settings",
        "dicom_quarry.config.archive_profile",
        "dicom_quarry.store",
    )


def test_the_library_leaves_the_collector_as_it_is_and_gives_every_name() -> None:
    script = """if True:
        import gc
        from importlib import import_module
        from dicom_quarry import api, extract
        for module, names in api.EXPORTS.items():
            home = import_module(f"dicom_quarry.{module}")
            assert all(getattr(api, name) is getattr(home, name) for name in names)
        assert gc.isenabled() and not gc.get_freeze_count() and not hasattr(api, "other")
    """
    subprocess.run([sys.executable, "-c", script], check=True)
