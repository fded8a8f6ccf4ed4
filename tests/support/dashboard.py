"""The dashboard of Grafana, and the queries in it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from tests.support.programs import ROOT

FILE = ROOT / "monitoring" / "grafana" / "dashboards" / "ktrdr.json"
_NAME = re.compile(r"\b(?:ktrdr|process)_\w+|\bup\b")
_STRING = re.compile(r'"[^"]*"')


def dashboard() -> dict[str, Any]:
    """The dashboard as Grafana loads it."""
    document: dict[str, Any] = json.loads(FILE.read_text("utf-8"))
    return document


def queries() -> Iterator[tuple[str, str]]:
    """Each query with the title of its panel, as Grafana sends it for all processes."""
    for panel in dashboard()["panels"]:
        for target in panel["targets"]:
            expression = target["expr"].replace("$__rate_interval", "1m")
            yield panel["title"], expression.replace("$instance", ".*")


def names_in(query: str) -> set[str]:
    """The metrics that a query names."""
    return set(_NAME.findall(_STRING.sub("", query)))
