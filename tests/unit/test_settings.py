from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import pytest
from pydantic import TypeAdapter, ValidationError

from backend.settings import BackendSettings
from shared.settings import (
    Address,
    ProcessSettings,
    SettingsError,
    load_settings,
    usable_folder,
)
from training_host.settings import TrainingHostSettings

ADDRESS = TypeAdapter(Address)


@pytest.fixture(autouse=True)
def _no_settings_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.upper().startswith(("KTRDR_", "OPERATIONS_", "TRAINING_")):
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
        ("KTRDR_STATE_CONNECTIONS", "1", "greater than or equal to 2"),
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
        ("KTRDR_TRAINING_MODE", "remote", "'local' or 'host'"),
        ("KTRDR_TRAINING_MODE", "", "'local' or 'host'"),
        ("KTRDR_TLS_CERT", "", "must name a file"),
        ("KTRDR_TLS_CA", "", "must name a file"),
        ("KTRDR_TOKENS_FILE", "", "must name a file"),
        ("KTRDR_TOKEN_FILE", "", "must name a file"),
        ("KTRDR_INSECURE", "perhaps", "valid boolean"),
        ("KTRDR_REFLECTION", "maybe", "valid boolean"),
        ("TRAINING_HOST_SERVICE_URL", "", "must be host:port"),
        ("TRAINING_HOST_SERVICE_URL", "trainer", "must be host:port"),
        ("TRAINING_HOST_SERVICE_URL", "http://trainer:50052", "must be host:port"),
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


def test_variables_that_do_not_fit_each_other_are_one_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert complaint(monkeypatch, {"KTRDR_DATA_SOURCE": "csv"}) == (
        "KTRDR_DATA_SOURCE=csv needs KTRDR_CSV_FOLDER to name a folder that is there (got None)"
    )


@pytest.mark.parametrize(
    ("names", "complaints"),
    [
        (("KTRDR_TLS_CERT",), "KTRDR_TLS_CERT and KTRDR_TLS_KEY belong together"),
        (("KTRDR_TLS_KEY",), "KTRDR_TLS_CERT and KTRDR_TLS_KEY belong together"),
        (("KTRDR_TLS_CLIENT_CA",), "set KTRDR_TLS_CERT and KTRDR_TLS_KEY as well"),
    ],
)
def test_half_of_what_tls_needs_is_refused(
    monkeypatch: pytest.MonkeyPatch, names: tuple[str, ...], complaints: str
) -> None:
    assert complaints in complaint(monkeypatch, dict.fromkeys(names, "/etc/some.pem"))


@pytest.mark.parametrize(("value", "expected"), [("off", False), ("0", False), ("on", True)])
def test_reflection_is_turned_on_and_off(
    monkeypatch: pytest.MonkeyPatch, value: str, expected: bool
) -> None:
    assert expected is loaded(monkeypatch, {"KTRDR_REFLECTION": value}).reflection


def test_files_may_lie_in_the_users_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    settings = loaded(monkeypatch, {"KTRDR_TOKENS_FILE": "~/tokens"})
    assert settings.tokens_file == Path("/home/somebody/tokens")


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, ()),
        ({"KTRDR_TRAINING_MODE": "host"}, ("127.0.0.1:50052",)),
        ({"KTRDR_DATA_SOURCE": "ib"}, ("127.0.0.1:50053",)),
        (
            {"KTRDR_TRAINING_MODE": "host", "KTRDR_DATA_SOURCE": "ib"},
            ("127.0.0.1:50052", "127.0.0.1:50053"),
        ),
    ],
)
def test_the_hosts_that_are_called_are_those_that_work(
    monkeypatch: pytest.MonkeyPatch, environment: Mapping[str, str], expected: tuple[str, ...]
) -> None:
    assert expected == loaded(monkeypatch, environment).called


@pytest.mark.parametrize(
    ("variable", "value", "named"),
    [
        ("KTRDR_CALL_LIMIT", "500", "KTRDR_WAIT_QUEUE"),
        ("KTRDR_READ_LIMIT", "1000", ""),
        ("KTRDR_WAIT_QUEUE", "5000", "KTRDR_CALL_LIMIT (5000) must not be less"),
        ("KTRDR_BACKLOG_LIMIT", "5000", "must be less than KTRDR_CALL_LIMIT (5000)"),
        ("KTRDR_BACKLOG_LIMIT", "4999", ""),
        (
            "KTRDR_MAX_STRATEGY_BYTES",
            "1000000",
            "must leave 65536 bytes of KTRDR_MAX_REQUEST_BYTES",
        ),
        ("KTRDR_MAX_REQUEST_BYTES", "200000", "lower the one or raise the other"),
    ],
)
def test_limits_that_do_not_fit_each_other_are_named(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, named: str
) -> None:
    if named:
        assert named in complaint(monkeypatch, {variable: value})
    else:
        loaded(monkeypatch, {variable: value})


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


@pytest.mark.parametrize("kind", [ProcessSettings, BackendSettings, TrainingHostSettings])
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


# ------------------------------------------------------------------------ hosts

URL = "TRAINING_HOST_SERVICE_URL"


def test_by_itself_a_backend_trains_here_and_would_ask_the_host_beside_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = loaded(monkeypatch)

    assert ("local", ("127.0.0.1:50052",)) == (settings.training_mode, settings.training_hosts)
    assert settings.training_hosts == (TrainingHostSettings().training_host_address,)


@pytest.mark.parametrize("mode", ["local", "host"])
def test_where_trainings_run_is_read(monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    assert mode == loaded(monkeypatch, {"KTRDR_TRAINING_MODE": mode}).training_mode


@pytest.mark.parametrize(
    ("value", "targets"),
    [
        ("trainer:50052", ("trainer:50052",)),
        ("a:1,b:2,c:3", ("a:1", "b:2", "c:3")),
        (" a:1 , [::1]:2 ", ("a:1", "[::1]:2")),
    ],
)
def test_hosts_are_separated_by_commas(
    monkeypatch: pytest.MonkeyPatch, value: str, targets: tuple[str, ...]
) -> None:
    assert targets == loaded(monkeypatch, {URL: value}).training_hosts


@pytest.mark.parametrize("value", [",", "a:1,", "a:1,,b:2", "a:1;b:2", "a:1 b:2", '["a:1"]'])
def test_a_list_of_hosts_with_a_gap_or_other_signs_is_refused(
    monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    for line in complaint(monkeypatch, {URL: value}).splitlines():
        assert line.startswith(f"{URL}: must be host:port")


def test_each_bad_host_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    text = complaint(monkeypatch, {URL: "good:1,bad,worse:x"})

    assert ["(got 'bad')", "(got 'worse:x')"] == [
        line[line.index("(got") :] for line in text.splitlines()
    ]


def test_a_host_is_named_only_once(monkeypatch: pytest.MonkeyPatch) -> None:
    text = complaint(monkeypatch, {URL: "a:1,b:2,a:1"})

    assert text.startswith(f"{URL}: must name at least one host:port, and each only once")


def test_nothing_can_be_reached_at_port_0(monkeypatch: pytest.MonkeyPatch) -> None:
    text = complaint(monkeypatch, {URL: "a:1,b:0"})

    assert text.startswith(f"{URL}: must be host:port")
    assert "the port that is listened at" in text


def test_a_training_hosts_address_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KTRDR_TRAINING_HOST_ADDRESS", "0.0.0.0:7000")

    assert "0.0.0.0:7000" == load_settings(TrainingHostSettings).training_host_address


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:p@h:5432/d",
        "postgres://h/d",
        "postgresql://",
        "sqlite:///relative.db",
        "sqlite:////absolute.db",
    ],
)
def test_the_url_of_a_database_is_read(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    settings = loaded(monkeypatch, {"KTRDR_STATE_URL": url})

    assert settings.state_url is not None
    assert url == settings.state_url.get_secret_value()


@pytest.mark.parametrize(
    "url", ["mysql://u:hush@h/d", "u:hush@h", "sqlite://", "sqlite:///", "", "sqlite+hush:///x"]
)
def test_a_url_that_names_no_database_is_refused_and_not_shown(
    monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    assert complaint(monkeypatch, {"KTRDR_STATE_URL": url}) == (
        "KTRDR_STATE_URL: must be postgresql://USER:PASSWORD@HOST/DATABASE or sqlite:///FILE; "
        "leave it unset for a file below KTRDR_HOME"
    )


def test_what_holds_a_password_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = loaded(monkeypatch, {"KTRDR_STATE_URL": "postgresql://u:hush@h/d"})

    assert "hush" not in f"{settings!r} {settings} {settings.model_dump()}"
