"""Audits outside of any span, in one that is sampled out, and 10,000 in one span: in the traces, and once in Elasticsearch.

The process logs to a Collector with the configuration that is rendered from collector-config/logging-dev.yaml. It sends
log records to the stand-in for Elasticsearch, in the exporter's otel mode, and spans to a second Collector, which writes
them to a file.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
import yaml

from tests.real.conftest import binary
from tests.real.elasticsearch_bulk import ElasticsearchBulk
from tests.real.pipeline_support import (
    CONFIGS,
    audit_ids,
    backends,
    collector,
    copy_of,
    file_logs,
    needs,
    programs,
    rendered,
)
from tests.real.processes import run_script
from tests.real.running import Collector, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

FEW, MANY = 1_000, 10_000
EXPECTED = {"no span": FEW, "sampled out": FEW, "one span": MANY}
SENDER = f"""
import json, sys
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import TraceIdRatioBased
from hft_otel import LogConfig, LoggerFactory
from hft_otel.lifecycle import end_now

logger = LoggerFactory.create_logger("engine", LogConfig.from_yaml("logging.yaml"))
parents = {{}}


def say(kind, count, span=None):
    for number in range(count):
        logger.audit("order_sent", kind=kind, number=number)
    if span is not None:
        context = span.get_span_context()
        parents[kind] = [f"{{context.trace_id:032x}}", f"{{context.span_id:016x}}", span.is_recording()]


def within(kind, count, ratio):
    provider = TracerProvider(sampler=TraceIdRatioBased(ratio), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=sys.argv[1] + "/v1/traces")))
    with provider.get_tracer("strategy").start_as_current_span(kind) as span:
        say(kind, count, span)
    provider.force_flush()
    provider.shutdown()


say("no span", {FEW})
within("sampled out", {FEW}, 0.0)
within("one span", {MANY}, 1.0)
report = logger.force_flush(120)
end_now()
print(json.dumps({{"flushed": bool(report), "report": str(report), "parents": parents}}))
"""


class Seen(NamedTuple):
    """One run, and what came of it."""

    parents: dict[str, tuple[str, str, bool]]
    """Trace and span of the application around the events of a kind, and whether it was recording."""
    spans: list[dict[str, Any]]
    elastic: ElasticsearchBulk
    on_disk: Counter[str]
    config: dict[str, Any]

    @property
    def ids(self) -> set[str]:
        """What all of them are known by: one stream, numbered without a gap."""
        (stream,) = {identity.rpartition("-")[0] for identity in self.on_disk}
        return {f"{stream}-{number}" for number in range(sum(EXPECTED.values()))}

    def audit_spans(self, kind: str) -> list[dict[str, Any]]:
        """The spans that carry the events of a kind."""
        return [
            span
            for span in self.spans
            if "audit.id" in span["attributes"] and _event(span)["attributes"]["kind"] == kind
        ]


def _event(span: dict[str, Any]) -> dict[str, Any]:
    (event,) = span["events"]
    return dict(event)


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seen]:
    folder = tmp_path_factory.mktemp("spans")
    on = {"HFT_ELASTICSEARCH": "true", "HFT_JAEGER": "true"}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in on.items():
            patch.setenv(name, value)
        config = rendered(CONFIGS / "logging-dev.yaml", "dev")
    with backends() as behind, programs() as start:
        traces = start(Collector(binary("otelcol-hft-test"), folder / "traces"))
        env = {"HFT_JAEGER_ENDPOINT": traces.grpc_endpoint}
        otel = start(collector(folder / "collector", config, behind, env))
        places = {
            "otlp": otel.address("HFT_COLLECTOR_HTTP_PORT"),
            "audit": otel.address("HFT_COLLECTOR_AUDIT_HTTP_PORT"),
        }
        copy_of("logging-dev.yaml", folder / "system", **places)
        told = run_script(SENDER, f"http://{places['otlp']}", cwd=folder / "system", timeout=200, **on).told
        assert told["flushed"], told["report"]
        total = sum(EXPECTED.values())
        wait_until(lambda: len(behind.elastic.ids("audit.")), lambda found: found >= total, "documents", 90)
        otel.stop()  # what waits in its queues is sent
        traces.stop()
        on_disk = audit_ids(file_logs(folder / "collector" / "logs" / "hft.audit.jsonl"))
        yield Seen(told["parents"], traces.spans(), behind.elastic, on_disk, yaml.safe_load(config))
        assert behind.violations() == []


@needs("elasticsearch")
class TestAudits:
    def test_are_kept_however_they_stand_to_spans(self, seen: Seen) -> None:
        assert len(seen.on_disk) == sum(EXPECTED.values())
        assert set(seen.on_disk) == seen.ids
        assert [seen.parents[kind][2] for kind in ("sampled out", "one span")] == [False, True]

    def test_are_all_span_events_in_the_traces(self, seen: Seen) -> None:
        found = Counter(
            span["attributes"]["audit.id"] for span in seen.spans if "audit.id" in span["attributes"]
        )
        assert set(found) == seen.ids
        for kind, number in EXPECTED.items():
            spans = {span["attributes"]["audit.id"]: span for span in seen.audit_spans(kind)}.values()
            assert len(spans) == number
            assert {_event(span)["name"] for span in spans} == {"audit.order_sent"}
            assert sorted(_event(span)["attributes"]["number"] for span in spans) == list(range(number))
            trace, parent, _ = seen.parents.get(kind, ("", "", False))
            assert {span["parent_span_id"] for span in spans} == {parent}
            assert not trace or {span["trace_id"] for span in spans} == {trace}

    def test_stand_in_the_trace_of_the_span_that_they_were_logged_in(self, seen: Seen) -> None:
        """The span itself keeps 128 events at most and never holds them; sampled out, it is not exported at all."""
        own = {span["name"]: span for span in seen.spans if span["scope"] == "strategy"}
        assert list(own) == ["one span"]
        assert (own["one span"]["events"], own["one span"]["dropped_events"]) == ([], 0)
        assert [own["one span"]["trace_id"], own["one span"]["span_id"]] == list(seen.parents["one span"][:2])

    def test_are_one_document_each_in_elasticsearch(self, seen: Seen) -> None:
        with seen.elastic.lock:
            documents = {
                key: document["attributes"]["audit.id"]
                for key, document in seen.elastic.documents.items()
                if "audit.id" in document.get("attributes", {})
            }
            indices = Counter(seen.elastic.indices[key] for key in documents)
        assert documents == {identity: identity for identity in seen.ids}
        assert indices == {"logs-audit.otel-default": sum(EXPECTED.values())}

    def test_are_no_documents_by_their_spans(self, seen: Seen) -> None:
        assert {index.partition("-")[0] for index in seen.elastic.indices.values()} == {"logs"}
        pipelines = seen.config["service"]["pipelines"]
        fed = {
            name for name, each in pipelines.items() if any("elasticsearch" in to for to in each["exporters"])
        }
        assert fed
        assert all(name.startswith("logs") for name in fed)
