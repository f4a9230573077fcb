"""The pages of quarry web in a browser, against a job that runs, is killed, resumed, stopped and retried."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from dicom_quarry.demo.query_matching import Catalogue
from dicom_quarry.demo.synthetic_studies import generate_studies
from dicom_quarry.system.locks import read_lock_owner
from tests.browser.conftest import OpenPage, Violations
from tests.browser.network import Network
from tests.e2e.command import PATIENCE, quarry
from tests.e2e.paused_archive import GatedArchive
from tests.lazy_module import import_lazily
from tests.peers.process import free_port, wait_for
from tests.web.web_server import WebServer

if TYPE_CHECKING:
    from playwright.sync_api import Page

sync_api = import_lazily("playwright.sync_api")

STUDIES = generate_studies(4, seed=17, images=3)
MARKER = "ZZMARKER"


@pytest.fixture(autouse=True)
def _patience() -> None:
    sync_api.expect.set_options(timeout=PATIENCE * 1000)


@pytest.fixture
def archive() -> Iterator[GatedArchive]:
    """An archive that does not have the last study yet, and holds in the second one."""
    with GatedArchive(STUDIES[:-1]) as running:
        running.hold_after = 4
        yield running


@pytest.fixture
def out(archive: GatedArchive, tmp_path: Path) -> Iterator[Path]:
    """A job in the background, with a marker in every cell that is not searched by."""
    out, cohort, port = tmp_path / "out", tmp_path / "cohort.csv", free_port()
    rows = [f"{study.accession},{MARKER}^{number}" for number, study in enumerate(STUDIES)]
    cohort.write_text("\n".join(["Accession,Name", *rows]) + "\n")
    archive.destinations["QUARRY"] = ("127.0.0.1", port)
    receiver = f"QUARRY@127.0.0.1:{port}"
    command = ("extract", cohort, "--from", archive.ae, "--as", receiver, "--to", out, "--no-diagnosis")
    assert quarry(*command, "--detach").code == 0
    yield out
    if process := _process(out):
        os.kill(process, signal.SIGKILL)


def _process(out: Path) -> int | None:
    return read_lock_owner(out / ".quarry" / "lock")


class Pages:
    """A browser with a session, which looks for violations and for values of the table on what it shows."""

    def __init__(self, page: Page, violations: Violations) -> None:
        self.page, self._violations = page, violations

    def check(self) -> None:
        """What holds for every page."""
        assert self._violations(self.page) == []
        html = self.page.content()
        assert not [value for value in (MARKER, *(one.accession for one in STUDIES)) if value in html]
        width = self.page.evaluate("[document.documentElement.scrollWidth, window.innerWidth]")
        assert width[0] <= width[1], f"{self.page.url} is wider than the window"

    def expect_state(self, word: str) -> None:
        """Wait for a state, which comes without a reload."""
        sync_api.expect(self.page.locator(".state .badge")).to_have_text(word)

    def press(self, name: str) -> None:
        """Press a button."""
        self.page.get_by_role("button", name=name, exact=True).click()


def _check_other_pages(pages: Pages) -> None:
    """The rows by outcome, the history of a row, downloads, and what is refused."""
    page = pages.page
    job = page.url
    page.get_by_role("link", name="complete", exact=True).click()
    sync_api.expect(page.get_by_role("table")).to_contain_text(
        "every instance that the archive lists is stored"
    )
    pages.check()
    page.set_viewport_size({"width": 1280, "height": 800})
    page.get_by_role("link", name="4", exact=True).click()
    sync_api.expect(page.get_by_role("list").last).to_contain_text("3 instances requested, 3 stored")
    pages.check()
    page.goto(job)


def test_a_job_is_followed_and_led_by_its_page(
    open_page: OpenPage,
    network: Network,
    violations: Violations,
    archive: GatedArchive,
    out: Path,
    tmp_path: Path,
) -> None:
    wait_for(archive.held.is_set, "the archive to hold", PATIENCE)
    with WebServer(tmp_path / "web.log", "--port", 0, "--allow-actions") as server:
        page = open_page(f"http://{server.host}{server.link[1]}")
        pages = Pages(page, violations)
        sync_api.expect(page.get_by_text("running", exact=True)).to_be_visible()
        pages.check()
        page.get_by_role("link", name=str(out)).click()
        sync_api.expect(page.get_by_text("1 of 3 images")).to_be_visible()
        sync_api.expect(page.get_by_role("progressbar")).to_be_visible()
        pages.check()

        process = _process(out)
        assert process
        os.kill(process, signal.SIGKILL)
        pages.expect_state("killed")
        pages.check()

        archive.hold_after = None
        pages.press("Resume")
        archive.open()
        pages.expect_state("finished")
        sync_api.expect(page.get_by_text("3 of 4 rows complete; 1 needs attention.")).to_be_visible()
        sync_api.expect(page.get_by_role("img", name="Flow of the rows")).to_be_visible()
        # The reports are written when the job has ended.
        sync_api.expect(page.get_by_text("None yet")).to_have_count(0)

        archive.catalogue = Catalogue(STUDIES)
        archive.hold_again()
        pages.press("Retry")
        wait_for(archive.held.is_set, "the archive to hold again", PATIENCE)
        pages.expect_state("running")
        pages.press("Stop")
        pages.expect_state("stopping")
        archive.open()
        pages.expect_state("finished")
        sync_api.expect(page.locator(".verdict")).to_have_text(
            "Every row is complete: all that the archive lists is stored."
        )
        page.set_viewport_size({"width": 390, "height": 800})
        page.emulate_media(color_scheme="dark")
        pages.check()
        _check_other_pages(pages)
        assert network.errors == []
        Pages(open_page(f"http://{server.host}/"), violations).check()
        assert len(list(out.rglob("*.dcm"))) == 12
