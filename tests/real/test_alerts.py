"""Every alert fires when it must and is silent when it must not, by Prometheus's own rule tester, promtool."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from tests.real.processes import ROOT
from tools.dashboards import names as n
from tools.dashboards.rules import OBJECTIVES, RULES

RULE_FILE = ROOT / "docker" / "prometheus" / "rules" / "hft-otel.yml"
ALERTS = {rule["alert"]: rule for group in RULES["groups"] for rule in group["rules"] if "alert" in rule}
PROCESS = {"job": "hft", "instance": "one", n.VIA: "collector"}
COLLECTOR = {"job": n.COLLECTOR_JOB, "instance": "otelcol:8888"}


class Case(NamedTuple):
    """Series as promtool writes them, one value per 15 s, and what fires at a time; no labels: nothing fires."""

    alert: str
    about: str
    series: Mapping[str, str]
    at: str
    fires: Sequence[Mapping[str, str]] = ()


def series(metric: str, *groups: Mapping[str, str], **labels: str) -> str:
    """A series selector with exact labels."""
    whole = {key: value for group in (*groups, labels) for key, value in group.items()}
    return metric + "{" + ",".join(f'{key}="{value}"' for key, value in whole.items()) + "}"


def lost(**labels: str) -> str:
    return series(n.DROPPED, PROCESS, {"place": "low", "type": n.TEXT, "reason": "room_full"}, labels)


def audits(metric: str, **labels: str) -> str:
    return series(metric, PROCESS, labels, type=n.AUDIT)


def queue(metric: str, exporter: str) -> str:
    return series(metric, COLLECTOR, exporter=exporter, data_type="logs")


def latency(slow_share: float, operation: str = n.PARSE_MESSAGE, minutes: int = 50) -> dict[str, str]:
    """A thousand operations every 15 s, of which a share takes longer than the objective."""
    bound, _ = OBJECTIVES[operation]
    steps = minutes * 4
    within = round(1000 * (1 - slow_share), 3)
    return {
        series(n.LATENCY_BUCKET, PROCESS, operation=operation, le=n.bucket(bound)): f"0+{within}x{steps}",
        series(n.LATENCY_COUNT, PROCESS, operation=operation): f"0+1000x{steps}",
    }


FIRST_LOSS = {"job": "hft", "place": "low", "type": n.TEXT, "reason": "room_full"}
AUDIT_EXPORTER = "otlp_grpc/audit"

CASES = [
    Case("TelemetryLost", "a first loss, of which no rise was seen", {lost(): "_x8 7x40"}, "3m", [FIRST_LOSS]),
    Case("TelemetryLost", "ongoing loss", {lost(): "5+5x60"}, "12m", [FIRST_LOSS]),
    Case("TelemetryLost", "a loss that is long past", {lost(): "5x80"}, "15m"),
    Case(
        "TelemetryLost", "an old loss, seen again after the Collector was away for ten minutes",
        {lost(): "5x20 stale _x38 5x20"}, "16m",
    ),
    Case(
        "TelemetryLost", "one loss seen two ways is one alert",
        {lost(): "0+1x40", lost(**{n.VIA: "process", "instance": "two"}): "0+1x40"}, "6m", [FIRST_LOSS],
    ),
    Case("AuditUnrouted", "audits go nowhere", {audits(n.UNROUTED, lane="audit"): "0x8 1x8"}, "3m", [{"job": "hft"}]),
    Case(
        "AuditUnrouted", "text goes nowhere", {series(n.UNROUTED, PROCESS, lane="low", type=n.TEXT): "0+5x30"}, "5m"
    ),
    Case(
        "AuditDisplaced", "a full disk", {series(n.DISPLACED, PROCESS, place="memory"): "0x8 1x8"}, "3m",
        [{"job": "hft", "place": "memory"}],
    ),
    Case("AuditDisplaced", "long over", {series(n.DISPLACED, PROCESS, place="fallback"): "0x4 3x80"}, "15m"),
    *(
        Case(
            "CollectorLosesData", f"{outcome} {signal}",
            {series(n.exported(signal, outcome), COLLECTOR, exporter=AUDIT_EXPORTER): values}, "4m",
            [COLLECTOR | {"exporter": AUDIT_EXPORTER, "signal": signal, "reason": outcome}],
        )
        for outcome, values in (("send_failed", "_x8 3x20"), ("enqueue_failed", "2+2x40"))
        for signal in n.SIGNALS
    ),
    Case(
        "CollectorLosesData", "nothing failed",
        {series(n.exported("logs", "send_failed"), COLLECTOR, exporter=AUDIT_EXPORTER): "0x40"}, "8m",
    ),
    Case(
        "ElasticsearchRefusesDocuments", "documents of a wrong shape",
        {series(n.ELASTICSEARCH_DOCS, COLLECTOR, outcome="failed_client"): "_x8 3x20"}, "3m",
        [{"instance": "otelcol:8888", "outcome": "failed_client"}],
    ),
    Case(
        "ElasticsearchRefusesDocuments", "documents that were sent twice",
        {series(n.ELASTICSEARCH_DOCS, COLLECTOR, outcome="failed_client", error_type=n.CONFLICT): "_x8 3x20"}, "4m",
    ),
    Case(
        "ElasticsearchRefusesDocuments", "only good documents",
        {series(n.ELASTICSEARCH_DOCS, COLLECTOR, outcome="success"): "_x8 0+9x20"}, "4m",
    ),
    Case(
        "CollectorRefusesData", "for minutes",
        {series(n.received("logs", "refused"), COLLECTOR, receiver="otlp", transport="http"): "0+5x40"}, "5m",
        [{"instance": "otelcol:8888", "receiver": "otlp", "signal": "logs"}],
    ),
    Case(
        "CollectorRefusesData", "once",
        {series(n.received("logs", "refused"), COLLECTOR, receiver="otlp", transport="http"): "0x8 50x20"}, "4m",
    ),
    Case(
        "MetricExportsFail", "for minutes",
        {series(n.EXPORTS, PROCESS, destination="otlp.metrics", outcome="failed"): "0+1x60"}, "10m",
        [{"job": "hft", "destination": "otlp.metrics"}],
    ),
    Case(
        "MetricExportsFail", "once",
        {series(n.EXPORTS, PROCESS, destination="otlp.metrics", outcome="failed"): "0x8 1x60"}, "8m",
    ),
    Case(
        "AuditLate", "a destination takes nothing",
        {audits(n.PENDING, place="otlp.logs"): "100x40", audits(n.DELIVERED, destination="otlp.logs"): "7x40"},
        "5m", [{"job": "hft", "place": "otlp.logs"}],
    ),
    Case(
        "AuditLate", "a lane is not read",
        {audits(n.PENDING, place="audit"): "0+9x40", audits(n.ROUTED, lane="audit"): "7x40"},
        "5m", [{"job": "hft", "place": "audit"}],
    ),
    Case(
        "AuditLate", "a destination is slow",
        {audits(n.PENDING, place="otlp.logs"): "900x40", audits(n.DELIVERED, destination="otlp.logs"): "0+15x40"},
        "5m", [{"job": "hft", "place": "otlp.logs"}],
    ),
    Case(
        "AuditLate", "a destination keeps up",
        {audits(n.PENDING, place="otlp.logs"): "100x40", audits(n.DELIVERED, destination="otlp.logs"): "0+100x40"},
        "5m",
    ),
    Case(
        "AuditLate", "none waits, and none was delivered lately",
        {audits(n.PENDING, place="otlp.logs"): "0x40", audits(n.DELIVERED, destination="otlp.logs"): "7x40"}, "5m",
    ),
    Case(
        "AuditLate", "the process has ended, and its last values are still shown",
        {
            audits(n.PENDING, place="otlp.logs"): "100x60",
            audits(n.DELIVERED, destination="otlp.logs"): "7x60",
            series(n.EXPORTS, PROCESS, destination="otlp.metrics", outcome="succeeded"): "0+1x4 4x56",
        },
        "8m",
    ),
    Case(
        "AuditQueueStuck", "the backend is down", {queue(n.QUEUE_SIZE, AUDIT_EXPORTER): "3x60"}, "13m",
        [COLLECTOR | {"exporter": AUDIT_EXPORTER, "data_type": "logs"}],
    ),
    Case("AuditQueueStuck", "it empties", {queue(n.QUEUE_SIZE, AUDIT_EXPORTER): "3x30 0 3x29"}, "13m"),
    Case("AuditQueueStuck", "another queue", {queue(n.QUEUE_SIZE, "otlp_grpc/bulk"): "3x60"}, "13m"),
    Case("CollectorDown", "it does not answer", {series("up", COLLECTOR): "1x8 0x20"}, "4m", [COLLECTOR]),
    Case("CollectorDown", "it is not even a target", {}, "4m", [{"job": n.COLLECTOR_JOB}]),
    Case("CollectorDown", "it misses a scrape", {series("up", COLLECTOR): "1x8 0x2 1x20"}, "4m"),
    Case(
        "TelemetryAbsent", "the process hangs", {series(n.EMITTED, PROCESS, lane="low"): "0+9x20 180x60"}, "14m",
        [{"job": "hft"}],
    ),
    Case(
        "TelemetryAbsent", "the process is gone", {series(n.EMITTED, PROCESS, lane="low"): "0+9x20 stale _x80"},
        "12m", [],
    ),
    Case(
        "TelemetryAbsent", "the process is gone for a while",
        {series(n.EMITTED, PROCESS, lane="low"): "0+9x40 stale _x80"}, "18m", [{"job": "hft"}],
    ),
    Case("TelemetryAbsent", "it speaks", {series(n.EMITTED, PROCESS, lane="low"): "0+9x90"}, "20m"),
    Case(
        "CollectorQueueNearlyFull", "nine tenths",
        {queue(n.QUEUE_SIZE, "otlp_grpc/bulk"): "900x40", queue(n.QUEUE_CAPACITY, "otlp_grpc/bulk"): "1000x40"}, "5m",
        [COLLECTOR | {"exporter": "otlp_grpc/bulk", "data_type": "logs"}],
    ),
    Case(
        "CollectorQueueNearlyFull", "half",
        {queue(n.QUEUE_SIZE, "otlp_grpc/bulk"): "500x40", queue(n.QUEUE_CAPACITY, "otlp_grpc/bulk"): "1000x40"}, "5m",
    ),
    *(
        Case(
            name, f"{share:.2%} of {operation} miss the objective", latency(share, operation), "40m",
            [{"job": "hft", "operation": operation}] if fires else [],
        )
        for operation, (_, objective) in OBJECTIVES.items()
        for name, share, fires in (
            ("LatencyBurnsFast", (1 - objective) * 20, True),
            ("LatencyBurnsFast", (1 - objective) * 10, False),
            ("LatencyBurnsSlowly", (1 - objective) * 10, True),
            ("LatencyBurnsSlowly", (1 - objective) * 0.5, False),
        )
    ),
    Case(
        "LatencyBurnsFast", "an hour was bad, and now it is good",
        {
            key: values.split("x")[0] + "x240 " + ("240000" if "count" in key else "192000") + "+1000x80"
            for key, values in latency(0.2, minutes=60).items()
        },
        "75m",
    ),
]  # fmt: skip


def promtool_tests(
    promtool: Path, tmp_path: Path, tests: Sequence[dict[str, Any]]
) -> subprocess.CompletedProcess[str]:
    file = tmp_path / "tests.yml"
    file.write_text(
        yaml.safe_dump({"rule_files": [str(RULE_FILE)], "evaluation_interval": "15s", "tests": list(tests)})
    )
    command = [str(promtool), "test", "rules", str(file)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def as_test(case: Case, **what: Any) -> dict[str, Any]:
    inputs = [{"series": key, "values": values} for key, values in case.series.items()]
    return {"name": f"{case.alert}: {case.about}", "interval": "15s", "input_series": inputs, **what}


def expects(case: Case) -> dict[str, Any]:
    severity = ALERTS[case.alert]["labels"]["severity"]
    firing = f'ALERTS{{alertname="{case.alert}",alertstate="firing"}}'
    named = {"alertname": case.alert, "alertstate": "firing", "severity": severity}
    samples = [{"labels": series("ALERTS", named, labels), "value": 1} for labels in case.fires]
    return as_test(case, promql_expr_test=[{"expr": firing, "eval_time": case.at, "exp_samples": samples}])


def test_rules_that_are_checked_in_are_valid(promtool: Path) -> None:
    command = [str(promtool), "check", "rules", "--lint=all", "--lint-fatal", str(RULE_FILE)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("alert", ALERTS)
def test_alert_fires_when_it_must_and_only_then(alert: str, promtool: Path, tmp_path: Path) -> None:
    cases = [case for case in CASES if case.alert == alert]
    assert {bool(case.fires) for case in cases} == {True, False}, "each alert needs a case of both kinds"
    done = promtool_tests(promtool, tmp_path, [expects(case) for case in cases])
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_wrong_expectation_is_noticed(promtool: Path, tmp_path: Path) -> None:
    case = next(case for case in CASES if case.alert == "CollectorDown" and case.fires)
    done = promtool_tests(promtool, tmp_path, [expects(case._replace(fires=[]))])
    assert done.returncode != 0
    assert "CollectorDown" in done.stdout + done.stderr


def test_words_of_every_alert_are_filled_in(promtool: Path, tmp_path: Path) -> None:
    firing = {case.alert: case for case in CASES if case.fires}
    assert firing.keys() == ALERTS.keys()
    # promtool shows what an alert says only where it was not expected.
    tests = [
        as_test(case, alert_rule_test=[{"eval_time": case.at, "alertname": case.alert, "exp_alerts": []}])
        for case in firing.values()
    ]
    done = promtool_tests(promtool, tmp_path, tests)
    said = done.stdout + done.stderr
    for name, rule in ALERTS.items():
        assert f'alertname="{name}"' in said
        fixed = rule["annotations"]["description"].split("{{")[0]
        assert fixed[:30] in said.replace("\\n", "\n")
    for mark in ("<no value>", "error expanding", "{{", "%!"):
        assert mark not in said
