"""How each exchange writes market data and answers, as the generator and the replay server send them."""

from __future__ import annotations

import json
import zlib
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, TypeAlias

from .mappers import BaseExchangeMapper, GateioUnifiedMappings, GenericMappings, MexcUnifiedMappings
from .messages import ExchangeEnum, Level, Trade

__all__ = ["WIRE_FORMATS", "BookState", "Frame", "WireFormat"]

Frame: TypeAlias = str | bytes
Json: TypeAlias = dict[str, Any]


@dataclass(frozen=True, slots=True)
class BookState:
    """The top of a book as it is now, and the prices that were there before and are gone."""

    symbol: str
    time_ms: int
    first_id: int
    last_id: int
    bids: list[Level]
    asks: list[Level]
    gone_bids: list[float]
    gone_asks: list[float]

    def changes(self) -> tuple[list[Level], list[Level]]:
        """Return both sides as an incremental update says it: what is gone has the size 0."""
        return (
            self.bids + [Level(price, 0.0) for price in self.gone_bids],
            self.asks + [Level(price, 0.0) for price in self.gone_asks],
        )


class WireFormat(ABC):
    """The frames of one exchange; `variant` (0 to 3) chooses among its forms of the same thing."""

    mapper: BaseExchangeMapper

    @abstractmethod
    def book(self, state: BookState, variant: int) -> Frame:
        """Return an order book message."""

    @abstractmethod
    def trade(self, trade: Trade, number: int, time_ms: int, variant: int) -> Frame:
        """Return a public trade."""

    @abstractmethod
    def ack(self, channel: str) -> Frame:
        """Return the answer to a subscription."""

    @abstractmethod
    def fill(self, order_id: str, number: int) -> Frame:
        """Return the answer to an order that was filled."""

    @abstractmethod
    def reject(self, order_id: str, variant: int) -> Frame:
        """Return the answer to an order that was refused."""

    @abstractmethod
    def order_id(self, request: Json) -> str | None:
        """Return the id of the order that a client's request places, None where it places none."""

    @abstractmethod
    def channel(self, request: Json) -> str:
        """Return what a client's request subscribes to."""


class GateioWire(WireFormat):
    """Gate.io v4."""

    mapper = GateioUnifiedMappings()
    reasons = (
        ("BALANCE_NOT_ENOUGH", "Not enough balance"),
        ("INVALID_PARAM_VALUE", "Your order size 0.00001 is too small"),
        ("TOO_MANY_REQUESTS", "Request Rate limit Exceeded (311)"),
        ("POC_FILL_IMMEDIATELY", "Order would match and take immediately so it is cancelled"),
    )

    def book(self, state: BookState, variant: int) -> Frame:
        name = self.mapper.to_exchange(state.symbol)
        if variant == 3:
            full = {"t": state.time_ms, "lastUpdateId": state.last_id, "s": name}
            full |= {"bids": _rows(state.bids), "asks": _rows(state.asks)}
            return self._update("spot.order_book", state.time_ms, full)
        bids, asks = state.changes()
        result = {"t": state.time_ms, "e": "depthUpdate", "E": state.time_ms // 1000, "s": name}
        result |= {"U": state.first_id, "u": state.last_id, "b": _rows(bids), "a": _rows(asks)}
        return self._update("spot.order_book_update", state.time_ms, result)

    def trade(self, trade: Trade, number: int, time_ms: int, variant: int) -> Frame:
        result = {
            "id": number,
            "create_time": time_ms // 1000,
            "create_time_ms": f"{time_ms}.{number % 10_000:04d}",
            "side": trade.side.value,
            "currency_pair": self.mapper.to_exchange(trade.symbol),
            "amount": f"{trade.size:.6f}",
            "price": f"{trade.price:.10g}",
        }
        return self._update("spot.trades", time_ms, result)

    def ack(self, channel: str) -> Frame:
        return json.dumps(
            {"channel": channel, "event": "subscribe", "error": None, "result": {"status": "success"}}
        )

    def fill(self, order_id: str, number: int) -> Frame:
        order = {"id": str(1852454420 + number), "text": f"t-{order_id}", "status": "closed", "type": "limit"}
        return json.dumps({"request_id": order_id, "header": self._header("200"), "data": {"result": order}})

    def reject(self, order_id: str, variant: int) -> Frame:
        label, message = self.reasons[variant]
        errors = {"errs": {"label": label, "message": message}}
        return json.dumps({"request_id": order_id, "header": self._header("400"), "data": errors})

    def order_id(self, request: Json) -> str | None:
        return str(request["payload"]["req_id"]) if request.get("channel") == "spot.order_place" else None

    def channel(self, request: Json) -> str:
        return str(request.get("channel"))

    def _update(self, channel: str, time_ms: int, result: Json) -> Frame:
        return json.dumps({"time": time_ms // 1000, "channel": channel, "event": "update", "result": result})

    def _header(self, status: str) -> Json:
        return {"status": status, "channel": "spot.order_place", "event": "api", "x_gate_ratelimit_limit": 10}


class MexcWire(WireFormat):
    """MEXC, its push.* channels and the third version of spot."""

    mapper = MexcUnifiedMappings()
    reasons = (
        (30004, "Insufficient position"),
        (30002, "The minimum transaction volume cannot be less than 5USDT"),
        (429, "Too Many Requests"),
        (30010, "no valid trade price"),
    )

    def book(self, state: BookState, variant: int) -> Frame:
        name = self.mapper.to_exchange(state.symbol)
        if variant == 3:
            v3, channel = name.replace("_", ""), "spot@public.limit.depth.v3.api"
            data = {
                "asks": _objects(state.asks, "v"),
                "bids": _objects(state.bids, "v"),
                "r": str(state.last_id),
            }
            return json.dumps(
                {"c": f"{channel}@{v3}@5", "d": {**data, "e": channel}, "s": v3, "t": state.time_ms}
            )
        if variant == 2:
            data = {"asks": _rows(state.asks), "bids": _rows(state.bids)}
            return json.dumps({"channel": "push.limit.depth", "symbol": name, "data": data, "depth": 5})
        bids, asks = state.changes()
        data = {"version": str(state.last_id), "bids": _objects(bids, "q"), "asks": _objects(asks, "q")}
        return json.dumps({"channel": "push.depth", "symbol": name, "data": data})

    def trade(self, trade: Trade, number: int, time_ms: int, variant: int) -> Frame:
        name, taker = self.mapper.to_exchange(trade.symbol), 1 if trade.side.value == "buy" else 2
        price, size = f"{trade.price:.10g}", f"{trade.size:.6f}"
        if variant == 3:
            v3, channel = name.replace("_", ""), "spot@public.deals.v3.api"
            deals = [{"S": taker, "p": price, "t": time_ms, "v": size}]
            return json.dumps(
                {"c": f"{channel}@{v3}", "d": {"deals": deals, "e": channel}, "s": v3, "t": time_ms}
            )
        data = {"deals": [{"t": time_ms, "p": price, "q": size, "T": taker}]}
        return json.dumps({"symbol": name, "data": data, "channel": "push.deal"})

    def ack(self, channel: str) -> Frame:
        return json.dumps({"channel": f"rs.{channel}", "data": "success"})

    def fill(self, order_id: str, number: int) -> Frame:
        data = {"orderId": f"C02__{443776347957968896 + number}"}
        return json.dumps({"id": order_id, "code": 0, "msg": "success", "data": data})

    def reject(self, order_id: str, variant: int) -> Frame:
        code, message = self.reasons[variant]
        return json.dumps({"id": order_id, "code": code, "msg": message})

    def order_id(self, request: Json) -> str | None:
        return str(request["id"]) if request.get("method") == "order.place" else None

    def channel(self, request: Json) -> str:
        return str(request.get("method"))


class GenericWire(WireFormat):
    """A mixture of what other exchanges send, compressed binary frames among it."""

    mapper = GenericMappings()
    reasons = (
        ("INSUFFICIENT_FUNDS", "not enough margin"),
        ("ORDER_TOO_SMALL", "below the smallest size"),
        ("RATE_LIMITED", "slow down"),
        ("PRICE_OUT_OF_BAND", "too far from the mark"),
    )

    def book(self, state: BookState, variant: int) -> Frame:
        name = self.mapper.to_exchange(state.symbol)
        if variant == 0:
            quote = {"u": state.last_id, "s": name.replace("-", ""), **_best("b", state.bids[0])}
            quote |= _best("a", state.asks[0])
            return json.dumps({"stream": f"{name.replace('-', '').lower()}@bookTicker", "data": quote})
        if variant == 3:
            snapshot = {"type": "snapshot", "product_id": name}
            return json.dumps({**snapshot, "bids": _rows(state.bids), "asks": _rows(state.asks)})
        book = {"asks": _rows(state.asks), "bids": _rows(state.bids), "ts": str(state.time_ms)}
        text = json.dumps(
            {"arg": {"channel": "books5", "instId": name}, "action": "snapshot", "data": [book]}
        )
        return _deflate(text) if variant == 2 else text

    def trade(self, trade: Trade, number: int, time_ms: int, variant: int) -> Frame:
        match = {"type": "match", "trade_id": number, "side": trade.side.value, "size": f"{trade.size:.6f}"}
        return json.dumps(
            {**match, "price": f"{trade.price:.10g}", "product_id": self.mapper.to_exchange(trade.symbol)}
        )

    def ack(self, channel: str) -> Frame:
        return json.dumps({"event": "subscribe", "arg": {"channel": channel}})

    def fill(self, order_id: str, number: int) -> Frame:
        return json.dumps({"op": "order", "id": order_id, "status": "filled", "order_id": f"g-{number}"})

    def reject(self, order_id: str, variant: int) -> Frame:
        reason, message = self.reasons[variant]
        answer = {"op": "order", "id": order_id, "status": "rejected"}
        return json.dumps({**answer, "reason": reason, "message": message})

    def order_id(self, request: Json) -> str | None:
        return str(request["id"]) if request.get("op") == "order" else None

    def channel(self, request: Json) -> str:
        return str(request.get("op"))


WIRE_FORMATS: dict[ExchangeEnum, WireFormat] = {
    ExchangeEnum.GATEIO: GateioWire(),
    ExchangeEnum.MEXC: MexcWire(),
    ExchangeEnum.GENERIC: GenericWire(),
    ExchangeEnum.DELAYED: GenericWire(),
}


def _rows(levels: list[Level]) -> list[list[str]]:
    return [[f"{price:.10g}", f"{size:.6g}"] for price, size in levels]


def _objects(levels: list[Level], size_key: str) -> list[dict[str, str]]:
    return [{"p": f"{price:.10g}", size_key: f"{size:.6f}"} for price, size in levels]


def _best(key: str, level: Level) -> dict[str, str]:
    return {key: f"{level.price:.10g}", key.upper(): f"{level.size:.6g}"}


def _deflate(text: str) -> bytes:
    deflater = zlib.compressobj(wbits=-15)
    return deflater.compress(text.encode()) + deflater.flush()
