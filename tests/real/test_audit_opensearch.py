"""What a real server of Elasticsearch's family holds against the trail: reconcile finds what is amiss, replay mends it.

Events come through a Collector with the configuration that is rendered from logging.yaml, by way of the relay that
elasticsearch_relay.py describes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.real.collector_process import PipelineCollector
from tests.real.elasticsearch_relay import Relay
from tests.real.opensearch import OpenSearch, bulk, call
from tests.real.pipeline_support import (
    CONFIGS,
    backends,
    collector,
    copy_of,
    needs,
    programs,
    rendered,
)
from tests.real.processes import Ended, hft_otel, run, run_script
from tests.real.running import wait_until
from tools import parts

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    needs("elasticsearch"),
    pytest.mark.skipif(
        parts.locate("opensearch") is None, reason=f"opensearch is not here: {parts.cure('opensearch')}"
    ),
]

EVENTS = 12_000
"""More than a search gives at once, which is 10,000."""
STREAM = "logs-audit.otel-default"
FIELD = "attributes.audit.id"
SENDER = f"""
import json
from hft_otel import LogConfig, LoggerFactory
from hft_otel.lifecycle import end_now

logger = LoggerFactory.create_logger("engine", LogConfig.from_yaml("logging.yaml"))
for number in range({EVENTS}):
    logger.audit("order_sent", order_id=f"o-{{number}}", number=number)
report = logger.force_flush(240)
end_now()
print(json.dumps({{"flushed": bool(report), "report": str(report)}}))
"""
AS_ELASTICSEARCH = {
    "dynamic_templates": [
        {"strings": {"match_mapping_type": "string", "mapping": {"type": "keyword", "ignore_above": 1024}}}
    ]
}
"""Elasticsearch's own template for logs-*.otel-* has strings below `attributes` as keywords; OpenSearch has none."""


class Arrived(NamedTuple):
    """A server with all events of a trail in it."""

    url: str
    relay: Relay
    otel: PipelineCollector
    journal: Path
    logging_yaml: Path

    def count(self, index: str = STREAM) -> int:
        """How many audit events are there now."""
        call("POST", f"{self.url}/{index}/_refresh")
        query = json.dumps({"query": {"exists": {"field": FIELD}}}).encode()
        status, answer = call("POST", f"{self.url}/{index}/_count", query)
        return int(answer["count"]) if status == 200 else 0

    def find(self, identity: str) -> dict[str, Any]:
        """The document of an event."""
        query = json.dumps({"query": {"term": {FIELD: identity}}, "version": True}).encode()
        _, answer = call("POST", f"{self.url}/{STREAM}/_search", query)
        (hit,) = answer["hits"]["hits"]
        return dict(hit)

    def delete(self, identity: str) -> None:
        """Remove the document of an event."""
        hit = self.find(identity)
        status, answer = call("DELETE", f"{self.url}/{hit['_index']}/_doc/{hit['_id']}?refresh=true")
        assert status == 200, answer

    def reconcile(self, *more: str, index: str = STREAM, url: str = "") -> Ended:
        """Hold the index against the trail, by the command."""
        against = f"elasticsearch:{url or self.url}/{index}"
        command = hft_otel("audit", "reconcile", self.journal, "--against", against, *more)
        return run(command, self.journal.parent)

    def identities(self) -> list[str]:
        """All events of the trail."""
        shown = run(hft_otel("audit", "show", self.journal, "--json"), self.journal.parent).stdout
        return [json.loads(line)["attributes"]["audit.id"] for line in shown.splitlines()]


@pytest.fixture(scope="module")
def arrived(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Arrived]:
    """Server, relay and Collector, and a process that has sent its events."""
    folder = tmp_path_factory.mktemp("arrived")
    binary = parts.locate("opensearch")
    assert binary is not None
    patch = pytest.MonkeyPatch()
    patch.setenv("HFT_ELASTICSEARCH", "true")
    with programs() as start, backends() as behind:
        server = start(OpenSearch(binary, folder / "opensearch"))
        server.create_data_stream("logs-*", AS_ELASTICSEARCH)
        with Relay(server.url) as relay:
            config = rendered(CONFIGS / "logging-dev.yaml", "dev")
            patch.undo()
            env = {"HFT_ELASTICSEARCH_ENDPOINT": relay.url}
            otel = start(collector(folder / "collector", config, behind, env))
            assert otel.replaced == []
            places = {
                "otlp": otel.address("HFT_COLLECTOR_HTTP_PORT"),
                "audit": otel.address("HFT_COLLECTOR_AUDIT_HTTP_PORT"),
            }
            system = copy_of("logging-dev.yaml", folder / "system", **places)
            try:
                told = run_script(SENDER, cwd=system.parent, timeout=300, HFT_ELASTICSEARCH="true").told
                assert told["flushed"], told["report"]
                made = Arrived(server.url, relay, otel, system.parent / "journal", system)
                wait_until(made.count, lambda found: found >= EVENTS, "all events", 300)
                yield made
                assert relay.violations == []
            finally:
                otel.kill()  # in good order it would first send what it still has, for as long as that takes


def test_all_that_arrived_is_found_beyond_one_search(arrived: Arrived) -> None:
    done = arrived.reconcile("--json")
    (told,) = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.status == 0
    assert (told["events"], told["delivered"], told["missing"]) == (EVENTS, EVENTS, [])
    assert (told["waiting"], told["duplicates"], told["beyond"]) == (0, {}, 0)


def test_what_was_removed_and_added_by_hand_is_found_and_replay_mends_it(arrived: Arrived) -> None:
    identities = arrived.identities()
    assert len(set(identities)) == EVENTS
    removed = [identities[at] for at in (0, 4_999, 5_000, 11_999)]
    doubled = identities[7_000]
    copy = arrived.find(doubled)["_source"]
    for identity in removed:
        arrived.delete(identity)
    _, answer = bulk(arrived.url, {"create": {"_index": STREAM, "_id": "by hand"}}, copy)
    assert not answer["errors"]

    assert arrived.count() == EVENTS - 4 + 1
    done = arrived.reconcile("--json")
    told = json.loads(done.stdout)
    assert done.status == 1
    assert told["missing"] == removed
    assert told["duplicates"] == {doubled: 2}
    assert told["delivered"] == EVENTS - 4
    assert f"missing: {removed[0]}, {removed[1]}" in arrived.reconcile().stdout

    replay(arrived, 0, EVENTS - 1)
    assert arrived.count() == EVENTS + 1
    done = arrived.reconcile("--json")
    told = json.loads(done.stdout)
    assert (done.status, told["delivered"], told["missing"]) == (0, EVENTS, [])
    assert told["duplicates"] == {doubled: 2}
    assert arrived.find(removed[1])["_source"]["event_name"] == "audit.order_sent"
    call("DELETE", f"{arrived.url}/{copy_index(arrived)}/_doc/by%20hand?refresh=true")
    assert arrived.count() == EVENTS


def copy_index(arrived: Arrived) -> str:
    """The index behind the data stream."""
    _, answer = call("GET", f"{arrived.url}/{STREAM}/_search?q=_id:%22by%20hand%22")
    return str(answer["hits"]["hits"][0]["_index"])


def replay(arrived: Arrived, first: int, last: int) -> None:
    """Send events of the trail again, and wait until the server has answered for all of them."""
    before, number = arrived.relay.documents, last + 1 - first
    chosen = ("--first", str(first), "--last", str(last), "--timeout", "240", "--json")
    command = hft_otel("audit", "replay", arrived.journal, "--to", arrived.logging_yaml, *chosen)
    done = run(command, arrived.journal.parent, timeout=300, HFT_ELASTICSEARCH="true")
    assert done.status == 0, done.stdout + done.stderr
    assert json.loads(done.stdout)["events"] == number
    wait_until(lambda: arrived.relay.documents, lambda now: now >= before + number, "all of them again", 240)


def test_replay_again_and_again_changes_nothing(arrived: Arrived) -> None:
    """Each event is offered by its id, is refused as known, and stays in its first version."""
    for _ in range(2):
        replay(arrived, 1_000, 1_999)
        assert arrived.count() == EVENTS
    for identity in arrived.identities()[1_000:2_000:200]:
        hit = arrived.find(identity)
        assert (hit["_id"], hit["_version"]) == (identity, 1)
    assert json.loads(arrived.reconcile("--json").stdout)["duplicates"] == {}


@pytest.fixture(scope="module")
def of_words(arrived: Arrived) -> str:
    """An index whose strings are mapped as OpenSearch and Elasticsearch map them where no template says otherwise."""
    document = arrived.find(arrived.identities()[0])["_source"]
    _, answer = bulk(arrived.url, {"create": {"_index": "plain", "_id": "a"}}, document)
    assert not answer["errors"]
    call("POST", f"{arrived.url}/plain/_refresh")
    return "plain"


def test_field_of_words_is_refused_with_its_cure_which_works(arrived: Arrived, of_words: str) -> None:
    for index in (of_words, f"{of_words},{STREAM}"):
        done = arrived.reconcile(index=index)
        assert done.status == 1
        told = " ".join(done.stderr.split())
        assert f"{FIELD} is mapped as text" in told and "plain" in told
        assert f"--field {FIELD}.keyword" in told
    done = arrived.reconcile("--field", f"{FIELD}.keyword", "--json", index=of_words)
    assert json.loads(done.stdout)["delivered"] == 1


@pytest.mark.parametrize(
    ("index", "said"),
    [
        ("logs-audti", "no such index [logs-audti]: name an index or data stream that is there"),
        ("logs-audti*", "is no index, nor are there any that the pattern fits"),
        ("unrelated", f"has the field {FIELD}: either no audit event ever came there"),
    ],
)
def test_index_that_cannot_be_the_one_is_refused(arrived: Arrived, index: str, said: str) -> None:
    bulk(arrived.url, {"create": {"_index": "unrelated", "_id": "a"}}, {"message": "hello"})
    done = arrived.reconcile(index=index)
    assert done.status == 1
    assert said in " ".join(done.stderr.split())


def test_server_that_is_not_there_is_named(arrived: Arrived) -> None:
    gone = f"http://127.0.0.1:{arrived.otel.ports['HFT_COLLECTOR_METRICS_PORT']}"
    arrived.otel.stop()
    try:
        done = arrived.reconcile(url=gone)
    finally:
        arrived.otel.start()
    assert done.status == 1
    assert f"{gone} cannot be reached" in " ".join(done.stderr.split())
