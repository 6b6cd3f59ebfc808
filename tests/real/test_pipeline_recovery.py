"""Collectors that are killed, backends that are down, a disk that is full: every audit is there afterwards.

The configurations are those of collector-config/ in production: agent and gateway. An audit that was sent again after
a failure may come twice, and is known by its audit.id; what else was lost is counted, and printed.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.real.collector_process import PipelineCollector
from tests.real.elasticsearch_bulk import Failure
from tests.real.pipeline_support import (
    Backends,
    Production,
    audit_ids,
    backends,
    file_logs,
    needs,
    production,
)
from tests.real.processes import hear, python, say, started
from tests.real.running import wait_until
from tests.real.stand_in import StandIn, down
from tests.unit.small_disk import small_disk as mounted_disk

pytestmark = [pytest.mark.slow, pytest.mark.proof]

TOTAL = 600
MAX_BATCH = 1024  # of the audits' queue
OUTAGE = float(os.environ.get("HFT_TEST_OUTAGE", "10"))
"""Seconds that a backend is down; a minute, with patience."""

STREAM = """
import json, sys, time
from hft_otel import LogConfig, LoggerFactory
from hft_otel.lifecycle import end_now

total, seconds = int(sys.argv[1]), float(sys.argv[2])
engine = LoggerFactory.create_logger("engine", LogConfig.from_yaml("logging.yaml"))
engine.force_flush(30)  # the exporters are loaded
start = time.monotonic()
for number in range(total):
    engine.audit("order_sent", number=number, symbol="BTCUSDT")
    engine.warning("slow answer %d", number, number=number)
    if number == total // 4:
        print("under way", flush=True)
    if number == total * 3 // 4:
        sys.stdin.readline()  # the last quarter comes when it is over, whatever it is
    time.sleep(max(0.0, start + seconds * number / total - time.monotonic()))
# A flush is false at once where one export of metrics is refused, as by an agent that is just starting.
for flushes in range(1, 6):
    if report := engine.force_flush(60):
        break
    time.sleep(0.5)
end_now()
print(json.dumps({
    "flushes": flushes,
    "flushed": bool(report), "report": str(report),
    "delivered": {f"{s.destination} {s.type}": s.delivered for s in report.destinations},
    "dropped": [str(s) for s in (*report.lanes, *report.destinations) if s.dropped],
}))
"""


class Stream(NamedTuple):
    """A program that logs audits and warnings, numbered, through production."""

    process: subprocess.Popen[str]
    whole: Production
    behind: Backends
    logs: Path

    def end(self) -> dict[str, Any]:
        """Let it log the last quarter, and wait for its end; its own account."""
        say(self.process)
        told: dict[str, Any] = json.loads(hear(self.process))
        assert self.process.wait(30) == 0
        assert told["flushed"], told["report"]
        assert told["dropped"] == []
        if told["flushes"] > 1:
            print(f"flushed at the {told['flushes']}. try")
        return told

    def on_disk(self) -> Counter[str]:
        """How often each audit stands in the agent's files."""
        return audit_ids(file_logs(self.logs / "hft.audit.jsonl"))

    def texts_on_disk(self) -> Counter[int]:
        """How often each warning does, by number."""
        return Counter(r["attributes"]["number"] for r in file_logs(self.logs / "hft.jsonl"))

    def check_audits(self, what: str) -> tuple[Counter[str], Counter[str]]:
        """All audits are on disk and handed to Elasticsearch; how often each."""
        wait_until(
            lambda: len(self.behind.elastic_audits()),
            lambda found: found >= TOTAL,
            "audits for Elasticsearch",
            60,
        )
        time.sleep(0.5)  # one that is sent a second time would come now
        disk, elastic = self.on_disk(), self.behind.elastic_audits()
        place = "OTLP in its place" if self.behind.is_replaced("elasticsearch") else "its stand-in"
        print(
            f"\n{what}: {TOTAL} audits; on disk {len(disk)} and {disk.total() - len(disk)} repeated; "
            f"for Elasticsearch ({place}) {len(elastic)} and {elastic.total() - len(elastic)} repeated"
        )
        assert len(disk) == TOTAL
        assert set(elastic) == set(disk)
        assert self.behind.violations() == []
        return disk, elastic


@contextmanager
def streaming(folder: Path, seconds: float, total: int = TOTAL, logs: Path | None = None) -> Iterator[Stream]:
    """The program, under way."""
    env = {"HFT_LOGS": str(logs)} if logs else {}
    with backends() as behind, production(folder, behind, **env) as whole:
        whole.logging_yaml(folder / "system")
        command = python(STREAM, str(total), str(seconds))
        with started(command, folder / "system", DATADOG_API_KEY="unused-here") as process:
            assert hear(process) == "under way"
            yield Stream(process, whole, behind, logs or folder / "agent" / "logs")


def kill_twice(stream: Stream, victim: PipelineCollector) -> set[int]:
    """Kill a Collector mid-stream and start it again; the warnings that production had at the last kill."""
    had: set[int] = set()
    for _ in range(2):
        assert victim.kill() == -9
        had = set(stream.texts_on_disk())
        time.sleep(0.5)
        victim.start()
        time.sleep(0.7)
    return had


def check_warnings(stream: Stream, had: set[int], whose: str) -> None:
    """Datadog, best effort, lacks nothing but what a killed Collector had in memory; how much that is."""
    lacking = wait_until(
        lambda: set(range(TOTAL)) - stream.behind.datadog_numbers(),
        lambda missing: missing <= had,
        "at Datadog every warning that was logged after the last kill",
        40,
    )
    print(
        f"warnings: {len(lacking)} of {TOTAL} are not at Datadog: they were in {whose} memory when it was killed"
    )
    assert len(had) < TOTAL  # so there was something left to come


def test_killed_agent_loses_no_audit_and_no_text_on_disk(tmp_path: Path) -> None:
    with streaming(tmp_path, 4) as stream:
        had = kill_twice(stream, stream.whole.agent)
        told = stream.end()
        stream.check_audits("agent killed twice")
        texts = stream.texts_on_disk()
        delivered = told["delivered"]["otlp.logs TEXT"]
        print(
            f"warnings: {delivered} delivered, {len(texts)} on disk and {texts.total() - len(texts)} repeated"
        )
        assert delivered == TOTAL
        assert set(texts) == set(range(TOTAL))
        check_warnings(stream, had, "the agent's")


def test_killed_gateway_loses_no_audit(tmp_path: Path) -> None:
    with streaming(tmp_path, 4) as stream:
        had = kill_twice(stream, stream.whole.gateway)
        stream.end()
        disk, _ = stream.check_audits("gateway killed twice")
        assert set(disk.values()) == {1}
        assert set(stream.texts_on_disk().values()) == {1}
        check_warnings(stream, had, "the gateway's")


def test_audits_wait_on_disk_for_a_backend_that_is_down_also_over_a_kill(tmp_path: Path) -> None:
    with streaming(tmp_path, 3) as stream:
        gateway = stream.whole.gateway
        with down(backend(stream)):
            stream.end()
            before = len(stream.behind.elastic_audits())
            time.sleep(OUTAGE / 2)
            assert gateway.kill() == -9  # what waits is on disk
            gateway.start()
            time.sleep(OUTAGE / 2)
            assert len(stream.behind.elastic_audits()) == before < TOTAL
        back = time.monotonic()
        stream.check_audits(f"Elasticsearch down for {OUTAGE:g} s, gateway killed meanwhile")
        print(f"complete {time.monotonic() - back:.1f} s after it came back")


def test_backend_that_is_down_for_a_while_costs_nothing(tmp_path: Path) -> None:
    with streaming(tmp_path, 3) as stream:
        with down(backend(stream)):
            stream.end()
            time.sleep(OUTAGE)
        _, elastic = stream.check_audits(f"backends down for {OUTAGE:g} s")
        assert set(elastic.values()) == {1}
        wait_until(stream.behind.datadog_texts, lambda found: found >= TOTAL, "warnings at Datadog", 40)
        assert stream.behind.datadog_texts() == TOTAL
        assert set(stream.texts_on_disk().values()) == {1}


def backend(stream: Stream) -> StandIn:
    """What stands for Elasticsearch."""
    return stream.behind.sink if stream.behind.is_replaced("elasticsearch") else stream.behind.elastic


def test_failures_of_a_backend_lose_no_audit_and_repeat_only_what_it_had_kept(tmp_path: Path) -> None:
    with streaming(tmp_path, 4) as stream:
        if not stream.behind.is_replaced("elasticsearch"):
            pytest.skip("Elasticsearch's own exporter is here, and has a test of its own")
        sink = stream.behind.sink
        sink.fail_next("elasticsearch", Failure(429), Failure(503), Failure(reset=True), Failure(502))
        # Kept, and then no good answer: the sender cannot know. The second is a time-out.
        sink.fail_next("elasticsearch", Failure(503, stored=True), Failure(seconds=3.0, stored=True))
        stream.end()
        _, elastic = stream.check_audits("429, 503, reset, 502, 503 and a time-out after it was kept")
        assert sink.failures == []
        assert (
            0 < elastic.total() - len(elastic) <= 2 * MAX_BATCH
        )  # so these two were sent again, and nothing else


@needs("elasticsearch")
def test_elasticsearch_failures_lose_no_audit(tmp_path: Path) -> None:
    with streaming(tmp_path, 4) as stream:
        elastic = stream.behind.elastic
        refused: Counter[str] = Counter()

        def busy_once(identity: str, _: object) -> int:
            refused[identity] += 1
            return 429 if refused[identity] == 1 and hash(identity) % 5 == 0 else 0

        elastic.refuse = busy_once
        elastic.fail_next(
            Failure(429), Failure(500), Failure(503), Failure(reset=True), Failure(500, stored=True)
        )
        # Answers that take long, of a request that is lost in the end and of one that is kept.
        elastic.fail_next(Failure(seconds=3.0, reset=True), Failure(seconds=3.0, stored=True))
        stream.end()
        stream.check_audits("429, 500, 503, reset, 429 per document, 500 after it was kept, slow answers")
        assert elastic.failures == []
        assert elastic.refused[429] > 0
        assert set(elastic.indices.values()) == {"logs-audit.otel-default"}


@needs("elasticsearch")
def test_poison_document_holds_up_no_other_audit_and_is_reported(tmp_path: Path) -> None:
    with streaming(tmp_path, 3) as stream:
        elastic = stream.behind.elastic
        elastic.refuse = lambda _, document: 400 if document["attributes"].get("number") == TOTAL // 2 else 0
        stream.end()
        wait_until(
            lambda: len(elastic.ids("audit.")), lambda found: found >= TOTAL - 1, "the other audits", 60
        )
        assert len(stream.on_disk()) == TOTAL  # the poison too: it is parked in the agent's file
        assert elastic.refused[400] == 1
        assert stream.whole.gateway.errors() != []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte."""
    with mounted_disk(tmp_path / "small-disk", 1024) as mounted:
        yield mounted.path


def test_full_disk_of_the_agent_loses_nothing_once_there_is_room(tmp_path: Path, small_disk: Path) -> None:
    logs, filler = small_disk / "logs", small_disk / "filler"
    with streaming(tmp_path, 4, logs=logs) as stream:
        filler.write_bytes(b"x" * 64)
        fill(filler)
        agent = stream.whole.agent
        wait_until(
            lambda: "no space left on device" in agent.new_output(), what="the agent's word of the full disk"
        )
        time.sleep(1.5)
        before = len(stream.on_disk())
        filler.unlink()
        told = stream.end()
        stream.check_audits("disk full")
        texts = stream.texts_on_disk()
        print(
            f"on disk while it was full: {before}; warnings: {told['delivered']['otlp.logs TEXT']} delivered, "
            f"{len(texts)} on disk and {texts.total() - len(texts)} repeated"
        )
        assert before < TOTAL * 3 // 4  # it was full, and not only slow
        assert set(texts) == set(range(TOTAL))


def fill(file: Path) -> None:
    """Write until the file system is full."""
    with file.open("ab", buffering=0) as out:
        for size in (4096, 512, 1):
            try:
                while True:
                    if out.write(b"x" * size) < size:
                        break
            except OSError:
                continue
