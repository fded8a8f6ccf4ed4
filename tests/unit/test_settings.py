from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import pytest
from pydantic import TypeAdapter, ValidationError

from backend.settings import BackendSettings
from shared.settings import Address, ProcessSettings, SettingsError, load_settings, usable_folder

ADDRESS = TypeAdapter(Address)


@pytest.fixture(autouse=True)
def _no_settings_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.upper().startswith(("KTRDR_", "OPERATIONS_")):
            monkeypatch.delenv(name)


def loaded(
    monkeypatch: pytest.MonkeyPatch, environment: Mapping[str, str] | None = None
) -> BackendSettings:
    for name, value in (environment or {}).items():
        monkeypatch.setenv(name, value)
    return load_settings(BackendSettings)


def complaint(monkeypatch: pytest.MonkeyPatch, environment: Mapping[str, str]) -> str:
    with pytest.raises(SettingsError) as caught:
        loaded(monkeypatch, environment)
    return str(caught.value)


def test_an_empty_environment_gives_the_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = loaded(monkeypatch)
    assert settings.backend_address == "127.0.0.1:50051"
    assert (settings.cache_ttl, settings.log_level, settings.log_format) == (1.0, "INFO", "text")
    assert (settings.read_limit, settings.wait_limit) == (24, 16)
    assert settings.refresh_waiters is None  # a quarter of read_limit, as it is then
    assert settings.home.name == ".ktrdr"


def test_variables_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = loaded(
        monkeypatch,
        {
            "OPERATIONS_CACHE_TTL": "0.25",
            "KTRDR_HOME": "/srv/ktrdr",
            "KTRDR_READ_LIMIT": "8",
            "KTRDR_LOG_LEVEL": "DEBUG",
            "KTRDR_LOG_FORMAT": "json",
            "KTRDR_BACKEND_ADDRESS": "[::1]:0",
            "KTRDR_TRAINING_WORKERS": "2",
            "KTRDR_SHUTDOWN_GRACE": "0",
        },
    )
    assert settings.cache_ttl == 0.25
    assert settings.models_dir == Path("/srv/ktrdr/models")
    assert (settings.read_limit, settings.log_level, settings.log_format) == (8, "DEBUG", "json")
    assert (settings.backend_address, settings.training_workers) == ("[::1]:0", 2)
    assert settings.shutdown_grace == 0.0


def test_a_home_with_a_tilde_is_the_users(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    settings = loaded(monkeypatch, {"KTRDR_HOME": "~/trading"})
    assert settings.models_dir == Path("/home/somebody/trading/models")


@pytest.mark.parametrize(
    ("variable", "value", "mend"),
    [
        ("OPERATIONS_CACHE_TTL", "-1", "greater than or equal to 0"),
        ("OPERATIONS_CACHE_TTL", "61", "less than or equal to 60"),
        ("OPERATIONS_CACHE_TTL", "soon", "valid number"),
        ("OPERATIONS_CACHE_TTL", "nan", "finite number"),
        ("OPERATIONS_CACHE_TTL", "inf", "finite number"),
        ("KTRDR_READ_LIMIT", "3", "greater than or equal to 4"),
        ("KTRDR_READ_LIMIT", "", "valid integer"),
        ("KTRDR_READ_LIMIT", "many", "valid integer"),
        ("KTRDR_WAIT_LIMIT", "0", "greater than or equal to 1"),
        ("KTRDR_STREAM_LIMIT", "1001", "less than or equal to 1000"),
        ("KTRDR_START_LIMIT", "1.5", "valid integer"),
        ("KTRDR_REFRESH_WAITERS", "0", "greater than or equal to 1"),
        ("KTRDR_SHUTDOWN_GRACE", "-0.1", "greater than or equal to 0"),
        ("KTRDR_SHUTDOWN_GRACE", "nan", "finite number"),
        ("KTRDR_LOG_LEVEL", "LOUD", "'DEBUG', 'INFO', 'WARNING' or 'ERROR'"),
        ("KTRDR_LOG_FORMAT", "xml", "'text' or 'json'"),
        ("KTRDR_HOME", "", "must name a folder"),
        ("KTRDR_BACKEND_ADDRESS", "50051", "must be host:port, such as 127.0.0.1:50051"),
        ("KTRDR_TRAINING_WORKERS", "0", "greater than or equal to 1"),
        ("KTRDR_TRAINING_QUEUE", "-1", "greater than or equal to 0"),
    ],
)
def test_a_bad_variable_is_named_with_its_value_and_the_mend(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, mend: str
) -> None:
    text = complaint(monkeypatch, {variable: value})
    assert text.startswith(f"{variable}: ")
    assert mend in text
    assert f"(got {value!r})" in text
    assert "\n" not in text


def test_every_bad_variable_has_a_line_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    bad = {
        "KTRDR_READ_LIMIT": "x",
        "OPERATIONS_CACHE_TTL": "y",
        "KTRDR_BACKEND_ADDRESS": "z",
        "KTRDR_LOG_FORMAT": "w",
    }
    lines = complaint(monkeypatch, bad).splitlines()
    assert sorted(bad) == sorted(line.partition(":")[0] for line in lines)


@pytest.mark.parametrize("case", ["ktrdr_read_limit", "Ktrdr_Read_Limit"])
def test_a_bad_variable_is_named_as_documented(monkeypatch: pytest.MonkeyPatch, case: str) -> None:
    assert complaint(monkeypatch, {case: "x"}).startswith("KTRDR_READ_LIMIT: ")


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1:50051", "localhost:0", "0.0.0.0:65535", "[::1]:1", "[::]:0", "a-b.example:80"],
)
def test_good_addresses_are_kept(address: str) -> None:
    assert ADDRESS.validate_python(address) == address


@pytest.mark.parametrize(
    "address",
    [
        "",
        ":",
        ":50051",
        "localhost",
        "localhost:",
        "localhost:x",
        "localhost:65536",
        "localhost:-1",
        "::1:50051",
        "[::1]",
        "http://localhost:50051",
        "localhost:50051/",
        "local host:1",
        "localhost:1\n",
        "localhost:١٢٣",  # digits that int() takes and gRPC does not
    ],
)
def test_other_addresses_are_refused(address: str) -> None:
    with pytest.raises(ValidationError, match="must be host:port"):
        ADDRESS.validate_python(address)


def test_settings_do_not_change(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = loaded(monkeypatch)
    with pytest.raises(ValidationError, match="frozen"):
        settings.read_limit = 5  # type: ignore[misc]  # the point of the test


@pytest.mark.parametrize("kind", [ProcessSettings, BackendSettings])
def test_every_setting_has_a_sentence(kind: type[ProcessSettings]) -> None:
    missing = [name for name, field in kind.model_fields.items() if not field.description]
    assert missing == []


def test_a_home_of_nobody_is_named_with_the_mend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KTRDR_HOME", "~nobodyhere/x")
    with pytest.raises(SettingsError, match="KTRDR_HOME: names the home of a user who does not"):
        load_settings(BackendSettings)


def test_a_folder_that_cannot_be_written_to_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingsError, match=r"KTRDR_HOME: .*file/models cannot be written to"):
        usable_folder(tmp_path / "file" / "models", "KTRDR_HOME")

    assert usable_folder(tmp_path / "new" / "models", "KTRDR_HOME").is_dir()
    assert [] == list((tmp_path / "new" / "models").iterdir())
