"""Take the pictures in docs/pictures: pages as a browser shows them, of a job against a demo archive.

``python -m tools.screenshots``. It needs Debian's chromium, and takes about half a minute.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, expect, sync_playwright
from tests.reporting.recorded_cohort import record_cohort

from dicom_quarry.demo.dimse_operations import RetrieveOperation
from dicom_quarry.demo.dimse_server import DemoArchive
from dicom_quarry.demo.synthetic_studies import generate_studies
from dicom_quarry.jobs.opened_job import open_job
from dicom_quarry.reporting.html.report_page import write_report_page

PICTURES = Path(__file__).parents[1] / "docs" / "pictures"

#: The folder of the jobs: its name is in the pictures.
_WORK = Path(tempfile.gettempdir()) / "quarry-pictures"

_STUDIES = generate_studies(60, seed=17, images=8)
#: Studies that are complete when a running job is shown.
_DONE = 22


class SlowArchive(DemoArchive):
    """An archive that takes its time for every instance, so that a job can be seen while it runs."""

    pause = 0.05

    def should_continue(self, operation: RetrieveOperation, sent: int) -> bool:
        """Wait before each instance."""
        time.sleep(self.pause)
        return super().should_continue(operation, sent)


def _quarry(*words: object) -> list[str]:
    return [sys.executable, "-m", "dicom_quarry", *map(str, words)]


@contextmanager
def _running_job() -> Iterator[tuple[SlowArchive, Path]]:
    """Run a job in the background, with two rows that are not found and one that cannot be used."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with SlowArchive(_STUDIES, destinations={"QUARRY": ("127.0.0.1", port)}) as archive:
        accessions = [study.accession for study in _STUDIES]
        accessions[5:5], accessions[11:11], accessions[17:17] = ["999991899999"], [""], ["999991899998"]
        (_WORK / "cohort.csv").write_text("\n".join(["Accession,Group", *(f"{one},A" for one in accessions)]))
        source, out = f"{archive.title}@{archive.host}:{archive.port}", _WORK / "lung-cohort"
        command = _quarry(
            "extract", _WORK / "cohort.csv", "--from", source, "--as", f"QUARRY@127.0.0.1:{port}"
        )
        subprocess.run([*command, "--to", out, "--skip-bad-rows", "--detach"], check=True)
        try:
            yield archive, out
        finally:
            subprocess.run(_quarry("stop", out, "--now"), check=False, stdout=subprocess.DEVNULL)


@contextmanager
def _web_server() -> Iterator[str]:
    """Run ``quarry web``; yield its link."""
    command = _quarry("web", "--port", 0, "--allow-actions")
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        links = (re.search(r"http://localhost:\S+", line) for line in child.stdout)
        try:
            yield next(found[0] for found in links if found)
        finally:
            child.send_signal(signal.SIGINT)


def _save(page: Page, name: str, *, width: int = 1280, height: int = 900, dark: bool = False) -> None:
    page.set_viewport_size({"width": width, "height": height})
    page.emulate_media(color_scheme="dark" if dark else "light")
    page.screenshot(path=PICTURES / f"{name}.png")


def take_live_pages(browser: Browser) -> None:
    """Take the pictures of ``quarry web``: a running job, on a small dark screen too, and a row."""
    with _running_job() as (archive, _), _web_server() as link:
        page = browser.new_page()
        page.goto(link)
        page.get_by_role("link", name="lung-cohort").click()
        complete: Any = page.locator("dt", has_text="Studies complete").locator("xpath=../dd")
        expect(complete).to_have_text(re.compile(rf"^{_DONE}"), timeout=120_000)
        _save(page, "web-job")
        _save(page, "web-job-dark", width=390, dark=True)
        archive.pause = 0.0
        page.get_by_role("link", name="All rows").click()
        page.get_by_role("link", name="3", exact=True).click()
        _save(page, "web-row", height=760)


def take_report(browser: Browser) -> None:
    """Take the pictures of report.html, of a made-up cohort that was recorded without an archive."""
    record_cohort(_WORK / "report", 3200, unusable=14)
    with open_job(_WORK / "report") as job:
        write_report_page(_WORK / "report.html", job)
    page = browser.new_page()
    page.goto((_WORK / "report.html").as_uri())
    _save(page, "report", width=1080, height=840)
    page.locator("#archive").screenshot(path=PICTURES / "report-archive.png")
    page.locator("#row-filter").select_option("instances_missing")
    page.locator("#rows").screenshot(path=PICTURES / "report-rows.png")
    page.locator("#summary").scroll_into_view_if_needed()
    _save(page, "report-dark", width=390, height=844, dark=True)


def main() -> int:
    """Take all pictures."""
    PICTURES.mkdir(exist_ok=True)
    _WORK.mkdir()
    os.environ["XDG_STATE_HOME"] = os.environ["XDG_RUNTIME_DIR"] = str(_WORK / "state")
    try:
        with sync_playwright() as playwright:
            arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
            with playwright.chromium.launch(
                executable_path=shutil.which("chromium"), args=arguments
            ) as browser:
                take_report(browser)
                take_live_pages(browser)
    finally:
        shutil.rmtree(_WORK, ignore_errors=True)  # the last reports may still be written
    return 0


if __name__ == "__main__":
    sys.exit(main())
