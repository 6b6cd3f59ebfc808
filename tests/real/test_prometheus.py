"""A real Prometheus scrapes the example system while it trades, and a real Pushgateway is pushed to."""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from tests.real.processes import EXAMPLES, ROOT, hear, python, say, started
from tests.real.running import Prometheus, Pushgateway, free_ports, get, wait_until

# Trades until it is told to stop, a line on standard input, and then says what it has measured.
PROGRAM = """
import asyncio, json, sys, threading
from hft_otel import LogConfig
from trading_system.replay import open_source
from trading_system.session import run_session

async def trade():
    session = asyncio.create_task(run_session(
        LogConfig.from_yaml("logging.yaml"), open_source(seed=1), seconds=3.0, rate=500.0, disconnect_every=1.5
    ))
    result = await session
    report = await result.logger.flush(30)
    print(json.dumps({"calls": result.calls, "messages": result.message_count, "flushed": bool(report),
                      "report": str(report)}), flush=True)
    await asyncio.to_thread(sys.stdin.readline)

print("trading", flush=True)
asyncio.run(trade())
"""


@contextmanager
def trading(folder: Path) -> Iterator[tuple[Any, str]]:
    """The example system under way with its own logging.yaml, and host:port of its scrape endpoint."""
    (port,) = free_ports(1)
    document = yaml.safe_load((EXAMPLES / "logging.yaml").read_text())
    document["logging"]["backends"]["prometheus"]["config"]["port"] = port
    (folder / "logging.yaml").write_text(yaml.safe_dump(document))
    with started(python(PROGRAM), folder, HFT_DEMO_CONSOLE_LEVEL="CRITICAL") as process:
        assert hear(process) == "trading"
        yield process, f"127.0.0.1:{port}"
        say(process)
        assert process.wait(20) == 0


def quantile(share: float) -> str:
    """PromQL for a quantile of how long messages took to be parsed."""
    buckets = "rate(hft_latency_seconds_bucket[10s])"
    return f"histogram_quantile({share}, sum by (le, operation) ({buckets}))"


def test_prometheus_answers_the_p99_of_the_latencies_of_a_running_system(
    prometheus: Callable[..., Prometheus], tmp_path: Path
) -> None:
    with trading(tmp_path) as (process, address):
        server = prometheus([address])

        def parse_message(share: float) -> float:
            rows = server.wait_for(
                quantile(share),
                lambda rows: any(
                    row["labels"]["operation"] == "parse_message" and row["value"] > 0 for row in rows
                ),
            )
            return next(r["value"] for r in rows if r["labels"]["operation"] == "parse_message")

        p50, p99 = parse_message(0.5), parse_message(0.99)
        assert 1e-6 < p50 <= p99 < 1.0  # seconds: a message takes some tens of microseconds to parse
        assert p50 < 0.01
        assert [target["health"] for target in server.api("targets")["activeTargets"]] == ["up"]

        # Once the system is done, what Prometheus has is what the system has counted.
        told = json.loads(hear(process))
        assert told["flushed"], told["report"]
        calls = told["calls"]
        total = "sum(hft_latency_seconds_count)"
        server.wait_for(total, lambda rows: bool(rows) and rows[0]["value"] == calls["LATENCY"])
        emitted = {row["labels"]["lane"]: row["value"] for row in server.query("hft_telemetry_emitted_total")}
        assert emitted["metric"] == calls["METRIC"] + calls["LATENCY"] + calls["COUNTER"]
        assert emitted["audit"] == calls["AUDIT"]
        assert server.query("sum(hft_telemetry_dropped_total) or vector(0)")[0]["value"] == 0


IN_MILLISECONDS = (  # as the plan measures it; the name says so
    'hft_trade_execution_latency_milliseconds use base unit "seconds" instead of "milliseconds"',
)


def test_promtool_finds_nothing_wrong_with_what_is_scraped(promtool: Path, tmp_path: Path) -> None:
    with trading(tmp_path) as (process, address):
        assert "calls" in hear(process)
        text = get(f"http://{address}/metrics")
    check = subprocess.run(
        [str(promtool), "check", "metrics"], input=text, capture_output=True, text=True, check=False
    )
    said = (check.stdout + check.stderr).splitlines()
    assert [line for line in said if line not in IN_MILLISECONDS] == []
    assert check.returncode == (3 if said else 0)  # 3: no error, but something to say
    families = set(re.findall(r"^# TYPE (\S+)", text, re.MULTILINE))
    assert {"hft_latency_seconds", "hft_orderbook_depth", "hft_messages_parsed_total"} <= families
    assert {name for name in families if not name.startswith("hft_")} == {"target_info"}


PLAN_PUSH = """
import sys
from hft_otel import LogConfig, LoggerFactory

logger = LoggerFactory.create_logger("parser.mexc", LogConfig.from_yaml("logging.yaml"))
logger.set_context(exchange="mexc")
for number in range(120):
    logger.counter("messages_parsed", tags={"type": "orderbook"})
    logger.latency("parse_message", 0.25)
logger.metric("orderbook_depth", 20)
print("measured", flush=True)
sys.stdin.readline()
"""


def plan_with(gateway: str) -> str:
    """The plan's logging.yaml, with another address for its Pushgateway."""
    text = (ROOT / "tests" / "plan_blocks" / "4.2.yaml").read_text()
    assert '"localhost:9091"' in text
    return text.replace('"localhost:9091"', f'"{gateway}"')


def test_pushgateway_receives_measurements_under_the_plans_prefix_and_job_name(
    pushgateway: Callable[[], Pushgateway], tmp_path: Path
) -> None:
    gateway = pushgateway()
    (tmp_path / "logging.yaml").write_text(plan_with(gateway.address))
    with started(python(PLAN_PUSH), tmp_path) as process:
        assert hear(process) == "measured"
        # pushed while the process lives, by batch_size and flush_interval, without any flush
        text = wait_until(gateway.metrics_text, lambda text: "hft_orderbook_depth" in text, "a push")
        text = wait_until(gateway.metrics_text, lambda text: "} 120" in text, "all that was measured")
        say(process)
        assert process.wait(10) == 0
    samples = {
        (name, *sorted(re.findall(r'(\w+)="([^"]*)"', labels))): float(value)
        for name, labels, value in re.findall(r"^(hft_\w+)\{(.*)\} (\S+)$", text, re.MULTILINE)
    }
    where = (("exchange", "mexc"), ("instance", ""), ("job", "hft_arbitrage"))
    assert samples["hft_messages_parsed_total", *where, ("type", "orderbook")] == 120
    assert samples["hft_orderbook_depth", *where] == 20
    assert samples["hft_latency_seconds_count", *where, ("operation", "parse_message")] == 120
    assert "push_failure_time_seconds" in text
    assert 'push_failure_time_seconds{instance="",job="hft_arbitrage"} 0' in text


def test_what_was_measured_last_is_pushed_at_exit(
    pushgateway: Callable[[], Pushgateway], tmp_path: Path
) -> None:
    gateway = pushgateway()
    text = plan_with(gateway.address).replace("flush_interval: 3.0", "flush_interval: 3600.0")
    (tmp_path / "logging.yaml").write_text(text.replace("batch_size: 50", "batch_size: 1000000"))
    with started(python(PLAN_PUSH), tmp_path) as process:
        assert hear(process) == "measured"
        say(process)
        assert process.wait(10) == 0
    assert re.search(
        r'^hft_messages_parsed_total\{.*job="hft_arbitrage".*\} 120$', gateway.metrics_text(), re.M
    )


def test_absent_pushgateway_is_said_and_holds_up_nothing(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    (tmp_path / "logging.yaml").write_text(plan_with(f"127.0.0.1:{port}"))
    with started(python(PLAN_PUSH), tmp_path) as process:
        assert hear(process) == "measured"
        assert process.stderr is not None
        assert f"prometheus has a problem: push to 127.0.0.1:{port}" in process.stderr.readline()
        say(process)
        begin = time.monotonic()
        assert process.wait(10) == 0
        assert time.monotonic() - begin < 3.0
