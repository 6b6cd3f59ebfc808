"""The dashboards and rules that are checked in: current, well formed, and speaking of what is really measured."""

from __future__ import annotations

import ast
import itertools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tools.dashboards import __main__ as command
from tools.dashboards import grafana, names
from tools.dashboards.__main__ import DASHBOARDS, ROOT, files, main
from tools.dashboards.rules import OBJECTIVES, RULES

SOURCES = ROOT / "tools" / "dashboards"
KINDS = {"timeseries", "stat", "heatmap", "table"}
"""Panel types of today's Grafana; graph, singlestat and table-old, for example, are gone."""
UNITS = {"short", "none", "s", "mps", "recps", "ops", "percentunit", "currencyUSD", "bytes"}
RULE_LIST = [rule for group in RULES["groups"] for rule in group["rules"]]
ALERTS = {rule["alert"]: rule for rule in RULE_LIST if "alert" in rule}
RECORDS = {rule["record"] for rule in RULE_LIST if "record" in rule}


def models() -> dict[str, dict[str, Any]]:
    return {name: dashboard.model() for name, dashboard in DASHBOARDS.items()}


def panels(model: dict[str, Any]) -> list[dict[str, Any]]:
    return [panel for panel in model["panels"] if panel["type"] != "row"]


def test_checked_in_files_are_what_the_generator_writes() -> None:
    for path, text in files().items():
        assert path.read_text() == text, f"{path.relative_to(ROOT)} is not current: run `make dashboards`"
    kept = [*(ROOT / "docker/grafana/dashboards").iterdir(), *(ROOT / "docker/prometheus/rules").iterdir()]
    assert set(kept) == set(files())


def test_generator_writes_what_is_missing_and_check_only_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "ROOT", tmp_path)
    assert main(["--check"]) == 1
    assert "not current: docker/prometheus/rules/hft-otel.yml" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []
    assert main([]) == 0
    assert main(["--check"]) == 0
    assert len(list(tmp_path.rglob("*.json"))) == len(DASHBOARDS)


@pytest.mark.parametrize("name", DASHBOARDS)
def test_panels_say_what_they_show(name: str) -> None:
    model = models()[name]
    assert len({panel["title"] for panel in panels(model)}) == len(panels(model))
    for panel in panels(model):
        assert panel["type"] in KINDS
        assert len(panel["description"]) > 10
        assert panel["description"].endswith(".")
        assert panel["fieldConfig"]["defaults"]["unit"] in UNITS
        assert panel["datasource"] == grafana.PROMETHEUS
        assert panel["targets"]
        for key in ("refId", "expr", "legendFormat"):
            assert len({target[key] for target in panel["targets"]}) == len(panel["targets"])


@pytest.mark.parametrize("name", DASHBOARDS)
def test_panels_stand_side_by_side_and_none_covers_another(name: str) -> None:
    model = models()[name]
    taken: set[tuple[int, int]] = set()
    for panel in model["panels"]:
        place = panel["gridPos"]
        cells = set(
            itertools.product(
                range(place["x"], place["x"] + place["w"]), range(place["y"], place["y"] + place["h"])
            )
        )
        assert place["x"] + place["w"] <= grafana.WIDTH
        assert not cells & taken
        taken |= cells
    assert len({panel["id"] for panel in model["panels"]}) == len(model["panels"])
    assert json.loads(json.dumps(model)) == model


@pytest.mark.parametrize("name", DASHBOARDS)
def test_queries_and_repeats_use_variables_that_there_are(name: str) -> None:
    model = models()[name]
    there = {variable["name"] for variable in model["templating"]["list"]} | {"__rate_interval"}
    for panel in panels(model):
        texts = [panel["title"], *(target["expr"] for target in panel["targets"])]
        used = set(re.findall(r"\$(\w+)", " ".join(texts))) | {panel.get("repeat")} - {None}
        assert used <= there
    uids = {dashboard.uid for dashboard in DASHBOARDS.values()}
    assert {link["url"].removeprefix("/d/") for link in model["links"]} <= uids


def test_every_variable_is_used() -> None:
    for dashboard in DASHBOARDS.values():
        text = json.dumps(dashboard.model()["panels"])
        for variable in dashboard.variables:
            assert f"${variable.name}" in text


def test_query_that_may_be_empty_tells_the_viewer_why() -> None:
    for dashboard in DASHBOARDS.values():
        shown = {panel["title"]: panel["description"] for panel in panels(dashboard.model())}
        for panel in dashboard.panels():
            for query in panel.queries:
                assert query.empty in shown[panel.title]
                assert query.empty == "" or query.empty.startswith("Empty ")


def test_names_are_written_once() -> None:
    for file in SOURCES.glob("*.py"):
        if file.name != "names.py":
            texts = [
                node.value for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Constant)
            ]
            literal = [t for t in texts if isinstance(t, str) and re.match(r"(hft|otelcol)_\w+", t)]
            assert literal == [], f"{file.name} names metrics by itself"


def test_recorded_series_that_dashboards_and_alerts_read_are_recorded() -> None:
    text = json.dumps([*models().values(), *ALERTS.values()])
    read = set(re.findall(r"\b(?:hft|otelcol):[\w:]+", text))
    assert read
    assert read <= RECORDS
    assert read >= RECORDS, "a rule records what nobody reads"


def emitted() -> Iterator[tuple[str, str]]:
    """Method and metric name of each measuring call in the example system."""
    for file in (ROOT / "examples" / "trading_system").glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args:
                name = node.args[0]
                if isinstance(name, ast.Constant) and isinstance(name.value, str):
                    yield node.func.attr, name.value


def test_trading_names_are_those_that_the_example_emits() -> None:
    calls = set(emitted())
    found = {names.measured(name) for method, name in calls if method == "metric"}
    found |= {names.family(name, "counter") for method, name in calls if method == "counter"}
    shown = {
        names.MESSAGES, names.PARSE_FAILURES, names.SEQUENCE_GAPS, names.DISCONNECTS, names.EXECUTIONS,
        names.FAILURES, names.REJECTIONS, names.PROFIT, names.EDGE, names.DEPTH,
    }  # fmt: skip
    assert shown <= found
    timed = {name for method, name in calls if method in ("latency", "time_operation")}
    assert {names.PARSE_MESSAGE, names.ORDER_ROUND_TRIP} <= timed


def test_names_follow_kind_and_unit() -> None:
    assert names.family("latency", "histogram", "s") == "hft_latency_seconds"
    assert names.family("telemetry.dropped", "counter", "{record}") == "hft_telemetry_dropped_total"
    assert names.PROFIT == "hft_arbitrage_profit_usd"
    assert names.FAILURES == "hft_arbitrage_failure_total"


def test_bound_that_the_histogram_does_not_have_is_refused() -> None:
    assert names.bucket(0.001) == "0.001"
    with pytest.raises(ValueError, match="no bound"):
        names.bucket(0.002)


def test_stack_and_example_record_on_the_same_instruments() -> None:
    stack = yaml.safe_load((ROOT / "docker" / "logging.yaml").read_text())["logging"]
    example = yaml.safe_load(names.EXAMPLE.read_text())["logging"]
    assert stack["instruments"] == example["instruments"]


@pytest.mark.parametrize("alert", ALERTS)
def test_alert_says_what_it_is_and_what_to_do(alert: str) -> None:
    rule = ALERTS[alert]
    assert rule["labels"]["severity"] in ("critical", "warning")
    notes = rule["annotations"]
    assert set(notes) == {"summary", "description", "hint", "runbook"}
    assert all(len(text) > 10 for text in notes.values())
    page, anchor = notes["runbook"].split("#")
    headings = re.findall(r"^### (.*)$", (ROOT / page).read_text(), re.MULTILINE)
    assert anchor in {heading.lower() for heading in headings}


def test_objectives_are_shares_of_a_bucket() -> None:
    for bound, objective in OBJECTIVES.values():
        assert names.bucket(bound)
        assert 0.9 < objective < 1
