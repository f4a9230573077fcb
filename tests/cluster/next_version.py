"""The command ``quarry`` of a build to come, whose list of jobs and whose records have a column more."""

from __future__ import annotations

from sqlalchemy import Connection, text

from dicom_quarry.cli.main import main
from dicom_quarry.jobs.cluster import list_schema
from dicom_quarry.ledger import migrations

list_schema.MIGRATIONS.append("ALTER TABLE quarry.jobs ADD COLUMN more text NOT NULL DEFAULT 'of the list'")


def add_column(connection: Connection) -> None:
    connection.execute(text("ALTER TABLE job ADD COLUMN more text DEFAULT ''"))


migrations.MIGRATIONS.append(add_column)

if __name__ == "__main__":
    main()
