"""Finds symbols that are cheaper on one exchange than on another, and trades both legs."""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from hft_otel import HFTLoggerInterface, LoggerFactory, PerformanceLogger

from .errors import OrderFailed, OrderRejected
from .messages import Execution, Level, Opportunity, Order, OrderFill, Quote, Side
from .pricing_lib import edge_bps, microprice

__all__ = ["ArbitrageEngine", "EngineSettings", "OrderVenue"]


class OrderVenue(Protocol):
    """Where orders can be placed."""

    async def place_order(self, order: Order) -> OrderFill:
        """Send an order and wait for its fill; raise OrderFailed when there is none."""


@dataclass(frozen=True)
class EngineSettings:
    """When to trade, and how much."""

    min_profit_bps: float = 1.0
    max_volume: float = 10_000.0
    """Of one leg, in the quote currency."""
    max_quote_age: float = 1.0
    """Seconds after which a quote is not believed any more."""
    cooldown: float = 1.0
    """Seconds between two opportunities in one symbol."""
    pause_after: int = 3
    """Rejections in a row after which an exchange is left alone."""
    pause_for: float = 2.0


class _Leg(NamedTuple):
    """Where to trade, and against which level of the book there."""

    exchange: str
    level: Level


class ArbitrageEngine:
    """Told every quote by `on_quote`; each opportunity is pursued in a task of its own."""

    def __init__(
        self,
        venues: Mapping[str, OrderVenue],
        logger: HFTLoggerInterface | None = None,
        settings: EngineSettings | None = None,
    ) -> None:
        self.logger = logger or LoggerFactory.create_logger("arbitrage")
        self.settings = settings or EngineSettings()
        self.counts: Counter[str] = Counter()
        """detected, executed, failed (opportunities) and rejected (orders)."""
        self._performance = PerformanceLogger(self.logger)
        self._venues = venues
        self._quotes: dict[str, dict[str, tuple[float, Quote]]] = {}
        self._quiet_until: dict[str, float] = {}
        self._rejections_in_a_row: Counter[str] = Counter()
        self._tasks: set[asyncio.Task[None]] = set()

    def on_quote(self, exchange: str, quote: Quote) -> None:
        """Compare a new quote with those of the other exchanges."""
        now = time.monotonic()
        quotes = self._quotes.setdefault(quote.symbol, {})
        quotes[exchange] = (now, quote)
        for other, (seen, against) in quotes.items():
            if other == exchange or now - seen > self.settings.max_quote_age:
                continue
            if quote.bid.price > against.ask.price:
                self._consider(quote.symbol, _Leg(other, against.ask), _Leg(exchange, quote.bid), now)
            elif against.bid.price > quote.ask.price:
                self._consider(quote.symbol, _Leg(exchange, quote.ask), _Leg(other, against.bid), now)

    async def stop(self) -> None:
        """Wait for what is under way."""
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def execute_arbitrage(self, opportunity: Opportunity) -> Execution:
        """Trade both legs; raise OrderFailed, logged, when one is not filled."""
        # Audit trail
        self.logger.audit(
            "arbitrage_opportunity_detected",
            profit_bps=opportunity.profit_bps,
            volume_usd=opportunity.volume,
            buy_on=opportunity.buy_on,
            sell_on=opportunity.sell_on,
        )

        with self._performance.time_operation("arbitrage_execution"):
            try:
                result = await self._execute(opportunity)

                # Success metrics
                self.logger.metric("arbitrage_profit_usd", result.profit)
                self.logger.metric("arbitrage_success", 1)
                self.logger.counter("arbitrage_executions", tags={"outcome": "success"})
                self.logger.info(f"Arbitrage executed: {result.profit:.2f} USD on {opportunity.symbol}")
                self.counts["executed"] += 1
                return result

            except Exception as e:
                # Error tracking
                self.logger.error(
                    f"Arbitrage failed: {e}", opportunity_id=opportunity.id, exchanges=opportunity.exchanges
                )

                self.logger.metric("arbitrage_failure", 1, error_type=type(e).__name__)
                self.logger.counter("arbitrage_executions", tags={"outcome": "failure"})
                self.counts["failed"] += 1
                raise

    def _consider(self, symbol: str, buy: _Leg, sell: _Leg, now: float) -> None:
        ask, bid = buy.level, sell.level
        if bid.price < ask.price * (1 + self.settings.min_profit_bps / 10_000):
            return
        if any(now < self._quiet_until.get(key, 0.0) for key in (symbol, buy.exchange, sell.exchange)):
            return
        self._quiet_until[symbol] = now + self.settings.cooldown
        known = [size for size in (ask.size, bid.size, self.settings.max_volume / ask.price) if size]
        opportunity = Opportunity(
            id=f"arb-{uuid.uuid4().hex[:12]}",
            symbol=symbol,
            buy_on=buy.exchange,
            sell_on=sell.exchange,
            buy_price=ask.price,
            sell_price=bid.price,
            size=min(known),
        )
        self.counts["detected"] += 1
        task = asyncio.get_running_loop().create_task(self._pursue(opportunity))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _pursue(self, opportunity: Opportunity) -> None:
        scope = self.logger.scoped(correlation_id=opportunity.id, symbol=opportunity.symbol)
        with scope, contextlib.suppress(OrderFailed):  # execute_arbitrage has logged it
            await self.execute_arbitrage(opportunity)

    async def _execute(self, opportunity: Opportunity) -> Execution:
        self._weigh(opportunity)
        buy = Order(
            f"{opportunity.id}-b", opportunity.symbol, Side.BUY, opportunity.buy_price, opportunity.size
        )
        sell = Order(
            f"{opportunity.id}-s", opportunity.symbol, Side.SELL, opportunity.sell_price, opportunity.size
        )
        bought, sold = await asyncio.gather(
            self._place(opportunity.buy_on, buy),
            self._place(opportunity.sell_on, sell),
            return_exceptions=True,
        )
        if isinstance(bought, OrderFill) and isinstance(sold, OrderFill):
            return Execution(opportunity, (bought, sold))
        failure = bought if isinstance(bought, BaseException) else sold
        assert isinstance(failure, BaseException)
        if isinstance(bought, OrderFill) or isinstance(sold, OrderFill):
            self.logger.error("One leg is filled and the other is not: unwind it", alert="open_leg")
            self.logger.audit("open_leg", filled="buy" if isinstance(bought, OrderFill) else "sell")
        raise failure

    def _weigh(self, opportunity: Opportunity) -> None:
        """Ask the pricing library, which has its own way of logging, what it thinks of the opportunity."""
        edge = edge_bps(opportunity.buy_price, opportunity.sell_price)
        self.logger.metric("arbitrage_edge_bps", edge, symbol=opportunity.symbol)
        for exchange in opportunity.exchanges:
            _, quote = self._quotes[opportunity.symbol][exchange]
            fair = microprice(*quote.bid, *quote.ask)
            self.logger.debug("Fair price of %s on %s: %.8g", opportunity.symbol, exchange, fair)
            self.logger.metric("fair_price", fair, exchange=exchange, symbol=opportunity.symbol)

    async def _place(self, exchange: str, order: Order) -> OrderFill:
        start = time.perf_counter()
        try:
            fill = await self._venues[exchange].place_order(order)
        except OrderRejected as rejection:
            self._on_rejection(exchange, order, rejection)
            raise
        self._rejections_in_a_row[exchange] = 0
        self._performance.log_trade_execution(
            order.id,
            (time.perf_counter() - start) * 1000,
            exchange=exchange,
            symbol=order.symbol,
            side=order.side.value,
        )
        return fill

    def _on_rejection(self, exchange: str, order: Order, rejection: OrderRejected) -> None:
        self.counts["rejected"] += 1
        self.logger.error(
            f"Order rejected: {rejection}", exchange=exchange, order_id=order.id, reason=rejection.reason
        )
        self.logger.audit(
            "order_rejected",
            exchange=exchange,
            order_id=order.id,
            side=order.side.value,
            reason=rejection.reason,
        )
        self.logger.counter("orders_rejected", exchange=exchange, reason=rejection.reason)
        self._rejections_in_a_row[exchange] += 1
        if self._rejections_in_a_row[exchange] < self.settings.pause_after:
            return
        self._rejections_in_a_row[exchange] = 0
        self._quiet_until[exchange] = time.monotonic() + self.settings.pause_for
        self.logger.critical(
            f"Trading on {exchange} paused: {self.settings.pause_after} orders rejected in a row",
            exchange=exchange,
            alert="rejections",
        )
