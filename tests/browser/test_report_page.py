"""report.html in a browser: offline, searched, sorted, filtered, dark, printed, and without script."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import cycle, islice
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from dicom_quarry.jobs.opened_job import open_job
from dicom_quarry.reporting.html.report_data import read_report_data
from dicom_quarry.reporting.html.report_page import make_report_page, write_report_page
from dicom_quarry.reporting.html.row_data import RowData
from tests.browser.conftest import OpenPage, Violations
from tests.browser.network import Network
from tests.lazy_module import import_lazily
from tests.reporting.recorded_cohort import record_cohort

if TYPE_CHECKING:
    from playwright.sync_api import Page

sync_api = import_lazily("playwright.sync_api")

ROWS, UNUSABLE, MANY = 600, 64, 23_000


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("job") / "out"
    record_cohort(folder, ROWS, unusable=UNUSABLE)
    return folder


@pytest.fixture(scope="module")
def report(out: Path) -> Path:
    with open_job(out) as job:
        write_report_page(out / "report.html", job)
    return out / "report.html"


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with few rows: axe-core looks at every element against every other."""
    folder = tmp_path_factory.mktemp("small") / "out"
    record_cohort(folder, 60, unusable=2)
    return folder


@pytest.fixture(scope="module")
def small_report(small: Path) -> Path:
    with open_job(small) as job:
        write_report_page(small / "report.html", job)
    return small / "report.html"


@pytest.fixture
def with_identifiers(small: Path) -> Path:
    with open_job(small) as job:
        write_report_page(small / "identifiers.html", job, identifiers=True)
    return small / "identifiers.html"


@pytest.fixture
def large_report(out: Path) -> Path:
    """The page with the rows of a large job: those of the small one again and again, in other sizes."""
    rows, chance = RowData(None), random.Random(3)
    with open_job(out) as job:
        for number, row in enumerate(islice(cycle(list(job.reader.rows())), MANY), 1):
            images = round(row.instances_stored * chance.uniform(0.5, 1.5))
            expected = images + row.instances_expected - row.instances_stored
            size = round(images * chance.uniform(2e5, 8e6))
            rows.add(
                replace(row, row=number, instances_stored=images, instances_expected=expected, size=size)
            )
        data = replace(read_report_data(job), rows=rows)
    (out / "large.html").write_text(make_report_page(data), "utf-8")
    return out / "large.html"


def first_rows(page: Page, number: int = 3) -> list[str]:
    """The row numbers of the first lines of the table."""
    return page.locator("#row-view tbody th").all_inner_texts()[:number]


def cells(page: Page, column: str) -> list[str]:
    names = page.locator("#row-view thead th").all_inner_texts()
    return page.locator(
        f"#row-view tbody tr:not(.gap) > :nth-child({names.index(column) + 1})"
    ).all_inner_texts()


def test_23000_rows_are_small_and_soon_there(
    large_report: Path, open_page: OpenPage, network: Network
) -> None:
    assert large_report.stat().st_size < 300_000
    page = open_page(large_report)
    sync_api.expect(page.locator("#row-count")).to_have_text("23,000 of 23,000 rows")
    assert page.locator("#row-view tbody tr").count() < 100, "only the lines in sight are in the page"
    shown = page.evaluate("performance.getEntriesByType('navigation')[0].domContentLoadedEventEnd")
    print(f"first rows after {shown:.0f} ms")
    page.locator("#row-view").evaluate("view => view.scrollTop = view.scrollHeight")
    sync_api.expect(page.locator("#row-view tbody th").last).to_have_text("23000")
    assert (network.requests, network.connections, network.errors) == ([], [], [])


def test_rows_are_searched_sorted_and_filtered(report: Path, open_page: OpenPage) -> None:
    page = open_page(report)
    assert first_rows(page) == ["1", "2", "3"]
    page.get_by_role("button", name="Row", exact=True).click()
    assert first_rows(page) == ["600", "599", "598"]
    assert page.locator("#row-view thead th").first.get_attribute("aria-sort") == "descending"
    page.get_by_role("button", name="Images").click()
    assert cells(page, "Images")[0] == "0"
    page.get_by_role("button", name="Images").click()
    images = [int(text.replace(",", "")) for text in cells(page, "Images")]
    assert images == sorted(images, reverse=True) and images[0] > 1000
    page.locator("#row-filter").select_option("row_unusable")
    sync_api.expect(page.locator("#row-count")).to_have_text(f"{UNUSABLE} of 600 rows")
    assert set(cells(page, "Outcome")) == {"invalid"}
    page.get_by_role("searchbox").fill("64 cannot")
    sync_api.expect(page.locator("#row-count")).to_have_text("1 of 600 rows")
    page.get_by_role("button", name="64", exact=True).click()
    sync_api.expect(page.locator("#row-detail")).to_contain_text("quarry explain . --row 64")


def test_links_lead_to_their_rows(report: Path, open_page: OpenPage) -> None:
    page = open_page(report)
    link = page.locator('a[data-filter="instances_missing"]')
    number = link.inner_text().split()[0]
    link.click()
    sync_api.expect(page.locator("#row-count")).to_have_text(f"{number} of 600 rows")
    sync_api.expect(page.locator("#row-view")).to_be_in_viewport()
    assert set(cells(page, "Outcome")) == {"partial"}
    anchors = page.locator('a[href^="#"]').evaluate_all("links => links.map(link => link.hash)")
    assert all(page.locator(anchor).count() == 1 for anchor in set(anchors))


def test_without_javascript_charts_and_exceptions_are_there(report: Path, open_page: OpenPage) -> None:
    page = open_page(report, javascript=False)
    sync_api.expect(page.locator("#flow svg[role=img]")).to_be_visible()
    sync_api.expect(page.locator("#data svg[role=img]").first).to_be_visible()
    sync_api.expect(page.locator("#attention table").last.locator("tbody tr").first).to_contain_text("failed")
    sync_api.expect(page.locator("#rows-tool")).to_be_hidden()
    sync_api.expect(page.get_by_text("this part needs JavaScript")).to_be_visible()


@pytest.mark.parametrize(("dark", "width"), [(False, 1280), (True, 390)])
def test_anybody_can_use_it(
    small_report: Path, open_page: OpenPage, violations: Violations, *, dark: bool, width: int
) -> None:
    page = open_page(small_report, dark=dark, width=width)
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert background == ("rgb(17, 22, 29)" if dark else "rgb(245, 246, 248)")
    assert page.evaluate("document.documentElement.scrollWidth") <= width, "nothing makes the page wider"
    assert violations(page) == []


def test_the_keyboard_is_enough(report: Path, open_page: OpenPage) -> None:
    page = open_page(report)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.get_by_role("button", name="Row", exact=True).focus()
    page.keyboard.press("Enter")
    assert first_rows(page, 1) == ["600"]
    page.locator("#row-view").focus()
    page.keyboard.press("End")
    sync_api.expect(page.locator("#row-view tbody th").last).to_have_text("1")


def test_a_page_with_identifiers_warns_on_the_screen_and_on_paper(
    with_identifiers: Path, open_page: OpenPage, violations: Violations, network: Network
) -> None:
    page = open_page(with_identifiers, dark=True)
    page.locator("#software").scroll_into_view_if_needed()
    sync_api.expect(page.get_by_text("This page has patient identifiers")).to_be_in_viewport()
    page.get_by_role("searchbox").fill("951381800050")
    sync_api.expect(page.locator("#row-count")).to_have_text("1 of 60 rows")
    page.get_by_role("button", name="50", exact=True).click()
    sync_api.expect(page.locator("#row-detail a")).to_have_attribute("href", "50/2.25.50")
    assert violations(page) == []
    page.emulate_media(media="print")
    sync_api.expect(page.get_by_text("This page has patient identifiers")).to_be_visible()
    assert network.errors == []
