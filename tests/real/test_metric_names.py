"""The names that dashboards and alerts ask for: the Collector's, and beside them those of the scrape endpoint in process.

The same measurements go both ways, and a real Prometheus scrapes both. Dashboards aim at the Collector's names;
DIFFERENT and the test of the labels are all that the scrape endpoint in process has otherwise.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
import yaml

from hft_otel.ledger import SELF_METRICS
from tests.real.conftest import binary
from tests.real.processes import EXAMPLES, hear, otlp, python, say, started, write_config
from tests.real.running import Collector, Prometheus, free_ports, get

EXAMPLE = yaml.safe_load((EXAMPLES / "logging.yaml").read_text())["logging"]["instruments"]
FURTHER = {
    "message_size": {"kind": "histogram", "unit": "By", "buckets": [100, 1000]},
    "sent": {"kind": "counter", "unit": "By"},
    "order_rate": {"unit": "{order}/s"},
    "spread": {"unit": "bps"},
    "fee_usd": {"kind": "up_down_counter", "unit": "USD"},
    "queue.wait_ms": {"unit": "ms"},
    "share_hits": {"kind": "counter", "unit": "1"},
    "runs_total": {"kind": "counter"},
    # what DIFFERENT is about
    "fill_share": {"unit": "1"},
    "seconds_since_trade": {"unit": "s"},
}

SAMPLES = {
    # the plan's calls, recorded on what examples/logging.yaml says
    "arbitrage_success": ("counter", "hft_arbitrage_success_total"),
    "arbitrage_failure": ("counter", "hft_arbitrage_failure_total"),
    "arbitrage_profit_usd": ("gauge", "hft_arbitrage_profit_usd"),
    "orderbook_depth": ("gauge", "hft_orderbook_depth"),
    "trade_execution_latency": ("histogram", "hft_trade_execution_latency_milliseconds"),
    "counter('messages_parsed')": ("counter", "hft_messages_parsed_total"),
    "latency('parse_message')": ("histogram", "hft_latency_seconds"),
    # units: words of Prometheus's, as they are where it has none, nothing of what stands in braces
    "message_size": ("histogram", "hft_message_size_bytes"),
    "sent": ("counter", "hft_sent_bytes_total"),
    "order_rate": ("gauge", "hft_order_rate_per_second"),
    "spread": ("gauge", "hft_spread_bps"),
    "fee_usd": ("gauge", "hft_fee_usd_USD"),  # said twice: better in braces
    "queue.wait_ms": ("gauge", "hft_queue_wait_ms_milliseconds"),
    "share_hits": ("counter", "hft_share_hits_total"),
    "runs_total": ("counter", "hft_runs_total"),
    "fill_share": ("gauge", "hft_fill_share_ratio"),
    "seconds_since_trade": ("gauge", "hft_seconds_since_trade"),
    # the logger's own
    **{
        metric.name: (
            "counter" if metric.kind == "counter" else "gauge",
            f"hft_{metric.name.replace('.', '_')}{'_total' if metric.kind == 'counter' else ''}",
        )
        for metric in SELF_METRICS
    },
}
"""What is measured, by what call: its type and name in Prometheus, by way of the Collector."""

DIFFERENT = {
    "hft_fill_share_ratio": "hft_fill_share",  # a gauge of unit 1: the Collector says ratio
    "hft_seconds_since_trade": "hft_seconds_since_trade_seconds",  # a unit that the name has further in front
}
"""The names of the scrape endpoint in process, where they are others."""

PROGRAM = """
import sys
from hft_otel import LogConfig, LoggerFactory

logger = LoggerFactory.create_logger("engine", LogConfig.from_yaml("logging.yaml"))
for value in (0.5, 3, 40, 1000):
    logger.metric("trade_execution_latency", value, exchange="mexc")
for name in sys.argv[1:]:
    logger.metric(name, 250)
for profit in (10, -4):
    logger.metric("arbitrage_profit_usd", profit)
    logger.metric("arbitrage_success", 1, **{"leg.first": "mexc"})
logger.metric("arbitrage_success", -1)  # dropped, and counted as that
logger.metric("arbitrage_failure", 1, error_type="OrderRejected")
logger.metric("orderbook_depth", 40)
logger.counter("messages_parsed", tags={"type": "orderbook"})
logger.latency("parse_message", 0.4)
logger.force_flush(30)
print("measured", flush=True)
sys.stdin.readline()
"""

COLLECTOR = {
    "extensions": {"health_check": {"endpoint": "${env:HEALTH}"}},
    "receivers": {"otlp": {"protocols": {"http": {"endpoint": "${env:OTLP_HTTP}"}}}},
    "exporters": {"prometheus": {"endpoint": "${env:SPARE}"}},
    "service": {
        "extensions": ["health_check"],
        "pipelines": {"metrics": {"receivers": ["otlp"], "exporters": ["prometheus"]}},
    },
}


class Scraped(NamedTuple):
    """A Prometheus that has seen all of it, and the two that it scrapes, each as host:port."""

    server: Prometheus
    collector: str
    process: str

    def names(self, target: str) -> set[str]:
        """The names of all samples of a target, but for what Prometheus says of its scrapes."""
        found = self.server.api("label/__name__/values", **{"match[]": f'{{instance="{target}"}}'})
        return {name for name in found if not name.startswith(("scrape_", "up"))}

    def values(self, query: str, target: str, by: str) -> dict[str, float]:
        """The values of a target's series, by one of their labels."""
        rows = self.server.query(query.replace("$target", f'instance="{target}"'))
        return {row["labels"].get(by, ""): row["value"] for row in rows}


@pytest.fixture(scope="module")
def scraped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scraped]:
    """Measure once, both ways, and wait until Prometheus has the last of it."""
    folder = tmp_path_factory.mktemp("names")
    collector = Collector(binary("otelcol-hft-test"), folder / "collector", COLLECTOR)
    (port,) = free_ports(1)
    prometheus_binary = binary("prometheus")
    collector.start()
    targets = [f"127.0.0.1:{collector.ports['SPARE']}", f"127.0.0.1:{port}"]
    server = Prometheus(prometheus_binary, folder / "prometheus", targets)
    try:
        backends = {"prometheus": {"config": {"port": port}}, "otlp": otlp(collector.endpoint)}
        service = {"service": "hft-arbitrage", "version": "1.0.0"}
        write_config(folder, backends, instruments={**EXAMPLE, **FURTHER}, global_context=service)
        with started(python(PROGRAM, *FURTHER), folder) as process:
            assert hear(process) == "measured"
            server.start()
            # what comes last: how exports ended, and what was dropped
            for name in ("hft_telemetry_exports_total", "hft_telemetry_dropped_total", "hft_spread_bps"):
                both = f"count(count by (instance) ({name}))"
                server.wait_for(both, lambda rows: bool(rows) and rows[0]["value"] == 2)
            yield Scraped(server, *targets)
            say(process)
            assert process.wait(20) == 0
    finally:
        for program in (server, collector):
            if program.running:
                program.stop()


def samples(kind: str, name: str) -> set[str]:
    """The names that a metric's samples have."""
    return {f"{name}_{part}" for part in ("bucket", "sum", "count")} if kind == "histogram" else {name}


def test_names_are_those_of_the_table(scraped: Scraped) -> None:
    expected = {name for kind, base in SAMPLES.values() for name in samples(kind, base)}
    assert scraped.names(scraped.collector) == expected | {"target_info"}
    in_process = {DIFFERENT.get(name, name) for name in expected}
    assert scraped.names(scraped.process) == in_process | {"target_info"}


def test_types_are_those_of_the_table(scraped: Scraped) -> None:
    expected = {name: kind for kind, name in SAMPLES.values()}

    def types(target: str) -> dict[str, str]:
        page = get(f"http://{target}/metrics")
        return dict(re.findall(r"^# TYPE (hft_\S+) (\S+)$", page, re.MULTILINE))

    assert types(scraped.collector) == expected
    assert types(scraped.process) == {DIFFERENT.get(name, name): kind for name, kind in expected.items()}


def test_values_are_the_same_both_ways(scraped: Scraped) -> None:
    for kind, base in SAMPLES.values():
        if "telemetry" not in base:
            for name in samples(kind, base):
                query = "sum without (otel_scope_name) ({__name__='%s', $target})"
                there = scraped.values(query % name, scraped.collector, "le")
                here = scraped.values(query % DIFFERENT.get(name, name), scraped.process, "le")
                assert there == here != {}, name
    sums = "sum by (type) ({__name__=~'%s', $target})"
    for target in (scraped.collector, scraped.process):
        assert scraped.values(sums % "hft_arbitrage_success_total", target, "") == {"": 2}
        assert scraped.values(sums % "hft_arbitrage_profit_usd", target, "") == {"": 6}
        dropped = "sum by (reason) (hft_telemetry_dropped_total{$target, place='otlp.metrics'})"
        assert scraped.values(dropped, target, "reason") == {"negative_counter": 1}


def test_buckets_are_those_of_the_configuration(scraped: Scraped) -> None:
    bounds = EXAMPLE["trade_execution_latency"]["buckets"]
    query = "hft_trade_execution_latency_milliseconds_bucket{$target, exchange='mexc'}"
    expected = {f"{bound:.1f}": sum(v <= bound for v in (0.5, 3, 40, 1000)) for bound in bounds} | {"+Inf": 4}
    for target in (scraped.collector, scraped.process):
        assert scraped.values(query, target, "le") == expected
        latencies = scraped.values("hft_latency_seconds_bucket{$target}", target, "le")
        assert (len(latencies), latencies["0.00025"], latencies["0.0005"]) == (23, 0, 1)


def test_labels_differ_by_the_scope_and_the_service(scraped: Scraped) -> None:
    def labels(target: str) -> dict[str, Any]:
        (row,) = scraped.server.query(f'hft_arbitrage_success_total{{instance="{target}"}}')
        found: dict[str, Any] = row["labels"]
        return {key: found[key] for key in found.keys() - {"__name__", "instance"}}

    assert labels(scraped.process) == {"job": "test", "leg_first": "mexc"}
    there = labels(scraped.collector)
    assert there.pop("exported_instance")  # service.instance.id; with honor_labels it is `instance`
    assert there == {
        "job": "test",
        "exported_job": "hft-arbitrage",
        "leg_first": "mexc",
        "otel_scope_name": "hft_otel",
    }
