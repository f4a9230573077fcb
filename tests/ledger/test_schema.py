"""What prepare makes is what schema.py says; older ledgers are upgraded, newer ones are left alone."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

import dicom_quarry.ledger.schema as schema
from dicom_quarry.errors import LedgerError
from dicom_quarry.ledger.database import Database, open_engine


def revision(path: Path) -> list[tuple[str]]:
    with sqlite3.connect(path) as raw:
        return raw.execute("select version_num from alembic_version").fetchall()


def stamp(path: Path, version: str | None) -> None:
    with sqlite3.connect(path) as raw:
        raw.execute("delete from alembic_version")
        if version is not None:
            raw.execute("insert into alembic_version values (?)", (version,))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    Database(tmp_path / "l.db").close()
    return tmp_path / "l.db"


def test_what_is_made_is_what_is_written_down(path: Path) -> None:
    engine = open_engine(path)
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), schema.metadata) == []
    engine.dispose()
    assert revision(path) == [(schema.REVISION,)]


def test_the_newest_migration_is_the_revision() -> None:
    versions = Path(schema.__file__).parent / "migrations" / "versions"
    assert max(one.name for one in versions.glob("[0-9]*.py")).startswith(schema.REVISION)


def test_a_newer_ledger_is_refused_untouched(path: Path) -> None:
    stamp(path, "0999")
    before = path.read_bytes()
    with pytest.raises(LedgerError, match=r"newer version of Quarry \(ledger 0999, this one knows"):
        Database(path)
    assert path.read_bytes() == before


def test_an_older_ledger_is_brought_up_to_date(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "package"
    shutil.copytree(Path(schema.__file__).parent / "migrations", package / "migrations")
    (package / "migrations" / "versions" / "9998_more.py").write_text(
        "import sqlalchemy as sa\nfrom alembic import op\n"
        f"revision, down_revision = '9998', '{schema.REVISION}'\n"
        "def upgrade():\n"
        "    op.add_column('job', sa.Column('more', sa.Text))\n"
        "    op.execute(\"update job set more = 'yes'\")\n"
    )
    with sqlite3.connect(path) as raw:
        raw.execute("insert into job values ('kept', 'as it is')")
    monkeypatch.setattr(schema, "__file__", str(package / "schema.py"))
    monkeypatch.setattr(schema, "REVISION", "9998")
    Database(path).close()
    assert revision(path) == [("9998",)]
    with sqlite3.connect(path) as raw:
        assert raw.execute("select * from job").fetchall() == [("kept", "as it is", "yes")]


def test_an_upgrade_that_fails_leaves_the_ledger_as_it_was(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "package"
    shutil.copytree(Path(schema.__file__).parent / "migrations", package / "migrations")
    (package / "migrations" / "versions" / "9998_bad.py").write_text(
        "import sqlalchemy as sa\nfrom alembic import op\n"
        f"revision, down_revision = '9998', '{schema.REVISION}'\n"
        "def upgrade():\n"
        "    op.add_column('job', sa.Column('more', sa.Text))\n"
        "    op.execute('select * from nowhere')\n"
    )
    monkeypatch.setattr(schema, "__file__", str(package / "schema.py"))
    with monkeypatch.context() as patched:
        patched.setattr(schema, "REVISION", "9998")
        with pytest.raises(LedgerError, match="cannot be opened"):
            Database(path)
    assert revision(path) == [(schema.REVISION,)]
    with sqlite3.connect(path) as raw:
        assert [row[1] for row in raw.execute("pragma table_info(job)")] == ["name", "value"]
