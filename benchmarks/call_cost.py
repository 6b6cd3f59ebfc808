"""What one call costs the caller: ours beside its floor (an empty method) and its peers, in one run, as ratios.

    make bench            (or: python benchmarks/call_cost.py [--rounds N] [--json])

Every candidate makes the same call, `info("order filled", symbol="BTCUSDT", px=1.5)` or its nearest form, in short
bursts after a warm-up. The candidates take turns, and each rests between bursts while its background work is done, so
that a burst is the caller's cost alone. Given are the mean of the quietest tenth of the bursts and the median of all;
ratios are of the quiet ones, which the machine's noise disturbs least.
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
import timeit
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from opentelemetry.exporter.otlp.proto.common._log_encoder import encode_logs
from opentelemetry.instrumentation.logging.handler import LoggingHandler
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor, InMemoryLogRecordExporter
from opentelemetry.sdk.trace import TracerProvider

from hft_otel import (
    FileBackend,
    FileConfig,
    HFTLogger,
    JournalConfig,
    LogConfig,
    LoggerFactory,
    PrometheusConfig,
    bridge_stdlib,
)
from hft_otel.audit.trail import Keeping
from hft_otel.lanes.intake import Intake
from hft_otel.lanes.journal import Journal
from hft_otel.otel.convert import Converter
from hft_otel.otel.encode import LogsEncoder
from hft_otel.otel.sdk import make_resource
from hft_otel.record import LogLevel, LogRecord, LogType
from hft_otel.worker import Worker

WARM_UP, BURST = 100, 400
"""Calls before and in a burst that is timed; together fewer than the 512 that wake OpenTelemetry's exporting thread."""


class Candidate(NamedTuple):
    """One way to log: a statement with the names it needs, and what lets its background work finish."""

    name: str
    statement: str
    names: dict[str, Any]
    rest: Callable[[], object]
    ready: Callable[[], object] = lambda: None
    """What comes before each burst and is not timed."""
    share: float = 1
    """Of the usual number of calls, for those whose records are so large that a burst of them would fill a room."""


class Empty:
    """The floor: what it costs to call a method with these arguments at all."""

    def info(self, msg: object, /, *args: object, **context: Any) -> None:
        """Do nothing."""


class NoOpHandler(logging.Handler):
    """A handler whose `emit` does nothing, so that what is left is logging itself."""

    def emit(self, record: logging.LogRecord) -> None:
        """Do nothing."""


CALL = 'log.info("order filled", symbol="BTCUSDT", px=1.5)'
FAILED = 'log.error("order refused", exc_info=error)'
STDLIB_CALL = 'log.info("order filled", extra={"symbol": "BTCUSDT", "px": 1.5})'


def failure(depth: int = 5) -> Exception:
    """Return an exception that has come through some frames."""

    def refuse(left: int) -> None:
        if not left:
            raise ValueError("no such market")
        refuse(left - 1)

    try:
        refuse(depth)
    except ValueError as error:
        return error
    raise AssertionError


def stdlib_logger(name: str, handler: logging.Handler, level: int = logging.DEBUG) -> dict[str, Any]:
    """Return a logger of Python's logging with this handler alone."""
    logger = logging.getLogger(f"bench.{name}")
    logger.handlers, logger.propagate = [handler], False
    logger.setLevel(level)
    return {"log": logger}


def ours(folder: Path) -> list[Candidate]:
    """Return our calls, on a logger that writes to a real file and aggregates real metrics."""
    config = LogConfig(
        backends={
            "file": FileConfig(file_path=str(folder / "bench.log"), rotation=False),
            "prometheus": PrometheusConfig(port=0),
        },
        routing_rules=[
            {"log_types": ["TEXT", "AUDIT"], "backends": ["file"]},
            {"log_types": ["METRIC"], "backends": ["prometheus"]},
        ],
        min_level="INFO",
    )
    config.journal.folder = str(folder / "journal")
    logger: Any = LoggerFactory.create_logger("bench.ours", config)

    def rest() -> None:
        logger.force_flush(5.0)

    calls = {
        "ours, disabled level": 'log.debug("order filled", symbol="BTCUSDT", px=1.5)',
        "ours, info": CALL,
        "ours, info with %-args": 'log.info("order %s filled at %f", "BTCUSDT", 1.5)',
        "ours, metric": 'log.metric("depth", 5.0, symbol="BTCUSDT", side="bid")',
        "ours, latency": 'log.latency("parse", 0.21, symbol="BTCUSDT", side="bid")',
        "ours, audit (journal)": 'log.audit("order_filled", symbol="BTCUSDT", px=1.5)',
        "ours, warning (call-site)": 'log.warning("order filled", symbol="BTCUSDT", px=1.5)',
    }
    failed = Candidate("ours, error, exc_info", FAILED, {"log": logger, "error": failure()}, rest, share=0.1)
    candidates = [Candidate(name, statement, {"log": logger}, rest) for name, statement in calls.items()]
    return [*candidates, failed, bridged(config, rest)]


def bridged(config: LogConfig, rest: Callable[[], object]) -> Candidate:
    """Return the call of Python's logging over the bridge, which is there for the candidate's own bursts alone."""
    log = logging.getLogger("bench.bridged")
    log.propagate = False
    log.addHandler(logging.NullHandler())
    log.setLevel(logging.INFO)
    bridge = bridge_stdlib(config)
    bridge.uninstall()

    def end() -> None:
        bridge.uninstall()
        rest()

    return Candidate("stdlib, bridged to ours", STDLIB_CALL, {"log": log}, end, bridge.install)


def audits(folder: Path, path: Path) -> list[Candidate]:
    """Return an audit call of each durability, beside what others would write one with; all on the disk of `folder`."""
    found: list[Candidate] = []
    for durability in ("process", "group", "sync"):
        journal = JournalConfig(durability=durability)
        intake = Intake(Journal(folder / durability, 512 * 1024, 4))
        file = FileBackend(FileConfig(file_path=str(folder / f"{durability}.log"), rotation=False))
        if durability == "sync":
            intake.sync_audits()
        intake.start_drain = partial(start_worker, Keeping.of(journal))
        logger: Any = HFTLogger("bench.audit", [file], intake=intake)
        found.append(
            Candidate(
                f"audit, {durability}",
                'log.audit("order_filled", symbol="BTCUSDT", px=1.5)',
                {"log": logger},
                partial(logger.force_flush, 5.0),
                share=0.005 if durability == "sync" else 1,  # it waits for the disk
            )
        )
    handler = logging.FileHandler(path)
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s %(symbol)s %(px)s"))
    tracer = TracerProvider(shutdown_on_exit=False).get_tracer("bench")
    span = tracer.start_span("order")
    event = 'span.add_event("order_filled", {"symbol": "BTCUSDT", "px": 1.5})'
    to_file = stdlib_logger("file", handler)
    return [
        *found,
        Candidate("stdlib, FileHandler", STDLIB_CALL, to_file, lambda: None),
        Candidate("OTel span.add_event", event, {"span": span}, lambda: None),
    ]


def start_worker(keeping: Keeping, intake: Intake) -> Worker:
    """Start what reads a journal of its own."""
    worker = Worker(intake)
    worker.keep(keeping)
    for pipeline in intake.pipelines:
        worker.add(pipeline)
    worker.start()
    return worker


def encoders() -> list[Candidate]:
    """Return what a batch costs behind the call, on its way to a Collector: our bytes, and the SDK's objects encoded."""
    resource = make_resource({"service": "bench"})
    record = LogRecord(
        1.0, LogLevel.INFO, LogType.TEXT, "bench", "order filled", {"symbol": "BTCUSDT", "px": 1.5}
    )
    ours, stock = LogsEncoder(resource).logs, Converter(resource).logs
    names = {"batch": [record] * 100, "ours": ours, "stock": stock, "encode_logs": encode_logs}
    by_stock = "encode_logs(stock(batch)).SerializeToString()"
    return [
        Candidate("100 records to OTLP, ours", "ours(batch)", names, lambda: None, share=0.05),
        Candidate("100 to OTLP, by the SDK", by_stock, names, lambda: None, share=0.05),
    ]


def peers() -> list[Candidate]:
    """Return the same call through Python's logging and through OpenTelemetry's own handler."""
    waiting: queue.SimpleQueue[logging.LogRecord] = queue.SimpleQueue()
    provider = LoggerProvider(shutdown_on_exit=False)
    exporter = InMemoryLogRecordExporter()
    provider.add_log_record_processor(BatchLogRecordProcessor(exporter))

    def drain_queue() -> None:
        while not waiting.empty():
            waiting.get_nowait()

    def flush_otel() -> None:
        provider.force_flush()
        exporter.clear()

    off = stdlib_logger("off", NoOpHandler(), logging.ERROR)
    no_op = stdlib_logger("noop", NoOpHandler())
    queued = stdlib_logger("queue", logging.handlers.QueueHandler(waiting))  # type: ignore[arg-type]  # only put_nowait is used
    otel = stdlib_logger("otel", LoggingHandler(logger_provider=provider))
    null = stdlib_logger("formatted", logging.StreamHandler(open(os.devnull, "w")))  # noqa: PTH123, SIM115  (ends with us)
    return [
        Candidate("stdlib, disabled level", STDLIB_CALL, off, lambda: None),
        Candidate("stdlib, no-op handler", STDLIB_CALL, no_op, lambda: None),
        Candidate("stdlib, QueueHandler", STDLIB_CALL, queued, drain_queue),
        Candidate("OTel handler + batch", STDLIB_CALL, otel, flush_otel),
        Candidate("stdlib, error, formatted", FAILED, {**null, "error": failure()}, lambda: None, share=0.1),
        Candidate("OTel handler, exc_info", FAILED, {**otel, "error": failure()}, flush_otel, share=0.1),
    ]


def measure(candidates: list[Candidate], rounds: int) -> dict[str, list[float]]:
    """Return for each candidate the nanoseconds per call of every burst; the candidates take turns."""
    bursts: dict[str, list[float]] = {candidate.name: [] for candidate in candidates}
    timers = [
        (candidate, timeit.Timer(candidate.statement, globals=candidate.names)) for candidate in candidates
    ]
    for number in range(rounds):
        for candidate, timer in timers:
            candidate.ready()
            timer.timeit(int(WARM_UP * candidate.share))
            number_of_calls = int(BURST * candidate.share)
            bursts[candidate.name].append(timer.timeit(number_of_calls) / number_of_calls * 1e9)
            candidate.rest()
        if sys.stderr.isatty():
            print(f"\r{number + 1}/{rounds} rounds", end="", file=sys.stderr)
    return bursts


def quiet_mean(values: list[float]) -> float:
    """Return the mean of the quietest tenth of the bursts."""
    quiet = sorted(values)[: max(len(values) // 10, 1)]
    return statistics.fmean(quiet)


def report(bursts: dict[str, list[float]]) -> None:
    """Print the table and the ratios that the project holds itself to."""
    cost = {name: quiet_mean(values) for name, values in bursts.items()}
    print(f"{'call':28}{'quiet ns':>10}{'median ns':>11}{'x empty':>9}{'of stdlib':>11}{'of OTel':>9}")
    stdlib, otel = cost["stdlib, no-op handler"], cost["OTel handler + batch"]
    for name, values in bursts.items():
        ns = cost[name]
        row = f"{name:28}{ns:10.0f}{statistics.median(values):11.0f}{ns / cost['empty method']:9.1f}"
        print(row + f"{f'1/{stdlib / ns:.1f}':>11}{f'1/{otel / ns:.1f}':>9}")
    noise = statistics.median(bursts["empty method"]) / cost["empty method"]
    print(
        f"\nenabled info call: 1/{stdlib / cost['ours, info']:.1f} of stdlib's to a no-op handler (bar: 1/8), "
        f"1/{otel / cost['ours, info']:.1f} of OTel's handler + batch (bar: 1/30)"
        f"\nbridged call: {cost['stdlib, bridged to ours'] / cost['stdlib, QueueHandler']:.2f} of stdlib's QueueHandler, "
        f"{cost['stdlib, bridged to ours'] / otel:.2f} of OTel's handler + batch"
        f"\ndisabled call: {cost['ours, disabled level'] / cost['stdlib, disabled level']:.2f} of stdlib's disabled call"
        f"\n{platform.python_implementation()} {platform.python_version()}, {os.cpu_count()} cores, load "
        f"{os.getloadavg()[0]:.2f}; noise: the empty method's median burst took {noise:.2f} times its quiet ones"
    )


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=300, help="bursts per candidate (default 300)")
    parser.add_argument("--json", action="store_true", help="print nanoseconds per candidate as JSON instead")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        floor = Candidate("empty method", CALL, {"log": Empty()}, lambda: None)
        home = Path(folder)
        bursts = measure([floor, *ours(home), *peers()], options.rounds)
        # Afterwards, since each durability has a worker of its own, which the calls above would feel.
        bursts |= measure([*audits(home, home / "stdlib.log"), *encoders()], options.rounds)
        if options.json:
            print(json.dumps({name: quiet_mean(values) for name, values in bursts.items()}, indent=2))
        else:
            report(bursts)


if __name__ == "__main__":
    main()
