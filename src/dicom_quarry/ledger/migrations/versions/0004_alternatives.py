"""Other ways to ask for a row, and what is to be told of values that were rewritten."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.add_column("requests", sa.Column("alternatives", sa.Text))
    op.add_column("requests", sa.Column("note", sa.Text, nullable=False, server_default=""))
