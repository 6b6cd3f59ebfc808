"""The stand-in for Elasticsearch that may be killed: what it acknowledged is there afterwards, once."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hft_otel.audit.elasticsearch import NoAnswerError, read_ids
from tests.real.elasticsearch_durable import ElasticsearchProcess
from tests.real.path_scene import lasting_ports

INDEX = "logs-audit.otel-default"


@pytest.fixture
def elastic(tmp_path: Path) -> Iterator[ElasticsearchProcess]:
    program = ElasticsearchProcess(tmp_path, *lasting_ports(1))
    program.start()
    yield program
    program.kill()


def create(elastic: ElasticsearchProcess, *identities: str) -> list[int]:
    """Send documents as the Collector would; the status of each."""
    lines: list[dict[str, Any]] = []
    for identity in identities:
        document = {
            "@timestamp": "1700000000000.0",
            "data_stream": {"type": "logs", "dataset": "audit.otel", "namespace": "default"},
            "event_name": "audit.order_sent",
            "body": {"text": "order_sent"},
            "attributes": {"audit.id": identity},
            "resource": {"attributes": {"service.name": "test"}},
        }
        lines += [{"create": {"_index": INDEX, "_id": identity}}, document]
    body = "".join(f"{json.dumps(line)}\n" for line in lines).encode()
    asked = urllib.request.Request(f"{elastic.url}/_bulk", body, {"Content-Type": "application/x-ndjson"})
    with urllib.request.urlopen(asked, timeout=10) as answer:
        return [item["create"]["status"] for item in json.load(answer)["items"]]


def test_what_was_acknowledged_outlives_a_kill(elastic: ElasticsearchProcess) -> None:
    assert create(elastic, "a-0", "a-1") == [201, 201]
    assert elastic.kill() == -9
    elastic.start()
    assert create(elastic, "a-1", "a-2") == [409, 201]
    assert sorted(elastic.documents()) == ["a-0", "a-1", "a-2"]
    assert elastic.violations() == []


def test_what_a_kill_cut_was_not_acknowledged_and_may_come_again(elastic: ElasticsearchProcess) -> None:
    create(elastic, "a-0", "a-1")
    elastic.kill()
    elastic.file.write_bytes(elastic.file.read_bytes()[:-5])
    elastic.start()
    assert create(elastic, "a-0", "a-1") == [409, 201]
    assert sorted(elastic.documents()) == ["a-0", "a-1"]


@pytest.mark.parametrize("page", [2, 3, 100])
def test_search_gives_the_identities_page_by_page(elastic: ElasticsearchProcess, page: int) -> None:
    expected = [f"a-{number}" for number in range(7)]
    create(elastic, *expected)
    assert list(read_ids(f"{elastic.url}/logs-audit*", "attributes.audit.id", page)) == expected
    with pytest.raises(NoAnswerError, match="the pattern fits"):
        list(read_ids(f"{elastic.url}/logs-other*", "attributes.audit.id", page))


def test_what_is_wrong_with_a_request_is_told(elastic: ElasticsearchProcess) -> None:
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(f"{elastic.url}/_delete", timeout=10)
    caught.value.close()
    assert elastic.violations() == ["violation: GET /_delete is not answered here"]
