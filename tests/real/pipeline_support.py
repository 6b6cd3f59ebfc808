"""Whole pipelines for the tests: checked-in configurations, on free ports, with stand-ins for what is far away."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from hft_otel.collector import from_file, render
from tests.real import otlp_json
from tests.real.collector_process import PipelineCollector, best, components
from tests.real.conftest import binary
from tests.real.datadog_intake import DatadogIntake
from tests.real.elasticsearch_bulk import ElasticsearchBulk
from tests.real.otlp_sink import OtlpSink
from tests.real.processes import ROOT
from tests.real.running import Program
from tools import parts

CONFIGS = ROOT / "collector-config"
API_KEY = "a" * 32


def best_binary() -> Path:
    """The Collector with the most in it that is here, or the end of the test."""
    return best() or binary("otelcol-hft-test")


def checked_in(profile: str) -> str:
    """The Collector's configuration as it is in collector-config/, where another test holds it to be the rendered one."""
    return (CONFIGS / f"{profile}.yaml").read_text()


def rendered(logging_yaml: Path, profile: str) -> str:
    """The Collector's configuration as `hft-otel collector render` makes it."""
    return render(from_file(logging_yaml), profile)


def copy_of(name: str, folder: Path, **ports: str) -> Path:
    """A checked-in logging.yaml with other addresses: those of this test instead of 4318 and 4328."""
    text = (CONFIGS / name).read_text()
    for place, address in ports.items():
        before = {"otlp": "http://127.0.0.1:4318", "audit": "http://127.0.0.1:4328"}[place]
        assert before in text, f"{name} no longer sends to {before}"
        text = text.replace(before, f"http://{address}")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "logging.yaml"
    document = yaml.safe_load(text)
    document["logging"]["journal"] = {"folder": str(folder / "journal")}
    # Datadog's exporter makes sketches of the differences between two exports of a histogram.
    document["logging"]["backends"]["otlp"]["config"]["metric_interval"] = 1.0
    path.write_text(yaml.safe_dump(document, sort_keys=False))
    return path


@dataclass
class Backends:
    """What stands behind the Collectors: real formats where the Collector has the exporter, OTLP where it has not."""

    sink: OtlpSink
    elastic: ElasticsearchBulk
    datadog: DatadogIntake
    replaced: list[str] = field(default_factory=list)

    @property
    def env(self) -> dict[str, str]:
        """The variables of the configurations that lead to them."""
        host = {
            f"HFT_DATADOG_{signal}_ENDPOINT": self.datadog.url for signal in ("METRICS", "LOGS", "TRACES")
        }
        return {**host, "HFT_ELASTICSEARCH_ENDPOINT": self.elastic.url, "DATADOG_API_KEY": API_KEY}

    def is_replaced(self, kind: str) -> bool:
        """Whether OTLP has the place of that exporter."""
        return any(line.startswith(kind) for line in self.replaced)

    def elastic_audits(self) -> Counter[str]:
        """How often each audit.id came to Elasticsearch; it keeps the first only."""
        if self.is_replaced("elasticsearch"):
            return self.sink.audits("elasticsearch")
        ids = self.elastic.ids("audit.")  # not those of anchors
        return Counter({key: 1 + self.elastic.repeats[key] for key in ids})

    def datadog_texts(self) -> int:
        """How many text records came to Datadog."""
        if self.is_replaced("datadog"):
            return len(self.sink.texts("datadog"))
        return len(self.datadog.logs)

    def datadog_numbers(self) -> set[int]:
        """The numbers at the end of the text records that came to Datadog."""
        if self.is_replaced("datadog"):
            return {int(body.rpartition(" ")[2]) for body in self.sink.texts("datadog")}
        with self.datadog.lock:
            found = (re.search(r"slow answer (\d+)", entry["message"]) for entry in self.datadog.logs)
        return {int(match[1]) for match in found if match}

    def violations(self) -> list[str]:
        """What any of them found wrong."""
        return [*self.sink.violations, *self.elastic.violations, *self.datadog.violations]


@contextmanager
def backends() -> Iterator[Backends]:
    with OtlpSink() as sink, ElasticsearchBulk() as elastic, DatadogIntake(API_KEY) as datadog:
        yield Backends(sink, elastic, datadog)


@contextmanager
def programs() -> Iterator[Any]:
    """start(program) starts it; at the end whatever still runs is ended, the last started first."""
    with ExitStack() as stack:

        def start(program: Program) -> Any:
            stack.callback(lambda: program.stop() if program.running else None)
            program.start()
            return program

        yield start


def collector(
    folder: Path, config: str, behind: Backends, env: dict[str, str] | None = None, **options: Any
) -> PipelineCollector:
    """A Collector on such a configuration, its files in a folder; says what it replaced."""
    own = {"HFT_LOGS": str(folder / "logs"), "HFT_COLLECTOR_DATA": str(folder / "data")}
    whole = {**behind.env, **own, **(env or {})}
    made = PipelineCollector(best_binary(), folder, config, whole, sink=behind.sink.url, **options)
    behind.replaced += made.replaced
    for line in made.replaced:
        print(f"NOT IN THIS COLLECTOR: {line}")
    return made


class Production(NamedTuple):
    """The two Collectors of production, chained."""

    agent: PipelineCollector
    gateway: PipelineCollector

    def logging_yaml(self, folder: Path) -> None:
        """Write the checked-in logging.yaml for a program in that folder, which sends to the agent."""
        otlp = self.agent.address("HFT_COLLECTOR_HTTP_PORT")
        copy_of(
            "logging-prod.yaml", folder, otlp=otlp, audit=self.agent.address("HFT_COLLECTOR_AUDIT_HTTP_PORT")
        )


@contextmanager
def production(folder: Path, behind: Backends, **env: str) -> Iterator[Production]:
    """Agent and gateway as they are checked in, running; `env` is for both."""
    with programs() as start:
        gateway = start(collector(folder / "gateway", checked_in("gateway"), behind, env))
        onward = {
            "HFT_GATEWAY": gateway.address("HFT_COLLECTOR_GRPC_PORT"),
            "HFT_GATEWAY_AUDIT": gateway.address("HFT_COLLECTOR_AUDIT_GRPC_PORT"),
            "HFT_GATEWAY_INSECURE": "true",
        }
        yield Production(
            start(collector(folder / "agent", checked_in("agent"), behind, {**onward, **env})), gateway
        )


def needs(*exporters: str) -> Any:
    """Skips where no Collector here has these exporters, with the way to get one."""
    found = best()
    missing = set(exporters) - (components(found)["exporters"] if found else set())
    wanted = "otelcol-hft-es" if missing == {"elasticsearch"} else "otelcol-hft"
    here = "the one of HFT_OTELCOL has not" if "HFT_OTELCOL" in os.environ else parts.cure(wanted)
    cure = f"{here}; let HFT_OTELCOL name one that has, such as the official contrib distribution"
    reason = f"no Collector here has {', '.join(sorted(missing))}: {cure}"
    return pytest.mark.skipif(bool(missing), reason=reason)


def file_logs(*paths: Path) -> list[dict[str, Any]]:
    """The LogRecords in the files that the Collector's file exporter wrote, also in those it has rotated."""
    found: list[dict[str, Any]] = []
    for path in paths:
        for file in sorted(path.parent.glob(f"{path.stem}*{path.suffix}")):
            if path.stem.count(".") != file.stem.count(".") and not file.stem.startswith(f"{path.stem}-"):
                continue  # hft.jsonl has hft.audit.jsonl beside it
            with file.open("rb") as lines:
                found += otlp_json.logs(list(whole_lines(lines)))
    return found


def whole_lines(lines: Any) -> Iterator[dict[str, Any]]:
    """The requests in a file. A kill or a full disk cuts a line, and the next request is appended to the torn half."""
    for line in lines:
        try:
            yield json.loads(line)
        except ValueError:
            start = line.rfind(b'{"resourceLogs"')
            if start > 0:
                with suppress(ValueError):
                    yield json.loads(line[start:])


def audit_ids(records: list[dict[str, Any]]) -> Counter[str]:
    """How often each audit.id stands among records."""
    return Counter(r["attributes"]["audit.id"] for r in records if r["event_name"].startswith("audit."))


def texts(records: list[dict[str, Any]]) -> list[str]:
    """Bodies of the records that are no audit."""
    return [r["body"] for r in records if not r["event_name"]]


SESSION = """
import asyncio, json, sys
from hft_otel import LogConfig
from hft_otel.lifecycle import end_now
from trading_system.replay import open_source
from trading_system.session import run_session

config = LogConfig.from_yaml("logging.yaml")
seconds, rate = float(sys.argv[1]), float(sys.argv[2])
result = asyncio.run(run_session(config, open_source(), seconds=seconds, rate=rate))
report = result.logger.force_flush(30)
end_now()  # the metrics' last export
print(json.dumps({
    "calls": result.calls, "messages": result.message_count, "flushed": bool(report), "report": str(report),
    "lanes": {s.lane: s.emitted for s in report.lanes}, "unrouted": {s.lane: s.unrouted for s in report.lanes},
    "dropped": [str(s) for s in (*report.lanes, *report.destinations) if s.dropped or s.pending],
    "destinations": {f"{s.destination} {s.type}": s.delivered for s in report.destinations},
}))
"""
"""The example trading system for some seconds, and its own account as JSON."""

COUNTERS = (
    "arbitrage_executions|book_sequence_gaps|messages_parsed|orders_rejected|parse_failures|trades"
    "|websocket_connect_failures|websocket_disconnects"
)
"""What the example system counts with counter(), always by one: their sum is the number of calls."""
