"""What jobs that run for days need: roads, a diary of what was asked, hand-overs and releases."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.add_column("attempts", sa.Column("road", sa.Text, nullable=False, server_default="move"))
    op.create_table(
        "queries",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("row", sa.Integer),
        sa.Column("task_id", sa.Integer),
        sa.Column("archive", sa.Text, nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("purpose", sa.Text, nullable=False),
        sa.Column("level", sa.Text, nullable=False),
        sa.Column("keys", sa.Text, nullable=False),
        sa.Column("asked", sa.Integer, nullable=False),
        sa.Column("took", sa.Integer, nullable=False),
        sa.Column("questions", sa.Integer, nullable=False),
        sa.Column("answers", sa.Integer),
        sa.Column("status", sa.Integer),
        sa.Column("why", sa.Text, nullable=False),
    )
    op.create_index("queries_by_row", "queries", ["row"], sqlite_where=sa.text("row IS NOT NULL"))
    op.create_index("queries_by_task", "queries", ["task_id"], sqlite_where=sa.text("task_id IS NOT NULL"))
    op.create_table(
        "postponements",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("task_id", sa.Integer, nullable=False),
        sa.Column("at", sa.Float, nullable=False),
        sa.Column("until", sa.Float, nullable=False),
        sa.Column("why", sa.Text, nullable=False),
    )
    op.create_index("postponements_by_task", "postponements", ["task_id"])
    op.add_column("tasks", sa.Column("released_at", sa.Float))
    op.add_column("tasks", sa.Column("removing", sa.Integer, nullable=False, server_default="0"))
    op.create_table(
        "handovers",
        sa.Column("task_id", sa.Integer, sa.ForeignKey("tasks.id"), primary_key=True, autoincrement=False),
        sa.Column("proof", sa.Float, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("tries", sa.Integer, nullable=False),
        sa.Column("not_before", sa.Float),
        sa.Column("ended", sa.Float),
        sa.Column("said", sa.Text, nullable=False),
    )
    op.create_index("handovers_by_state", "handovers", ["state", "not_before", "task_id"])
