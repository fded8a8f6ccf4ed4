"""What was forgotten in a database, so that nobody who still has it brings it back."""

from __future__ import annotations

from sqlalchemy import ColumnElement, Connection, and_, delete, insert, select

from shared.operations.sql_records import escaped
from shared.operations.sql_schema import FORGOTTEN
from shared.operations.store import REMEMBERED

_f = FORGOTTEN.c


class Forgotten:
    """What one service has forgotten, over a connection; it raises what the database raises.

    Times are microseconds. Whoever asks or adds holds the row of the operation, or has removed
    it in the same transaction, so what is found holds until that is over.
    """

    def __init__(self, connection: Connection, service: str) -> None:
        self._connection = connection
        self._service = service

    def has(self, operation_id: str, create_time: int) -> bool:
        """Whether this very operation was forgotten, not another that had its id."""
        query = select(_f.forget_time).where(self._is(operation_id, create_time))
        return self._connection.execute(query).first() is not None

    def add(self, operation_id: str, create_time: int, at: int) -> None:
        """Note that an operation was forgotten, also if that was noted before."""
        self.remove(operation_id, create_time)
        row = {
            "service": self._service,
            "operation_id": escaped(operation_id),
            "create_time": create_time,
            "forget_time": at,
        }
        self._connection.execute(insert(FORGOTTEN), row)

    def remove(self, operation_id: str, create_time: int) -> None:
        """Forget that an operation was forgotten: it is created, though its clock stood still."""
        self._connection.execute(delete(FORGOTTEN).where(self._is(operation_id, create_time)))

    def trim(self) -> None:
        """Keep only the last ones, and what was noted at the same instant as the last of these.

        To be done last in a transaction: who waits here for another waits for nobody else.
        """
        newest = select(_f.forget_time).where(self._mine).order_by(_f.forget_time.desc())
        oldest_kept = newest.offset(REMEMBERED - 1).limit(1).scalar_subquery()
        self._connection.execute(delete(FORGOTTEN).where(self._mine, _f.forget_time < oldest_kept))

    def _is(self, operation_id: str, create_time: int) -> ColumnElement[bool]:
        this = and_(_f.operation_id == escaped(operation_id), _f.create_time == create_time)
        return and_(self._mine, this)

    @property
    def _mine(self) -> ColumnElement[bool]:
        return _f.service == self._service
