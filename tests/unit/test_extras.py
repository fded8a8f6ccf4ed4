from __future__ import annotations

import sys

import pytest

from shared.extras import require_ib, require_otel, require_training
from shared.settings import SettingsError


def test_what_training_needs_is_found_here(monkeypatch: pytest.MonkeyPatch) -> None:
    require_training("KTRDR_TRAINING_MODE")

    for package, module in (("torch", "torch"), ("TA-Lib", "talib")):
        with monkeypatch.context() as without:
            without.setitem(sys.modules, module, None)
            with pytest.raises(SettingsError) as raised:
                require_training("KTRDR_TRAINING_MODE", ", or set it to host")
        assert (
            f"KTRDR_TRAINING_MODE: training needs {package}, which this environment lacks; "
            "install ktrdr[training], or set it to host"
        ) == str(raised.value)


def test_everything_that_is_missing_is_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("torch", "safetensors"):
        monkeypatch.setitem(sys.modules, module, None)

    with pytest.raises(SettingsError, match="training needs torch, safetensors, which"):
        require_training("The training host")


def test_what_asks_ib_is_found_here_and_its_lack_is_a_sentence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    require_ib("The IB host")
    monkeypatch.setattr("shared.extras.find_spec", lambda _: None)

    with pytest.raises(SettingsError, match=r"ib_insync.*install ktrdr\[ib\]"):
        require_ib("The IB host")


def test_tracing_names_what_it_lacks_and_where_it_comes_from(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    require_otel("OTEL_TRACES_EXPORTER")
    monkeypatch.setattr("shared.extras.find_spec", lambda _name: None)
    with pytest.raises(SettingsError, match=r"needs opentelemetry-sdk, .*; install ktrdr\[otel\]"):
        require_otel("OTEL_TRACES_EXPORTER")
