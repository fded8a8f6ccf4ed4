from __future__ import annotations

from benchmarks.ttl import DEFAULT, TTLS, Watched, targets


def test_no_ttl_that_will_do_is_a_miss() -> None:
    never = [Watched(hit_rate=0.5, mean=0.1, p95=0.2, oldest=DEFAULT) for _ in TTLS]

    assert [False, False, True] == [target.met for target in targets(never)]
    assert "none will" == targets(never)[1].figure


def test_the_default_is_the_first_that_will_do() -> None:
    curve = [Watched(0.95 if ttl >= DEFAULT else 0.8, 0.1, 0.2, DEFAULT) for ttl in TTLS]

    assert [True, True, True] == [target.met for target in targets(curve)]
