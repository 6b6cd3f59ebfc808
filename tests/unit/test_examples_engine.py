"""The example's arbitrage engine: what it trades, and what it says of it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from examples.trading_system.arbitrage_engine import ArbitrageEngine, EngineSettings
from examples.trading_system.errors import OrderFailed, OrderRejected, OrderTimeout
from examples.trading_system.messages import Level, Opportunity, Order, OrderFill, Quote
from tests.unit.test_examples_support import RecordingLogger


class Venue:
    """Answers orders with what it is told to."""

    def __init__(self, failure: Callable[[Order], OrderFailed] | None = None) -> None:
        self.orders: list[Order] = []
        self.failure = failure

    async def place_order(self, order: Order) -> OrderFill:
        self.orders.append(order)
        await asyncio.sleep(0)
        if self.failure is not None:
            raise self.failure(order)
        return OrderFill(order.id, "x")


def rejected(order: Order) -> OrderFailed:
    return OrderRejected(order.id, "NO_MONEY", "not enough")


def quote(bid: float, ask: float, size: float = 1.0) -> Quote:
    return Quote("A/B", Level(bid, size), Level(ask, size))


def run(
    logger: RecordingLogger,
    venues: dict[str, Venue],
    act: Callable[[ArbitrageEngine], Awaitable[None] | None],
    settings: EngineSettings | None = None,
) -> ArbitrageEngine:
    async def main() -> ArbitrageEngine:
        engine = ArbitrageEngine(venues, logger, settings)
        waiting = act(engine)
        if waiting is not None:
            await waiting
        await engine.stop()
        return engine

    return asyncio.run(main())


def cross(engine: ArbitrageEngine) -> None:
    engine.on_quote("cheap", quote(99.0, 100.0))
    engine.on_quote("dear", quote(101.0, 102.0))


def test_crossed_quotes_are_bought_at_the_one_and_sold_at_the_other() -> None:
    venues = {"cheap": Venue(), "dear": Venue()}
    engine = run(RecordingLogger(), venues, cross)
    [buy], [sell] = venues["cheap"].orders, venues["dear"].orders
    assert (buy.side.value, buy.price, sell.side.value, sell.price) == ("buy", 100.0, "sell", 101.0)
    assert dict(engine.counts) == {"detected": 1, "executed": 1}


def test_it_does_not_matter_which_quote_comes_first() -> None:
    venues = {"cheap": Venue(), "dear": Venue()}

    def act(engine: ArbitrageEngine) -> None:
        engine.on_quote("dear", quote(101.0, 102.0))
        engine.on_quote("cheap", quote(99.0, 100.0))

    assert run(RecordingLogger(), venues, act).counts["executed"] == 1
    assert venues["cheap"].orders[0].side.value == "buy"


@pytest.mark.parametrize("dear", [quote(99.5, 100.5), quote(100.0, 101.0), quote(100.005, 101.0)])
def test_too_small_a_gap_is_left_alone(dear: Quote) -> None:
    def act(engine: ArbitrageEngine) -> None:
        engine.on_quote("cheap", quote(99.0, 100.0))
        engine.on_quote("dear", dear)

    assert not run(RecordingLogger(), {"cheap": Venue(), "dear": Venue()}, act).counts


def test_an_old_quote_is_not_traded_against() -> None:
    async def act(engine: ArbitrageEngine) -> None:
        engine.on_quote("cheap", quote(99.0, 100.0))
        await asyncio.sleep(0.02)
        engine.on_quote("dear", quote(101.0, 102.0))

    settings = EngineSettings(max_quote_age=0.01)
    assert not run(RecordingLogger(), {"cheap": Venue(), "dear": Venue()}, act, settings).counts


def test_a_symbol_rests_after_an_opportunity() -> None:
    def act(engine: ArbitrageEngine) -> None:
        cross(engine)
        cross(engine)

    assert run(RecordingLogger(), {"cheap": Venue(), "dear": Venue()}, act).counts["detected"] == 1


def test_size_is_bounded_by_the_volume_and_by_what_is_offered() -> None:
    for size, expected in ((0.5, 0.5), (0.0, 3.0), (50.0, 3.0)):
        venues = {"cheap": Venue(), "dear": Venue()}

        def act(engine: ArbitrageEngine, size: float = size) -> None:
            engine.on_quote("cheap", quote(99.0, 100.0, size))
            engine.on_quote("dear", quote(101.0, 102.0, size))

        run(RecordingLogger(), venues, act, EngineSettings(max_volume=300.0))
        assert venues["cheap"].orders[0].size == pytest.approx(expected)


def test_text_audit_and_metrics_of_one_opportunity_share_its_correlation_id() -> None:
    logger = RecordingLogger()
    run(logger, {"cheap": Venue(), "dear": Venue()}, cross)
    assert {call.method for call in logger.calls} >= {
        "debug",
        "info",
        "metric",
        "counter",
        "latency",
        "audit",
    }
    assert len({call.context["correlation_id"] for call in logger.calls}) == 1
    [detected] = logger.of("audit", "arbitrage_opportunity_detected")
    assert detected.context["profit_bps"] == pytest.approx(100.0)
    assert len(logger.of("audit", "trade_executed")) == 2
    assert [call.args[0] for call in logger.of("latency")] == ["arbitrage_execution"]


def test_success_is_measured() -> None:
    logger = RecordingLogger()
    run(logger, {"cheap": Venue(), "dear": Venue()}, cross)
    assert logger.of("metric", "arbitrage_profit_usd")[0].args[1] == pytest.approx(1.0)
    assert logger.of("metric", "arbitrage_success")
    assert logger.of("counter", "arbitrage_executions")[0].keywords == {"tags": {"outcome": "success"}}


def test_rejection_is_an_error_an_audit_event_and_a_count() -> None:
    logger = RecordingLogger()
    engine = run(logger, {"cheap": Venue(), "dear": Venue(rejected)}, cross)
    assert (engine.counts["failed"], engine.counts["rejected"]) == (1, 1)
    assert "NO_MONEY: not enough" in str(logger.of("error", "Order rejected")[0].args[0])
    [audit] = logger.of("audit", "order_rejected")
    assert (audit.context["exchange"], audit.context["reason"]) == ("dear", "NO_MONEY")
    assert logger.of("counter", "orders_rejected")
    assert logger.of("metric", "arbitrage_failure")[0].keywords == {"error_type": "OrderRejected"}
    assert logger.of("error", "Arbitrage failed")[0].keywords["exchanges"] == ("cheap", "dear")
    assert logger.of("error", "One leg")[0].keywords == {"alert": "open_leg"}


def test_no_leg_is_open_when_both_fail() -> None:
    logger = RecordingLogger()

    def silent(order: Order) -> OrderFailed:
        return OrderTimeout(order.id, "no answer")

    engine = run(logger, {"cheap": Venue(silent), "dear": Venue(silent)}, cross)
    assert (engine.counts["failed"], engine.counts["rejected"]) == (1, 0)
    assert not logger.of("error", "One leg")


def test_failure_is_raised_to_whoever_executes_by_hand() -> None:
    opportunity = Opportunity("o", "A/B", "cheap", "dear", 100.0, 101.0, 1.0)

    async def act(engine: ArbitrageEngine) -> None:
        engine.on_quote("cheap", quote(99.0, 100.0))
        engine.on_quote("dear", quote(100.0, 102.0))
        with pytest.raises(OrderRejected):
            await engine.execute_arbitrage(opportunity)

    run(RecordingLogger(), {"cheap": Venue(rejected), "dear": Venue()}, act)


def test_an_exchange_that_keeps_refusing_is_paused_with_an_alert() -> None:
    logger = RecordingLogger()
    venues = {"cheap": Venue(), "dear": Venue(rejected)}

    async def act(engine: ArbitrageEngine) -> None:
        for _ in range(6):
            cross(engine)
            await engine.stop()

    run(logger, venues, act, EngineSettings(cooldown=0.0, pause_after=3, pause_for=60.0))
    [critical] = logger.of("critical")
    assert critical.args[0] == "Trading on dear paused: 3 orders rejected in a row"
    assert critical.keywords["alert"] == "rejections"
    assert len(venues["dear"].orders) == 3
