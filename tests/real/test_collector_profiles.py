"""What is rendered for a Collector is valid for a real one, and carries what it has to carry."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml

from hft_otel import ConfigError, LogConfig
from hft_otel.collector import from_file, render
from hft_otel.collector.source import Source
from tests.real.collector_process import PipelineCollector, components, validate, without_missing
from tests.real.otlp_requests import as_attributes, post
from tests.real.pipeline_support import API_KEY, backends, best_binary, checked_in, production
from tests.real.processes import run_script
from tests.real.running import Program, get, wait_until

Json = dict[str, Any]


@pytest.mark.parametrize("profile", ["dev", "agent", "gateway"])
def test_every_profile_is_valid_for_a_real_collector(profile: str, tmp_path: Path) -> None:
    otelcol = best_binary()
    document, replaced = without_missing(
        yaml.safe_load(checked_in(profile)), components(otelcol), "http://127.0.0.1:1"
    )
    assert validate(otelcol, document, tmp_path, {"DATADOG_API_KEY": API_KEY}) == ""
    if replaced:
        pytest.skip(f"valid, but {otelcol.name} was built without: {', '.join(replaced)}")


@pytest.mark.parametrize(
    "options",
    [
        {"console": {}, "file": {"format": "json", "rotation": False}},
        {"prometheus": {"host": "0.0.0.0", "port": 9000}},
        {
            "a": {
                "type": "otlp",
                "endpoint": "a:1",
                "protocol": "grpc",
                "headers": {"k": "v"},
                "compression": "gzip",
            }
        },
        {
            "b c$": {
                "type": "otlp",
                "endpoint": "https://b:1/x",
                "timeout": 2.5,
                "signals": ["logs", "metrics"],
            }
        },
    ],
    ids=["files", "prometheus", "grpc", "http"],
)
def test_every_option_of_a_backend_is_valid_for_a_real_collector(options: Json, tmp_path: Path) -> None:
    config: Json = {"otlp": {}}
    for name, own in options.items():
        kind = {"type": own["type"]} if "type" in own else {}
        rest = {key: value for key, value in own.items() if key != "type"}
        config[name] = {**kind, "config": {"via": "collector", **rest}}
    rules = [
        {"backends": list(options), "loggers": ["a\\b", 'q"*$'], "context": {'k"$': ["x$y", 1, 0.5, True]}}
    ]
    source = Source(LogConfig.from_dict({"environment": "dev", "backends": config, "routing_rules": rules}))
    for profile in ("dev", "agent", "gateway"):
        with suppress(ConfigError):  # not each of them serves each
            text = render(source, profile, every_type=True)
            env = {"HFT_A_HEADERS_K": "v"}
            assert validate(best_binary(), yaml.safe_load(text), tmp_path, env) == "", profile


def test_audits_of_any_size_that_the_sdk_takes_pass_both_collectors(tmp_path: Path) -> None:
    ids = {f"big-{number}" for number in range(40)}
    with backends() as behind, production(tmp_path, behind) as (agent, gateway):
        mark = {"hft.backends": "elasticsearch"}
        logs = [
            {
                "eventName": "audit.big",
                "timeUnixNano": "1767225600000000000",
                "body": {"stringValue": "big"},
                "attributes": as_attributes({"audit.id": each, "text": "x" * 300_000}),
            }
            for each in sorted(ids)
        ]
        scope = {"scope": {"name": "app", "attributes": as_attributes(mark)}, "logRecords": logs}
        resource = {"attributes": as_attributes({"service.name": "big"})}
        request = {"resourceLogs": [{"resource": resource, "scopeLogs": [scope]}]}
        post(f"http://{agent.address('HFT_COLLECTOR_AUDIT_HTTP_PORT')}", "logs", request)
        wait_until(
            lambda: set(behind.elastic_audits()), lambda found: found == ids, "40 audits of 300 kB", 20
        )
        assert agent.errors() == gateway.errors() == []
    assert behind.violations() == []


TWO_ROUTES = """
logging:
  environment: dev
  backends:
    otlp: {config: {endpoint: "http://%s", metric_interval: 0.2}}
    prometheus: {config: {via: collector}}
    tempo: {type: otlp, config: {via: collector, endpoint: "http://127.0.0.1:1", signals: [metrics]}}
  routing_rules:
    - {log_types: [METRIC], backends: [prometheus]}
    - {log_types: [METRIC], loggers: [arb], backends: [tempo]}
"""

COUNTING = """
from hft_otel import LogConfig, LoggerFactory

config = LogConfig.from_yaml("logging.yaml")
arb, parser = (LoggerFactory.create_logger(name, config) for name in ("arb", "parser"))
for _ in range(3):
    arb.counter("orders")
for _ in range(4):
    parser.counter("orders")
assert arb.force_flush(20)
print("{}")
"""


def test_one_metric_over_two_routes_is_one_series_in_prometheus(
    tmp_path: Path, running: Callable[[Program], None]
) -> None:
    file = tmp_path / "logging.yaml"
    file.write_text(TWO_ROUTES % "127.0.0.1:1")
    own = {"HFT_COLLECTOR_DATA": str(tmp_path / "data")}
    otel = PipelineCollector(best_binary(), tmp_path / "collector", render(from_file(file, {}), "dev"), own)
    running(otel)
    file.write_text(TWO_ROUTES % otel.address("HFT_COLLECTOR_HTTP_PORT"))
    run_script(COUNTING, cwd=tmp_path)
    url = f"http://{otel.address('HFT_PROMETHEUS_ENDPOINT')}/metrics"
    series = wait_until(
        lambda: [line for line in get(url).splitlines() if line.startswith("hft_orders_total{")]
    )
    assert [line.rpartition(" ")[2] for line in series] == ["7"], series
