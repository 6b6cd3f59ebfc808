"""The stand-ins for Datadog and Elasticsearch refuse and report what the real ones would not take."""

from __future__ import annotations

import gzip
import json
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

from tests.real.collector_process import without_missing
from tests.real.datadog_intake import DatadogIntake
from tests.real.elasticsearch_bulk import ElasticsearchBulk, Failure
from tests.real.otlp_sink import OtlpSink
from tests.real.pipeline_support import file_logs, texts
from tests.real.stand_in import decompress, down, protobuf_fields

KEY = {"DD-API-KEY": "a" * 32}


@pytest.fixture
def datadog() -> Iterator[DatadogIntake]:
    with DatadogIntake() as intake:
        yield intake


@pytest.fixture
def elastic() -> Iterator[ElasticsearchBulk]:
    with ElasticsearchBulk() as server:
        yield server


def field(number: int, value: bytes | str | int | float) -> bytes:
    """A field of a protobuf message."""
    if isinstance(value, float):
        return varint(number << 3 | 1) + struct.pack("<d", value)
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    content = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(content)) + content


def varint(value: int) -> bytes:
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*found, value])


def test_datadog_refuses_a_request_without_its_key(datadog: DatadogIntake) -> None:
    assert requests.get(f"{datadog.url}/api/v1/validate", timeout=5).status_code == 403
    wrong = {"DD-API-KEY": "b" * 32}
    assert requests.post(f"{datadog.url}/api/v2/logs", "[]", headers=wrong, timeout=5).status_code == 403
    assert len(datadog.violations) == 2
    assert requests.get(f"{datadog.url}/api/v1/validate", headers=KEY, timeout=5).json() == {"valid": True}
    assert len(datadog.violations) == 2


def test_datadog_reads_series_of_protobuf(datadog: DatadogIntake) -> None:
    host = field(1, field(1, "host") + field(2, "trader"))
    point = field(4, field(1, 2.5) + field(2, 1_700_000_000))
    body = field(1, host + field(2, "hft.messages") + field(3, "exchange:mexc") + point)
    headers = {**KEY, "Content-Type": "application/x-protobuf", "Content-Encoding": "deflate"}
    answer = requests.post(f"{datadog.url}/api/v2/series", zlib.compress(body), headers=headers, timeout=5)
    assert answer.status_code == 202
    (series,) = datadog.series
    assert (series.name, series.points, series.host) == ("hft.messages", ((1_700_000_000, 2.5),), "trader")
    assert series.tags == {"exchange:mexc"}
    assert datadog.violations == []


def test_datadog_reads_series_of_json(datadog: DatadogIntake) -> None:
    body = {
        "series": [
            {"metric": "m", "points": [{"timestamp": 1, "value": 2}], "tags": ["a:b"], "resources": []}
        ]
    }
    requests.post(f"{datadog.url}/api/v2/series", json=body, headers=KEY, timeout=5)
    assert [(s.name, s.points) for s in datadog.series] == [("m", ((1, 2.0),))]
    assert "without a name or a host" in datadog.violations[0]


def test_datadog_reads_sketches_and_spans(datadog: DatadogIntake) -> None:
    dogsketch = field(7, field(1, 1_700_000_000) + field(2, 3) + field(6, 0.75))
    sketch = field(1, field(1, "hft.latency") + field(2, "trader") + field(4, "a:b") + dogsketch)
    requests.post(f"{datadog.url}/api/beta/sketches", sketch, headers=KEY, timeout=5)
    assert [(s.name, s.count, s.points) for s in datadog.sketches] == [
        ("hft.latency", 3, ((1_700_000_000, 0.75),))
    ]
    meta = field(10, field(1, "audit.id") + field(2, "a-1"))
    span = field(1, "hft-arbitrage") + field(2, "audit.order") + field(3, "order") + meta
    payload = field(5, field(6, field(3, span)))
    requests.post(f"{datadog.url}/api/v0.2/traces", gzip.compress(payload), headers={**KEY, "Content-Encoding": "gzip"}, timeout=5)  # fmt: skip
    assert [(s.service, s.name, s.meta) for s in datadog.spans] == [
        ("hft-arbitrage", "audit.order", {"audit.id": "a-1"})
    ]
    requests.post(f"{datadog.url}/api/v0.2/stats", b"x", headers=KEY, timeout=5)
    assert (datadog.stats, datadog.violations) == (1, [])


def test_datadog_sees_a_log_twice_and_one_without_service(datadog: DatadogIntake) -> None:
    log = {"message": json.dumps({"audit.id": "a-1"}), "ddtags": "env:dev", "service": "s", "hostname": "h"}
    requests.post(f"{datadog.url}/api/v2/logs", json=[log, log], headers=KEY, timeout=5)
    assert datadog.log_ids() == {"a-1": 2}
    assert datadog.violations == []
    requests.post(f"{datadog.url}/api/v2/logs", json=[log | {"service": ""}], headers=KEY, timeout=5)
    assert "a log without service" in datadog.violations[0]


def test_datadog_does_not_know_other_paths(datadog: DatadogIntake) -> None:
    assert requests.post(f"{datadog.url}/api/v9/new", b"", headers=KEY, timeout=5).status_code == 404
    assert requests.post(f"{datadog.url}/intake/", b"{}", headers=KEY, timeout=5).status_code == 202
    assert len(datadog.violations) == 1


AUDIT: dict[str, Any] = {
    "@timestamp": "1700000000000.000001",
    "data_stream": {"type": "logs", "dataset": "audit.otel", "namespace": "default"},
    "event_name": "audit.order_sent",
    "body": {"text": "order_sent"},
    "severity_number": 9,
    "attributes": {"audit.id": "a-1"},
    "resource": {"attributes": {"service.name": "hft-arbitrage"}},
    "scope": {"name": "engine"},
}


def create(identity: str | None, index: str = "logs-audit.otel-default") -> dict[str, Any]:
    return {"create": {"_index": index} | ({} if identity is None else {"_id": identity})}


def send(server: ElasticsearchBulk, *lines: Any) -> requests.Response:
    body = "".join(f"{json.dumps(line)}\n" for line in lines)
    headers = {"Content-Type": "application/x-ndjson"}
    return requests.post(f"{server.url}/_bulk", body, headers=headers, timeout=5)


def statuses(answer: requests.Response) -> list[int]:
    return [item["create"]["status"] for item in answer.json()["items"]]


def test_elasticsearch_says_who_it_is(elastic: ElasticsearchBulk) -> None:
    answer = requests.get(elastic.url, timeout=5)
    assert answer.headers["X-Elastic-Product"] == "Elasticsearch"
    assert answer.json()["version"]["number"].startswith("8.")


def test_elasticsearch_keeps_an_audit_once(elastic: ElasticsearchBulk) -> None:
    assert statuses(send(elastic, create("a-1"), AUDIT)) == [201]
    assert statuses(send(elastic, create("a-1"), AUDIT)) == [409]
    assert (elastic.ids("audit.order_sent"), elastic.repeats) == ({"a-1"}, {"a-1": 1})
    assert elastic.violations == []


@pytest.mark.parametrize(
    ("identity", "index", "change", "problem"),
    [
        ("a-2", "logs-audit.otel-default", {}, "_id is not audit.id"),
        (None, "logs-audit.otel-default", {}, "_id is not audit.id"),
        ("a-1", "hft-audit", {}, "no data stream of otel mode"),
        ("a-1", "logs-generic.otel-default", {"data_stream": {}}, "data_stream is"),
        ("a-1", "logs-generic.otel-default", {}, "in data set generic"),
        ("a-1", "logs-audit.otel-default", {"@timestamp": "2026-01-01"}, "@timestamp is"),
        ("a-1", "logs-audit.otel-default", {"body": "text"}, "body is 'text'"),
        ("a-1", "logs-audit.otel-default", {"resource": {}}, "no service.name"),
        ("a-1", "logs-audit.otel-default", {"scope": {"attributes": {"hft.backends": "x"}}}, "hft.backends"),
    ],
)
def test_elasticsearch_reports_a_wrong_shape(
    elastic: ElasticsearchBulk, identity: str | None, index: str, change: dict[str, Any], problem: str
) -> None:
    send(elastic, create(identity, index), AUDIT | change)
    assert any(problem in violation for violation in elastic.violations), elastic.violations


def test_elasticsearch_takes_only_creates_in_whole_pairs(elastic: ElasticsearchBulk) -> None:
    index = {"index": {"_index": "logs-audit.otel-default", "_id": "a-1"}}
    assert send(elastic, index, AUDIT).json()["items"][0]["index"]["status"] == 400
    assert send(elastic, create("a-1")).status_code == 400
    assert requests.post(f"{elastic.url}/_bulk", b"{}", timeout=5).status_code == 400
    assert requests.get(f"{elastic.url}/_search", timeout=5).status_code == 404
    assert (elastic.documents, len(elastic.violations)) == ({}, 4)


def test_elasticsearch_fails_as_ordered(elastic: ElasticsearchBulk) -> None:
    elastic.fail_next(Failure(429), Failure(503), Failure(reset=True), Failure(500, stored=True))
    assert send(elastic, create("a-1"), AUDIT).status_code == 429
    assert send(elastic, create("a-1"), AUDIT).status_code == 503
    with pytest.raises(requests.ConnectionError):
        send(elastic, create("a-1"), AUDIT)
    assert elastic.ids() == set()
    assert send(elastic, create("a-1"), AUDIT).status_code == 500
    assert statuses(send(elastic, create("a-1"), AUDIT)) == [409]
    elastic.fail_next(Failure(seconds=0.05))
    elastic.refuse = lambda identity, _: 400 if identity == "a-1" else 0
    other = AUDIT | {"attributes": {"audit.id": "a-2"}}
    assert statuses(send(elastic, create("a-1"), AUDIT, create("a-2"), other)) == [400, 201]
    assert elastic.refused == {409: 1, 400: 1}
    assert elastic.violations == []


def test_stand_in_goes_down_and_comes_back(elastic: ElasticsearchBulk) -> None:
    with down(elastic), pytest.raises(requests.ConnectionError):
        requests.get(elastic.url, timeout=5)
    assert requests.get(elastic.url, timeout=5).status_code == 200


@pytest.mark.parametrize("message", [b"\x00\x00", b"\x0a\x05abc", b"\x0f", b"\x08\xff", b"\x80"])
def test_what_is_no_protobuf_is_refused(message: bytes) -> None:
    with pytest.raises(ValueError, match="no protobuf"):
        list(protobuf_fields(message))


@pytest.mark.parametrize(("body", "encoding"), [(b"plain", "gzip"), (b"x", "br")])
def test_what_is_not_compressed_as_it_says_is_refused(body: bytes, encoding: str) -> None:
    with pytest.raises(ValueError, match=r"gzip|br"):
        decompress(body, encoding)


BUILT = {kind: frozenset(names) for kind, names in {
    "exporters": {"otlp_http", "file"}, "processors": {"filter"}, "connectors": {"forward"},
}.items()}  # fmt: skip
QUEUE = {"storage": "file_storage", "block_on_overflow": True}
WHOLE: dict[str, Any] = {
    "processors": {"filter": {}, "tail_sampling": {}},
    "exporters": {
        "file": {"path": "x"},
        "elasticsearch/audit": {"retry": {"max_retries": 1_000_000}, "sending_queue": QUEUE},
        "datadog": {"retry_on_failure": {"max_elapsed_time": "10m"}},
    },
    "connectors": {"datadog/connector": {}},
    "service": {
        "pipelines": {
            "logs": {"receivers": ["otlp"], "processors": ["filter"], "exporters": ["file"]},
            "logs/audit": {"receivers": ["otlp"], "exporters": ["elasticsearch/audit"]},
            "traces": {
                "receivers": ["otlp"],
                "processors": ["filter", "tail_sampling"],
                "exporters": ["datadog", "datadog/connector"],
            },
            "metrics/stats": {"receivers": ["datadog/connector"], "exporters": ["datadog"]},
        }
    },
}


def test_only_what_a_collector_lacks_is_replaced_and_all_of_it_is_said() -> None:
    made, replaced = without_missing(WHOLE, BUILT, "http://sink")
    assert sorted(replaced) == [
        "datadog -> otlp_http/datadog",
        "datadog/connector -> left out",
        "elasticsearch/audit -> otlp_http/elasticsearch.audit",
        "tail_sampling -> left out",
    ]
    assert made["service"]["pipelines"]["logs"] == WHOLE["service"]["pipelines"]["logs"]
    assert made["service"]["pipelines"]["logs/audit"]["exporters"] == ["otlp_http/elasticsearch.audit"]
    assert made["service"]["pipelines"]["traces"]["processors"] == ["filter"]
    assert made["service"]["pipelines"]["traces"]["exporters"] == ["otlp_http/datadog"]
    assert "metrics/stats" not in made["service"]["pipelines"]
    audit, bulk = (made["exporters"][f"otlp_http/{name}"] for name in ("elasticsearch.audit", "datadog"))
    assert (audit["endpoint"], audit["sending_queue"]) == ("http://sink/elasticsearch.audit", QUEUE)
    assert audit["retry_on_failure"]["max_elapsed_time"] == "0s"  # for ever
    assert bulk["retry_on_failure"]["max_elapsed_time"] == "10m"


def test_nothing_is_replaced_where_all_is_built() -> None:
    everything = {
        "exporters": frozenset({"file", "elasticsearch", "datadog"}),
        "processors": frozenset({"filter", "tail_sampling"}),
        "connectors": frozenset({"datadog"}),
    }
    assert without_missing(WHOLE, everything, "http://sink") == (WHOLE, [])


def test_sink_fails_only_the_exporter_that_it_was_told_to() -> None:
    empty = b""
    with OtlpSink() as sink:
        sink.fail_next("elasticsearch", Failure(503))
        assert requests.post(f"{sink.url}/datadog/v1/logs", empty, timeout=5).status_code == 200
        assert requests.post(f"{sink.url}/elasticsearch.audit/v1/logs", empty, timeout=5).status_code == 503
        assert requests.post(f"{sink.url}/elasticsearch.audit/v1/logs", empty, timeout=5).status_code == 200
        assert requests.post(f"{sink.url}/elasticsearch.audit/v2/x", empty, timeout=5).status_code == 404
        assert sink.exporters() == {"datadog", "elasticsearch.audit"}
        assert len(sink.violations) == 1


def test_sink_reports_a_mark_that_did_not_end_at_the_collector() -> None:
    request = ExportLogsServiceRequest()
    scope = request.resource_logs.add().scope_logs.add()
    scope.log_records.add(event_name="audit.sent").attributes.add(key="audit.id").value.string_value = "a-1"
    with OtlpSink() as sink:
        requests.post(f"{sink.url}/x/v1/logs", request.SerializeToString(), timeout=5)
        assert (sink.audits("x"), sink.violations) == ({"a-1": 1}, [])
        scope.scope.attributes.add(key="hft.backends").value.string_value = "file"
        requests.post(f"{sink.url}/x/v1/logs", request.SerializeToString(), timeout=5)
        assert "hft.backends" in sink.violations[0]


def test_down_stand_in_serves_no_connection_of_before(elastic: ElasticsearchBulk) -> None:
    with requests.Session() as client:
        assert client.get(elastic.url, timeout=5).status_code == 200
        with down(elastic), pytest.raises(requests.ConnectionError):
            client.get(elastic.url, timeout=5)


def test_request_on_a_torn_line_is_read(tmp_path: Path) -> None:
    record = {"resourceLogs": [{"scopeLogs": [{"logRecords": [{"body": {"stringValue": "kept"}}]}]}]}
    file = tmp_path / "hft.jsonl"
    file.write_text(
        '{"resourceLogs":[{"scopeL' + json.dumps(record, separators=(",", ":")) + "\n" + '{"resourceLogs":['
    )
    assert texts(file_logs(file)) == ["kept"]
