"""Each refusal of quarry web, against a real server; and what a session gets."""

from __future__ import annotations

import html
import re
import stat
from pathlib import Path

import pytest

from dicom_quarry.api import open_web_place, report
from dicom_quarry.errors import StartError
from tests.web.conftest import Site

#: A value that is in every row of the job, and in its report.csv.
VALUE = "A0000000"


def test_a_session_sees_its_job(site: Site) -> None:
    jobs = site.server.request("/")
    assert jobs.status == 200 and str(site.out) in jobs.body and site.job in jobs.body
    job = site.server.request(site.job)
    assert "Every row is complete" in job.body and "n = 60" in job.body
    rows = site.server.request(f"{site.job}/rows?outcome=complete")
    assert rows.status == 200 and f"{site.job}/rows/3" in rows.body
    row = site.server.request(f"{site.job}/rows/1")
    assert "Row 1: complete (all_listed_stored)" in row.body


def test_rows_come_in_pages(site: Site) -> None:
    def rows_and_links(path: str) -> tuple[list[int], dict[str, str]]:
        page = site.server.request(path).body
        rows = [int(one) for one in re.findall(rf'href="{site.job}/rows/(\d+)"', page)]
        return rows, {rel: html.unescape(to) for to, rel in re.findall(r'href="([^"]+)" rel="(\w+)"', page)}

    first, links = rows_and_links(f"{site.job}/rows?outcome=complete")
    assert first == list(range(1, 51)) and set(links) == {"next"}
    second, links = rows_and_links(links["next"])
    assert second == list(range(51, 61)) and set(links) == {"prev"}
    again, links = rows_and_links(links["prev"])
    assert again == first and set(links) == {"next"}


def test_no_value_of_the_table_is_on_a_page(site: Site) -> None:
    for path in ("/", site.job, f"{site.job}/rows", f"{site.job}/rows/1", f"{site.job}/rows?outcome=failed"):
        assert VALUE not in site.server.request(path).body, path


@pytest.mark.parametrize("path", ["/", "/events", "/live.js", "JOB", "JOB/events", "JOB/rows", "JOB/rows/1"])
def test_no_page_without_a_session(site: Site, path: str) -> None:
    path = path.replace("JOB", site.job)
    name = site.server.cookie.split("=")[0]
    for cookie in ("a=b", f"{name}=", f"{name}=x", site.server.cookie[:-1]):
        answer = site.server.request(path, cookie=cookie)
        assert (answer.status, str(site.out) in answer.body) == (401, False)
        assert "quarry web" in answer.body


def test_a_cookie_of_another_program_on_localhost_does_no_harm(site: Site) -> None:
    assert site.server.request("/", cookie=f'odd="{{a}}"; x; {site.server.cookie}').status == 200


def test_a_link_works_once(site: Site) -> None:
    again = site.server.request(site.server.link[1])
    assert again.status == 403 and "Set-Cookie" not in again.headers
    assert site.server.request("/start").status == 403
    assert site.server.request("/start?token=%ff").status == 403


def test_the_cookie_is_for_this_site_and_no_script(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    started = _start_again(site, monkeypatch)
    former, site.server.cookie = site.server.cookie, ""
    assert site.server.request(started, "HEAD").status == 405, "a preview of the link does not use it"
    answer = site.server.open_session(started)
    cookie = answer.headers["Set-Cookie"]
    assert "; HttpOnly" in cookie and "; SameSite=Strict" in cookie and "; Path=/" in cookie
    assert site.server.cookie != former
    assert site.server.request("/", cookie=former).status == 200, "another browser goes on"


def _start_again(site: Site, monkeypatch: pytest.MonkeyPatch) -> str:
    """The new link that a second quarry web prints."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(site.server.runtime))
    with pytest.raises(StartError) as error, open_web_place():
        pass
    message = str(error.value)
    assert f"is running already (process {site.server.child.pid})" in message
    assert f"ssh -L 8765:{site.server.address} " in message
    return "/start?token=" + message.split("/start?token=")[1].split()[0]


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8765", "localhost.evil.example", ""])
def test_a_foreign_host_is_refused(site: Site, host: str) -> None:
    answer = site.server.request(site.job, host=host)
    assert (answer.status, str(site.out) in answer.body) == (400, False)


@pytest.mark.parametrize("host", ["localhost:8765", "127.0.0.1:9000", "LOCALHOST", "[::1]:80"])
def test_the_port_is_that_of_the_users_computer(site: Site, host: str) -> None:
    assert site.server.request(site.job, host=host).status == 200


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "", "https://localhost:8765", "http://localhost:8766"]
)
def test_a_form_of_another_page_is_refused(site: Site, origin: str) -> None:
    answer = site.server.request(f"{site.job}/stop", "POST", host="localhost:8765", origin=origin)
    assert answer.status == 403 and "page of another site" in answer.body


@pytest.mark.parametrize("action", ["stop", "cancel", "resume", "retry"])
def test_without_allow_actions_nothing_changes(site: Site, action: str) -> None:
    answer = site.server.request(f"{site.job}/{action}", "POST")
    assert answer.status == 403 and "--allow-actions" in answer.body
    assert "<form" not in site.server.request(site.job).body
    assert site.server.request(f"{site.job}/{action}").status in (404, 405), "a link does nothing"


@pytest.mark.parametrize(
    "name",
    [
        *("../cohort.csv", "..%2fcohort.csv", "%2e%2e/out/cohort.csv", "cohort.csv", ".quarry%2fledger.db"),
        *("%2fetc%2fpasswd", "..%2f..%2f..%2fetc%2fpasswd", "report.csv%00", "proof.json%2f", "Proof.json"),
    ],
)
def test_only_reports_can_be_downloaded(site: Site, name: str) -> None:
    answer = site.server.request(f"{site.job}/reports/{name}")
    assert answer.status in (307, 404) and VALUE not in answer.body and "root:" not in answer.body


def test_a_report_that_may_name_patients_needs_identifiers(site: Site) -> None:
    refused = site.server.request(f"{site.job}/reports/report.csv")
    assert refused.status == 404 and "--identifiers" in refused.body and VALUE not in refused.body
    found = site.server.request(f"{site.job}/reports/proof.json")
    assert (found.status, found.body) == (200, (site.out / "proof.json").read_text())
    assert found.headers["Content-Disposition"] == 'attachment; filename="proof.json"'


@pytest.mark.parametrize(("identifiers", "status"), [(True, 404), (False, 200)])
def test_a_report_page_is_offered_if_it_names_no_patient(site: Site, identifiers: bool, status: int) -> None:
    report(site.out, html=True, identifiers=identifiers)
    assert site.server.request(f"{site.job}/reports/report.html").status == status
    link = f"{site.job}/reports/report.html" in site.server.request(site.job).body
    assert link is not identifiers


def test_a_link_in_place_of_a_report_is_not_followed(site: Site, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret")
    (site.out / "proof.json.sig").symlink_to(secret)
    try:
        assert "secret\n" not in (answer := site.server.request(f"{site.job}/reports/proof.json.sig")).body
        assert answer.status == 404
    finally:
        (site.out / "proof.json.sig").unlink()


@pytest.mark.parametrize("key", ["0" * 16, "x", "..", "%2e%2e", "0" * 15 + "%0a"])
def test_a_job_that_is_not_of_this_user_is_not_found(site: Site, key: str) -> None:
    for rest in ("", "/rows", "/events", "/reports/proof.json"):
        assert site.server.request(f"/jobs/{key}{rest}").status == 404


@pytest.mark.parametrize(
    "rest", ["rows/0", "rows/61", f"rows/{'9' * 40}", "rows?outcome=x", "rows?after=x", "rows?before=-1"]
)
def test_a_row_that_is_none_is_not_found(site: Site, rest: str) -> None:
    assert site.server.request(f"{site.job}/{rest}").status == 404


def test_every_answer_has_the_headers_that_protect_it(site: Site) -> None:
    for path in ("/", site.job, "/nowhere", "/style.css", f"{site.job}/reports/proof.json", "/start"):
        headers = site.server.request(path).headers
        policy = headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert headers["Cache-Control"] == "no-store"
        assert headers["Referrer-Policy"] == "same-origin"
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert "Access-Control-Allow-Origin" not in headers and "Server" not in headers


def test_the_socket_is_for_its_user_alone(site: Site) -> None:
    path = Path(site.server.address)
    assert path.name == "web.sock" and len(str(path)) < 108
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert all(stat.S_IMODE(one.stat().st_mode) == 0o600 for one in path.parent.iterdir())


def test_the_output_has_no_request(site: Site) -> None:
    """A log of requests would have the tokens of links."""
    assert site.server.output.count("token=") == 1
    assert "GET" not in site.server.output
