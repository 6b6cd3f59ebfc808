"""One exchange: its connection, its parser, its books, and the orders that wait for an answer."""

from __future__ import annotations

import asyncio
import json
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from hft_otel import HFTLoggerInterface, LoggerFactory

from .base_parser import EnhancedBaseMessageParser
from .errors import MalformedMessage, NotConnected, OrderRejected, OrderTimeout
from .messages import (
    Ack,
    BookUpdate,
    Order,
    OrderFill,
    OrderReject,
    ParsedMessage,
    Quote,
    TradeBatch,
)
from .order_book import OrderBook
from .websocket_manager import WebSocketManager

__all__ = ["GateioPublicExchange", "GenericPublicExchange", "MexcPublicExchange", "PublicExchange"]

ORDER_TIMEOUT = 0.5
QuoteListener = Callable[[str, Quote], None]


class PublicExchange(ABC):
    """Turns frames into quotes for whoever listens, and orders into answers."""

    def __init__(
        self,
        parser: EnhancedBaseMessageParser,
        url: str,
        symbols: Sequence[str],
        logger: HFTLoggerInterface | None = None,
    ) -> None:
        self.name = parser.exchange_name
        self.parser = parser
        self.symbols = tuple(symbols)
        own = logger or LoggerFactory.create_logger(f"exchange.{self.name}.public")
        self.logger = own.bind(exchange=self.name, component="exchange")
        self.manager = WebSocketManager(
            url,
            self._on_frame,
            own.bind(exchange=self.name, component="websocket"),
            on_connected=self._subscribe,
        )
        self.outcomes: Counter[str] = Counter()
        self.listeners: list[QuoteListener] = []
        self._books: dict[str, OrderBook] = {}
        self._waiting: dict[str, asyncio.Future[OrderFill]] = {}

    async def run(self) -> None:
        """Stay connected until `stop`."""
        await self.manager.run()

    async def stop(self) -> None:
        """Disconnect; orders that still wait are given up."""
        await self.manager.stop()
        for order_id, answer in self._waiting.items():
            if not answer.done():
                answer.set_exception(NotConnected(order_id, "shutting down"))
                answer.exception()  # seen: an order that is still being sent does not come to wait for its answer

    async def place_order(self, order: Order) -> OrderFill:
        """Send an order and wait for the exchange's answer; raise OrderFailed when it was not filled."""
        answer: asyncio.Future[OrderFill] = asyncio.get_running_loop().create_future()
        self._waiting[order.id] = answer
        start = time.perf_counter()
        try:
            if not await self.manager.send(json.dumps(self._order_message(order))):
                raise NotConnected(order.id, f"no connection to {self.name}")
            try:
                return await asyncio.wait_for(answer, ORDER_TIMEOUT)
            except TimeoutError:
                raise OrderTimeout(order.id, f"no answer from {self.name} in {ORDER_TIMEOUT} s") from None
        finally:
            del self._waiting[order.id]
            self.logger.latency(
                "order_round_trip", (time.perf_counter() - start) * 1000, side=order.side.value
            )

    @abstractmethod
    def _subscriptions(self) -> list[dict[str, Any]]:
        """Return the requests to send after each connect."""

    @abstractmethod
    def _order_message(self, order: Order) -> dict[str, Any]:
        """Return the exchange's form of an order."""

    async def _subscribe(self) -> None:
        for request in self._subscriptions():
            await self.manager.send(json.dumps(request))

    async def _on_frame(self, frame: str | bytes) -> None:
        try:
            message = await self.parser.parse_message(frame)
        except MalformedMessage:  # the parser has logged it
            self.outcomes["malformed"] += 1
            return
        self.outcomes[message.message_type.value] += 1
        self._dispatch(message)

    def _dispatch(self, message: ParsedMessage) -> None:
        if isinstance(message, BookUpdate):
            self._on_book(message)
        elif isinstance(message, Quote):
            self._publish(message)
        elif isinstance(message, TradeBatch):
            for trade in message.trades:
                self.logger.counter("trades", tags={"side": trade.side.value})
        elif isinstance(message, OrderFill | OrderReject):
            self._on_order_answer(message)
        elif isinstance(message, Ack) and not message.ok:
            self.logger.warning(f"Subscription refused: {message.detail}", channel=message.channel)

    def _on_book(self, update: BookUpdate) -> None:
        book = self._books.get(update.symbol)
        if book is None:
            book = self._books[update.symbol] = OrderBook(update.symbol)
        missed = book.missed(update)
        if missed:
            self.logger.warning(
                "Sequence gap in the book of %s, %d updates missed: starting it anew",
                update.symbol,
                missed,
                symbol=update.symbol,
            )
            self.logger.counter("book_sequence_gaps", symbol=update.symbol)
            book.clear()
        book.apply(update)
        quote = book.quote()
        if quote is not None:
            self._publish(quote)

    def _publish(self, quote: Quote) -> None:
        for listener in self.listeners:
            listener(self.name, quote)

    def _on_order_answer(self, message: OrderFill | OrderReject) -> None:
        answer = self._waiting.get(message.order_id)
        if answer is None or answer.done():
            self._on_stray_answer(message)
        elif isinstance(message, OrderFill):
            answer.set_result(message)
        else:
            answer.set_exception(OrderRejected(message.order_id, message.reason, message.detail))

    def _on_stray_answer(self, message: OrderFill | OrderReject) -> None:
        if isinstance(message, OrderFill):
            self.logger.warning(f"Fill of an order that nobody waits for: {message.order_id}")
            self.logger.audit(
                "late_fill", order_id=message.order_id, exchange_order_id=message.exchange_order_id
            )
            return
        self.logger.error(f"Order rejected: {message.reason}: {message.detail}", order_id=message.order_id)
        self.logger.audit("order_rejected", order_id=message.order_id, reason=message.reason)


class GateioPublicExchange(PublicExchange):
    """Gate.io's requests."""

    def _subscriptions(self) -> list[dict[str, Any]]:
        names = [self.parser.mapper.to_exchange(symbol) for symbol in self.symbols]
        requests = [("spot.order_book_update", [name, "100ms"]) for name in names]
        return [
            {"time": int(time.time()), "channel": channel, "event": "subscribe", "payload": payload}
            for channel, payload in [*requests, ("spot.trades", names)]
        ]

    def _order_message(self, order: Order) -> dict[str, Any]:
        parameters = {
            "text": f"t-{order.id}",
            "currency_pair": self.parser.mapper.to_exchange(order.symbol),
            "side": order.side.value,
            "price": f"{order.price:.10g}",
            "amount": f"{order.size:.10g}",
            "time_in_force": "ioc",
        }
        payload = {"req_id": order.id, "req_param": parameters}
        return {"time": int(time.time()), "channel": "spot.order_place", "event": "api", "payload": payload}


class MexcPublicExchange(PublicExchange):
    """MEXC's requests."""

    def _subscriptions(self) -> list[dict[str, Any]]:
        names = [self.parser.mapper.to_exchange(symbol) for symbol in self.symbols]
        return [
            {"method": method, "param": {"symbol": name}}
            for name in names
            for method in ("sub.depth", "sub.deal")
        ]

    def _order_message(self, order: Order) -> dict[str, Any]:
        parameters = {
            "symbol": self.parser.mapper.to_exchange(order.symbol),
            "side": order.side.value.upper(),
            "type": "IMMEDIATE_OR_CANCEL",
            "price": f"{order.price:.10g}",
            "quantity": f"{order.size:.10g}",
        }
        return {"id": order.id, "method": "order.place", "params": parameters}


class GenericPublicExchange(PublicExchange):
    """Requests in the style of the younger exchanges."""

    def _subscriptions(self) -> list[dict[str, Any]]:
        names = [self.parser.mapper.to_exchange(symbol) for symbol in self.symbols]
        return [{"op": "subscribe", "args": [{"channel": "books", "instId": name} for name in names]}]

    def _order_message(self, order: Order) -> dict[str, Any]:
        parameters = {
            "instId": self.parser.mapper.to_exchange(order.symbol),
            "side": order.side.value,
            "px": f"{order.price:.10g}",
            "sz": f"{order.size:.10g}",
            "ordType": "ioc",
        }
        return {"op": "order", "id": order.id, "args": [parameters]}
