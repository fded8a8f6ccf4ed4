from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest

from tests.soak.ledger import Ledger
from tests.soak.tally import Tally
from tests.unit.soak.samples import COMPLETED, CUT_OFF, LOAD, RUNNING, TRAINING

OP = TRAINING.operation_id


class Book:
    """A ledger over one backend whose life the test says."""

    def __init__(self) -> None:
        self.life = 0
        self.tally = Tally()
        self.ledger = Ledger(lambda _: self.life, self.tally)

    def started(self) -> Ledger:
        """The ledger, with one accepted training."""
        self.ledger.begin_start(TRAINING)
        self.ledger.end_start(TRAINING, RUNNING)
        return self.ledger

    @property
    def broken(self) -> list[str]:
        """The invariants that did not hold."""
        return [finding.invariant for finding in self.tally.findings]


@pytest.fixture
def book() -> Book:
    return Book()


def test_a_look_that_tells_less_than_an_earlier_one_is_noted(book: Book) -> None:
    ledger = book.started()
    ledger.told(ledger.asked(OP), 0, RUNNING)

    ledger.told(ledger.asked(OP), 0, replace(RUNNING, metrics_count=0))

    assert ["nothing told is taken back"] == book.broken


def test_an_answer_is_weighed_by_what_was_known_when_it_was_asked_for(book: Book) -> None:
    ledger = book.started()
    before = ledger.asked(OP)
    ledger.told(ledger.asked(OP), 0, RUNNING)

    ledger.told(before, 0, replace(RUNNING, metrics_count=0))

    assert [] == book.broken, "it may have been on its way all the time"


def test_a_process_that_was_killed_may_know_less_of_what_is_open(book: Book) -> None:
    ledger = book.started()
    ledger.told(ledger.asked(OP), 0, RUNNING)
    book.life = 1

    ledger.told(ledger.asked(OP), 1, replace(RUNNING, metrics_count=0))
    assert [] == book.broken

    ledger.told(ledger.asked(OP), 1, RUNNING)
    ledger.told(ledger.asked(OP), 1, replace(RUNNING, metrics_count=0))
    assert ["nothing told is taken back"] == book.broken, "in one life it may not"


def test_what_has_ended_stays_so_over_all_lives(book: Book) -> None:
    ledger = book.started()
    ledger.told(ledger.asked(OP), 0, COMPLETED)
    book.life = 1

    ledger.told(ledger.asked(OP), 1, CUT_OFF)

    assert {"nothing told is taken back"} == set(book.broken)


def test_an_answer_during_a_restart_may_be_of_either_life(book: Book) -> None:
    ledger = book.started()
    ledger.told(ledger.asked(OP), 0, RUNNING)
    asked, life = ledger.asked(OP), 0
    book.life = 1

    assert not ledger.told(asked, life, replace(RUNNING, metrics_count=0))

    assert [] == book.broken


def test_a_repeated_start_must_find_its_operation(book: Book) -> None:
    ledger = book.started()
    ledger.begin_start(TRAINING)
    ledger.end_start(TRAINING, RUNNING)
    assert [] == book.broken

    ledger.begin_start(TRAINING)
    ledger.end_start(TRAINING, replace(RUNNING, create_time=2))
    assert ["a repeated start finds its operation"] == book.broken


def test_what_was_accepted_must_be_found(book: Book) -> None:
    book.ledger.begin_start(TRAINING)
    book.ledger.missed(book.ledger.asked(OP))
    assert [] == book.broken, "perhaps it will be refused"

    book.ledger.end_start(TRAINING, RUNNING)
    book.ledger.missed(book.ledger.asked(OP))
    assert ["nothing is forgotten"] == book.broken


def test_what_was_deleted_must_not_be_found(book: Book) -> None:
    ledger = book.started()
    ledger.begin_delete(OP)
    ledger.told(ledger.asked(OP), 0, COMPLETED)
    ledger.missed(ledger.asked(OP))
    assert [] == book.broken, "it is being deleted"

    ledger.end_delete(OP, deleted=True)
    ledger.missed(ledger.asked(OP))
    assert [] == book.broken
    ledger.told(ledger.asked(OP), 0, COMPLETED)
    assert ["what was deleted stays so"] == book.broken


def test_a_deletion_that_was_refused_changes_nothing_and_a_lost_answer_may_mean_either(
    book: Book,
) -> None:
    ledger = book.started()
    ledger.begin_delete(OP)
    ledger.end_delete(OP, deleted=False)
    assert not ledger.asked(OP).forgettable

    ledger.begin_delete(OP)
    ledger.end_delete(OP, deleted=False, known=False)
    ledger.missed(ledger.asked(OP))
    ledger.told(ledger.asked(OP), 0, COMPLETED)
    assert [] == book.broken


def test_nothing_is_started_and_deleted_at_the_same_time(book: Book) -> None:
    assert not book.ledger.begin_delete(OP), "it was never started"
    book.ledger.begin_start(TRAINING)
    assert not book.ledger.begin_delete(OP), "it is being started"
    book.ledger.end_start(TRAINING, RUNNING)
    assert book.ledger.begin_delete(OP)
    assert not book.ledger.begin_start(TRAINING)
    assert not book.ledger.begin_delete(OP)


def test_nothing_is_cancelled_before_it_is_started(book: Book) -> None:
    assert not book.ledger.begin_cancel(OP)

    book.started().begin_cancel(OP)
    book.ledger.end_cancel(OP)

    account = book.ledger.asked(OP)
    assert (True, True) == (account.cancel_sent, account.cancelled)


def test_mostly_what_is_open_is_chosen_to_be_watched(book: Book) -> None:
    rng = Random(1)  # noqa: S311  # no secret
    assert book.ledger.choose(rng) is None
    ledger = book.started()
    ledger.begin_start(LOAD)
    ledger.end_start(LOAD, replace(RUNNING, operation_id=LOAD.operation_id))
    ledger.told(ledger.asked(OP), 0, COMPLETED)

    chosen = [ledger.choose(rng) for _ in range(200)]

    load = sum(account is not None and account.work is LOAD for account in chosen)
    assert 150 < load < 200
