"""End to end: the example system -> OTLP -> agent -> gateway (and the dev profile) -> files, Prometheus, backends.

The configurations are those of collector-config/. Counts per type are equal at every hop, and nothing is there twice.

Elasticsearch and Datadog: where the Collector at hand was built without their exporters, a stand-in for OTLP has their
place (see otlp_sink.py). Then these tests prove what the exporter is handed, and NOT what it would have sent; the two
tests of the exporters themselves are skipped, and the line "NOT IN THIS COLLECTOR" says so.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

from tests.real.collector_process import PipelineCollector
from tests.real.conftest import binary
from tests.real.datadog_intake import log_attribute
from tests.real.pipeline_support import (
    CONFIGS,
    COUNTERS,
    SESSION,
    Backends,
    audit_ids,
    backends,
    collector,
    copy_of,
    file_logs,
    needs,
    production,
    programs,
    rendered,
    texts,
)
from tests.real.processes import run_script
from tests.real.running import Prometheus, wait_until
from tests.unit.otlp_stand_in import GrpcReceiver, grpc_receiver, plain, spans

pytestmark = pytest.mark.slow

SECONDS, RATE = 4, 400
WARNINGS = ("WARNING", "ERROR", "CRITICAL")


class Run(NamedTuple):
    """One session, and where everything went."""

    told: dict[str, Any]
    folder: Path
    """Of the Collector that writes files."""
    behind: Backends
    prometheus: Prometheus
    jaeger: GrpcReceiver
    collectors: list[PipelineCollector]

    @property
    def calls(self) -> dict[str, int]:
        return self.told["calls"]

    @property
    def warnings(self) -> int:
        """Calls that go to the file."""
        return sum(self.calls[kind] for kind in WARNINGS)

    def total(self, promql: str) -> float:
        """The one number that Prometheus answers, once it does: a late scrape makes series vanish for a moment."""
        return self.prometheus.wait_for(promql)[0]["value"]


def session(folder: Path, name: str, otel: PipelineCollector) -> dict[str, Any]:
    """Let the example system log to a Collector by a checked-in logging.yaml; its account."""
    otlp, audit = otel.address("HFT_COLLECTOR_HTTP_PORT"), otel.address("HFT_COLLECTOR_AUDIT_HTTP_PORT")
    copy_of(name, folder, otlp=otlp, audit=audit)
    env = {"DATADOG_API_KEY": "unused-here"}
    return run_script(SESSION, str(SECONDS), str(RATE), cwd=folder, **env).told


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """Production: system -> agent -> gateway -> backends."""
    folder = tmp_path_factory.mktemp("chain")
    with backends() as behind, grpc_receiver() as jaeger, programs() as start, ExitStack() as stack:
        chained = production(folder, behind, HFT_JAEGER_ENDPOINT=jaeger.endpoint)
        agent, gateway = stack.enter_context(chained)
        target = gateway.address("HFT_PROMETHEUS_ENDPOINT")
        prometheus = start(Prometheus(binary("prometheus"), folder / "prometheus", [target]))
        told = session(folder / "system", "logging-prod.yaml", agent)
        run = Run(told, folder / "agent", behind, prometheus, jaeger, [agent, gateway])
        settle(run)
        yield run


@pytest.fixture(scope="module")
def dev(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """A developer's machine: one Collector, Elasticsearch and Jaeger switched on."""
    folder = tmp_path_factory.mktemp("dev")
    patch = pytest.MonkeyPatch()
    patch.setenv("HFT_ELASTICSEARCH", "true")
    patch.setenv("HFT_JAEGER", "true")
    with backends() as behind, grpc_receiver() as jaeger, programs() as start:
        try:
            config = rendered(CONFIGS / "logging-dev.yaml", "dev")
            env = {"HFT_JAEGER_ENDPOINT": jaeger.endpoint}
            otel = start(collector(folder / "collector", config, behind, env))
            target = otel.address("HFT_PROMETHEUS_ENDPOINT")
            prometheus = start(Prometheus(binary("prometheus"), folder / "prometheus", [target]))
            told = session_with(folder / "system", otel)
        finally:
            patch.undo()
        run = Run(told, folder / "collector", behind, prometheus, jaeger, [otel])
        settle(run)
        yield run


def session_with(folder: Path, otel: PipelineCollector) -> dict[str, Any]:
    """The dev session: its logging.yaml reads these two variables as well."""
    otlp, audit = otel.address("HFT_COLLECTOR_HTTP_PORT"), otel.address("HFT_COLLECTOR_AUDIT_HTTP_PORT")
    copy_of("logging-dev.yaml", folder, otlp=otlp, audit=audit)
    env = {"HFT_ELASTICSEARCH": "true", "HFT_JAEGER": "true"}
    return run_script(SESSION, str(SECONDS), str(RATE), cwd=folder, **env).told


def settle(run: Run) -> None:
    """Wait until the queues should be empty: what is still missing then is for the tests to say."""
    audits = run.calls["AUDIT"]
    end = time.monotonic() + 15
    while time.monotonic() < end and (
        len(run.behind.elastic_audits()) < audits or len(jaeger_spans(run)) < audits
    ):
        time.sleep(0.1)


def jaeger_spans(run: Run) -> list[Any]:
    return [span for request in list(run.jaeger.requests) for span in spans(request)]


@pytest.fixture(params=["chain", "dev"])
def run(request: pytest.FixtureRequest) -> Run:
    """Each of the two in turn."""
    found: Run = request.getfixturevalue(request.param)
    return found


def test_session_says_that_it_lost_nothing(run: Run) -> None:
    told = run.told
    assert told["flushed"], told["report"]
    assert told["dropped"] == []
    assert min(run.calls[kind] for kind in ("INFO", "ERROR", "METRIC", "LATENCY", "COUNTER", "AUDIT")) > 0
    print(f"{told['messages']} messages, calls {run.calls}")


def test_every_audit_is_once_in_the_file_and_handed_once_to_each_backend(run: Run) -> None:
    on_disk = audit_ids(file_logs(run.folder / "logs" / "hft.audit.jsonl"))
    there = run.behind.elastic_audits()
    traced = [plain(span.attributes).get("audit.id") for span in jaeger_spans(run)]
    place = "OTLP in place of Elasticsearch" if run.behind.is_replaced("elasticsearch") else "Elasticsearch"
    print(
        f"audits: {run.calls['AUDIT']} calls, {len(on_disk)} on disk, {len(there)} at {place}, {len(traced)} spans"
    )
    assert len(on_disk) == run.calls["AUDIT"] == run.told["lanes"]["audit"]
    assert set(on_disk.values()) == {1}
    assert there == on_disk
    assert sorted(traced) == sorted(on_disk)


def test_audits_stand_in_no_other_file(run: Run) -> None:
    assert audit_ids(file_logs(run.folder / "logs" / "hft.jsonl")) == {}
    assert texts(file_logs(run.folder / "logs" / "hft.audit.jsonl")) == []


def test_warnings_and_errors_are_once_in_the_file_with_their_context(run: Run) -> None:
    records = file_logs(run.folder / "logs" / "hft.jsonl")
    assert len(records) == run.warnings
    assert {r["severity_text"] for r in records} <= set(WARNINGS)
    failed = [r for r in records if r["body"].startswith("Parse failed")]
    assert failed
    assert all(r["attributes"]["exchange"] and r["attributes"]["error_type"] for r in failed)


def test_counters_and_latencies_have_the_same_sums_in_prometheus(run: Run) -> None:
    counters = f'sum({{__name__=~"hft_({COUNTERS})_total"}})'
    run.prometheus.wait_for(counters, lambda rows: bool(rows) and rows[0]["value"] >= run.calls["COUNTER"])
    assert run.total(counters) == run.calls["COUNTER"]
    assert run.total("sum(hft_latency_seconds_count)") == run.calls["LATENCY"]
    assert run.total("sum(hft_messages_parsed_total)") > 0
    slowest = run.total("histogram_quantile(0.99, sum by (le) (hft_latency_seconds_bucket))")
    assert 0 < slowest <= 10


def test_series_are_not_there_twice(run: Run) -> None:
    rows = run.prometheus.wait_for('{__name__=~"hft_.+"}')
    keys = [
        tuple(sorted((k, v) for k, v in row["labels"].items() if not k.startswith("otel_scope")))
        for row in rows
    ]
    assert len(keys) == len(set(keys))


def test_loggers_own_counts_are_the_same_in_prometheus(run: Run) -> None:
    for lane, emitted in run.told["lanes"].items():
        assert run.total(f'sum(hft_telemetry_emitted_total{{lane="{lane}"}})') == emitted, lane
    assert run.total("sum(hft_telemetry_dropped_total) or vector(0)") == 0


def test_mark_ends_at_the_collector(run: Run) -> None:
    on_disk = "".join(path.read_text() for path in (run.folder / "logs").iterdir())
    assert "hft.backends" not in on_disk
    assert "hft_backends" not in str(run.prometheus.wait_for('{__name__=~"hft_.+"}'))
    marked = [request for request in run.jaeger.requests if "hft.backends" in str(request)]
    assert marked == []


def test_backends_found_nothing_wrong(run: Run) -> None:
    assert run.behind.violations() == []


def test_collectors_logged_no_error(run: Run) -> None:
    assert [error for otel in run.collectors for error in otel.errors()] == []


def test_datadog_is_handed_warnings_measurements_and_no_audit(chain: Run) -> None:
    wait_until(chain.behind.datadog_texts, lambda found: found >= chain.warnings, "warnings at Datadog")
    assert chain.behind.datadog_texts() == chain.warnings
    if chain.behind.is_replaced("datadog"):
        names = {metric.name for metric in chain.behind.sink.metrics("datadog")}
        assert {"hft.latency", "hft.messages_parsed"} <= names
        assert chain.behind.sink.audits("datadog") == {}


def test_document_id_for_elasticsearch_is_the_audit_id(chain: Run) -> None:
    for record in chain.behind.sink.logs(
        "elasticsearch"
    ):  # none with the exporter: its stand-in checks the _id
        attributes = plain(record.attributes)
        assert attributes["elasticsearch.document_id"] == attributes["audit.id"]
        assert attributes["data_stream.dataset"] == "audit"
    assert chain.behind.elastic_audits()


def test_console_shows_debug_and_info_in_dev_only(dev: Run, chain: Run) -> None:
    shown = dev.collectors[0].output()
    assert "Session started" in shown
    assert not any("Session started" in otel.output() for otel in chain.collectors)


@needs("datadog")
def test_datadogs_own_exporter_delivers_series_and_logs(chain: Run) -> None:
    intake = chain.behind.datadog
    wait_until(
        lambda: {s.name for s in intake.series}, lambda names: "hft.messages_parsed" in names, "series"
    )
    wait_until(
        lambda: {s.name for s in intake.sketches}, lambda names: "hft.latency" in names, "sketches", 30
    )
    wait_until(lambda: len(intake.logs), lambda found: found >= chain.warnings, "logs")
    assert all("env:prod" in series.tags for series in intake.series if series.name.startswith("hft."))
    assert (
        len(intake.logs) == chain.warnings
    )  # each with message, service, hostname and ddtags: else a violation
    assert {entry["status"].lower() for entry in intake.logs} <= {"warn", "warning", "error", "critical"}
    assert {entry["service"] for entry in intake.logs} == {"hft-arbitrage"}
    assert all({"env:prod", "version:1.0"} <= set(entry["ddtags"].split(",")) for entry in intake.logs)
    failed = [entry for entry in intake.logs if '"message":"Parse failed' in entry["message"]]
    assert failed
    assert all(log_attribute(entry, "exchange") for entry in failed)
    assert intake.violations == []


@needs("datadog")
def test_spans_of_the_application_come_to_datadog(chain: Run) -> None:
    exporter = OTLPSpanExporter(f"http://{chain.collectors[0].address('HFT_COLLECTOR_HTTP_PORT')}/v1/traces")
    resource = Resource({"service.name": "matching", "deployment.environment.name": "prod"})
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    with provider.get_tracer("matching").start_as_current_span("match", attributes={"symbol": "BTCUSDT"}):
        pass
    provider.shutdown()
    intake = chain.behind.datadog
    (span,) = wait_until(lambda: list(intake.spans), what="a span at Datadog", seconds=30)
    assert (span.service, span.meta["symbol"], span.meta["env"]) == ("matching", "BTCUSDT", "prod")
    assert intake.violations == []


AUDITS_TO_DATADOG = """
logging:
  environment: prod
  isolation: thread
  backends:
    otlp: {config: {endpoint: "${OTLP:-http://127.0.0.1:4318}"}}
    datadog: {config: {service: other, hostname: here, tags: ["env:prod"]}}
  routing_rules: [{log_types: [AUDIT], backends: [datadog]}]
  global_context: {service: engine}
"""
AUDITING = """
import json
from hft_otel import LogConfig, LoggerFactory
logger = LoggerFactory.create_logger("orders", LogConfig.from_yaml("logging.yaml"))
for number in range(50):
    logger.audit("order_sent", number=number)
report = logger.force_flush(30)
print(json.dumps({"flushed": bool(report), "report": str(report)}))
"""


@needs("datadog")
def test_datadogs_own_exporter_delivers_audits_as_logs_and_spans(tmp_path: Path) -> None:
    """Where rules send them there, which those of production do not."""
    source = tmp_path / "logging.yaml"
    source.write_text(AUDITS_TO_DATADOG)
    with backends() as behind, programs() as start:
        otel = start(collector(tmp_path / "collector", rendered(source, "dev"), behind))
        endpoint = f"http://{otel.address('HFT_COLLECTOR_HTTP_PORT')}"
        told = run_script(AUDITING, cwd=tmp_path, OTLP=endpoint, DATADOG_API_KEY="unused-here").told
        assert told["flushed"], told["report"]
        intake = behind.datadog
        wait_until(lambda: min(len(intake.spans), len(intake.logs)), lambda least: least >= 50, "audits")
    ids = Counter(span.meta["audit.id"] for span in intake.spans)
    assert (len(ids), ids.total()) == (50, 50)
    assert ids == intake.log_ids()
    assert {span.service for span in intake.spans} == {"engine"}
    assert {span.meta.get("env") for span in intake.spans} == {"prod"}
    assert intake.violations == []


@needs("elasticsearch")
def test_elasticsearchs_own_exporter_writes_documents_of_otel_mode(chain: Run) -> None:
    elastic = chain.behind.elastic
    assert set(elastic.indices.values()) == {"logs-audit.otel-default"}
    assert elastic.violations == []
