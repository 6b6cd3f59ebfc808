"""Makes market data up: prices walk at random, in the exchanges' own formats, the same for the same seed."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from .faults import malformed_frame
from .messages import ExchangeEnum, Level, Side, Trade
from .wire_formats import WIRE_FORMATS, BookState, Frame

__all__ = ["START_PRICES", "Market", "MessageGenerator", "WireMessage"]

START_PRICES = {
    "BTC/USDT": 64_000.0,
    "ETH/USDT": 3_100.0,
    "SOL/USDT": 145.0,
    "XRP/USDT": 0.52,
    "DOGE/USDT": 0.12,
}
START_TIME_MS = 1_700_000_000_000
DIGITS = {symbol: 6 - math.floor(math.log10(price)) for symbol, price in START_PRICES.items()}
"""Decimals of a price: seven significant figures."""
BOOK_DEPTH = 5
LEVEL_BPS = 0.8
"""From one level of a book to the next."""
HALF_SPREAD_BPS = 1.2
WALK_BPS = 0.5
"""How far the price of a symbol moves with a message, on all exchanges alike."""
DRIFT_BPS = 0.6
"""How far one exchange moves away from the others with a message..."""
PULL = 0.95
"""...and what share of that distance is left with the next one."""


class WireMessage(NamedTuple):
    """A frame, and the exchange that it comes from."""

    exchange: ExchangeEnum
    frame: Frame


@dataclass
class _Listing:
    """A symbol on one exchange."""

    offset_bps: float = 0.0
    last_id: int = 0
    bids: list[Level] = field(default_factory=list)
    asks: list[Level] = field(default_factory=list)


class Market:
    """The prices of a few symbols; each exchange strays a little from the others and is pulled back."""

    def __init__(self, dice: random.Random) -> None:
        self._dice = dice
        self._prices = dict(START_PRICES)
        self._listings: dict[tuple[ExchangeEnum, str], _Listing] = {}

    def step(self, exchange: ExchangeEnum, symbol: str, time_ms: int) -> BookState:
        """Let time pass for a symbol on an exchange, and return its book."""
        dice = self._dice
        self._prices[symbol] *= math.exp(dice.gauss(0.0, WALK_BPS) / 10_000)
        listing = self._listings.setdefault((exchange, symbol), _Listing())
        listing.offset_bps = PULL * listing.offset_bps + dice.gauss(0.0, DRIFT_BPS)
        middle = self._prices[symbol] * (1 + listing.offset_bps / 10_000)
        digits = DIGITS[symbol]
        bids, asks = self._side(middle, -1, digits), self._side(middle, +1, digits)
        first_id, listing.last_id = listing.last_id + 1, listing.last_id + dice.randint(1, 4)
        state = BookState(
            symbol,
            time_ms,
            first_id,
            listing.last_id,
            bids,
            asks,
            gone_bids=_gone(listing.bids, bids),
            gone_asks=_gone(listing.asks, asks),
        )
        listing.bids, listing.asks = bids, asks
        return state

    def trade(self, symbol: str) -> Trade:
        """Return a trade at about the present price."""
        price = self._prices[symbol] * (1 + self._dice.gauss(0.0, WALK_BPS) / 10_000)
        side = self._dice.choice((Side.BUY, Side.SELL))
        return Trade(symbol, round(price, DIGITS[symbol]), self._dice.uniform(10, 2_000) / price, side)

    def _side(self, middle: float, direction: int, digits: int) -> list[Level]:
        uniform = self._dice.uniform
        levels = []
        for depth in range(BOOK_DEPTH):
            price = middle * (1 + direction * (HALF_SPREAD_BPS + depth * LEVEL_BPS) / 10_000)
            levels.append(Level(round(price, digits), round(uniform(100, 20_000) / price, 4)))
        return levels


class MessageGenerator:
    """An endless stream of frames of three exchanges; about one in a hundred is malformed."""

    def __init__(self, seed: int = 7, malformed_share: float = 0.01, reject_share: float = 0.002) -> None:
        self.exchanges = (ExchangeEnum.GATEIO, ExchangeEnum.MEXC, ExchangeEnum.GENERIC)
        self.symbols = tuple(START_PRICES)
        self._seed = seed
        self._malformed_share = malformed_share
        self._reject_share = reject_share

    def messages(self) -> Iterator[WireMessage]:
        """Yield the stream from its beginning."""
        dice = random.Random(self._seed)
        market = Market(dice)
        for exchange in self.exchanges:
            yield WireMessage(exchange, WIRE_FORMATS[exchange].ack("spot.trades"))
        number = 0
        while True:
            number += 1
            exchange = dice.choice(self.exchanges)
            frame = self._frame(dice, market, exchange, number)
            if (
                dice.random() < self._malformed_share
            ):  # beside the sound one, so that no sequence is broken by it
                yield WireMessage(exchange, malformed_frame(dice, frame))
            yield WireMessage(exchange, frame)

    def _frame(self, dice: random.Random, market: Market, exchange: ExchangeEnum, number: int) -> Frame:
        wire = WIRE_FORMATS[exchange]
        symbol = dice.choice(self.symbols)
        time_ms = START_TIME_MS + number
        variant = dice.randrange(4)
        kind = dice.random()
        if kind < self._reject_share:  # of an order that an earlier session left behind
            return wire.reject(f"old-{number}", variant)
        if kind < 0.2:
            return wire.trade(market.trade(symbol), number, time_ms, variant)
        return wire.book(market.step(exchange, symbol, time_ms), variant)


def _gone(before: list[Level], now: list[Level]) -> list[float]:
    prices = {level.price for level in now}
    return [level.price for level in before if level.price not in prices]
