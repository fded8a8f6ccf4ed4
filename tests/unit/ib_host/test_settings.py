from __future__ import annotations

import pytest

from ib_host.settings import SIMULATOR, IbHostSettings
from shared.settings import SettingsError, load_settings


@pytest.mark.parametrize("gateway", [SIMULATOR, "ib-gateway:4004", "[::1]:4001"])
def test_the_gateway_is_an_address_or_the_simulator(
    gateway: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KTRDR_IB_GATEWAY", gateway)
    assert gateway == load_settings(IbHostSettings).ib_gateway


def test_without_an_environment_it_is_the_gateway_of_this_machine_read_with_care() -> None:
    settings = IbHostSettings()
    assert ("127.0.0.1:50053", "127.0.0.1:4002", 1) == (
        settings.ib_host_address,
        settings.ib_gateway,
        settings.ib_client_id,
    )
    assert settings.ib_regular_hours


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("KTRDR_IB_GATEWAY", "simulated", "KTRDR_IB_GATEWAY: must be host:port or simulator"),
        ("KTRDR_IB_CLIENT_ID", "-1", "KTRDR_IB_CLIENT_ID"),
        ("KTRDR_IB_TIMEOUT", "0", "KTRDR_IB_TIMEOUT"),
        ("KTRDR_IB_OUTAGE", "inf", "KTRDR_IB_OUTAGE"),
        ("KTRDR_IB_HOST_ADDRESS", "50053", "KTRDR_IB_HOST_ADDRESS: must be host:port"),
    ],
)
def test_a_bad_value_is_named(
    name: str, value: str, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=why):
        load_settings(IbHostSettings)
