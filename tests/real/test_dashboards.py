"""Every panel, variable and alert asks for what is there: on a real Prometheus, fed through a real Collector.

The Collector is the stack's, with two exporters more that lose what they get; the example system also drops a record.
So the panels that are empty while all is well have something to show too.
"""

from __future__ import annotations

import itertools
import json
import re
import urllib.error
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from tests.real.collector_process import components
from tests.real.conftest import binary
from tests.real.otlp_requests import post
from tests.real.pipeline_support import best_binary
from tests.real.running import Prometheus, free_ports, wait_until
from tests.real.stack import Stack, running_stack
from tools.dashboards import names as n
from tools.dashboards.__main__ import DASHBOARDS
from tools.dashboards.grafana import Dashboard, Query
from tools.dashboards.rules import AUDIT_WAIT, RULES

SECONDS = 60.0
CHOSEN = {"service": ".*", "exchange": ".*", "operation": ".*", "__rate_interval": "10s"}


def losers(receiver: str) -> dict[str, Any]:
    """Pipelines that lose: one exporter gives up at once, the other cannot even queue."""
    (nobody,) = free_ports(1)
    common = {"endpoint": f"127.0.0.1:{nobody}", "tls": {"insecure": True}}
    forever = {"enabled": True, "max_elapsed_time": 0}
    small = {"queue_size": 1, "num_consumers": 1}
    return {
        "receivers": {"otlp/lost": {"protocols": {"http": {"endpoint": receiver}}}},
        "exporters": {
            "otlp_grpc/gives_up": {**common, "retry_on_failure": {"enabled": False}},
            "otlp_grpc/full": {**common, "retry_on_failure": forever, "sending_queue": small},
        },
        "pipelines": {
            f"{signal}/lost": {
                "receivers": ["otlp/lost"],
                "exporters": ["otlp_grpc/gives_up", "otlp_grpc/full"],
            }
            for signal in n.SIGNALS
        },
    }


def send(receiver: str) -> None:
    """Send one item of each signal."""
    metric = {"name": "lost", "gauge": {"dataPoints": [{"asInt": "1", "timeUnixNano": "1"}]}}
    span = {"traceId": "0" * 31 + "1", "spanId": "0" * 15 + "1", "name": "lost"}
    for path, body in (
        ("logs", {"resourceLogs": [{"scopeLogs": [{"logRecords": [{"body": {"stringValue": "lost"}}]}]}]}),
        ("metrics", {"resourceMetrics": [{"scopeMetrics": [{"metrics": [metric]}]}]}),
        ("traces", {"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]}),
    ):
        try:
            post(f"http://{receiver}", path, body)
        except urllib.error.HTTPError as refused:
            refused.close()


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    (port,) = free_ports(1)
    receiver = f"127.0.0.1:{port}"
    programs = best_binary(), binary("prometheus")
    with running_stack(tmp_path_factory.mktemp("stack"), *programs, losers(receiver)) as found:
        found.prometheus.wait_for(f'up{{job="{n.COLLECTOR_JOB}"}} == 1')
        for _ in range(8):
            send(receiver)
        yield found


def filled_in(expr: str, via: str = "collector") -> str:
    for name, value in (CHOSEN | {"via": via}).items():
        expr = expr.replace(f"${name}", value)
    assert "$" not in expr, expr
    return expr


def selectors(server: Prometheus, expr: str) -> set[str]:
    """The metrics and matchers that an expression reads, as Prometheus itself understands it."""

    def walk(node: Any) -> Iterator[str]:
        if isinstance(node, dict):
            if node.get("type") == "vectorSelector":
                matchers = (
                    f"{each['name']}{each['type']}{json.dumps(each['value'])}"
                    for each in node["matchers"]
                    if each["name"] != "__name__"
                )
                yield f"{node['name']}{{{','.join(matchers)}}}"
            yield from itertools.chain.from_iterable(walk(each) for each in node.values())
        elif isinstance(node, list):
            yield from itertools.chain.from_iterable(walk(each) for each in node)

    return set(walk(server.api("parse_query", query=expr)))


def has_answer(server: Prometheus, expr: str) -> bool:
    return any(row["value"] == row["value"] for row in server.query(expr))  # NaN says nothing


def unanswered(server: Prometheus, exprs: Sequence[str], seconds: float = SECONDS) -> set[str]:
    """Those that still have no answer when the time is over."""
    left = set(exprs)

    def ask() -> set[str]:
        left.difference_update({expr for expr in left if has_answer(server, expr)})
        return left

    try:
        return wait_until(ask, lambda missing: not missing, "the answers", seconds)
    except AssertionError:
        return left


def can_come(expr: str) -> bool:
    """Elasticsearch's exporter, which counts this, is not in the small Collector."""
    return n.ELASTICSEARCH_DOCS not in expr or "elasticsearch" in components(best_binary())["exporters"]


def queries(dashboard: Dashboard) -> list[Query]:
    return [query for panel in dashboard.panels() for query in panel.queries]


@pytest.mark.parametrize("name", DASHBOARDS)
def test_every_query_of_a_dashboard_has_an_answer(name: str, stack: Stack) -> None:
    asked = [filled_in(query.expr) for query in queries(DASHBOARDS[name]) if can_come(query.expr)]
    assert len(asked) > 15
    assert unanswered(stack.prometheus, asked) == set()


@pytest.mark.parametrize("name", DASHBOARDS)
def test_what_a_process_shows_itself_answers_the_same_queries(name: str, stack: Stack) -> None:
    asked = [filled_in(query.expr, "process") for query in queries(DASHBOARDS[name]) if "$via" in query.expr]
    assert asked
    assert unanswered(stack.prometheus, asked) == set()


@pytest.mark.parametrize("name", DASHBOARDS)
def test_every_list_of_choices_has_some(name: str, stack: Stack) -> None:
    for variable in DASHBOARDS[name].variables:
        if variable.choices:
            expr = "{" + f'__name__="{n.EMITTED}",{n.VIA}="%s"' + "}"
            assert unanswered(stack.prometheus, [expr % choice for choice in variable.choices]) == set()
            continue
        parts = re.fullmatch(r"label_values\((.*), (\w+)\)", variable.query)
        assert parts, variable.query
        series, label = filled_in(parts[1]), parts[2]
        found = wait_until(
            lambda label=label, series=series: stack.prometheus.api(
                f"label/{label}/values", **{"match[]": series}
            )
        )
        print(f"{variable.name}: {found}")
        assert all(found)


def test_whatever_a_rule_reads_is_there(stack: Stack) -> None:
    server = stack.prometheus
    rules = [rule for group in RULES["groups"] for rule in group["rules"]]
    for rule in rules:
        server.query(rule["expr"])  # it can be evaluated over what is really there
    read = set().union(*(selectors(server, rule["expr"]) for rule in rules))
    assert len(read) > 20
    # What refuses no document has no series of refused ones; the dashboards ask for those that were taken.
    asked = [each for each in read if n.ELASTICSEARCH_DOCS not in each]
    assert unanswered(server, asked) == set()


def test_a_query_for_what_no_longer_exists_is_noticed(stack: Stack) -> None:
    gone = filled_in(f"sum(rate({n.MESSAGES}_of_yesterday[$__rate_interval]))")
    mistaken = f'{n.LATENCY_BUCKET}{{le="0.0011"}}'
    assert unanswered(stack.prometheus, [gone, mistaken], seconds=1) == {gone, mistaken}


def test_what_is_lost_fires_and_the_rest_is_silent(stack: Stack) -> None:
    def alerts(*states: str) -> dict[str, list[dict[str, Any]]]:
        found: dict[str, list[dict[str, Any]]] = {}
        for alert in stack.prometheus.api("alerts")["alerts"]:
            if alert["state"] in states:
                found.setdefault(alert["labels"]["alertname"], []).append(alert)
        return found

    expected = {"TelemetryLost", "CollectorLosesData"}
    now = wait_until(lambda: alerts("firing"), lambda found: expected <= found.keys(), "the alerts", SECONDS)
    print("firing:", sorted(now))
    assert {alert["labels"]["reason"] for alert in now["TelemetryLost"]} == {"negative_counter"}
    lost = {(alert["labels"]["exporter"], alert["labels"]["reason"]) for alert in now["CollectorLosesData"]}
    assert lost == {("otlp_grpc/gives_up", "send_failed"), ("otlp_grpc/full", "enqueue_failed")}
    for alert in itertools.chain.from_iterable(now.values()):
        for text in alert["annotations"].values():
            assert text
            assert "<no value>" not in text
            assert "error expanding" not in text
    # Nobody answers at Jaeger's address, and one queue is for a single request: that is not quiet, by design.
    by_design = {"AuditQueueStuck", "CollectorQueueNearlyFull"}
    machine = {"LatencyBurnsFast", "LatencyBurnsSlowly"}  # may be a busy one
    assert alerts("firing", "pending").keys() <= expected | by_design | machine


def test_collector_that_is_gone_is_noticed_and_audits_are_seen_to_wait(stack: Stack) -> None:
    waits = f'max({AUDIT_WAIT}{{{n.VIA}="process",place="otlp.audit"}})'
    stack.prometheus.wait_for(waits)
    stack.collector.kill()

    def states() -> set[str]:
        alerts = stack.prometheus.api("alerts")["alerts"]
        return {each["state"] for each in alerts if each["labels"]["alertname"] == "CollectorDown"}

    assert wait_until(states) <= {"pending", "firing"}
    stack.prometheus.wait_for(f"{waits} > 1")  # seconds, at the pace of the last two minutes
    failing = f'sum(rate({n.EXPORTS}{{{n.VIA}="process",outcome="failed"}}[10s])) > 0'
    stack.prometheus.wait_for(failing)
