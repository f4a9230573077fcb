"""The next task is found by index among hundreds of thousands that wait, also for later."""

from alembic import op

revision = "0002"
down_revision = "0001"

_UNWANTED = """
    UPDATE tasks SET state = 'unwanted'
    WHERE state = 'waiting' AND NOT EXISTS (SELECT 1 FROM request_tasks WHERE task_id = tasks.id)
"""


def upgrade() -> None:
    op.drop_index("tasks_by_state", table_name="tasks")
    op.create_index("tasks_by_state", "tasks", ["state", "not_before", "id"])
    op.execute(_UNWANTED)
