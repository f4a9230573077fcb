"""The page of the workers of a database, in a browser: it follows them, also after the database was away."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from dicom_quarry.scheduling.archive_facts import ArchiveFacts
from tests.browser.conftest import OpenPage, Violations
from tests.browser.network import Network
from tests.e2e.command import PATIENCE
from tests.lazy_module import import_lazily
from tests.web.web_server import WebServer

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from tests.postgres_server import PostgresServer

sync_api = import_lazily("playwright.sync_api")
psycopg = import_lazily("psycopg")

FACTS = ArchiveFacts(
    address="PACS@10.1.2.3:104",
    state="archive.pacs",
    problem="it refused the connection",
    has_window=True,
    most_at_once=4,
    pools={"10.1.2.3.104": 6},
    rates=({"name": "pacs.studies", "kind": "studies", "allowed": 200, "is_own": False},),
)


def check(page: Page, violations: Violations) -> None:
    assert violations(page) == []
    width = page.evaluate("[document.documentElement.scrollWidth, window.innerWidth]")
    assert width[0] <= width[1], "the page is wider than the window"


def enter(url: str, name: str, state: str = "") -> None:
    """Give a worker's sign of life."""
    from dicom_quarry.jobs.cluster.workers import Registration

    worker = Registration(
        f"{name}@research-node.hospital.example", name, f"{name}:11112", "/data/research", 1e6
    )
    with psycopg.connect(url, autocommit=True) as connection:
        for _ in range(2):  # the first one enters the worker
            worker.beat(connection, {"studies:main": 4}, state, {"main": FACTS.to_json()})


def prepare(url: str) -> None:
    """Make a database with a worker that has a slot, a job, and an archive that does not answer."""
    from dicom_quarry.api import init_cluster

    init_cluster(url)
    enter(url, "QUARRY1")
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO quarry.jobs (name, folder, host, owner, with_workers, verifying)"
            " VALUES ('a-job-with-a-long-name-of-2026', '/data', 'host1', 'anna', true, true)"
        )
        connection.execute(
            "INSERT INTO quarry.slots VALUES ('10.1.2.3.104', 0, 1, 'QUARRY1', now() + interval '1 h')"
        )
        connection.execute(
            "INSERT INTO quarry.numbers"
            " VALUES ('archive.pacs', ARRAY[extract(epoch FROM now()) - 60, 0, 0, 3, 0])"
        )


def test_the_workers_are_followed_by_their_page(
    open_page: OpenPage, network: Network, violations: Violations, postgres: PostgresServer, tmp_path: Path
) -> None:
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        connection.execute("CREATE DATABASE seen")
    url = postgres.url.replace("/postgres", "/seen")
    prepare(url)
    settings = tmp_path / "quarry.toml"
    settings.write_text(f'[cluster]\nledger = "{url}"\n')
    with WebServer(tmp_path / "web.log", "--port", 0, cwd=tmp_path) as server:
        page = open_page(f"http://{server.host}{server.link[1]}")
        page.get_by_role("link", name="Workers and limits of the database").click()
        for text in ("does not answer since", "3 probes without an answer: it refused the connection"):
            sync_api.expect(page.locator("#archives")).to_contain_text(text)
        sync_api.expect(page.locator("#archives")).to_contain_text("1 of 6 in use: QUARRY1 1")
        sync_api.expect(page.locator("#jobs")).to_contain_text("1 (100%)")
        sync_api.expect(page.locator("#jobs")).to_contain_text("of anna: the workers compare its files")
        check(page, violations)
        enter(url, "QUARRY2", "waiting for the window, until Mon 19:00")
        sync_api.expect(page.locator("#workers")).to_contain_text("waiting for the window, until Mon 19:00")
        postgres.kill()
        problem = page.locator("#problem")
        sync_api.expect(problem).to_contain_text("The database cannot be read")
        sync_api.expect(problem).to_contain_text("The page goes on by itself when the database answers")
        sync_api.expect(page.locator("#workers")).to_contain_text("QUARRY2")
        page.set_viewport_size({"width": 390, "height": 800})
        page.emulate_media(color_scheme="dark")
        check(page, violations)
        postgres.start()
        sync_api.expect(problem).to_be_empty()
        check(page, violations)
        settings.write_text("")
        page.goto(f"http://{server.host}/workers")
        sync_api.expect(page.get_by_role("heading", name="Not found")).to_be_visible()
        page.goto(f"http://{server.host}/")
        sync_api.expect(page.get_by_role("link", name="Workers and limits")).to_have_count(0)
    assert [one for one in network.errors if "404" not in one] == []


def setup_module() -> None:
    sync_api.expect.set_options(timeout=PATIENCE * 1000)
