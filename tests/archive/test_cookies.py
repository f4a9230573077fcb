"""Cookies of one origin: which are kept, which go back, and that they have limits."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from dicom_quarry.archive.dicomweb.cookies import MAX_COOKIE_SIZE, MAX_COOKIES, MAX_COOKIES_SIZE, CookieJar
from dicom_quarry.model import BaseUri

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
HTTPS = BaseUri("https", "pacs.example.org", 443, "/dicom-web")
HTTP = BaseUri("http", "pacs.example.org", 80, "/dicom-web")


def jar_with(*headers: str, base: BaseUri = HTTPS) -> CookieJar:
    jar = CookieJar(base)
    for header in headers:
        jar.store(header, "/dicom-web/studies", NOW)
    return jar


def sent(jar: CookieJar, path: str = "/dicom-web/studies", after: float = 0) -> str:
    return jar.header(path, NOW + timedelta(seconds=after))


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("node=b", "node=b"),
        ("node=b; Path=/; HttpOnly; SameSite=Lax", "node=b"),
        ("  node = b ; Secure", "node=b"),
        ("node=", "node="),
        ('node="b c"', 'node="b c"'),
        ("a=b=c", "a=b=c"),
        ("node=b; Domain=example.org", "node=b"),
        ("node=b; Domain=.PACS.example.org", "node=b"),
        ("node=b; Expires=Thu, 01-Jan-2099 00:00:00 GMT", "node=b"),
        ("node=b; Expires=soon", "node=b"),
        ("node=b; Max-Age=soon", "node=b"),
        ("node=b; Max-Age=99999999999999999999", "node=b"),
        ("node=b; Max-Age=60; Expires=Thu, 01 Jan 1970 00:00:00 GMT", "node=b"),
        (f"node=b; Max-Age={'9' * 4000}", "node=b"),
        (f"node=b; Max-Age=-{'9' * 4000}", ""),
        ("node=b; Max-Age=0", ""),
        ("node=b; Max-Age=-1", ""),
        ("node=b; Expires=Thu, 01 Jan 1970 00:00:00 GMT", ""),
        ("node=b; Domain=elsewhere.example", ""),
        ("node=b; Domain=other.pacs.example.org", ""),
        ("node=b; Path=/wado", ""),
        ("node", ""),
        ("=b", ""),
        ("", ""),
        ("no de=b", ""),
        ("node=b\r\n X-Other: 1", ""),
        ("node=b\x1b[1m", ""),
        ("node=\xfc", ""),
    ],
)
def test_a_cookie_goes_back_to_its_origin_where_it_is_valid(header: str, expected: str) -> None:
    assert sent(jar_with(header)) == expected


def test_a_cookie_for_https_is_not_taken_over_http() -> None:
    assert sent(jar_with("node=b; Secure", "other=c", base=HTTP)) == "other=c"


def test_a_cookie_ends_with_its_time() -> None:
    jar = jar_with("node=b; Max-Age=60")
    assert sent(jar, after=59) == "node=b"
    assert sent(jar, after=60) == ""


def test_a_cookie_is_for_its_path_and_what_is_below_it() -> None:
    jar = jar_with("all=1; Path=/", "base=2; Path=/dicom-web", "own=3", "all=4; Path=/dicom-web/studies")
    assert sent(jar, "/dicom-web/studies/1.2") == "all=4; base=2; own=3; all=1"
    assert sent(jar, "/dicom-web") == "base=2; own=3; all=1"
    assert sent(jar, "/dicom-webs") == "all=1"


def test_a_cookie_is_replaced_and_deleted_by_name() -> None:
    jar = jar_with("node=a", "node=b")
    assert sent(jar) == "node=b"
    jar.store("node=; Max-Age=0", "/dicom-web/studies", NOW)
    assert sent(jar) == ""


def test_the_number_of_cookies_is_limited_and_the_oldest_goes() -> None:
    jar = jar_with(*(f"c{number}=x" for number in range(MAX_COOKIES)), "c0=y", "new=x")
    names = [pair.partition("=")[0] for pair in sent(jar).split("; ")]
    assert len(names) == MAX_COOKIES == 20
    assert "c1" not in names and {"c0", "new"} < set(names)


def test_a_cookie_has_at_most_4_kb() -> None:
    whole = "node=" + "b" * (MAX_COOKIE_SIZE - len("node="))
    assert sent(jar_with(whole)) == whole and len(whole) == 4096
    assert sent(jar_with(whole + "b")) == ""


def test_all_cookies_together_fit_into_a_header_that_servers_accept() -> None:
    jar = jar_with(*(f"c{number}={'b' * 1000}" for number in range(12)))
    assert len(sent(jar)) <= MAX_COOKIES_SIZE
    assert sent(jar).count("=") == 6 and "c11=" in sent(jar)
