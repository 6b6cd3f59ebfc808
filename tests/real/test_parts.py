"""The real parts themselves, without hft_otel: what the other tests in this folder stand on."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcSpanExporter
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import SimpleLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    generate_latest,
    push_to_gateway,
    start_http_server,
)

from tests.real.conftest import binary
from tests.real.running import Collector, Prometheus, Pushgateway
from tools.parts import ALL, BuildError, collectors, locate, steps

RESOURCE = Resource.create({"service.name": "smoke"})


def send_logs(endpoint: str, *bodies: str) -> None:
    provider = LoggerProvider(RESOURCE, shutdown_on_exit=False)
    provider.add_log_record_processor(
        SimpleLogRecordProcessor(OTLPLogExporter(endpoint=f"{endpoint}/v1/logs"))
    )
    logger = provider.get_logger("engine")
    for body in bodies:
        record = LogRecord(
            timestamp=1_700_000_000_000_000_001,
            severity_number=SeverityNumber.WARN,
            severity_text="WARNING",
            body=body,
            attributes={"symbol": "BTC_USDT", "price": 1.5, "seq": 2**53 + 1, "deep": {"a": [1, True]}},
            event_name="audit.smoke",
        )
        logger.emit(record)
    provider.shutdown()


def test_collector_writes_the_logs_it_receives_over_http(collector: Callable[..., Collector]) -> None:
    otel = collector()
    send_logs(otel.endpoint, "one", "two", "three")
    assert otel.stop() == 0

    records = otel.logs()
    assert [record["body"] for record in records] == ["one", "two", "three"]
    assert otel.count_logs() == 3
    first = records[0]
    assert first["time_ns"] == 1_700_000_000_000_000_001
    assert (first["severity_number"], first["severity_text"]) == (13, "WARNING")
    assert first["attributes"] == {
        "symbol": "BTC_USDT",
        "price": 1.5,
        "seq": 2**53 + 1,
        "deep": {"a": [1, True]},
    }
    assert first["event_name"] == "audit.smoke"
    assert first["scope"] == "engine"
    assert first["resource"]["service.name"] == "smoke"


def test_collector_keeps_its_files_and_ports_over_a_kill_and_a_restart(
    collector: Callable[..., Collector],
) -> None:
    otel = collector()
    endpoint = otel.endpoint
    send_logs(endpoint, "before the kill")
    assert otel.kill() == -9
    otel.start()
    assert otel.endpoint == endpoint
    send_logs(endpoint, "after the restart")
    assert [record["body"] for record in otel.logs()] == ["before the kill", "after the restart"]


def test_collector_writes_the_spans_it_receives_over_grpc(collector: Callable[..., Collector]) -> None:
    otel = collector()
    provider = TracerProvider(resource=RESOURCE, shutdown_on_exit=False)
    provider.add_span_processor(
        SimpleSpanProcessor(GrpcSpanExporter(endpoint=otel.grpc_endpoint, insecure=True))
    )
    with provider.get_tracer("engine").start_as_current_span("order", attributes={"qty": 3}) as span:
        span.add_event("audit.order_sent", {"order_id": "o-1"})
    provider.shutdown()
    otel.stop()

    (found,) = otel.spans()
    assert (found["name"], found["attributes"], found["parent_span_id"]) == ("order", {"qty": 3}, "")
    assert found["trace_id"] == f"{span.get_span_context().trace_id:032x}"
    assert found["span_id"] == f"{span.get_span_context().span_id:016x}"
    (event,) = found["events"]
    assert (event["name"], event["attributes"]) == ("audit.order_sent", {"order_id": "o-1"})


def test_collector_writes_the_metrics_it_receives(collector: Callable[..., Collector]) -> None:
    otel = collector()
    exporter = OTLPMetricExporter(endpoint=f"{otel.endpoint}/v1/metrics")
    provider = MeterProvider(
        [PeriodicExportingMetricReader(exporter, 60_000)], RESOURCE, shutdown_on_exit=False
    )
    meter = provider.get_meter("engine")
    meter.create_counter("orders").add(3, {"exchange": "mexc"})
    meter.create_gauge("spread", unit="bps").set(0.25)
    meter.create_histogram("latency", unit="s", explicit_bucket_boundaries_advisory=[0.1, 1]).record(0.5)
    provider.shutdown()
    otel.stop()

    points = {point["name"]: point for point in otel.metrics()}
    assert (points["orders"]["type"], points["orders"]["monotonic"], points["orders"]["value"]) == (
        "sum",
        True,
        3,
    )
    assert points["orders"]["temporality"] == "cumulative"
    assert points["orders"]["attributes"] == {"exchange": "mexc"}
    assert (points["spread"]["type"], points["spread"]["unit"], points["spread"]["value"]) == (
        "gauge",
        "bps",
        0.25,
    )
    latency = points["latency"]
    assert (latency["count"], latency["sum"], latency["min"], latency["max"]) == (1, 0.5, 0.5, 0.5)
    assert (latency["bounds"], latency["buckets"]) == ([0.1, 1.0], [0, 1, 0])


def test_collector_takes_a_config_of_ones_own(collector: Callable[..., Collector]) -> None:
    otel = collector(
        """
        receivers:
          otlp: {protocols: {http: {endpoint: "${env:OTLP_HTTP}"}}}
        processors:
          filter: {error_mode: propagate, logs: {log_record: ['body == "drop"']}}
        exporters:
          file: {path: "${env:FOLDER}/kept.jsonl", append: true}
        service:
          pipelines:
            logs: {receivers: [otlp], processors: [filter], exporters: [file]}
        """
    )
    send_logs(otel.endpoint, "keep", "drop")
    otel.stop()
    assert [record["body"] for record in otel.logs("kept.jsonl")] == ["keep"]


def test_collector_that_cannot_start_fails_with_its_own_words(collector: Callable[..., Collector]) -> None:
    with pytest.raises(AssertionError, match="no_such_receiver"):
        collector({"receivers": {"no_such_receiver": {}}, "exporters": {"nop": {}}})


@pytest.fixture
def scraped() -> Iterator[tuple[str, CollectorRegistry]]:
    """host:port of a prometheus_client server, and its registry."""
    registry = CollectorRegistry()
    server, thread = start_http_server(0, "127.0.0.1", registry)
    yield f"127.0.0.1:{server.server_port}", registry
    server.shutdown()
    thread.join()
    server.server_close()


def test_prometheus_scrapes_a_target_and_answers_promql(
    prometheus: Callable[..., Prometheus], scraped: tuple[str, CollectorRegistry]
) -> None:
    address, registry = scraped
    Counter("orders", "Orders sent.", ["exchange"], registry=registry).labels("mexc").inc(7)
    latency = Histogram("latency_seconds", "How long.", registry=registry, buckets=[0.1, 1, 10])
    for _ in range(100):
        latency.observe(0.5)

    server = prometheus([address])
    (row,) = server.wait_for('orders_total{exchange="mexc"}')
    assert row["value"] == 7
    (p99,) = server.query("histogram_quantile(0.99, latency_seconds_bucket)")
    assert 0.1 < p99["value"] <= 1
    assert [target["health"] for target in server.api("targets")["activeTargets"]] == ["up"]
    assert server.query("1 + 1")[0]["value"] == 2


def test_pushgateway_takes_a_push_and_shows_it(pushgateway: Callable[[], Pushgateway]) -> None:
    gateway = pushgateway()
    registry = CollectorRegistry()
    Counter("orders", "Orders sent.", registry=registry).inc(5)
    push_to_gateway(gateway.address, "smoke", registry)
    assert 'orders_total{instance="",job="smoke"} 5' in gateway.metrics_text()


def test_promtool_tells_clean_metrics_from_others(promtool: Path) -> None:
    registry = CollectorRegistry()
    Counter("orders", "Orders sent.", registry=registry).inc()
    check = [str(promtool), "check", "metrics"]
    clean = subprocess.run(check, input=generate_latest(registry), capture_output=True, check=False)
    assert clean.returncode == 0, clean.stderr
    unclean = subprocess.run(
        check, input=b"# TYPE orders counter\norders 1\n", capture_output=True, check=False
    )
    assert unclean.returncode == 3
    assert b'counter metrics should have "_total" suffix' in unclean.stdout + unclean.stderr


def test_module_with_another_hash_than_the_pinned_one_ends_the_build(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    binary("otelcol-hft-test")
    tools = collectors.PARTS / "tools"
    if locate("otelcol-hft-es") != collectors.BIN / "otelcol-hft-es" or not tools.exists():
        pytest.skip("the Collector with Elasticsearch was not built here")
    manifest, sums = tmp_path / "manifest.yaml", tmp_path / "sums"
    text = collectors.ELASTICSEARCH_MANIFEST.read_text()
    manifest.write_text(text.replace("output_path: .parts", f"output_path: {tmp_path}"))
    sums.write_text(re.sub(r"(v\S+ h1:).{4}", r"\1AAAA", collectors.SUMS.read_text()))
    (tmp_path / "tools").symlink_to(tools)
    for module, name, value in (
        (steps, "PARTS", tmp_path), (steps, "ROOT", tmp_path), (collectors, "PARTS", tmp_path),
        (collectors, "BIN", tmp_path), (collectors, "ELASTICSEARCH_MANIFEST", manifest),
        (collectors, "SUMS", sums),
    ):  # fmt: skip
        monkeypatch.setattr(module, name, value)
    with pytest.raises(BuildError, match=r"checksum mismatch(.|\n)*SECURITY ERROR"):
        collectors.build_elasticsearch(ALL["collector-elasticsearch"])
    assert not (tmp_path / "otelcol-hft-es").exists()
