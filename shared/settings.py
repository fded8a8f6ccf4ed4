"""Settings every ktrdr process shares; each is an environment variable.

A bad value stops the start with the variable's name and the mend.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryFile
from typing import Annotated, Literal, Self, TypeVar

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    SecretStr,
    ValidationError,
    model_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from shared.rpc.limits import KIB, MIB, MOST_STRATEGY_BYTES

_REST_OF_REQUEST = 64 * KIB
"""Bytes that a request has for symbols, overrides and ids beside its strategy, at least."""


class SettingsError(Exception):
    """The environment holds values that cannot be used; the text names each."""


_ADDRESS = re.compile(r"(\[[0-9a-fA-F:.]+\]|[^\s:/\[\]]+):([0-9]{1,5})")


def _address(value: str) -> str:
    match = _ADDRESS.fullmatch(value)
    if match is None or int(match[2]) > 65535:
        raise ValueError("must be host:port, such as 127.0.0.1:50051; port 0 means any free one")
    return value


Address = Annotated[str, AfterValidator(_address)]
"""host:port; IPv6 hosts in brackets."""


def _target(value: str) -> str:
    match = _ADDRESS.fullmatch(value)
    if match is None or not 0 < int(match[2]) <= 65535:
        raise ValueError(
            "must be host:port, such as 127.0.0.1:50052, with the port that is listened at and "
            "without http://"
        )
    return value


Target = Annotated[str, AfterValidator(_target)]
"""host:port of another process."""


def _listed(value: object) -> object:
    return [part.strip() for part in value.split(",")] if isinstance(value, str) else value


def _distinct(targets: tuple[str, ...]) -> tuple[str, ...]:
    if not targets or len(set(targets)) < len(targets):
        raise ValueError("must name at least one host:port, and each only once")
    return targets


Targets = Annotated[
    tuple[Target, ...], NoDecode, BeforeValidator(_listed), AfterValidator(_distinct)
]
"""One or more host:port, comma separated."""


def _folder(value: object) -> object:
    if value == "":
        raise ValueError("must name a folder; leave it unset for ~/.ktrdr")
    return value


def _expanded(path: Path) -> Path:
    try:
        return path.expanduser()
    except RuntimeError as error:
        raise ValueError("names the home of a user who does not exist; write the path") from error


Folder = Annotated[Path, BeforeValidator(_folder), AfterValidator(_expanded)]
"""A path; an empty one would silently be the folder the process was started in."""


def _state_url(value: SecretStr) -> SecretStr:
    scheme, _, rest = value.get_secret_value().partition("://")
    if scheme not in {"postgresql", "postgres"} and not (scheme == "sqlite" and rest[1:]):
        raise ValueError(
            "must be postgresql://USER:PASSWORD@HOST/DATABASE or sqlite:///FILE; leave it unset "
            "for a file below KTRDR_HOME"
        )
    return value


StateUrl = Annotated[SecretStr, AfterValidator(_state_url)]
"""The URL of a database; it may hold a password, so it is never shown."""


def _file(value: object) -> object:
    if value == "":
        raise ValueError("must name a file; leave it unset for none")
    return value


File = Annotated[Path, BeforeValidator(_file), AfterValidator(_expanded)]
"""The path of a file; an empty one would silently be no file at all."""


class ProcessSettings(BaseSettings):
    """What every process reads from its environment."""

    model_config = SettingsConfigDict(
        env_prefix="KTRDR_", frozen=True, use_attribute_docstrings=True, hide_input_in_errors=True
    )

    home: Folder = Field(default=Path("~/.ktrdr"), validate_default=True)
    """Folder for data/, models/ and state/."""

    state_url: StateUrl | None = None
    """Database of operations and their metrics; unset: a file of its own in state/."""

    state_connections: int = Field(default=8, ge=2, le=100)
    """Connections to that database at most."""

    cache_ttl: float = Field(
        default=1.0, ge=0, le=60, allow_inf_nan=False, validation_alias="OPERATIONS_CACHE_TTL"
    )
    """Seconds an answer about an operation may be old if the caller does not say."""

    read_limit: int = Field(default=24, ge=4, le=1000)
    """Calls that read operations at once; more are shed with RESOURCE_EXHAUSTED."""

    wait_limit: int = Field(default=16, ge=1, le=1000)
    """Callers that wait in WaitOperation at once; more are answered early with retry_after."""

    wait_queue: int = Field(default=2000, ge=1, le=100_000)
    """Callers of WaitOperation that may queue to be answered early; more are shed."""

    stream_limit: int = Field(default=4, ge=1, le=1000)
    """Open streams (ReadBars, server reflection) at once."""

    start_limit: int = Field(default=4, ge=1, le=1000)
    """Calls that start operations at once."""

    backlog_limit: int | None = Field(default=None, ge=1, le=100_000)
    """Calls that may wait to be taken in before others are shed; unset: as many as read_limit."""

    watch_limit: int = Field(default=1000, ge=1, le=100_000)
    """Clients that watch health at once."""

    call_limit: int = Field(default=5000, ge=100, le=1_000_000)
    """Calls of all kinds at once, whether served or waiting; gRPC refuses more by itself."""

    connection_limit: int = Field(default=2000, ge=10, le=1_000_000)
    """Connections at once; more are closed as they come."""

    connection_call_limit: int = Field(default=1000, ge=10, le=100_000)
    """Calls on one connection at once; its client holds more back."""

    client_patience: float = Field(default=5.0, ge=0.1, le=3600, allow_inf_nan=False)
    """Seconds a call may wait for its client (a message, a reader) while others want its place."""

    max_request_bytes: int = Field(default=MIB, ge=128 * KIB, le=64 * MIB)
    """Bytes a request may have."""

    max_page_bytes: int = Field(default=MIB, ge=64 * KIB, le=3 * MIB)
    """Bytes after which a page, or a chunk of bars, ends; clients take 4 MiB at once."""

    max_page_rows: int = Field(default=500, ge=1, le=10_000)
    """Rows of a listing's page; clients that ask for more get so many."""

    max_page_metrics: int = Field(default=1000, ge=1, le=10_000)
    """Metrics of a page; clients that ask for more get so many."""

    max_operation_id: int = Field(default=256, ge=200, le=1024)
    """Characters of an operation id in a request; the longest one there can be has 154."""

    max_reason: int = Field(default=1000, ge=0, le=10_000)
    """Characters of the reason of a cancellation."""

    max_wait: float = Field(default=60.0, ge=1, le=3600, allow_inf_nan=False)
    """Seconds a caller may wait in WaitOperation; longer waits are cut to it."""

    max_symbols: int = Field(default=100, ge=1, le=10_000)
    """Symbols of one training or load."""

    refresh_waiters: int | None = Field(default=None, ge=1, le=1000)
    """Callers that may wait for one remote host at once; unset: a quarter of read_limit."""

    advertise_address: Target | None = None
    """Where other ktrdr processes reach this one; unset: where it listens."""

    keep_finished: int = Field(default=10_000, ge=1, le=10_000_000)
    """Finished operations that are kept; older ones are forgotten when new ones start."""

    keep_finished_days: float = Field(default=90.0, gt=0, le=36_500, allow_inf_nan=False)
    """Days that finished operations are kept; older ones are forgotten when new ones start."""

    shutdown_grace: float = Field(default=5.0, ge=0, le=3600, allow_inf_nan=False)
    """Seconds running work gets to finish when the process is told to stop."""

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """What is logged to standard error."""

    log_format: Literal["text", "json"] = "text"
    """Lines for people or a JSON object per line."""

    metrics_port: int | None = Field(default=None, ge=0, le=65535)
    """Port at which Prometheus may read what the process counts; unset: nothing is counted."""

    traces_exporter: Literal["none", "otlp", "console"] = Field(
        default="none", validation_alias="OTEL_TRACES_EXPORTER"
    )
    """Where spans of calls go: nowhere, over OTLP to a collector, or to standard error."""

    tls_cert: File | None = None
    """PEM file of the certificate the process shows; with it the process serves TLS only."""

    tls_key: File | None = None
    """PEM file of the key to KTRDR_TLS_CERT."""

    tls_client_ca: File | None = None
    """PEM file of authorities; callers must then show a certificate that one of them issued."""

    tokens_file: File | None = None
    """File of the tokens that may call, a line `name scope token` each; unset: nobody needs one."""

    tls_ca: File | None = None
    """PEM file of the authorities whose processes are called; unset: calls are in plaintext."""

    token_file: File | None = None
    """File of the token to show to the processes that are called."""

    insecure: bool = False
    """Whether to listen to other machines without TLS and tokens, and to send tokens openly."""

    reflection: bool = True
    """Whether the process describes its services, so that grpcurl needs no files."""

    @model_validator(mode="after")
    def _keys_fit_certificates(self) -> Self:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError(
                "KTRDR_TLS_CERT and KTRDR_TLS_KEY belong together; set the missing one"
            )
        if self.tls_client_ca is not None and self.tls_cert is None:
            raise ValueError(
                "KTRDR_TLS_CLIENT_CA asks for certificates, which needs TLS; set KTRDR_TLS_CERT "
                "and KTRDR_TLS_KEY as well"
            )
        return self

    @model_validator(mode="after")
    def _classes_fit_together(self) -> Self:
        classes = (
            self.read_limit,
            self.wait_limit,
            self.wait_queue,
            self.stream_limit,
            self.start_limit,
        )
        if self.call_limit < sum(classes):
            raise ValueError(
                f"KTRDR_CALL_LIMIT ({self.call_limit}) must not be less than KTRDR_READ_LIMIT, "
                "KTRDR_WAIT_LIMIT, KTRDR_WAIT_QUEUE, KTRDR_STREAM_LIMIT and KTRDR_START_LIMIT "
                f"together ({sum(classes)}); raise it"
            )
        backlog = self.backlog_limit or self.read_limit
        if backlog >= self.call_limit:
            raise ValueError(
                f"KTRDR_BACKLOG_LIMIT ({backlog}) must be less than KTRDR_CALL_LIMIT "
                f"({self.call_limit}), beyond which gRPC refuses by itself; lower the one or raise "
                "the other"
            )
        return self

    @property
    def models_dir(self) -> Path:
        """Where trained models are kept."""
        return self.home / "models"

    @property
    def data_dir(self) -> Path:
        """Where loaded bars are kept."""
        return self.home / "data"

    @property
    def state_dir(self) -> Path:
        """Where a process keeps who it is."""
        return self.home / "state"


class DataSettings(ProcessSettings):
    """What a process that loads market data reads besides."""

    data_workers: int = Field(default=2, ge=1, le=64)
    """Data loads that run at once."""

    data_queue: int = Field(default=16, ge=0, le=1000)
    """Data loads that may wait for a worker; more are refused with RESOURCE_EXHAUSTED."""


class TrainingSettings(ProcessSettings):
    """What a process that trains reads besides."""

    training_workers: int = Field(default=1, ge=1, le=64)
    """Trainings that run at once."""

    training_queue: int = Field(default=8, ge=0, le=1000)
    """Trainings that may wait for a worker; more are refused with RESOURCE_EXHAUSTED."""

    max_timeframes: int = Field(default=100, ge=1, le=1000)
    """Timeframes of one training."""

    max_strategy_bytes: int = Field(default=256 * KIB, ge=KIB, le=MOST_STRATEGY_BYTES)
    """Bytes of a strategy, and of each override, in UTF-8."""

    max_overrides: int = Field(default=100, ge=0, le=10_000)
    """Values that a request may put in place of its strategy's."""

    @model_validator(mode="after")
    def _strategy_fits_its_request(self) -> Self:
        if self.max_strategy_bytes > self.max_request_bytes - _REST_OF_REQUEST:
            raise ValueError(
                f"KTRDR_MAX_STRATEGY_BYTES ({self.max_strategy_bytes}) must leave "
                f"{_REST_OF_REQUEST} bytes of KTRDR_MAX_REQUEST_BYTES ({self.max_request_bytes}) "
                "for the rest of a request; lower the one or raise the other"
            )
        return self


SettingsT = TypeVar("SettingsT", bound=ProcessSettings)


def usable_folder(path: Path, variable: str) -> Path:
    """Make a folder and return it; raises SettingsError if nothing can be written there.

    Better at the start than after hours of work.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=path):
            return path
    except OSError as error:
        raise SettingsError(
            f"{variable}: {path} cannot be written to ({error.strerror}); name a folder that can"
        ) from error


def load_settings(settings: type[SettingsT]) -> SettingsT:
    """Read the environment; raises SettingsError naming every bad variable."""
    try:
        return settings()
    except ValidationError as error:
        raise SettingsError("\n".join(_lines(settings, error))) from error


def _lines(settings: type[ProcessSettings], error: ValidationError) -> Iterator[str]:
    """What is wrong with each variable; where several do not fit, the sentence names them."""
    for item in error.errors():
        problem = item["msg"].removeprefix("Value error, ")
        if item["loc"]:
            problem = f"{_variable(settings, item['loc'])}: {problem}"
            if not _is_secret(settings, item["loc"]):
                problem += f" (got {item['input']!r})"
        yield problem


def _variable(settings: type[ProcessSettings], path: Sequence[str | int]) -> str:
    """The environment variable of a field as pydantic names it in an error."""
    name = str(path[0])
    return f"KTRDR_{name.upper()}" if name in settings.model_fields else name


def _is_secret(settings: type[ProcessSettings], path: Sequence[str | int]) -> bool:
    """Whether what a field was given must not be shown."""
    field = settings.model_fields.get(str(path[0]))
    return field is not None and "SecretStr" in str(field.annotation)
