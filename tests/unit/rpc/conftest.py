"""Fixtures of the tests of `shared.rpc`."""

from __future__ import annotations

import pytest

from shared.rpc import door, handed_call


@pytest.fixture(params=["by its insides", "as gRPC does"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways in which calls are received and refused: with gRPC's insides, and without."""
    if request.param == "as gRPC does":
        monkeypatch.setattr(door, "_server", None)
        monkeypatch.setattr(handed_call, "_SERVING", ())
