"""The position of an interrupted verification in a database."""

from __future__ import annotations

import secrets
from contextlib import closing
from pathlib import Path

import pytest

from dicom_quarry.errors import StartError
from dicom_quarry.jobs.checkpoint_store import CheckpointFiles
from dicom_quarry.jobs.cluster import checkpoints
from dicom_quarry.jobs.cluster.database import Cluster
from dicom_quarry.jobs.cluster.place import ClusterPlace
from dicom_quarry.ledger.ledger import Ledger
from dicom_quarry.verification.checkpoint import Checkpoint, Position


@pytest.fixture
def place(database: str, tmp_path: Path) -> ClusterPlace:
    """A job that has begun, without studies."""
    cluster = Cluster(database)
    (tmp_path / ".quarry").mkdir(mode=0o700)
    made = ClusterPlace(
        tmp_path, tmp_path / ".quarry", cluster, cluster.add(f"c{secrets.token_hex(4)}", tmp_path)
    )
    with closing(Ledger(made.ledger)) as ledger:
        made.prepare_record(ledger)
    return made


def open_checkpoint(place: ClusterPlace, *, restart: bool = False) -> Checkpoint:
    return Checkpoint(place, "verify", {"quick": True}, restart=restart)


def test_it_goes_on_where_it_was_interrupted(place: ClusterPlace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "_PAGE", 2)
    with open_checkpoint(place) as first:
        assert first.interrupted_at is None
        for number in range(3):
            first.add_finding({"number": number})
        first.save(Position(7, 3, 30, 3))
        first.add_finding({"number": "after the position"})
        with pytest.raises(StartError, match=f"another quarry verify is checking {place.label}"):
            open_checkpoint(place).__enter__()
    with open_checkpoint(place) as second:
        assert second.interrupted_at is not None and second.position == Position(7, 3, 30, 3)
        assert [one["number"] for one in second.findings()] == [0, 1, 2]
        second.add_finding({"number": 3})
        assert [one["number"] for one in second.findings()] == [0, 1, 2, 3]
        second.finish()
    with open_checkpoint(place) as third:
        assert third.interrupted_at is None and not list(third.findings())
    assert not list(place.state.iterdir())


def test_one_who_may_only_read_keeps_it_in_files(place: ClusterPlace) -> None:
    schema = place.ledger.schema
    assert isinstance(place.open_checkpoint("verify"), checkpoints.CheckpointRows)
    with place.cluster.connected() as connection:
        connection.execute(f"CREATE ROLE reader_{schema} LOGIN")
        connection.execute(f"GRANT USAGE ON SCHEMA quarry, {schema} TO reader_{schema}")
        connection.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA {schema} TO reader_{schema}")
    url = place.cluster.url.replace("quarry@", f"reader_{schema}@")
    read_only = ClusterPlace(place.out, place.state, Cluster(url), place.job)
    assert isinstance(read_only.open_checkpoint("verify"), CheckpointFiles)
