"""MEXC: push.* channels of spot and futures, the spot v3 channels, and the answers to orders."""

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

__all__ = ["MexcPublicMessageParser"]

SELL = 2
FULL_BOOKS = ("push.limit.depth", "push.depth.full")


class MexcPublicMessageParser(EnhancedBaseMessageParser):
    """Reads {"channel": "push.deal", ...}, ["push.symbol", {...}] and {"c": "spot@public...", ...}."""

    def __init__(self, mapper: BaseExchangeMapper, logger: HFTLoggerInterface | None = None) -> None:
        super().__init__(mapper, "mexc", logger)

    def _read(self, payload: Any) -> ParsedMessage:
        if isinstance(payload, list) and len(payload) == 2 and isinstance(payload[0], str):
            return self._push(payload[0], payload[1])
        if is_rest_body(payload):
            return OtherMessage("rest")
        if not isinstance(payload, dict):
            raise MalformedMessage(f"a MEXC message is an object or a pair, not a {type(payload).__name__}")
        if "c" in payload:
            return self._v3(payload["c"], payload)
        if "channel" in payload:
            return self._push(payload["channel"], payload)
        if "code" in payload:
            return self._answer(payload)
        return OtherMessage(str(payload.get("method", "unlabelled")))

    def _push(self, channel: str, payload: dict[str, Any]) -> ParsedMessage:
        if channel.startswith("rs."):
            return Ack(channel[3:], channel != "rs.error", str(payload.get("data", "")))
        data: Any = payload.get("data")
        if channel == "push.symbol" and isinstance(data, dict):  # the oldest form: the data say what it is
            channel = "push.deal" if "deals" in data else "push.depth"
        if channel == "push.deal":
            deals = data["deals"] if isinstance(data, dict) and "deals" in data else data
            return self._deals(payload["symbol"], deals if isinstance(deals, list) else [deals])
        if channel in ("push.depth", *FULL_BOOKS):
            return self._parse_orderbook(
                payload["symbol"], data.get("bids"), data.get("asks"), snapshot=channel in FULL_BOOKS
            )
        if channel == "push.ticker":
            bid, ask = level(data["bid1"]), level(data["ask1"])
            return Quote(self.mapper.to_unified(payload["symbol"]), bid, ask)
        return OtherMessage(channel)

    def _v3(self, channel: str, payload: dict[str, Any]) -> ParsedMessage:
        name = channel.split("@")[1]
        data = payload["d"]
        if name == "public.deals.v3.api":
            return self._deals(payload["s"], data["deals"])
        if name in ("public.increase.depth.v3.api", "public.limit.depth.v3.api"):
            return self._parse_orderbook(
                payload["s"], data.get("bids"), data.get("asks"), snapshot=name.startswith("public.limit")
            )
        if name == "public.bookTicker.v3.api":
            bid, ask = level(data["b"], data["B"]), level(data["a"], data["A"])
            return Quote(self.mapper.to_unified(payload["s"]), bid, ask)
        return OtherMessage(name)

    def _deals(self, symbol: str, deals: list[dict[str, Any]]) -> TradeBatch:
        unified = self.mapper.to_unified(symbol)
        return TradeBatch(tuple([self._deal(unified, deal) for deal in deals]))

    def _deal(self, symbol: str, deal: dict[str, Any]) -> Trade:
        size = deal["q"] if "q" in deal else deal["v"]
        side = Side.SELL if deal.get("T", deal.get("S")) == SELL else Side.BUY
        return Trade(symbol, positive(deal["p"]), float(size), side)

    def _answer(self, payload: dict[str, Any]) -> ParsedMessage:
        code, data = payload["code"], payload.get("data")
        if isinstance(data, dict) and "orderId" in data:
            return OrderFill(str(payload.get("id", "")), str(data["orderId"]))
        if "id" not in payload and data is not None:  # an answer of the REST interface
            return OtherMessage("rest")
        detail = str(payload.get("msg") or payload.get("message") or "")
        if code in (0, 200):
            return Ack(detail, ok=True)
        return OrderReject(str(payload.get("id", "")), str(code), detail)
