from __future__ import annotations

from tests.soak.inspection import Records
from tests.soak.invariants import Footprint
from tests.soak.ledger import Account
from tests.soak.report import report, table
from tests.soak.schedule import draw_schedule
from tests.soak.soak import Outcome
from tests.soak.tally import Tally
from tests.unit.soak.samples import COMPLETED, LOAD, TRAINING


def outcome(tally: Tally) -> Outcome:
    records = Records(looks={TRAINING.operation_id: COMPLETED})
    accounts = [Account(TRAINING, accepted=True), Account(LOAD, forgettable=True)]
    sizes = {"front": (Footprint(100, 10, 20), Footprint(101, 9, 20))}
    return Outcome(draw_schedule(5, 60), 75.0, tally, records, accounts, sizes)


def test_a_table_lines_up() -> None:
    assert ["what   n", "a      1", "long  12"] == table(("what", "n"), [("a", 1), ("long", 12)])


def test_a_report_tells_what_was_done_and_that_all_held() -> None:
    tally = Tally()
    for method in ("GetOperation", "GetMetrics", "WaitOperation"):
        tally.count("call", method)
    tally.count("failed", "GetOperation", "UNAVAILABLE", "")
    tally.count("fault", "SIGKILL", "trainer-1")

    text = report(outcome(tally))

    assert text.startswith("Soak of 60 s with seed 5; it took 75 s.")
    for line in (
        "training front    1          1       0          0        0        0",
        "load alone        1          0       0          0        1        0",
        "polls: 2, not fresh: none",
        "waits: 1, sent away 0",
        "faults: SIGKILL trainer-1 1; SIGTERM none; SIGSTOP none",
        "GetOperation UNAVAILABLE (no server)      1",
        "front       100 → 101   10 → 9  20 → 20",
    ):
        assert line in text.splitlines()
    assert text.endswith("Every invariant held.\n")


def test_a_report_names_what_broke_and_where_and_does_not_go_on_for_ever() -> None:
    tally = Tally()
    tally.note("nothing is forgotten", "op_training_0001", ["was not found"] * 3)
    tally.note("everything ends", "op", (f"is {number}" for number in range(10)))

    text = report(outcome(tally))

    assert "Every invariant held" not in text
    assert "BROKEN: nothing is forgotten\n  op_training_0001: was not found\nBROKEN" in text
    assert text.endswith("  op: is 7\n  and 2 more\n")
