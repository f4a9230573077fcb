"""The fixtures of the browser tests find what they are there for; otherwise every page would pass."""

from __future__ import annotations

from pathlib import Path

from tests.browser.conftest import OpenPage, Violations
from tests.browser.network import Network

_GOOD = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Good</title>
<style>body { color: #000; background: #fff }
@media (prefers-color-scheme: dark) { body { color: #fff; background: #000 } }</style></head>
<body><main><h1>Good</h1><p id="text">A text.</p></main></body></html>"""

_BAD = """<!doctype html><html><head><meta charset="utf-8"><title>Bad</title>
<meta http-equiv="Content-Security-Policy" content="script-src 'none'">
<link rel="stylesheet" href="http://cdn.example/style.css"></head>
<body><p style="color: #eee; background: #fff">Pale.</p><script>document.title = "Run"</script>
<img src="http://127.0.0.1:8765/pixel.png"></body></html>"""


def test_a_good_page_has_no_requests_errors_and_violations(
    tmp_path: Path, open_page: OpenPage, network: Network, violations: Violations
) -> None:
    path = tmp_path / "good.html"
    path.write_text(_GOOD, "utf-8")
    page = open_page(path, dark=True, width=390)
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(0, 0, 0)"
    assert page.evaluate("innerWidth") == 390
    assert violations(page) == []
    assert (network.requests, network.connections, network.errors) == ([], [], [])


def test_a_bad_page_is_found(
    tmp_path: Path, open_page: OpenPage, network: Network, violations: Violations
) -> None:
    path = tmp_path / "bad.html"
    path.write_text(_BAD, "utf-8")
    page = open_page(path)
    found = {line.split(":")[0] for line in violations(page)}
    assert {"html-has-lang", "color-contrast", "image-alt"} <= found
    assert sorted(set(network.requests)) == [
        "http://127.0.0.1:8765/pixel.png",
        "http://cdn.example/style.css",
    ]
    # A request to loopback, too, has no way but the proxy.
    asked = b"".join(network.connections)
    assert b"cdn.example/style.css" in asked and b"127.0.0.1:8765/pixel.png" in asked
    assert any("Content Security Policy" in error for error in network.errors)
    assert page.title() == "Bad"
