"""A logger in front of another one: counts and times every call, and passes it on unchanged."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from math import ceil, exp, log
from time import perf_counter_ns
from typing import Any, Self

from hft_otel import HFTLoggerInterface

__all__ = ["CallStats", "MeasuredLogger", "Reservoir", "clock_ns", "percentile"]

KINDS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL", "METRIC", "LATENCY", "COUNTER", "AUDIT")
NOTABLE = ("WARNING", "ERROR", "CRITICAL", "AUDIT")
LEVELS = ((50, "CRITICAL"), (40, "ERROR"), (30, "WARNING"), (20, "INFO"))


class Reservoir:
    """A uniform sample, bounded in size, of a stream of any length (Li's algorithm L: few dice are thrown)."""

    def __init__(self, size: int = 2_000, seed: int = 0) -> None:
        self.count = 0
        self.samples: list[int] = []
        self._size = size
        self._random = random.Random(seed)
        self._weight = 1.0
        self._next = size

    def add(self, value: int) -> None:
        """Take the value into account."""
        if self.count < self._size:
            self.samples.append(value)
            if self.count == self._size - 1:
                self._skip()
        elif self.count == self._next:
            self.samples[self._random.randrange(self._size)] = value
            self._skip()
        self.count += 1

    def _skip(self) -> None:
        self._weight *= exp(log(1.0 - self._random.random()) / self._size)
        self._next += 1 + int(log(1.0 - self._random.random()) / log(1.0 - self._weight))


@dataclass
class CallStats:
    """What log calls were made, by kind, and what they cost; shared by a MeasuredLogger and its children."""

    reservoirs: dict[str, Reservoir] = field(default_factory=lambda: {kind: Reservoir() for kind in KINDS})
    last_event: str = ""
    """The latest audit event, or record of WARNING and above."""

    @property
    def counts(self) -> dict[str, int]:
        """Calls by kind: the five levels of TEXT, METRIC, LATENCY, COUNTER, AUDIT."""
        return {kind: reservoir.count for kind, reservoir in self.reservoirs.items()}

    @property
    def total(self) -> int:
        """All calls."""
        return sum(reservoir.count for reservoir in self.reservoirs.values())

    def remember(self, kind: str, args: tuple[Any, ...]) -> None:
        """Keep the text of a notable call for the live line."""
        message = str(args[0]) if args else ""
        try:
            self.last_event = f"{kind} {message % args[1:] if args[1:] else message}"
        except (TypeError, ValueError):
            self.last_event = f"{kind} {message}"

    def samples_ns(self) -> dict[str, list[int]]:
        """Costs of single calls by kind, in nanoseconds, clock included (see `clock_ns`)."""
        return {kind: list(reservoir.samples) for kind, reservoir in self.reservoirs.items()}


def percentile(samples: list[int], share: float) -> int:
    """Return the sample below or at which `share` (0 to 1) of them lie; 0 where there are none."""
    if not samples:
        return 0
    return sorted(samples)[min(len(samples) - 1, max(0, ceil(share * len(samples)) - 1))]


def clock_ns(rounds: int = 2_000) -> int:
    """Return what two readings of the clock cost by themselves: part of every sample."""
    return percentile([-(perf_counter_ns() - perf_counter_ns()) for _ in range(rounds)], 0.5)


def _measured(method: str, kind: str) -> Callable[..., None]:
    """Return the method that times the wrapped logger's method of this name."""
    notable = kind in NOTABLE

    def call(self: MeasuredLogger, /, *args: Any, **keywords: Any) -> None:
        wrapped = getattr(self.wrapped, method)
        start = perf_counter_ns()
        wrapped(*args, **keywords)
        self.stats.reservoirs[kind].add(perf_counter_ns() - start)
        if notable:
            self.stats.remember(kind, args)

    call.__name__ = method
    return call


class MeasuredLogger(HFTLoggerInterface):
    """Has the interface of the logger it wraps; what is not part of it is looked up there."""

    def __init__(self, wrapped: HFTLoggerInterface, stats: CallStats) -> None:
        self.wrapped = wrapped
        self.stats = stats

    debug = _measured("debug", "DEBUG")
    info = _measured("info", "INFO")
    warning = _measured("warning", "WARNING")
    error = _measured("error", "ERROR")
    exception = _measured("exception", "ERROR")
    critical = _measured("critical", "CRITICAL")
    metric = _measured("metric", "METRIC")
    counter = _measured("counter", "COUNTER")
    latency = _measured("latency", "LATENCY")
    audit = _measured("audit", "AUDIT")

    def log(self, level: int = logging.INFO, /, *args: Any, **context: Any) -> None:
        """Log at a level given as a number; counted under the nearest level below it."""
        kind = next((name for floor, name in LEVELS if level >= floor), "DEBUG")
        start = perf_counter_ns()
        self.wrapped.log(level, *args, **context)
        self.stats.reservoirs[kind].add(perf_counter_ns() - start)

    @property
    def context(self) -> dict[str, Any]:
        """The wrapped logger's persistent context."""
        return self.wrapped.context

    def set_context(self, /, **context: Any) -> None:
        """Add to the wrapped logger's context."""
        self.wrapped.set_context(**context)

    def bind(self, /, **context: Any) -> Self:
        """Return a measured child that shares the statistics."""
        return type(self)(self.wrapped.bind(**context), self.stats)

    def scoped(self, /, **context: Any) -> AbstractContextManager[None]:
        """Add context for the current task."""
        return self.wrapped.scoped(**context)

    async def flush(self, timeout: float | None = None) -> Any:
        """Flush the wrapped logger."""
        return await self.wrapped.flush(timeout)

    def force_flush(self, timeout: float = 5.0) -> Any:
        """Flush the wrapped logger, waiting at most `timeout` seconds."""
        return self.wrapped.force_flush(timeout)

    def close(self, timeout: float = 2.0) -> Any:
        """Close the wrapped logger."""
        return self.wrapped.close(timeout)

    def __getattr__(self, name: str) -> Any:
        if name == "wrapped":  # not yet set: looking it up there would never end
            raise AttributeError(name)
        return getattr(self.wrapped, name)
