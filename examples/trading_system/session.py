"""Runs the trading system over replayed messages for a while, and measures its log calls."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

from hft_otel import HFTLoggerInterface, LogConfig, LoggerFactory

from .exchange_factory import ExchangeConfig, ExchangeFactory
from .measured_logger import CallStats, MeasuredLogger, clock_ns, percentile
from .replay import MessageSource
from .replay_server import ReplayServer
from .system import TradingSystem

__all__ = ["Progress", "SessionResult", "run_session"]

PROGRESS_INTERVAL = 0.1


@dataclass(frozen=True)
class Progress:
    """How far a session is."""

    elapsed: float
    seconds: float
    messages: int
    calls: dict[str, int]
    """Log calls by kind: DEBUG, INFO, WARNING, ERROR, CRITICAL, METRIC, LATENCY, COUNTER, AUDIT."""
    opportunities: int
    executed: int
    rejected: int
    reconnects: int
    last_event: str
    """The latest audit event, or record of WARNING and above, with its kind in front."""


@dataclass(frozen=True)
class SessionResult:
    """What a session did."""

    elapsed: float
    messages: dict[str, dict[str, int]]
    """By exchange and outcome: a MessageType's value, or `malformed`."""
    reconnects: int
    opportunities: int
    executed: int
    failed: int
    rejected: int
    """Orders, not opportunities."""
    calls: dict[str, int]
    """Log calls by kind; all of them went to the loggers unchanged."""
    cost_ns: dict[str, list[int]]
    """A uniform sample, at most 2,000 a kind, of what single calls cost the caller; includes `clock_ns`."""
    clock_ns: int
    """What reading the clock adds to each sample."""
    cpu_seconds: float
    """Of the whole process: the system, the replay server and the telemetry's threads."""
    late: int
    """Messages that the replay left out because the process was too busy."""
    logger: HFTLoggerInterface
    """One of the session's loggers, for `force_flush`."""

    @property
    def message_count(self) -> int:
        """All messages."""
        return sum(sum(outcomes.values()) for outcomes in self.messages.values())

    @property
    def malformed(self) -> int:
        """Messages that could not be parsed."""
        return sum(outcomes.get("malformed", 0) for outcomes in self.messages.values())

    def cost(self, share: float, *kinds: str) -> int:
        """Return a percentile (0.5, 0.99) of the cost of a call in ns, of all kinds or of those named."""
        samples = [cost for kind in kinds or tuple(self.cost_ns) for cost in self.cost_ns[kind]]
        return percentile(samples, share)


async def run_session(
    config: LogConfig,
    source: MessageSource,
    *,
    seconds: float,
    rate: float,
    on_progress: Callable[[Progress], None] | None = None,
    disconnect_every: float = 4.0,
) -> SessionResult:
    """Replay `source` at `rate` messages a second to a trading system that logs by `config`.

    Stops cleanly after `seconds`, also when cancelled. Nothing is flushed and no logger is closed: that is left
    to the caller, by the result's `logger`.
    """
    stats = CallStats()

    def create_logger(name: str, logging_config: LogConfig | None) -> HFTLoggerInterface:
        return MeasuredLogger(LoggerFactory.create_logger(name, logging_config), stats)

    logger = create_logger("session", config)
    start, cpu_start = time.monotonic(), time.process_time()
    async with ReplayServer(source, rate=rate, disconnect_every=disconnect_every) as server:
        system = _build(config, source, server, create_logger)
        logger.info("Session started: %d exchanges at %g messages/s", len(source.exchanges), rate)
        system.start()
        try:
            while (elapsed := time.monotonic() - start) < seconds and not system.failed():
                if on_progress is not None:
                    on_progress(_progress(system, stats, elapsed, seconds))
                await asyncio.sleep(min(PROGRESS_INTERVAL, seconds - elapsed))
        finally:
            await system.stop()
    logger.info("Session ended after %d messages", system.message_count())
    elapsed = time.monotonic() - start
    if on_progress is not None:
        on_progress(_progress(system, stats, elapsed, seconds))
    cpu_seconds = time.process_time() - cpu_start
    return _result(system, server, stats, logger, elapsed=elapsed, cpu_seconds=cpu_seconds)


def _build(
    config: LogConfig,
    source: MessageSource,
    server: ReplayServer,
    create_logger: Callable[[str, LogConfig | None], HFTLoggerInterface],
) -> TradingSystem:
    exchanges = [
        ExchangeFactory.create_public_exchange(
            exchange, source.symbols, ExchangeConfig(server.url(exchange), config, create_logger)
        )
        for exchange in source.exchanges
    ]
    engine = ExchangeFactory.create_arbitrage_engine(
        {exchange.name: exchange for exchange in exchanges}, ExchangeConfig(None, config, create_logger)
    )
    return TradingSystem(exchanges, engine)


def _progress(system: TradingSystem, stats: CallStats, elapsed: float, seconds: float) -> Progress:
    counts = system.engine.counts
    return Progress(
        elapsed=elapsed,
        seconds=seconds,
        messages=system.message_count(),
        calls=stats.counts,
        opportunities=counts["detected"],
        executed=counts["executed"],
        rejected=counts["rejected"],
        reconnects=system.reconnects(),
        last_event=stats.last_event,
    )


def _result(
    system: TradingSystem,
    server: ReplayServer,
    stats: CallStats,
    logger: HFTLoggerInterface,
    *,
    elapsed: float,
    cpu_seconds: float,
) -> SessionResult:
    counts = system.engine.counts
    return SessionResult(
        elapsed=elapsed,
        messages=system.messages(),
        reconnects=system.reconnects(),
        opportunities=counts["detected"],
        executed=counts["executed"],
        failed=counts["failed"],
        rejected=counts["rejected"],
        calls=stats.counts,
        cost_ns=stats.samples_ns(),
        clock_ns=clock_ns(),
        cpu_seconds=cpu_seconds,
        late=server.late,
        logger=logger,
    )
