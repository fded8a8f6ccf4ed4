"""Revision 0003: which operations were forgotten."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

_KEY = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    """Add the table; of what was forgotten before nobody knows."""
    op.create_table(
        "forgotten",
        sa.Column("service", _KEY, primary_key=True),
        sa.Column("operation_id", _KEY, primary_key=True),
        sa.Column("create_time", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("forget_time", sa.BigInteger, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_index("forgotten_by_time", "forgotten", ["service", "forget_time"])
