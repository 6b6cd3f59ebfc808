"""The example's order book, symbol names, and somebody else's pricing library."""

from __future__ import annotations

import logging
import random

import pytest

from examples.trading_system.mappers import GateioUnifiedMappings, GenericMappings, MexcUnifiedMappings
from examples.trading_system.messages import BookUpdate, Level, Quote
from examples.trading_system.order_book import OrderBook
from examples.trading_system.pricing_lib import edge_bps, microprice


def update(bids: dict[float, float], asks: dict[float, float], **keywords: int) -> BookUpdate:
    rows = [tuple(Level(price, size) for price, size in side.items()) for side in (bids, asks)]
    return BookUpdate("A/B", rows[0], rows[1], **keywords)  # type: ignore[arg-type]  # snapshot is a bool there


def test_best_levels_follow_changes_and_removals() -> None:
    book = OrderBook("A/B")
    assert book.quote() is None
    book.apply(update({9: 1, 8: 2}, {10: 1, 11: 2}))
    assert book.quote() == Quote("A/B", Level(9, 1), Level(10, 1))
    book.apply(update({9: 0}, {10: 0}))
    assert book.quote() == Quote("A/B", Level(8, 2), Level(11, 2))
    book.apply(update({8: 0}, {}))
    assert book.quote() is None


def test_snapshot_replaces_everything() -> None:
    book = OrderBook("A/B")
    book.apply(update({9: 1}, {10: 1}))
    book.apply(update({7: 1}, {20: 1}, snapshot=True))
    assert book.quote() == Quote("A/B", Level(7, 1), Level(20, 1))


def test_level_that_the_other_side_contradicts_is_dropped() -> None:
    book = OrderBook("A/B")
    book.apply(update({9: 1}, {10: 1, 12: 1}))
    book.apply(update({11: 1}, {}))
    assert book.quote() == Quote("A/B", Level(11, 1), Level(12, 1))
    book.apply(update({}, {10.5: 1}))
    assert book.quote() == Quote("A/B", Level(9, 1), Level(10.5, 1))


def test_gap_in_the_sequence_is_told() -> None:
    book = OrderBook("A/B")
    book.apply(update({9: 1}, {10: 1}, first_id=1, last_id=4))
    assert book.missed(update({}, {}, first_id=5, last_id=6)) == 0
    assert book.missed(update({}, {}, first_id=8, last_id=9)) == 3
    assert book.missed(update({}, {}, first_id=1, last_id=2)) == 0  # a recording that begins anew


def test_best_levels_are_those_of_a_full_search() -> None:
    dice = random.Random(1)
    book, bids, asks = OrderBook("A/B"), {}, {}  # type: OrderBook, dict[float, float], dict[float, float]
    for _ in range(2_000):
        bid, ask = float(dice.randint(1, 50)), float(dice.randint(51, 100))
        size = dice.choice([0.0, 0.0, 1.0])
        book.apply(update({bid: size}, {ask: size}))
        bids[bid], asks[ask] = size, size
        live_bids, live_asks = [p for p, s in bids.items() if s], [p for p, s in asks.items() if s]
        quote = book.quote()
        assert (quote is None) == (not live_bids or not live_asks)
        if quote is not None:
            assert (quote.bid.price, quote.ask.price) == (max(live_bids), min(live_asks))


@pytest.mark.parametrize(
    ("mapper", "name", "unified"),
    [
        (GateioUnifiedMappings(), "BTC_USDT", "BTC/USDT"),
        (GateioUnifiedMappings(), "BTC_USDT_20210326", "BTC/USDT_20210326"),
        (MexcUnifiedMappings(), "BTC_USDT", "BTC/USDT"),
        (MexcUnifiedMappings(), "ETHUSDT", "ETH/USDT"),
        (GenericMappings(), "btcusdt", "BTC/USDT"),
        (GenericMappings(), "SKL-BTC", "SKL/BTC"),
        (GenericMappings(), "XMR/USD", "XMR/USD"),
        (GenericMappings(), "USDT", "USDT"),
    ],
)
def test_symbols_are_unified(
    mapper: GateioUnifiedMappings | MexcUnifiedMappings | GenericMappings, name: str, unified: str
) -> None:
    assert mapper.to_unified(name) == unified
    assert mapper.to_unified(name) == unified  # the remembered answer


@pytest.mark.parametrize("mapper", [GateioUnifiedMappings(), MexcUnifiedMappings(), GenericMappings()])
def test_symbols_survive_the_way_out_and_back(
    mapper: GateioUnifiedMappings | MexcUnifiedMappings | GenericMappings,
) -> None:
    assert mapper.to_unified(mapper.to_exchange("BTC/USDT")) == "BTC/USDT"


def test_microprice_leans_to_the_thinner_side() -> None:
    assert microprice(9.0, 1.0, 10.0, 1.0) == pytest.approx(9.5)
    assert microprice(9.0, 3.0, 10.0, 1.0) == pytest.approx(9.75)
    assert microprice(9.0, 0.0, 10.0, 0.0) == pytest.approx(9.5)


def test_pricing_library_logs_with_python_s_own_logging(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        microprice(9.0, 1.0, 10.0, 1.0)
        assert edge_bps(100.0, 102.0) == pytest.approx(200)
        assert edge_bps(100.0, 100.01) == pytest.approx(1)
    assert [record.levelname for record in caplog.records] == ["DEBUG", "WARNING"]
    assert {record.name for record in caplog.records} == {"examples.trading_system.pricing_lib"}
