"""The trading process of the soak: a mix of every call at a steady rate, by the logging.yaml of its folder.

    python -m tools.soak.trader RATE SECONDS EVERY

Prints a JSON object when it is ready, one every EVERY seconds with what was logged so far, and one at the end.
"""

from __future__ import annotations

import json
import os
import random
import sys
import time
from typing import Any

from opentelemetry import trace

from hft_otel import LogConfig, LoggerFactory
from hft_otel.lanes.intake import process_intake

SYMBOLS = [f"COIN{number}/USDT" for number in range(20)]
OPERATIONS = ("parse", "decide", "send", "confirm", "reconcile")
LANES = ("audit", "high", "metric", "low")
STEP = 0.002


class Mix:
    """Every kind of call in fixed shares; tags take changing values out of few, context takes any."""

    def __init__(self, logger: Any) -> None:
        self._logger = logger
        self._random = random.Random(1)
        self.emitted = dict.fromkeys(LANES, 0)

    def step(self, number: int) -> None:
        """Make one call."""
        kind, symbol = number % 100, SYMBOLS[number * 7 % len(SYMBOLS)]
        if kind < 2:
            self._audit(number, symbol)
        elif kind < 4:
            self._error(number, symbol)
        elif kind < 10:
            self._logger.warning("order %d refused by %s", number, symbol, latency_ms=self._random.random())
        elif kind < 25:
            self._logger.metric("depth", self._random.uniform(1, 50), symbol=symbol, side="bid")
        elif kind < 40:
            self._logger.latency(OPERATIONS[number % 5], self._random.uniform(0.01, 5), symbol=symbol)
        elif kind < 50:
            self._logger.counter("messages", symbol=symbol)
        else:
            self._logger.info("book updated", number=number, symbol=symbol, note="x" * (number % 200))
        lane = "audit" if kind < 2 else "high" if kind < 10 else "metric" if kind < 50 else "low"
        self.emitted[lane] += 1

    def _audit(self, number: int, symbol: str) -> None:
        span = trace.SpanContext(
            self._random.getrandbits(128) | 1, self._random.getrandbits(64) | 1, is_remote=False
        )
        with (
            trace.use_span(trace.NonRecordingSpan(span)),
            self._logger.scoped(correlation_id=f"arb-{number}"),
        ):
            self._logger.audit("order_sent", number=number, symbol=symbol, price=64000.5)

    def _error(self, number: int, symbol: str) -> None:
        try:
            raise ValueError(f"order {number} is unknown") from KeyError(symbol)
        except ValueError:
            self._logger.exception("cannot confirm", number=number, symbol=symbol)


def main(rate: float, seconds: float, every: float) -> int:
    """Log for so long, then wait for delivery."""
    config = LogConfig.from_yaml("logging.yaml")
    logger: Any = LoggerFactory.create_logger("soak", config)
    logger.set_context(exchange="mexc", component="soak")
    mix, done, late = Mix(logger), 200, 0.0
    for number in range(done):
        mix.step(number)
    report = logger.force_flush(60)
    _tell(pid=os.getpid(), ready=bool(report))
    begin, said = time.perf_counter(), 0.0
    while (now := time.perf_counter() - begin) < seconds:
        due = 200 + int(now * rate)
        late = max(late, (due - done) / rate)
        for number in range(done, due):
            mix.step(number)
        done = max(done, due)
        if now - said >= every:
            said = now
            _tell(emitted=sum(mix.emitted.values()), waiting=_waiting(config))
        time.sleep(STEP)
    took = time.perf_counter() - begin
    report = logger.force_flush(120)
    lanes = {sums.lane: sums.emitted for sums in report.lanes}
    _tell(
        emitted=mix.emitted,
        reported=lanes,
        flushed=report.complete,
        dropped=report.dropped,
        pending=report.pending,
        took=took,
        late=late,
        report=str(report),
    )
    return 0


def _waiting(config: LogConfig) -> int:
    """Return how many records wait in this process; an agent says so itself."""
    drain = process_intake().drain if config.effective_isolation == "thread" else None
    report = getattr(drain, "report", None)
    return report().pending if report is not None else 0


def _tell(**what: Any) -> None:
    print(json.dumps(what), flush=True)


if __name__ == "__main__":
    sys.exit(main(*map(float, sys.argv[1:4])))
