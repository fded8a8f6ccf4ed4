import pytest

from shared.training.indicator_catalogue import INDICATORS


@pytest.mark.parametrize("name", sorted(INDICATORS))
def test_defaults_lie_in_their_ranges(name: str) -> None:
    for parameter in INDICATORS[name].parameters:
        assert parameter.lowest <= parameter.default <= parameter.highest


def test_keys_are_the_parameters_and_the_source() -> None:
    assert ("period", "source") == INDICATORS["rsi"].keys
    assert ("period",) == INDICATORS["atr"].keys
