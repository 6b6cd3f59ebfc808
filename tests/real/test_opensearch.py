"""The stand-in for Elasticsearch answers a bulk request as a real server does: here OpenSearch, of the same family."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.real.elasticsearch_bulk import ElasticsearchBulk
from tests.real.opensearch import OpenSearch, bulk, call
from tools import parts

pytestmark = [
    pytest.mark.slow,  # the Java machine takes ten seconds
    pytest.mark.skipif(
        parts.locate("opensearch") is None, reason=f"opensearch is not here: {parts.cure('opensearch')}"
    ),
]

STREAM = "logs-audit.otel-default"


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
