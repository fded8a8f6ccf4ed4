"""The ledger: what has been asked for, and what has been told of it, by whichever thread."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from random import Random

from tests.soak.invariants import NOTHING_TOLD, Floor, contradicts_itself, went_back
from tests.soak.looks import Look
from tests.soak.schedule import Work
from tests.soak.tally import Tally


@dataclass(frozen=True, slots=True)
class Account:
    """All that is known of one work; a copy does not change any more."""

    work: Work
    accepted: bool = False
    """A start was answered with the operation."""
    create_time: int = 0
    """As the first such answer told it."""
    starting: int = 0
    """Starts that have been sent and not been answered."""
    forgettable: bool = False
    """A deletion was sent: it may be gone."""
    deleted: bool = False
    """A deletion was answered: it is gone."""
    cancel_sent: bool = False
    cancelled: bool = False
    """A cancellation was answered."""
    life: int = 0
    """The life of the backend that `floor` is from."""
    floor: Floor = NOTHING_TOLD

    @property
    def ended(self) -> bool:
        """Whether its end has been told."""
        return self.floor.ended is not None

    @property
    def expected(self) -> bool:
        """Whether it should be there, or is just being started."""
        return not self.forgettable and (self.accepted or self.starting > 0)


class Ledger:
    """Accounts by operation id; `life_of` tells the present life of a backend."""

    def __init__(self, life_of: Callable[[str], int], tally: Tally) -> None:
        self._life_of = life_of
        self._tally = tally
        self._lock = threading.Lock()  # guards the accounts
        self._accounts: dict[str, Account] = {}

    # -------------------------------------------------------------- what is asked for

    def begin_start(self, work: Work) -> bool:
        """Note that a start is sent; False if it must not be, as it may have been deleted."""
        with self._lock:
            account = self._accounts.get(work.operation_id, Account(work))
            if account.forgettable:
                return False
            self._accounts[work.operation_id] = replace(account, starting=account.starting + 1)
            return True

    def end_start(self, work: Work, look: Look | None) -> None:
        """Note how a start was answered; every one must be answered with the same operation."""
        with self._lock:
            account = self._accounts[work.operation_id]
            account = replace(account, starting=account.starting - 1)
            wrong = []
            if look is not None:
                first = account.create_time or look.create_time
                if (look.operation_id, look.create_time) != (work.operation_id, first):
                    wrong.append(f"was answered with {look.operation_id} of {look.create_time}")
                account = replace(account, accepted=True, create_time=first)
            self._accounts[work.operation_id] = account
        self._tally.note("a repeated start finds its operation", work.operation_id, wrong)

    def begin_delete(self, operation_id: str) -> bool:
        """Note that a deletion is sent; False if it must not be now."""
        with self._lock:
            account = self._accounts.get(operation_id)
            if account is None or account.starting or account.forgettable or not account.accepted:
                return False
            self._accounts[operation_id] = replace(account, forgettable=True)
            return True

    def end_delete(self, operation_id: str, *, deleted: bool, known: bool = True) -> None:
        """Note whether a deletion did it; not `known` if its answer was lost."""
        with self._lock:
            account = self._accounts[operation_id]
            self._accounts[operation_id] = replace(
                account, deleted=deleted, forgettable=deleted or not known
            )

    def begin_cancel(self, operation_id: str) -> bool:
        """Note that a cancellation is sent; False if nothing was started yet."""
        with self._lock:
            account = self._accounts.get(operation_id)
            if account is None:
                return False
            self._accounts[operation_id] = replace(account, cancel_sent=True)
            return True

    def end_cancel(self, operation_id: str) -> None:
        """Note that a cancellation was answered."""
        with self._lock:
            self._accounts[operation_id] = replace(self._accounts[operation_id], cancelled=True)

    # ------------------------------------------------------------------ what is told

    def asked(self, operation_id: str) -> Account:
        """What is known when a question is sent."""
        with self._lock:
            return self._accounts[operation_id]

    def told(self, asked: Account, life: int, look: Look) -> bool:
        """Weigh an answer to a question sent when `asked` was known, in that life of its backend.

        Returns whether the answer is certainly from that life.
        """
        subject = asked.work.operation_id
        self._tally.note("an answer makes sense", subject, contradicts_itself(look))
        if look.refresh_error:
            self._tally.count("not fresh", look.refresh_error)
        if asked.deleted:
            self._tally.note("what was deleted stays so", subject, [f"is back, {look.status}"])
        same_life = life == self._life_of(asked.work.backend)
        # Before it is accepted it may be refused, and started anew.
        if asked.accepted and (asked.ended or (same_life and asked.life == life)):
            self._tally.note("nothing told is taken back", subject, went_back(asked.floor, look))
        with self._lock:
            account = self._accounts[subject]
            if account.accepted and (look.ended or same_life):
                floor = account.floor
                if account.life != life and not account.ended:
                    floor = NOTHING_TOLD
                raised = replace(account, life=life, floor=floor.raised(look))
                self._accounts[subject] = raised
        return same_life

    def missed(self, asked: Account) -> None:
        """Weigh the answer that there is no such operation."""
        now = self.asked(asked.work.operation_id)
        wrong = asked.accepted and not now.forgettable
        self._tally.note(
            "nothing is forgotten", asked.work.operation_id, ["was not found"] if wrong else []
        )

    # ---------------------------------------------------------------------- choosing

    def accounts(self) -> list[Account]:
        """All accounts, in the order in which they were opened."""
        with self._lock:
            return list(self._accounts.values())

    def choose(self, rng: Random) -> Account | None:
        """An operation to watch: mostly one that is open, seldom one that may not be there."""
        accounts, chance = self.accounts(), rng.random()
        if chance < 0.98:
            accounts = [account for account in accounts if account.expected]
        if chance < 0.85:
            accounts = [account for account in accounts if not account.ended] or accounts[-20:]
        return rng.choice(accounts) if accounts else None
