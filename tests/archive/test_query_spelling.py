"""Values in URLs against servers that read them in their own way, without I/O."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from fnmatch import translate
from typing import cast
from urllib.parse import quote, unquote, unquote_plus

import pytest

from dicom_quarry.archive.dicomweb.http_client import HttpClient
from dicom_quarry.archive.dicomweb.qido import QidoClient
from dicom_quarry.errors import QueryFailed
from dicom_quarry.model import Level
from tests.archive.test_paging import Reply

KEYWORDS = {"StudyInstanceUID": "0020000D", "AccessionNumber": "00080050", "StudyDescription": "00081030"}


class Server:
    """A server of these studies, by keyword, that decodes a value with ``decode``."""

    base = "http://server"

    def __init__(self, decode: Callable[[str], str], *studies: Mapping[str, str]) -> None:
        self._decode = decode
        self._studies = [{"StudyInstanceUID": f"1.2.{n}", **study} for n, study in enumerate(studies, 1)]
        self.requests: list[str] = []
        self.refused = ""

    @contextmanager
    def get(self, path: str, query: Sequence[tuple[str, str]], **_: object) -> Iterator[Reply]:
        keys = {name: value for name, value in query if name in KEYWORDS}
        if "limit" in dict(query):
            self.requests += keys.values()
        if dict(query).get("offset", "0") != "0":
            yield Reply(204)
        elif self.refused and re.search(self.refused, "".join(keys.values())):
            yield Reply(400)
        else:
            found = [study for study in self._studies if self._matches(study, keys)]
            rows = [{KEYWORDS[name]: {"Value": [text]} for name, text in study.items()} for study in found]
            yield Reply(200, json.dumps(rows).encode())

    def _matches(self, study: Mapping[str, str], keys: Mapping[str, str]) -> bool:
        return all(
            re.fullmatch(translate(self._decode(value).replace("[", "[[]")), study.get(name, ""))
            for name, value in keys.items()
        )


def client(server: Server) -> QidoClient:
    return QidoClient(cast("HttpClient", server), read_timeout=1, before_query=lambda: None)


def find(connection: QidoClient, **keys: str) -> list[str]:
    found = connection.search(Level.STUDY, keys, tuple(KEYWORDS), 1_000)
    assert not found.incomplete_reason
    return [row[0x0020000D] for row in found.rows]


def without_slash(text: str) -> str:
    """Decode as some servers do, which keep what separates segments and patterns."""
    kept = re.sub(r"%(?=2F|2A)", "%25", text)
    return unquote(kept)


def strict(text: str) -> str:
    """Decode as a server that drops special characters which are not encoded."""
    return unquote(re.sub(r"[^A-Za-z0-9._~%-]", "", text))


def latin_1(text: str) -> str:
    return unquote(text, encoding="latin-1")


def nothing(text: str) -> str:
    return text


ANY_SERVER = [unquote, unquote_plus, without_slash, strict]


@pytest.mark.parametrize("decode", ANY_SERVER, ids=lambda one: one.__name__)
@pytest.mark.parametrize(
    "value",
    ["A/B", "A:1", "a@b", "A(1)", "A'1", "A$1!", "A 1", "A+1", "A&B=C;D", "50%", "A#1", 'A"^1', "Ä-Ö"],
)
def test_every_value_is_found_on_every_server(decode: Callable[[str], str], value: str) -> None:
    server = Server(decode, {"AccessionNumber": "A1"}, {"AccessionNumber": value})
    assert find(connection := client(server), AccessionNumber=value) == ["1.2.2"]
    server.requests.clear()
    assert find(connection, AccessionNumber=value) == ["1.2.2"]
    assert len(server.requests) == 2, "one spelling, and its second page"
    assert all(re.fullmatch(r"[A-Za-z0-9._~%/:@!$'()*,?-]*", one) for one in server.requests)


@pytest.mark.parametrize("decode", [unquote, without_slash, strict, nothing], ids=lambda one: one.__name__)
@pytest.mark.parametrize("value", ["*CHEST*", "THE?CHEST*"])
def test_wildcards_are_found_on_every_server(decode: Callable[[str], str], value: str) -> None:
    server = Server(decode, {"StudyDescription": "HEAD"}, {"StudyDescription": "THE CHEST"})
    assert find(client(server), StudyDescription=value) == ["1.2.2"]


@pytest.mark.parametrize("value", ["Ä-7/1", "Grün", "Müller Jürgen"])
def test_a_server_that_reads_latin_1_finds_what_that_can_write(value: str) -> None:
    server = Server(latin_1, {"AccessionNumber": value})
    assert find(client(server), AccessionNumber=value) == ["1.2.1"]
    assert find(client(server), AccessionNumber="胸部-77") == []


@pytest.mark.parametrize(
    "value", ["THE CHEST", "Müller^Jürgen", "Kopf, Schädel", "A+B & C", "CT #3 (90%)", "日本 CT-1"]
)
def test_a_server_that_decodes_nothing_is_queried_with_wildcards(value: str) -> None:
    server = Server(nothing, {"StudyDescription": value}, {"StudyDescription": f"NO {value}"})
    assert find(connection := client(server), StudyDescription=value) == ["1.2.1"]
    server.requests.clear()
    assert find(connection, StudyDescription=value) == ["1.2.1"]
    assert set(map(unquote, server.requests)) == set(server.requests), "it is remembered"
    assert all(value.isascii() for value in server.requests)


@pytest.mark.parametrize("value", ["A 1", "胸部", "Ä7", "&^%", "*ä*"])
def test_wildcards_alone_are_never_sent(value: str) -> None:
    server = Server(nothing, *({"StudyDescription": text} for text in ("A-1", "B7", "xx", "abc")))
    assert find(client(server), StudyDescription=value) == []
    assert not any(re.fullmatch(r"[*?]*.{0,2}[*?]*", one) and "?" in one for one in server.requests)


def test_a_key_of_which_only_wildcards_would_remain_is_left_out_where_another_identifies() -> None:
    day = {"AccessionNumber": "A1"}
    server = Server(nothing, {**day, "StudyDescription": "胸部"}, {**day, "StudyDescription": "頭部"})
    assert find(connection := client(server), AccessionNumber="A1", StudyDescription="胸部") == ["1.2.1"]
    assert server.requests[-1] == "A1"
    assert find(connection, AccessionNumber="A1", StudyDescription="足") == []
    assert find(connection, AccessionNumber="A2", StudyDescription="胸部") == []


def test_a_value_that_cannot_be_sent_is_not_reported_as_absent() -> None:
    server = Server(nothing, {"StudyDescription": "Schädel"}, {"StudyDescription": "胸部"})
    connection = client(server)
    assert find(connection, StudyDescription="胸部") == [], "nothing is known of the server"
    assert find(connection, StudyDescription="Schädel") == ["1.2.1"]
    with pytest.raises(QueryFailed, match="does not decode URLs"):
        find(connection, StudyDescription="胸部")


def test_another_study_that_wildcards_match_is_no_answer() -> None:
    server = Server(nothing, {"AccessionNumber": "A-12 3"[:4] + "x3"})
    assert find(client(server), AccessionNumber="A-12 3") == []
    assert "A-12?3" in server.requests


def test_a_character_is_learnt_once_and_only_from_what_was_found() -> None:
    server = Server(without_slash, {"AccessionNumber": "A/1"}, {"StudyDescription": "A B"})
    connection = client(server)
    assert find(connection, AccessionNumber="X/1") == []
    assert server.requests == ["X/1", "X%2F1"]
    assert find(connection, AccessionNumber="A/1") == ["1.2.1"]
    server.requests.clear()
    assert find(connection, AccessionNumber="X/1") == find(connection, AccessionNumber="X1") == []
    assert server.requests == ["X/1", "X1"]
    assert find(connection, AccessionNumber="X/ 1") == []
    assert server.requests[2:] == ["X/%201", "X%2F%201", "X/?1"], "the space is not known"


def test_a_list_of_uids_keeps_its_commas() -> None:
    class Lists(Server):
        def _matches(self, study: Mapping[str, str], keys: Mapping[str, str]) -> bool:
            return study["StudyInstanceUID"] in keys["StudyInstanceUID"].split(",")

    server = Lists(nothing, {}, {}, {})
    assert find(client(server), StudyInstanceUID="1.2.1\\1.2.3") == ["1.2.1", "1.2.3"]
    assert server.requests == ["1.2.1,1.2.3"]


def test_a_server_that_ignores_the_key_is_not_taken_to_read_it() -> None:
    server = Server(unquote, {"AccessionNumber": "B/1"}, {"AccessionNumber": "C/1"})
    server._matches = lambda *_: True  # type: ignore[method-assign]
    connection = client(server)
    assert find(connection, AccessionNumber="A/1") == ["1.2.1", "1.2.2"]
    assert {"A/1", "A%2F1"} == set(server.requests)


def test_a_spelling_that_is_refused_is_replaced() -> None:
    server = Server(unquote, {"AccessionNumber": "A/1"})
    server.refused = "/"
    assert find(client(server), AccessionNumber="A/1") == ["1.2.1"]
    server.refused = "A"
    with pytest.raises(QueryFailed, match="HTTP 400"):
        find(client(server), AccessionNumber="A/1")


def test_half_a_surrogate_pair_breaks_nothing() -> None:
    server = Server(unquote, {"AccessionNumber": "A"})
    assert find(client(server), AccessionNumber="A\ud800/") == []
    assert quote("\ud800", errors="surrogatepass") in server.requests[0]
