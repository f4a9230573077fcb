"""The first ledger: created from schema.py as it stands, so there is nothing to migrate."""

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Nothing older exists."""
