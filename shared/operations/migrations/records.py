"""Revision 0001: operations and their metrics."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_KEY = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    """Make the tables and the indexes of listings and of the retention."""
    _create_operations()
    op.create_table(
        "metrics",
        sa.Column("service", _KEY, primary_key=True),
        sa.Column("operation_id", _KEY, primary_key=True),
        sa.Column("index", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("time", sa.BigInteger, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("step", sa.BigInteger, nullable=False),
        sa.Column("values", sa.Text, nullable=False),
        sa.Column("labels", sa.Text, nullable=False),
        sqlite_with_rowid=False,
    )
    _create_indexes()


def _create_operations() -> None:
    op.create_table(
        "operations",
        sa.Column("service", _KEY, primary_key=True),
        sa.Column("operation_id", _KEY, primary_key=True),
        sa.Column("type", _KEY, nullable=False),
        sa.Column("status", _KEY, nullable=False),
        sa.Column("create_time", sa.BigInteger, nullable=False),
        sa.Column("update_time", sa.BigInteger, nullable=False),
        sa.Column("start_time", sa.BigInteger),
        sa.Column("end_time", sa.BigInteger),
        sa.Column("cancel_time", sa.BigInteger),
        sa.Column("cancel_reason", sa.Text, nullable=False),
        sa.Column("progress", sa.Text),
        sa.Column("metadata", sa.Text, nullable=False),
        sa.Column("metrics_count", sa.BigInteger, nullable=False),
        sa.Column("result_type", sa.Text),
        sa.Column("result_value", sa.LargeBinary),
        sa.Column("error", sa.Text),
        sa.Column("owner_instance", sa.Text, nullable=False),
        sa.Column("owner_incarnation", sa.Text, nullable=False),
        sa.Column("owner_address", sa.Text, nullable=False),
        sa.Column("request_id", sa.Text, nullable=False),
        sa.Column("fingerprint", sa.Text, nullable=False),
        sa.Column("starter", sa.Text, nullable=False),
        sa.Column("outcome_read", sa.Boolean, nullable=False),
        sa.Column("known_time", sa.BigInteger),
        sa.Column("retention_time", sa.BigInteger),
    )


def _create_indexes() -> None:
    op.create_index("operations_by_age", "operations", ["service", "create_time", "operation_id"])
    op.create_index(
        "operations_by_class",
        "operations",
        ["service", "type", "status", "create_time", "operation_id"],
    )
    ended = sa.text("retention_time IS NOT NULL")
    by_count = sa.text("retention_time IS NOT NULL AND (starter = '' OR outcome_read)")
    for name, where in (("operations_ended", ended), ("operations_pruned_by_count", by_count)):
        op.create_index(
            name,
            "operations",
            ["service", "retention_time", "operation_id"],
            sqlite_where=where,
            postgresql_where=where,
        )
