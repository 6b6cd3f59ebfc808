"""The whole trading system: exchanges that quote, and the engine that listens to all of them."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence

from .arbitrage_engine import ArbitrageEngine
from .public_exchange import PublicExchange

__all__ = ["TradingSystem"]


class TradingSystem:
    """Runs the exchanges as tasks between `start` and `stop`."""

    def __init__(self, exchanges: Sequence[PublicExchange], engine: ArbitrageEngine) -> None:
        self.exchanges = tuple(exchanges)
        self.engine = engine
        self._tasks: list[asyncio.Task[None]] = []
        for exchange in self.exchanges:
            exchange.listeners.append(engine.on_quote)

    def start(self) -> None:
        """Connect, and begin to trade."""
        self._tasks = [asyncio.create_task(exchange.run(), name=exchange.name) for exchange in self.exchanges]

    async def stop(self) -> None:
        """Disconnect and let what is under way come to its end; raise what an exchange's task failed with."""
        await asyncio.gather(*(exchange.stop() for exchange in self.exchanges))
        outcomes = await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.engine.stop()
        for outcome in outcomes:
            if isinstance(outcome, Exception):
                raise outcome

    def failed(self) -> bool:
        """Say whether an exchange's task has ended before its time."""
        return any(task.done() for task in self._tasks)

    def messages(self) -> dict[str, dict[str, int]]:
        """Return the messages so far, by exchange and outcome (a MessageType's value, or `malformed`)."""
        return {exchange.name: dict(exchange.outcomes) for exchange in self.exchanges}

    def message_count(self) -> int:
        """Return the number of messages so far."""
        return sum(exchange.outcomes.total() for exchange in self.exchanges)

    def reconnects(self) -> int:
        """Return how many lost connections were made again."""
        return sum(exchange.manager.reconnects for exchange in self.exchanges)

    def engine_counts(self) -> Counter[str]:
        """Return the engine's counts: detected, executed, failed, rejected."""
        return self.engine.counts
