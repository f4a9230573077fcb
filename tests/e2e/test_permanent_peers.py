"""Archives written by others: everything that they accepted is extracted, by each of their transports.

The bytes on disk are those that crossed the wire, as a relay recorded them;
for WADO-RS, those that were loaded.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.command import check_folder, manifest
from tests.e2e.test_byte_identity import split
from tests.peers.corpus import Corpus, Item
from tests.peers.permanent import BYTES, PERMANENT, Permanent
from tests.peers.tryout import NOT_HELD, Loaded, Tryout, loaded

COMPLETE, NOT_FOUND = "all_listed_stored", "study_not_found"


def each_transport() -> Iterator[object]:
    for peer in PERMANENT.values():
        for transport in peer.transports:
            marks = () if transport in peer.quick else (pytest.mark.peers,)
            yield pytest.param(peer, transport, id=f"{peer.name}-{transport}", marks=marks)


@pytest.fixture(scope="module")
def running(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, corpus: Corpus
) -> Iterator[Loaded]:
    """Start an archive once for all of its transports."""
    peer: Permanent = request.param
    if reason := peer.lacks():
        pytest.skip(reason)
    with loaded(peer, tmp_path_factory.mktemp(peer.name), corpus.smaller()) as archive:
        yield archive


@pytest.mark.parametrize(("running", "transport"), list(each_transport()), indirect=["running"])
def test_everything_that_an_archive_accepted_is_extracted(
    running: Loaded, transport: str, work: Path
) -> None:
    result = running.extract(transport, work)
    codes = {uid: row["quarry_code"] for uid, row in result.rows.items()}
    doubts = running.peer.doubts if transport != "wado" else frozenset()
    studies = {uid: COMPLETE if codes[uid] not in doubts else codes[uid] for uid in running.held.studies()}
    assert codes == {**studies, **dict.fromkeys(NOT_HELD, NOT_FOUND)}, result.done.out
    assert result.done.code == 1, "two rows are not held"
    check_folder(result.out)
    files = stored(result)
    assert set(files) == {item.sop_uid for item in running.held.items}
    if result.sent or BYTES not in running.peer.omits:
        assert files == expected(result, running.held.items)


def stored(result: Tryout) -> dict[str, tuple[str, str]]:
    """Transfer syntax and digest of the dataset of every file, by SOP Instance UID."""
    found = (split(result.out / row["path"]) for row in manifest(result.out))
    return {uid: (syntax, hashlib.sha256(data).hexdigest()) for syntax, uid, data in found}


def expected(result: Tryout, items: tuple[Item, ...]) -> dict[str, tuple[str, str]]:
    """Return the same of what crossed the wire, and of what was loaded where nothing was recorded."""
    held = (split(item.path) for item in items)
    sent = result.sent or {uid: (syntax, data) for syntax, uid, data in held}
    return {uid: (syntax, hashlib.sha256(data).hexdigest()) for uid, (syntax, data) in sent.items()}
