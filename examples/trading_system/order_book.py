"""The book of one symbol on one exchange, kept up to date from snapshots and changes."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from .messages import BookUpdate, Level, Quote

__all__ = ["OrderBook"]


class OrderBook:
    """Price levels by side; the best ones are kept at hand and looked up anew only when they are removed."""

    def __init__(self, symbol: str) -> None:
        self.symbol = symbol
        self.last_id = 0
        self._bids: dict[float, float] = {}
        self._asks: dict[float, float] = {}
        self._best_bid = 0.0
        self._best_ask = 0.0

    def apply(self, update: BookUpdate) -> None:
        """Take over a snapshot or changes; a level that the other side's news contradicts is dropped."""
        if update.snapshot:
            self.clear()
        self._best_bid = _merge(self._bids, update.bids, self._best_bid, max)
        self._best_ask = _merge(self._asks, update.asks, self._best_ask, min)
        if self._best_ask and self._best_bid >= self._best_ask:
            self._uncross(keep_bids=bool(update.bids))
        self.last_id = update.last_id or self.last_id

    def clear(self) -> None:
        """Forget everything, for instance after a gap in the sequence."""
        self._bids.clear()
        self._asks.clear()
        self._best_bid = self._best_ask = 0.0
        self.last_id = 0

    def missed(self, update: BookUpdate) -> int:
        """Return how many changes lie between the last one applied and this one."""
        if update.snapshot or not (self.last_id and update.first_id):
            return 0
        return max(0, update.first_id - self.last_id - 1)

    def quote(self) -> Quote | None:
        """Return the best bid and ask, or None while a side is empty."""
        if not (self._bids and self._asks):
            return None
        bid = Level(self._best_bid, self._bids[self._best_bid])
        ask = Level(self._best_ask, self._asks[self._best_ask])
        return Quote(self.symbol, bid, ask)

    def _uncross(self, *, keep_bids: bool) -> None:
        if keep_bids:
            self._asks = {price: size for price, size in self._asks.items() if price > self._best_bid}
            self._best_ask = min(self._asks, default=0.0)
        else:
            self._bids = {price: size for price, size in self._bids.items() if price < self._best_ask}
            self._best_bid = max(self._bids, default=0.0)


def _merge(
    side: dict[float, float], levels: Iterable[Level], best: float, pick: Callable[..., float]
) -> float:
    for price, size in levels:
        if size:
            side[price] = size
            best = pick(best, price) if best else price
        else:
            side.pop(price, None)
    return best if best in side else pick(side, default=0.0)
