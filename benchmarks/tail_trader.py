"""One paced trading loop with one way to log: what benchmarks/tail.py starts, pinned, in a process of its own.

    python benchmarks/tail_trader.py VARIANT --rate 5000 --seconds 5 --trader-core 0 --other-core 1 --otlp URL

Every tick is due at a fixed time; the loop spins until then, does a little work, logs once, and notes when it was
done. Threads and processes of the logging library start on the other core, so what is left to disturb the loop is the
interpreter's lock and the call itself; what hypervisor and other programs take is told apart. Prints one JSON object with
percentiles in microseconds.
"""

from __future__ import annotations

import argparse
import gc
import json
import logging
import os
import resource
import subprocess
import sys
import tempfile
import time
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

WARM_UP_SECONDS = 0.5
STALL_NS = 50_000
"""A tick that is done later than this is asked for its reason."""
LOOK_NS = 10_000
"""A wait that is longer than this has time for the look at the clocks that begins each."""
NEIGHBOUR = """
import time
while True:
    end = time.perf_counter() + 0.005
    while time.perf_counter() < end:
        [str(number) for number in range(200)]
    time.sleep(0.005)
"""
PERCENTILES = (50.0, 90.0, 99.0, 99.9, 99.99)

Call = Callable[[int, float], object]


class Variant(NamedTuple):
    """One way to log: the call of a tick, and what ends it and returns how many records were lost (None: not told)."""

    call: Call
    end: Callable[[], int | None]


def no_telemetry(_: Path, __: str) -> Variant:
    """Return the floor: the loop alone."""
    return Variant(lambda number, price: None, lambda: 0)


def busy_neighbour(_: Path, __: str) -> Variant:
    """Return the loop alone, beside a process that keeps the other core busy half of the time, as an agent may."""
    neighbour = subprocess.Popen([sys.executable, "-c", NEIGHBOUR])

    def end() -> int:
        neighbour.kill()
        neighbour.wait()
        return 0

    return Variant(lambda number, price: None, end)


def ours(folder: Path, otlp: str, isolation: str) -> Variant:
    """Return our logger, writing warnings to a file and everything to OTLP."""
    from hft_otel import FileConfig, LogConfig, LoggerFactory, OtlpConfig

    config = LogConfig(
        environment="prod",
        isolation=isolation,
        backends={
            "file": FileConfig(file_path=str(folder / "ours.log"), min_level="WARNING"),
            "otlp": OtlpConfig(endpoint=otlp),
        },
        routing_rules=[{"min_level": "WARNING", "backends": ["file"]}, {"backends": ["otlp"]}],
        min_level="INFO",
    )
    config.journal.folder = str(folder / "journal")
    config.agent.linger = 1.0
    logger: Any = LoggerFactory.create_logger("bench.tail", config)
    logger.info("warm")
    logger.force_flush(10.0)

    def end() -> int | None:
        report = logger.force_flush(20.0)
        return int(report.dropped) + int(report.pending)

    return Variant(lambda number, price: logger.info("order filled", symbol="BTCUSDT", px=price), end)


def otel_logger(otlp: str) -> tuple[logging.Logger, Any]:
    """Return Python's logging with OpenTelemetry's handler, batch processor and OTLP exporter, and their provider."""
    from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
    from opentelemetry.instrumentation.logging.handler import LoggingHandler
    from opentelemetry.sdk._logs import LoggerProvider
    from opentelemetry.sdk._logs.export import BatchLogRecordProcessor

    provider = LoggerProvider(shutdown_on_exit=False)
    provider.add_log_record_processor(BatchLogRecordProcessor(OTLPLogExporter(f"{otlp}/v1/logs")))
    logger = logging.getLogger("bench.otel")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logger.addHandler(LoggingHandler(logger_provider=provider))
    return logger, provider


def otel_handler(_: Path, otlp: str) -> Variant:
    """Return OpenTelemetry's handler, sending over OTLP."""
    logger, provider = otel_logger(otlp)

    def call(number: int, price: float) -> None:
        logger.info("order filled", extra={"symbol": "BTCUSDT", "px": price})

    def end() -> None:
        provider.force_flush(10_000)

    return Variant(call, end)


def structlog_file(folder: Path, _: str) -> Variant:
    """Return structlog in its fastest documented form: JSON to a file, without stdlib."""
    import structlog

    file = (folder / "structlog.log").open("wb")
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso"),
            structlog.processors.JSONRenderer(serializer=lambda value, **_: json.dumps(value).encode()),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.BytesLoggerFactory(file),
        cache_logger_on_first_use=True,
    )
    logger = structlog.get_logger()
    return Variant(lambda number, price: logger.info("order filled", symbol="BTCUSDT", px=price), file.close)


def loguru_enqueue(folder: Path, _: str) -> Variant:
    """Return loguru with `enqueue=True`: a queue, and a thread that writes to a file."""
    from loguru import logger

    logger.remove()
    logger.add(folder / "loguru.log", enqueue=True, level="INFO", serialize=True)
    call = logger.bind(symbol="BTCUSDT").info

    def end() -> None:
        logger.complete()

    return Variant(lambda number, price: call("order filled {px}", px=price), end)


def picologging_file(folder: Path, _: str) -> Variant:
    """Return picologging, the C++ copy of stdlib's logging, to a file."""
    import picologging

    logger = picologging.Logger("bench", picologging.INFO)
    handler = picologging.FileHandler(str(folder / "picologging.log"))
    handler.setFormatter(picologging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logger.addHandler(handler)
    return Variant(
        lambda number, price: logger.info("order filled symbol=%s px=%s", "BTCUSDT", price), handler.close
    )


def stdlib_file(folder: Path, _: str) -> Variant:
    """Return Python's logging to a file."""
    logger = logging.getLogger("bench.file")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    handler = logging.FileHandler(folder / "stdlib.log")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s %(symbol)s %(px)s"))
    logger.addHandler(handler)

    def call(number: int, price: float) -> None:
        logger.info("order filled", extra={"symbol": "BTCUSDT", "px": price})

    return Variant(call, handler.close)


def logfire_otlp(_: Path, otlp: str) -> Variant:
    """Return logfire, sending over OTLP to the same Collector."""
    import logfire

    os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = otlp
    logfire.configure(send_to_logfire=False, console=False, service_name="bench")

    def call(number: int, price: float) -> None:
        logfire.info("order filled", symbol="BTCUSDT", px=price)

    def end() -> None:
        logfire.force_flush(10_000)

    return Variant(call, end)


VARIANTS: dict[str, Callable[[Path, str], Variant]] = {
    "none": no_telemetry,
    "none-busy": busy_neighbour,
    "ours-process": lambda folder, otlp: ours(folder, otlp, "process"),
    "ours-thread": lambda folder, otlp: ours(folder, otlp, "thread"),
    "otel-handler-batch": otel_handler,
    "stdlib-file": stdlib_file,
    "structlog-file": structlog_file,
    "loguru-enqueue": loguru_enqueue,
    "picologging-file": picologging_file,
    "logfire-otlp": logfire_otlp,
}


class Stalls:
    """Tells the time that was taken from this thread from outside, which no logging library is to be charged with.

    The loop never sleeps, so whatever of the wall's time is not in its CPU time was taken from it: by a wait for the
    interpreter's lock, which is a voluntary context switch; else by the hypervisor, or by a task of the machine's on this
    core, where nothing of the library runs. What has a voluntary switch in it is charged, whatever else was in it.
    """

    def __init__(self) -> None:
        self.number = 0
        self.total_ns = 0
        self.mark()

    def mark(self) -> None:
        """Begin to look from here on."""
        self._cpu, self._wall, self._switches = time.thread_time_ns(), time.perf_counter_ns(), _switches()

    def explain(self, late: int) -> bool:
        """Say whether most of these nanoseconds were taken from outside; then they are counted."""
        taken = time.perf_counter_ns() - self._wall - (time.thread_time_ns() - self._cpu)
        explained = _switches() == self._switches and 2 * taken > late
        if explained:
            self.number += 1
            self.total_ns += taken
            self.mark()
        return explained


def _switches() -> int:
    return resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw


class Loop(NamedTuple):
    """What a run of the loop has measured, per tick and in nanoseconds."""

    calls: array[int]
    done: array[int]
    """From when the tick was due to when it was done, without the ticks that were made late from outside."""
    raw: array[int]
    """The same with them."""
    stalls: Stalls


def run_loop(call: Call, rate: float, seconds: float) -> Loop:
    """Run the paced loop."""
    ticks, warm_up = int(rate * seconds), int(rate * WARM_UP_SECONDS)
    calls, done, raw = array("q"), array("q"), array("q")
    clock, period = time.perf_counter_ns, int(1e9 / rate)
    book: dict[int, float] = {}
    stalls = Stalls()
    due = clock() + period
    for number in range(-warm_up, ticks):
        if due - clock() > LOOK_NS:
            stalls.mark()
        while clock() < due:
            pass
        price = 63_000.0 + number % 97  # a little work: keep the best price of a small book
        book[number % 50] = price
        best = max(book.values())
        before = clock()
        call(number, best)
        after = clock()
        late = after - due
        stalled = late > STALL_NS and stalls.explain(late)
        if number >= 0:
            calls.append(after - before)
            raw.append(late)
            if not stalled:
                done.append(late)
        due = clock() + period if stalled else due + period
    return Loop(calls, done, raw, stalls)


def percentiles(values: array[int]) -> dict[str, float]:
    """Return the percentiles and the maximum in microseconds."""
    ordered = sorted(values)
    last = len(ordered) - 1
    found = {f"p{p:g}": ordered[min(int(len(ordered) * p / 100), last)] / 1e3 for p in PERCENTILES}
    return found | {"max": ordered[last] / 1e3}


def curve(values: array[int], points: int = 60) -> list[tuple[float, float]]:
    """Return the percentile curve for a picture: pairs of a percentile and microseconds, dense towards the tail."""
    ordered = sorted(values)
    shares = [1 - 10 ** (-4.0 * number / points) for number in range(points + 1)]
    return [
        (100 * share, ordered[min(int(len(ordered) * share), len(ordered) - 1)] / 1e3) for share in shares
    ]


def main() -> int:
    """Run one variant and print its result."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("variant", choices=VARIANTS)
    parser.add_argument("--rate", type=float, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--trader-core", type=int, default=-1)
    parser.add_argument("--other-core", type=int, default=-1)
    parser.add_argument("--otlp", default="http://127.0.0.1:4318")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if options.other_core >= 0:
            os.sched_setaffinity(
                0, {options.other_core}
            )  # for the threads and processes that are started now
        try:
            variant = VARIANTS[options.variant](Path(folder), options.otlp)
        except ImportError as error:
            print(json.dumps({"missing": str(error)}))
            return 3
        if options.trader_core >= 0:
            os.sched_setaffinity(0, {options.trader_core})
        gc.collect()
        loop = run_loop(variant.call, options.rate, options.seconds)
        lost = variant.end()
        result = {
            "call": percentiles(loop.calls),
            "done": percentiles(loop.done),
            "raw": percentiles(loop.raw),
            "curve": curve(loop.done),
            "stalls": loop.stalls.number,
            "stalled_ms": loop.stalls.total_ns / 1e6,
            "lost": lost,
        }
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
