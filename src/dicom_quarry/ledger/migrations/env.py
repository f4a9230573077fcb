"""Alembic's entry point: migrates the connection that schema.py hands over."""

from alembic import context

from dicom_quarry.ledger.schema import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
with context.begin_transaction():
    context.run_migrations()
