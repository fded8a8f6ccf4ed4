"""Reading a process's metrics as Prometheus does, and the table that documents them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.request import urlopen

from prometheus_client.parser import text_string_to_metric_families

from tests.support.programs import ROOT

DOCUMENT = ROOT / "docs" / "monitoring.md"
_ROW = re.compile(r"^\| `(ktrdr_\w+)` \| (\w+) \| ([\w, ]*) ?\|", re.MULTILINE)
_EXPOSED = re.compile(r"Metrics on (http://\S+)")


@dataclass(frozen=True, slots=True)
class Exposed:
    """What one look at a process's metrics brought."""

    kinds: Mapping[str, str]
    """Type of each family, by its name as it is written."""
    labels: Mapping[str, frozenset[str]]
    """Names of the labels, of the families that had samples."""
    samples: Mapping[tuple[str, frozenset[tuple[str, str]]], float]
    """By name and labels with their values."""

    def value(self, name: str, **labels: str) -> float:
        """The sample with exactly these labels; KeyError if there is none."""
        return self.samples[name, frozenset(labels.items())]


@dataclass(frozen=True, slots=True)
class Documented:
    """One row of the table."""

    kind: str
    labels: frozenset[str]


def url_in(log: str) -> str:
    """Where the log of a process says that its metrics are."""
    found = _EXPOSED.search(log)
    assert found is not None, log
    return found[1]


def scrape(url: str) -> Exposed:
    """What is exposed there now."""
    with urlopen(url, timeout=5) as answer:  # noqa: S310  # http, as `url_in` finds it
        return parsed(answer.read().decode())


def parsed(text: str) -> Exposed:
    """What a text in Prometheus's format says."""
    kinds, labels, samples = {}, {}, {}
    for family in text_string_to_metric_families(text):
        name = family.name + ("_total" if family.type == "counter" else "")
        kinds[name] = family.type
        for sample in family.samples:
            labels[name] = frozenset(sample.labels) - {"le"}
            samples[sample.name, frozenset(sample.labels.items())] = sample.value
    return Exposed(kinds, labels, samples)


def documented() -> Mapping[str, Documented]:
    """The table of metrics."""
    rows = _ROW.findall(DOCUMENT.read_text("utf-8"))
    return {
        name: Documented(kind, frozenset(filter(None, re.split(r"[ ,]+", labels))))
        for name, kind, labels in rows
    }
