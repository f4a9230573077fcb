"""Archives written by others: everything that they accepted is extracted, by each of their transports.

The bytes on disk are those that crossed the wire, as a relay recorded them;
for WADO-RS, those that were loaded.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache
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
    tmp_path_factory: pytest.TempPathFactory, corpus: Corpus
) -> Iterator[Callable[[Permanent], Loaded]]:
    """Start an archive once for all of its transports."""
    with ExitStack() as servers:

        @cache
        def archive(peer: Permanent) -> Loaded:
            servers.close()  # of an archive whose transports have all been tried
            return servers.enter_context(loaded(peer, tmp_path_factory.mktemp(peer.name), corpus.smaller()))

        yield archive


@pytest.mark.parametrize(("peer", "transport"), list(each_transport()))
def test_everything_that_an_archive_accepted_is_extracted(
    running: Callable[[Permanent], Loaded], peer: Permanent, transport: str, work: Path
) -> None:
    if reason := peer.lacks():
        pytest.skip(reason)
    archive = running(peer)
    result = archive.extract(transport, work)
    codes = {uid: row["quarry_code"] for uid, row in result.rows.items()}
    doubts = peer.doubts if transport != "wado" else frozenset()
    studies = {uid: COMPLETE if codes[uid] not in doubts else codes[uid] for uid in archive.held.studies()}
    assert codes == {**studies, **dict.fromkeys(NOT_HELD, NOT_FOUND)}, result.done.out
    assert result.done.code == 1, "two rows are not held"
    check_folder(result.out)
    files = stored(result)
    assert set(files) == {item.sop_uid for item in archive.held.items}
    if result.sent or BYTES not in peer.omits:
        assert files == expected(result, archive.held.items)


def stored(result: Tryout) -> dict[str, tuple[str, str]]:
    """Transfer syntax and digest of the dataset of every file, by SOP Instance UID."""
    found = (split(result.out / row["path"]) for row in manifest(result.out))
    return {uid: (syntax, hashlib.sha256(data).hexdigest()) for syntax, uid, data in found}


def expected(result: Tryout, items: tuple[Item, ...]) -> dict[str, tuple[str, str]]:
    """Return the same of what crossed the wire, and of what was loaded where nothing was recorded."""
    held = (split(item.path) for item in items)
    sent = result.sent or {uid: (syntax, data) for syntax, uid, data in held}
    return {uid: (syntax, hashlib.sha256(data).hexdigest()) for uid, (syntax, data) in sent.items()}
