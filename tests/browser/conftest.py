"""Pages in headless Chromium: one browser for the tests of this folder, one context for each page."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pytest

from tests.browser.network import Network
from tests.lazy_module import import_lazily

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

sync_api = import_lazily("playwright.sync_api")

#: Of axe-core: WCAG 2.2 at level AA, and what is good practice besides.
_RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]


class OpenPage(Protocol):
    """``open_page(path or URL)``; width and height are those of the window."""

    def __call__(
        self,
        target: Path | str,
        *,
        dark: bool = False,
        width: int = 1280,
        height: int = 800,
        javascript: bool = True,
    ) -> Page: ...


class Violations(Protocol):
    """``violations(page)``: what axe-core finds, a line each: rule, selector, what is wrong."""

    def __call__(self, page: Page) -> list[str]: ...


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """Debian's Chromium. It ends with this package: playwright keeps an event loop in this thread."""
    chromium = shutil.which("chromium")
    assert chromium, "no chromium: make archives installs it"
    # Root may not use the sandbox; in containers /dev/shm is too small for a long page.
    arguments = ["--disable-dev-shm-usage", *(["--no-sandbox"] if os.geteuid() == 0 else [])]
    with sync_api.sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=chromium, args=arguments)
        yield running
        running.close()


@pytest.fixture
def network() -> Iterator[Network]:
    """The network traffic and the console errors of the pages of this test."""
    with Network() as seen:
        yield seen


@pytest.fixture
def open_page(browser: Browser, network: Network) -> Iterator[OpenPage]:
    """Open pages: those of files have no network but the proxy of ``network``."""
    contexts = []

    def open_one(
        target: Path | str,
        *,
        dark: bool = False,
        width: int = 1280,
        height: int = 800,
        javascript: bool = True,
    ) -> Page:
        options: dict[str, Any] = {"proxy": {"server": network.proxy}} if isinstance(target, Path) else {}
        context = browser.new_context(
            color_scheme="dark" if dark else "light",
            viewport={"width": width, "height": height},
            java_script_enabled=javascript,
            **options,
        )
        contexts.append(context)
        url = target.absolute().as_uri() if isinstance(target, Path) else target
        page = context.new_page()
        page.set_default_timeout(20_000)
        page.on("request", lambda one: None if one.url == url else network.requests.append(one.url))
        page.on("console", lambda one: network.errors.append(one.text) if one.type == "error" else None)
        page.on("pageerror", lambda error: network.errors.append(str(error)))
        page.goto(url)
        return page

    yield open_one
    for context in contexts:
        context.close()


@pytest.fixture(scope="session")
def violations() -> Violations:
    """Check a page with axe-core, as it is shown now."""

    axe = files("axe_playwright_python").joinpath("axe.min.js").read_text("utf-8")

    def check(page: Page) -> list[str]:
        page.evaluate(axe)
        options = {"runOnly": _RULES, "preload": False}
        found = page.evaluate("options => axe.run(document, options)", options)["violations"]
        return [
            f"{rule['id']}: {' '.join(map(str, node['target']))}: {node['failureSummary']}"
            for rule in found
            for node in rule["nodes"]
        ]

    return check
