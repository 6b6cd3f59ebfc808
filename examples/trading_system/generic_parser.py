"""Best effort over the JSON of any exchange: symbol, book and price are found by common names."""

from __future__ import annotations

from typing import Any, TypeGuard

from hft_otel import HFTLoggerInterface

from .base_parser import EnhancedBaseMessageParser
from .decoding import level, positive
from .errors import MalformedMessage
from .mappers import BaseExchangeMapper
from .messages import (
    Ack,
    OrderFill,
    OrderReject,
    OtherMessage,
    ParsedMessage,
    Quote,
    Side,
    Trade,
    TradeBatch,
)

__all__ = ["GenericMessageParser"]

SYMBOL = ("symbol", "s", "product_id", "instId", "currency_pair", "contract", "pair", "market")
BOOK_SIDES = (("bids", "asks"), ("b", "a"), ("bs", "as"))
BID = ("best_bid", "bestBid", "bidPx", "highest_bid", "bid1", "bid", "b")
ASK = ("best_ask", "bestAsk", "askPx", "lowest_ask", "ask1", "ask", "a")
BID_SIZE = ("best_bid_size", "bestBidSize", "bidSz", "bidQty", "B")
ASK_SIZE = ("best_ask_size", "bestAskSize", "askSz", "askQty", "A")
PRICE = ("price", "px", "p", "last", "lastPrice")
SIZE = ("size", "qty", "quantity", "amount", "sz", "last_size", "q", "v")
KIND = ("type", "event", "e", "channel", "channelName", "op", "method", "topic")
ACK_WORDS = (
    "subscribe",
    "subscribed",
    "subscriptions",
    "subscriptionStatus",
    "unsubscribe",
    "ack",
    "welcome",
)
CANDLES = ("kline", "candle", "ohlc")
MAX_DEPTH = 4

Fields = dict[str, Any]


class GenericMessageParser(EnhancedBaseMessageParser):
    """Takes frames of any exchange; what it cannot place but is JSON becomes OtherMessage."""

    def __init__(
        self,
        mapper: BaseExchangeMapper,
        logger: HFTLoggerInterface | None = None,
        exchange_name: str = "generic",
    ) -> None:
        super().__init__(mapper, exchange_name, logger)

    def _read(self, payload: Any) -> ParsedMessage:
        if not isinstance(payload, dict | list) or not payload:
            raise MalformedMessage(f"neither an object nor an array with content: {payload!r:.60}")
        fields: Fields = {}
        _collect(payload, fields, 0)
        kind = str(_first(fields, KIND) or "unlabelled")
        if fields.get("op") == "order":
            return _order_answer(fields)
        if kind in ACK_WORDS:
            return Ack(str(fields.get("channel", kind)), ok=not fields.get("error"))
        symbol = _symbol(fields)
        if symbol is None or any(word in kind for word in CANDLES) or "k" in fields:
            return OtherMessage(kind)
        return self._market(symbol, kind, fields) or OtherMessage(kind)

    def _market(self, symbol: str, kind: str, fields: Fields) -> ParsedMessage | None:
        for bid_name, ask_name in BOOK_SIDES:
            bids, asks = fields.get(bid_name), fields.get(ask_name)
            if _is_levels(bids) or _is_levels(asks):
                snapshot = bid_name == "bs" or "snapshot" in (kind, fields.get("action"))
                return self._parse_orderbook(symbol, _placed(bids), _placed(asks), snapshot=snapshot)
        changes = fields.get("changes")
        if _is_levels(changes):
            bids = [row[1:] for row in changes if row[0] == "buy"]
            asks = [row[1:] for row in changes if row[0] == "sell"]
            return self._parse_orderbook(symbol, bids, asks)
        bid, ask = _first(fields, BID), _first(fields, ASK)
        if bid and ask and "trade" not in kind.lower():  # in Binance's trades these are order numbers
            return self._quote(symbol, bid, ask, fields)
        price = _first(fields, PRICE)
        if price is None:
            return None
        side = Side.SELL if fields.get("side") in ("sell", "s") or fields.get("m") is True else Side.BUY
        size = float(_first(fields, SIZE) or 0)
        return TradeBatch((Trade(self.mapper.to_unified(symbol), positive(price), size, side),))

    def _quote(self, symbol: str, bid: Any, ask: Any, fields: Fields) -> Quote:
        if isinstance(bid, list):  # Kraken's ticker: [price, whole lots, lots]
            best_bid, best_ask = level(bid[0], bid[-1]), level(ask[0], ask[-1])
        else:
            best_bid = level(bid, _first(fields, BID_SIZE) or 0)
            best_ask = level(ask, _first(fields, ASK_SIZE) or 0)
        return Quote(self.mapper.to_unified(symbol), best_bid, best_ask)


def _collect(value: Any, fields: Fields, depth: int) -> None:
    """Gather the keys of nested objects, outer ones first; of arrays only the first items are looked at."""
    if isinstance(value, dict):
        for key, item in value.items():
            fields.setdefault(key, item)
        children: list[Any] = [item for item in value.values() if isinstance(item, dict | list)]
    else:
        _collect_positional(value, fields)
        children = [item for item in value[:4] if isinstance(item, dict | list)]
    if depth < MAX_DEPTH:
        for child in children:
            _collect(child, fields, depth + 1)


def _collect_positional(row: list[Any], fields: Fields) -> None:
    """Read Kraken's form: [channel id, data, channel name, pair]."""
    if len(row) >= 4 and isinstance(row[-1], str) and isinstance(row[-2], str) and "/" in row[-1]:
        fields.setdefault("channel", row[-2])
        fields.setdefault("pair", row[-1])
        if row[-2] == "trade" and _is_levels(row[1]):
            fields.update(price=row[1][0][0], size=row[1][0][1], side=row[1][0][3])


def _symbol(fields: Fields) -> str | None:
    for name in SYMBOL:
        value = fields.get(name)
        if isinstance(value, str) and value:
            return value
    topic = fields.get("topic")  # KuCoin: "/market/ticker:SNX-BTC"
    return topic.rpartition(":")[2] if isinstance(topic, str) and ":" in topic else None


def _first(fields: Fields, names: tuple[str, ...]) -> Any:
    for name in names:
        value = fields.get(name)
        if value not in (None, ""):
            return value
    return None


def _is_levels(value: Any) -> TypeGuard[list[Any]]:
    return isinstance(value, list) and bool(value) and isinstance(value[0], list | dict)


def _placed(rows: Any) -> Any:
    """Leave out KuCoin's rows with the price 0, which only say that the sequence went on."""
    return [row for row in rows if row[0] != "0"] if _is_levels(rows) and isinstance(rows[0], list) else rows


def _order_answer(fields: Fields) -> ParsedMessage:
    order_id = str(fields["id"])
    if fields["status"] == "filled":
        return OrderFill(order_id, str(fields.get("order_id", "")))
    return OrderReject(order_id, str(fields.get("reason", "UNKNOWN")), str(fields.get("message", "")))
