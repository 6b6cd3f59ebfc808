"""What one call costs the caller: ours beside its floor (an empty method) and its peers, in one run, as ratios.

    make bench            (or: python benchmarks/call_cost.py [--rounds N] [--json])

Every candidate makes the same call, `info("order filled", symbol="BTCUSDT", px=1.5)` or its nearest form, in short
bursts; the candidates take turns, and each rests between bursts while its background work is done, so that a burst is
the caller's cost alone. Given are the least and the median of all bursts; ratios are of the least ones, which the
machine's noise disturbs least.
"""

from __future__ import annotations

import argparse
import json
import logging
import logging.handlers
import os
import platform
import queue
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from opentelemetry.instrumentation.logging.handler import LoggingHandler
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor, InMemoryLogRecordExporter

from hft_otel import FileConfig, LogConfig, LoggerFactory, PrometheusConfig

BURST = 200


class Candidate(NamedTuple):
    """One way to log: the call, and what lets its background work finish."""

    name: str
    call: Callable[[], object]
    rest: Callable[[], object]


class Empty:
    """The floor: what it costs to call a method with these arguments at all."""

    def info(self, msg: object, /, *args: object, **context: Any) -> None:
        """Do nothing."""


class NoOpHandler(logging.Handler):
    """A handler that does nothing, so that what is left is logging itself."""

    def handle(self, record: logging.LogRecord) -> bool:
        return True


def stdlib_logger(name: str, handler: logging.Handler, level: int = logging.DEBUG) -> logging.Logger:
    """Return a logger of Python's logging with this handler alone."""
    logger = logging.getLogger(f"bench.{name}")
    logger.handlers, logger.propagate = [handler], False
    logger.setLevel(level)
    return logger


def ours(folder: Path) -> list[Candidate]:
    """Return our calls, on a logger that writes to a real file."""
    config = LogConfig(
        backends={"file": FileConfig(file_path=str(folder / "bench.log"), rotation=False)},
        routing_rules=[{"log_types": ["TEXT", "AUDIT"], "backends": ["file"]}],
        min_level="INFO",
    )
    config.journal.folder = str(folder / "journal")
    logger: Any = LoggerFactory.create_logger("bench.ours", config)
    measuring = LogConfig(
        backends={"prometheus": PrometheusConfig(scrape=False)},
        routing_rules=[{"log_types": ["METRIC"], "backends": ["prometheus"]}],
        journal=config.journal,
    )
    metrics: Any = LoggerFactory.create_logger("bench.metrics", measuring)

    def rest() -> None:
        logger.force_flush(5.0)

    return [
        Candidate("ours, disabled level", lambda: logger.debug("order filled", symbol="BTCUSDT", px=1.5), rest),
        Candidate("ours, info", lambda: logger.info("order filled", symbol="BTCUSDT", px=1.5), rest),
        Candidate("ours, info with %-args", lambda: logger.info("order %s filled at %f", "BTCUSDT", 1.5), rest),
        Candidate("ours, metric", lambda: metrics.metric("depth", 5.0, symbol="BTCUSDT", side="bid"), rest),
        Candidate("ours, latency", lambda: metrics.latency("parse", 0.21, symbol="BTCUSDT", side="bid"), rest),
        Candidate("ours, audit (journal)", lambda: logger.audit("order_filled", symbol="BTCUSDT", px=1.5), rest),
    ]


def peers() -> list[Candidate]:
    """Return the same call through Python's logging and through OpenTelemetry's own handler."""
    no_op = stdlib_logger("noop", NoOpHandler())
    off = stdlib_logger("off", NoOpHandler(), logging.ERROR)
    waiting: queue.SimpleQueue[logging.LogRecord] = queue.SimpleQueue()
    queued = stdlib_logger("queue", logging.handlers.QueueHandler(waiting))  # type: ignore[arg-type]  # only put_nowait is used
    provider = LoggerProvider(shutdown_on_exit=False)
    exporter = InMemoryLogRecordExporter()
    provider.add_log_record_processor(BatchLogRecordProcessor(exporter))
    otel = stdlib_logger("otel", LoggingHandler(logger_provider=provider))

    def drain_queue() -> None:
        while not waiting.empty():
            waiting.get_nowait()

    def flush_otel() -> None:
        provider.force_flush()
        exporter.clear()

    extra = {"symbol": "BTCUSDT", "px": 1.5}
    return [
        Candidate("stdlib, disabled level", lambda: off.info("order filled", extra=dict(extra)), lambda: None),
        Candidate("stdlib, no-op handler", lambda: no_op.info("order filled", extra=dict(extra)), lambda: None),
        Candidate("stdlib, QueueHandler", lambda: queued.info("order filled", extra=dict(extra)), drain_queue),
        Candidate("OTel handler + batch", lambda: otel.info("order filled", extra=dict(extra)), flush_otel),
    ]


def measure(candidates: list[Candidate], rounds: int) -> dict[str, list[float]]:
    """Return for each candidate the nanoseconds per call of every burst; the candidates take turns."""
    bursts: dict[str, list[float]] = {candidate.name: [] for candidate in candidates}
    for number in range(rounds):
        for candidate in candidates:
            call = candidate.call
            start = time.perf_counter_ns()
            for _ in range(BURST):
                call()
            bursts[candidate.name].append((time.perf_counter_ns() - start) / BURST)
            candidate.rest()
        if sys.stderr.isatty():
            print(f"\r{number + 1}/{rounds} rounds", end="", file=sys.stderr)
    return bursts


def report(bursts: dict[str, list[float]]) -> None:
    """Print the table and the ratios that the project holds itself to."""
    least = {name: min(values) for name, values in bursts.items()}
    print(f"{'call':28}{'least ns':>10}{'median ns':>11}{'x empty':>9}{'of stdlib':>11}{'of OTel':>9}")
    stdlib, otel = least["stdlib, no-op handler"], least["OTel handler + batch"]
    for name, values in bursts.items():
        ns = least[name]
        row = f"{name:28}{ns:10.0f}{statistics.median(values):11.0f}{ns / least['empty method']:9.1f}"
        print(row + f"{f'1/{stdlib / ns:.1f}':>11}{f'1/{otel / ns:.1f}':>9}")
    spread = statistics.median(bursts["empty method"]) / least["empty method"]
    print(
        f"\nenabled info call: 1/{stdlib / least['ours, info']:.1f} of stdlib's to a no-op handler (bar: 1/8), "
        f"1/{otel / least['ours, info']:.1f} of OTel's handler + batch (bar: 1/30)"
        f"\ndisabled call: {least['ours, disabled level'] / least['stdlib, disabled level']:.2f} of stdlib's disabled call"
        f"\n{platform.python_implementation()} {platform.python_version()}, {os.cpu_count()} cores, load "
        f"{os.getloadavg()[0]:.2f}; noise: the empty method's median burst took {spread:.2f} times its least"
    )


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=150, help="bursts per candidate (default 150)")
    parser.add_argument("--json", action="store_true", help="print nanoseconds per candidate as JSON instead")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        empty = Empty()
        floor = Candidate("empty method", lambda: empty.info("order filled", symbol="BTCUSDT", px=1.5), lambda: None)
        bursts = measure([floor, *ours(Path(folder)), *peers()], options.rounds)
        if options.json:
            print(json.dumps({name: min(values) for name, values in bursts.items()}, indent=2))
        else:
            report(bursts)


if __name__ == "__main__":
    main()
