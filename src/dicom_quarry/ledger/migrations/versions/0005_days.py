"""What jobs that run for days need: by which road a retrieval went."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.add_column("attempts", sa.Column("road", sa.Text, nullable=False, server_default="move"))
