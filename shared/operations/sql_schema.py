"""The tables in which records are kept, alike in SQLite and PostgreSQL.

Every row is keyed by the service whose it is, so that processes of several kinds
share a database without seeing each other's. Times are microseconds since 1970 in
UTC, mappings are JSON in plain text, where NaN and infinities are legal.
What changes here needs a migration; a test compares the two.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Index,
    LargeBinary,
    MetaData,
    Table,
    Text,
    text,
)

METADATA = MetaData()
KEY = Text().with_variant(Text(collation="C"), "postgresql")
"""Text that is ordered by code points, as Python and SQLite do, whatever the locale."""

OPERATIONS = Table(
    "operations",
    METADATA,
    Column("service", KEY, primary_key=True),
    Column("operation_id", KEY, primary_key=True),
    Column("type", KEY, nullable=False),
    Column("status", KEY, nullable=False),
    Column("create_time", BigInteger, nullable=False),
    Column("update_time", BigInteger, nullable=False),
    Column("start_time", BigInteger),
    Column("end_time", BigInteger),
    Column("cancel_time", BigInteger),
    Column("cancel_reason", Text, nullable=False),
    Column("progress", Text),
    Column("metadata", Text, nullable=False),
    Column("metrics_count", BigInteger, nullable=False),
    Column("result_type", Text),
    Column("result_value", LargeBinary),
    Column("error", Text),
    Column("owner_instance", Text, nullable=False),
    Column("owner_incarnation", Text, nullable=False),
    Column("owner_address", Text, nullable=False),
    Column("request_id", Text, nullable=False),
    Column("fingerprint", Text, nullable=False),
    Column("starter", Text, nullable=False),
    Column("outcome_read", Boolean, nullable=False),
    Column("known_time", BigInteger),
    # When it counts as ended; NULL for as long as it is open.
    Column("retention_time", BigInteger),
    Column("told_by", Text),
)
METRICS = Table(
    "metrics",
    METADATA,
    Column("service", KEY, primary_key=True),
    Column("operation_id", KEY, primary_key=True),
    Column("index", BigInteger, primary_key=True, autoincrement=False),
    Column("time", BigInteger, nullable=False),
    Column("kind", Text, nullable=False),
    Column("step", BigInteger, nullable=False),
    Column("values", Text, nullable=False),
    Column("labels", Text, nullable=False),
    # In SQLite the table is its primary key, in its order.
    sqlite_with_rowid=False,
)
FORGOTTEN = Table(
    "forgotten",
    METADATA,
    Column("service", KEY, primary_key=True),
    Column("operation_id", KEY, primary_key=True),
    Column("create_time", BigInteger, primary_key=True, autoincrement=False),
    Column("forget_time", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

_o = OPERATIONS.c
OPEN = _o.retention_time.is_(None)
ENDED = _o.retention_time.is_not(None)
# Without parameters, so that a planner sees that an index of it serves.
PRUNED_BY_COUNT = text("retention_time IS NOT NULL AND (starter = '' OR outcome_read)")
"""What has ended, and is not kept for a starter that has not read how."""

Index("forgotten_by_time", FORGOTTEN.c.service, FORGOTTEN.c.forget_time)
Index("operations_by_age", _o.service, _o.create_time, _o.operation_id)
Index("operations_by_class", _o.service, _o.type, _o.status, _o.create_time, _o.operation_id)
Index(
    "operations_ended",
    _o.service,
    _o.retention_time,
    _o.operation_id,
    sqlite_where=ENDED,
    postgresql_where=ENDED,
)
Index(
    "operations_pruned_by_count",
    _o.service,
    _o.retention_time,
    _o.operation_id,
    sqlite_where=PRUNED_BY_COUNT,
    postgresql_where=PRUNED_BY_COUNT,
)
