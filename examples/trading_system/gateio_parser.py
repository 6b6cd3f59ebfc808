"""Gate.io v4: public channels, spot and futures, and the answers to orders."""

from __future__ import annotations

from typing import Any

from hft_otel import HFTLoggerInterface

from .base_parser import EnhancedBaseMessageParser
from .decoding import is_rest_body, level, positive
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

__all__ = ["GateioPublicMessageParser"]

SUBSCRIPTION_EVENTS = ("subscribe", "unsubscribe")


class GateioPublicMessageParser(EnhancedBaseMessageParser):
    """Reads {"channel": "spot.trades", "event": "update", "result": ...} and what else Gate.io sends."""

    def __init__(self, mapper: BaseExchangeMapper, logger: HFTLoggerInterface | None = None) -> None:
        super().__init__(mapper, "gateio", logger)

    def _read(self, payload: Any) -> ParsedMessage:
        if is_rest_body(payload):
            return OtherMessage("rest")
        if not isinstance(payload, dict):
            raise MalformedMessage(f"a Gate.io message is an object, not a {type(payload).__name__}")
        if "header" in payload:
            return self._order_answer(payload)
        if "label" in payload:  # an error body of the REST interface
            return OrderReject("", str(payload["label"]), str(payload.get("message", "")))
        if payload.get("channel") is None:
            return OtherMessage(str(payload.get("method", "unlabelled")))
        return self._event(payload["channel"], payload.get("event"), payload)

    def _event(self, channel: str, event: str | None, payload: dict[str, Any]) -> ParsedMessage:
        if event in SUBSCRIPTION_EVENTS or payload.get("error"):
            return self._ack(channel, payload)
        if event in ("update", "all"):
            return self._update(channel, payload["result"], snapshot=event == "all")
        return OtherMessage(str(channel))

    def _update(self, channel: str, result: Any, *, snapshot: bool) -> ParsedMessage:
        market, _, kind = channel.partition(".")
        if kind in ("order_book_update", "order_book", "obu"):
            return self._book(kind, result, snapshot=snapshot)
        if kind == "trades":
            rows = result if isinstance(result, list) else [result]
            return TradeBatch(tuple([self._trade(row) for row in rows]))
        if kind == "book_ticker":
            bid, ask = level(result["b"], result["B"]), level(result["a"], result["A"])
            return Quote(self.mapper.to_unified(result["s"]), bid, ask)
        if kind == "tickers" and market == "spot":
            bid, ask = level(result["highest_bid"]), level(result["lowest_ask"])
            return Quote(self.mapper.to_unified(result["currency_pair"]), bid, ask)
        return OtherMessage(channel)

    def _book(self, kind: str, result: Any, *, snapshot: bool) -> ParsedMessage:
        if isinstance(result, list):  # the futures' older form: one row per change, asks with a negative size
            bids = [row for row in result if float(row["s"]) >= 0]
            asks = [row for row in result if float(row["s"]) <= 0]
            return self._parse_orderbook(result[0]["c"], bids, asks)
        symbol = result.get("s") or result["contract"]
        if kind == "obu":  # "ob.ETH_USDT.50"
            symbol = symbol.split(".")[1]
        return self._parse_orderbook(
            symbol,
            result.get("b", result.get("bids")),
            result.get("a", result.get("asks")),
            snapshot=snapshot or kind == "order_book" or bool(result.get("full")),
            first_id=int(result.get("U", 0)),
            last_id=int(result.get("u", result.get("lastUpdateId", 0))),
        )

    def _trade(self, row: dict[str, Any]) -> Trade:
        symbol = self.mapper.to_unified(row.get("currency_pair") or row["contract"])
        size = float(row["amount"] if "amount" in row else row["size"])
        selling = row.get("side") == "sell" or size < 0
        return Trade(symbol, positive(row["price"]), abs(size), Side.SELL if selling else Side.BUY)

    def _ack(self, channel: str, payload: dict[str, Any]) -> Ack:
        error = payload.get("error")
        result = payload.get("result")
        ok = not error and (result is None or result.get("status") == "success")
        return Ack(channel, ok, str(error["message"]) if error else "")

    def _order_answer(self, payload: dict[str, Any]) -> ParsedMessage:
        header, data = payload["header"], payload["data"]
        channel = header.get("channel")
        if channel != "spot.order_place":
            return OtherMessage(str(channel or "api"))
        order_id = str(payload["request_id"])
        errors = data.get("errs")
        if errors:
            return OrderReject(order_id, str(errors["label"]), str(errors["message"]))
        return OrderFill(order_id, str(data["result"].get("id", "")))
