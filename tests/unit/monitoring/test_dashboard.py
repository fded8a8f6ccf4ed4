from __future__ import annotations

import pytest
import yaml

from tests.support.dashboard import dashboard, names_in, queries
from tests.support.programs import ROOT
from tests.support.scraping import documented

QUERIES = list(queries())
PROVISIONING = ROOT / "monitoring" / "grafana" / "provisioning"


def exposed() -> set[str]:
    """Every series there is; what processes expose is compared with the documents elsewhere."""
    names = {"up", "process_resident_memory_bytes"}
    for name, row in documented().items():
        parts = ("_bucket", "_sum", "_count") if row.kind == "histogram" else ("",)
        names |= {name + part for part in parts}
    return names


@pytest.mark.parametrize(("title", "query"), QUERIES)
def test_each_query_names_metrics_that_exist(title: str, query: str) -> None:
    assert names_in(query) != set(), title
    assert set() == names_in(query) - exposed(), title


def test_the_check_finds_a_metric_that_does_not_exist() -> None:
    query = 'sum by (type) (rate(ktrdr_made_up_total{job="ktrdr"}[1m])) / ktrdr_workers'
    assert {"ktrdr_made_up_total"} == names_in(query) - exposed()


def test_each_documented_metric_is_on_the_dashboard() -> None:
    shown = " ".join(query for _, query in QUERIES)
    assert [] == [name for name in documented() if name not in shown]


def test_each_variable_that_is_used_is_defined() -> None:
    defined = {variable["name"] for variable in dashboard()["templating"]["list"]}
    assert {"datasource", "instance"} == defined


def test_no_two_panels_lie_on_each_other() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in dashboard()["panels"]:
        at = panel["gridPos"]
        cells = {
            (at["x"] + right, at["y"] + down) for right in range(at["w"]) for down in range(at["h"])
        }
        assert set() == cells & taken, panel["title"]
        taken |= cells


def test_grafana_is_told_where_prometheus_and_the_dashboard_are() -> None:
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))["services"]
    sources = yaml.safe_load((PROVISIONING / "datasources/prometheus.yml").read_text("utf-8"))
    (source,) = sources["datasources"]
    assert "prometheus" in compose
    assert ("http://prometheus:9090", "prometheus") == (source["url"], source["uid"])
    providers = yaml.safe_load((PROVISIONING / "dashboards/ktrdr.yml").read_text("utf-8"))
    folder = providers["providers"][0]["options"]["path"]
    assert f"./monitoring/grafana/dashboards:{folder}:ro" in compose["grafana"]["volumes"]
