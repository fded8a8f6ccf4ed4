from __future__ import annotations

import os

import pytest

from tests.soak.fleet import free_addresses


def test_who_begins_near_the_end_of_the_ports_goes_on_at_their_beginning(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "getpid", lambda: 999)  # ten ports before their end

    found = [int(address.rpartition(":")[2]) for address in free_addresses(20)]

    assert 20 == len(set(found))
    assert (True, True) == (min(found) < 21_100, 30_900 < max(found))
