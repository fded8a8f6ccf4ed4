"""Revision 0002: which process tells an operation's owner to start it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add the column; of what was told before nobody knows by whom."""
    op.add_column("operations", sa.Column("told_by", sa.Text))
