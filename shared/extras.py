"""Extras: packages that only some work needs, asked for before it begins.

A process that lacks one says at its start which it is and how to install it.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec

from shared.settings import SettingsError


def require_training(variable: str, mend: str = "") -> None:
    """Raise SettingsError unless what training needs is installed; does not import it."""
    needed = {"torch": "torch", "safetensors": "safetensors", "talib": "TA-Lib"}
    _require(f"{variable}: training", needed, f"ktrdr[training]{mend}")


def require_ib(variable: str) -> None:
    """Raise SettingsError unless what speaks to IB is installed; does not import it."""
    _require(f"{variable}: asking IB", {"ib_insync": "ib_insync"}, "ktrdr[ib]")


def require_postgres(variable: str) -> None:
    """Raise SettingsError unless what speaks to PostgreSQL is installed; does not import it."""
    _require(f"{variable}: PostgreSQL", {"psycopg": "psycopg"}, "ktrdr[postgres]")


def require_otel(variable: str) -> None:
    """Raise SettingsError unless what traces needs is installed; does not import it."""
    packages = {
        "opentelemetry.sdk": "opentelemetry-sdk",
        "opentelemetry.exporter.otlp.proto.grpc": "opentelemetry-exporter-otlp-proto-grpc",
    }
    _require(f"{variable}: tracing", packages, "ktrdr[otel]")


def _require(work: str, needed: Mapping[str, str], install: str) -> None:
    missing = [package for module, package in needed.items() if not _is_there(module)]
    if missing:
        raise SettingsError(
            f"{work} needs {', '.join(missing)}, which this environment lacks; install {install}"
        )


def _is_there(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # not even the package it is in
        return False
