from __future__ import annotations

import resource

import pytest

from shared.open_files import OWN_FILES, make_room_for

Limits = tuple[int, int]


@pytest.fixture
def limits(monkeypatch: pytest.MonkeyPatch) -> list[Limits]:
    """The soft and the hard limit, the last one in force."""
    limits: list[Limits] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: limits[-1])
    monkeypatch.setattr(resource, "setrlimit", lambda _, new: limits.append(new))
    return limits


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ((1024, 4096), (2512, 4096)),
        ((1024, resource.RLIM_INFINITY), (2512, resource.RLIM_INFINITY)),
        ((3000, 4096), (3000, 4096)),
        ((resource.RLIM_INFINITY, resource.RLIM_INFINITY), (resource.RLIM_INFINITY,) * 2),
    ],
)
def test_the_limit_is_raised_as_far_as_is_needed(
    limits: list[Limits], before: Limits, after: Limits, caplog: pytest.LogCaptureFixture
) -> None:
    limits.append(before)
    make_room_for(2000)
    assert after == limits[-1]
    assert [] == caplog.records


def test_a_system_that_allows_too_few_is_named_with_the_mend(
    limits: list[Limits], caplog: pytest.LogCaptureFixture
) -> None:
    limits.append((256, 1024))
    make_room_for(2000)
    assert (1024, 1024) == limits[-1]
    assert f"set KTRDR_CONNECTION_LIMIT to {1024 - OWN_FILES}" in caplog.text
