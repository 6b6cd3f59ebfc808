"""A real server of Elasticsearch's family, OpenSearch: the stand-in answers as it does, the Collector's exporter fills it.

Between exporter and server is a relay, and elasticsearch_relay.py says what it changes. Which release of the exporter
this is, collector-config/builder-elasticsearch.yaml says, unless HFT_OTELCOL names another Collector.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import SimpleLogRecordProcessor
from opentelemetry.sdk.resources import Resource

from tests.real.elasticsearch_bulk import ElasticsearchBulk
from tests.real.elasticsearch_relay import Relay
from tests.real.opensearch import OpenSearch, bulk, call
from tests.real.pipeline_support import (
    audit_ids,
    backends,
    best_binary,
    file_logs,
    needs,
    production,
    programs,
)
from tests.real.processes import run_script
from tests.real.running import Collector, wait_until
from tools import parts

pytestmark = [
    pytest.mark.slow,  # the Java machine takes ten seconds
    pytest.mark.skipif(
        parts.locate("opensearch") is None, reason=f"opensearch is not here: {parts.cure('opensearch')}"
    ),
]

STREAM = "logs-audit.otel-default"
AUDITS = 300
CONFIG = """
receivers:
  otlp: {protocols: {http: {endpoint: "${env:OTLP_HTTP}"}}}
exporters:
  elasticsearch:
    endpoints: ["${env:ELASTICSEARCH}"]
    logs_dynamic_id: {enabled: true}
    suppress_conflict_errors: true
    retry: {max_retries: 100, initial_interval: 100ms}
    sending_queue: {batch: {flush_timeout: 50ms}}
service:
  pipelines:
    logs: {receivers: [otlp], exporters: [elasticsearch]}
"""
SENDER = f"""
import json
from hft_otel import LogConfig, LoggerFactory
from hft_otel.lifecycle import end_now

logger = LoggerFactory.create_logger("engine", LogConfig.from_yaml("logging.yaml"))
for number in range({AUDITS}):
    logger.audit("order_sent", order_id=f"o-{{number}}", quantity=number)
report = logger.force_flush(30)
end_now()
print(json.dumps({{"flushed": bool(report)}}))
"""


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """URLs of a real server and of the stand-in, both with a data stream."""
    binary = parts.locate("opensearch")
    assert binary is not None
    real = OpenSearch(binary, tmp_path_factory.mktemp("opensearch"))
    real.start()
    try:
        real.create_data_stream("logs-*")
        with ElasticsearchBulk(otel=False) as stand_in:
            yield real.url, stand_in.url
    finally:
        real.stop()


def create(identity: str, index: str = STREAM) -> dict[str, Any]:
    return {"create": {"_index": index, "_id": identity}}


DOCUMENT = {"@timestamp": "2026-01-01T00:00:00Z", "number": 1}


def outcome(answer: tuple[int, dict[str, Any]]) -> Any:
    """What a client goes by: the status, whether there are errors, and per item its verb, id and status."""
    status, body = answer
    if status != 200:
        return status
    items = [(verb, item["_id"], item["status"]) for row in body["items"] for verb, item in row.items()]
    return status, body["errors"], items


def test_created_repeated_and_refused_documents_have_the_same_answers(servers: tuple[str, str]) -> None:
    first = [outcome(bulk(url, create("a"), DOCUMENT, create("b"), DOCUMENT)) for url in servers]
    assert first[0] == first[1] == (200, False, [("create", "a", 201), ("create", "b", 201)])
    again = [outcome(bulk(url, create("a"), DOCUMENT, create("c"), DOCUMENT)) for url in servers]
    assert again[0] == again[1] == (200, True, [("create", "a", 409), ("create", "c", 201)])
    wrong = [outcome(bulk(url, {"index": {"_index": STREAM, "_id": "d"}}, DOCUMENT)) for url in servers]
    assert wrong[0] == wrong[1] == (200, True, [("index", "d", 400)])


def test_conflict_is_named_alike(servers: tuple[str, str]) -> None:
    kinds = []
    for url in servers:
        bulk(url, create("twice"), DOCUMENT)
        _, answer = bulk(url, create("twice"), DOCUMENT)
        kinds.append(answer["items"][0]["create"]["error"]["type"])
    assert kinds == ["version_conflict_engine_exception"] * 2


def test_body_that_is_no_bulk_is_refused_by_both(servers: tuple[str, str]) -> None:
    cut = b'{"create":{"_index":"logs-audit.otel-default","_id":"x"}}\n{"@timestamp":"2026-01-01T00:00:00Z"}'
    assert [bulk(url, raw=cut)[0] for url in servers] == [400, 400]


def test_stored_document_is_found_by_its_id(servers: tuple[str, str]) -> None:
    real, _ = servers
    bulk(real, create("kept"), DOCUMENT | {"attributes": {"audit.id": "kept"}})
    call("POST", f"{real}/{STREAM}/_refresh")
    status, answer = call("GET", f"{real}/{STREAM}/_search?q=_id:kept")
    assert status == 200
    assert [hit["_source"]["attributes"] for hit in answer["hits"]["hits"]] == [{"audit.id": "kept"}]


@pytest.fixture(scope="module")
def relay(servers: tuple[str, str]) -> Iterator[Relay]:
    """In front of the real server."""
    with Relay(servers[0]) as between:
        yield between


@pytest.fixture(scope="module")
def exporter(tmp_path_factory: pytest.TempPathFactory, relay: Relay) -> Iterator[Collector]:
    """A Collector that sends every log record to the server."""
    env = {"ELASTICSEARCH": relay.url}
    with programs() as start:
        yield start(Collector(best_binary(), tmp_path_factory.mktemp("collector"), CONFIG, env))


def stored(relay: Relay, stream: str) -> dict[str, Any]:
    """The documents of a data stream by `_id`, each with its `_version`."""
    call("POST", f"{relay.target}/{stream}/_refresh")
    status, answer = call("GET", f"{relay.target}/{stream}/_search?size=1000&version=true")
    if status in (404, 503):  # no stream yet, or a shard that is not up yet
        return {}
    assert status == 200, answer
    hits = answer["hits"]["hits"]
    found = {hit["_id"]: hit for hit in hits}
    assert len(found) == len(hits) == answer["hits"]["total"]["value"]
    return found


def send(otel: Collector, mode: str, ids: list[str]) -> None:
    """One audit event per id, from a scope that asks for this mapping mode."""
    provider = LoggerProvider(Resource.create({"service.name": "engine"}), shutdown_on_exit=False)
    provider.add_log_record_processor(
        SimpleLogRecordProcessor(OTLPLogExporter(endpoint=f"{otel.endpoint}/v1/logs"))
    )
    logger = provider.get_logger("engine", attributes={"elastic.mapping.mode": mode})
    now = 1_767_225_600_000_000_000
    for identity in ids:
        own = {"@timestamp": "2026-01-01T00:00:00Z", "order": {"id": identity, "quantity": 3}}
        attributes = {"elasticsearch.document_id": identity, "audit.id": identity}
        logger.emit(
            LogRecord(
                timestamp=now,
                observed_timestamp=now,
                severity_number=SeverityNumber.INFO,
                severity_text="INFO",
                body=own if mode == "bodymap" else "order sent",
                event_name="audit.order_sent",
                attributes=attributes | {"data_stream.dataset": f"audit.{mode}"},
            )
        )
    provider.shutdown()


RESOURCE_AND_SCOPE = {"Resource.service.name": "engine", "Scope.name": "engine"}
AS_MAPPED: dict[str, Any] = {
    "none": {
        "Body": "order sent",
        "Attributes.audit.id": "{id}",
        "SeverityText": "INFO",
        **RESOURCE_AND_SCOPE,
    },
    "raw": {"Body": "order sent", "audit.id": "{id}", "SeverityText": "INFO", **RESOURCE_AND_SCOPE},
    "bodymap": {"order": {"id": "{id}", "quantity": 3}, "@timestamp": "2026-01-01T00:00:00Z"},
    "otel": {
        "body": {"text": "order sent"},
        "attributes": {"audit.id": "{id}"},
        "event_name": "audit.order_sent",
        "severity_text": "INFO",
        "@timestamp": "1767225600000.0",
    },
}
"""What a document has in each mapping mode; only otel mode keeps the event's name."""


@needs("elasticsearch")
@pytest.mark.parametrize("mode", AS_MAPPED)
def test_audits_are_stored_once_by_their_id_in_every_mapping_mode(
    mode: str, exporter: Collector, relay: Relay
) -> None:
    ids = [f"{mode}-{number}" for number in range(5)]
    stream = f"logs-audit.{mode}{'.otel' if mode == 'otel' else ''}-default"
    relay.lose = 1  # it must be sent again, since nobody can know that it took effect
    send(exporter, mode, ids)
    send(exporter, mode, [*ids, f"{mode}-last"])
    found = wait_until(lambda: stored(relay, stream), lambda docs: f"{mode}-last" in docs, "the last audit")
    assert relay.lose == 0
    assert found.keys() == {*ids, f"{mode}-last"}
    assert {hit["_version"] for hit in found.values()} == {1}
    for identity, hit in found.items():
        expected = json.loads(json.dumps(AS_MAPPED[mode]).replace("{id}", identity))
        assert hit["_source"].items() >= expected.items()
    assert relay.violations == []


@needs("elasticsearch")
def test_audits_of_the_logger_stand_once_in_a_real_server(tmp_path: Path, relay: Relay) -> None:
    call("DELETE", f"{relay.target}/_data_stream/{STREAM}")
    before = relay.bulks
    relay.lose = 2
    with backends() as behind, production(tmp_path, behind, HFT_ELASTICSEARCH_ENDPOINT=relay.url) as chained:
        chained.logging_yaml(tmp_path / "system")
        told = run_script(SENDER, cwd=tmp_path / "system", DATADOG_API_KEY="unused-here").told
        assert told["flushed"]
        found = wait_until(lambda: stored(relay, STREAM), lambda docs: len(docs) >= AUDITS, "all audits")
        chained.agent.stop()
        chained.gateway.stop()  # what it would still send again has been sent
        found = stored(relay, STREAM)
    found = {key: hit for key, hit in found.items() if hit["_source"]["event_name"].startswith("audit.")}
    on_disk = audit_ids(file_logs(tmp_path / "agent" / "logs" / "hft.audit.jsonl"))
    assert len(on_disk) == AUDITS
    assert Counter(found.keys()) == on_disk
    assert {hit["_version"] for hit in found.values()} == {1}
    assert {hit["_source"]["attributes"]["audit.id"] for hit in found.values()} == on_disk.keys()
    assert relay.lose == 0 and relay.bulks - before > AUDITS / 128 + 2
    assert relay.violations == []
