"""A websocket server on this machine that plays the exchanges: it replays messages and answers orders."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import Counter
from types import TracebackType
from typing import Self

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from .messages import ExchangeEnum
from .order_desk import OrderDesk
from .replay import MessageSource
from .wire_formats import WIRE_FORMATS

__all__ = ["ReplayServer"]

TICK = 0.005
"""Seconds between two bursts of messages."""
MOST_BEHIND = 0.5
"""Seconds of messages that are made up for after a delay; what is older is left out."""


class ReplayServer:
    """Serves ws://127.0.0.1:<free port>/<exchange>, all exchanges together at `rate` messages a second."""

    def __init__(
        self, source: MessageSource, *, rate: float, disconnect_every: float = 4.0, seed: int = 7
    ) -> None:
        self.sent: Counter[str] = Counter()
        """Frames sent, by exchange."""
        self.unheard = 0
        """Frames left out because nobody was connected to their exchange."""
        self.late = 0
        """Frames left out because the process was too busy to send them in time."""
        self.disconnects = 0
        self.desk = OrderDesk(random.Random(seed))
        self._source = source
        self._rate = rate
        self._disconnect_every = disconnect_every
        self._clients: dict[ExchangeEnum, ServerConnection] = {}
        self._server: Server | None = None
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        self._server = await serve(
            self._serve, "127.0.0.1", 0, compression=None, max_size=None, ping_interval=None
        )
        self._tasks = [
            asyncio.create_task(self._replay()),
            asyncio.create_task(self._disconnect_now_and_then()),
        ]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in self._tasks:
            task.cancel()
        outcomes = await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.desk.close()
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()
        for outcome in outcomes:
            if isinstance(outcome, Exception):  # a bug in the replay must not look like a quiet market
                raise outcome

    def url(self, exchange: ExchangeEnum) -> str:
        """Return the address of an exchange."""
        if self._server is None:
            raise RuntimeError("the server runs inside its `async with` block only")
        port = next(iter(self._server.sockets)).getsockname()[1]
        return f"ws://127.0.0.1:{port}/{exchange.value}"

    async def _serve(self, connection: ServerConnection) -> None:
        path = connection.request.path.strip("/") if connection.request else ""
        try:
            exchange = ExchangeEnum(path)
        except ValueError:
            await connection.close(1008, f"no exchange called {path!r:.40}")
            return
        self._clients[exchange] = connection
        try:
            async for request in connection:
                await self._answer(exchange, connection, request)
        except ConnectionClosed:
            pass
        finally:
            if self._clients.get(exchange) is connection:
                del self._clients[exchange]

    async def _answer(
        self, exchange: ExchangeEnum, connection: ServerConnection, request: str | bytes
    ) -> None:
        wire, message = WIRE_FORMATS[exchange], json.loads(request)
        order_id = wire.order_id(message)
        if order_id is None:
            await connection.send(wire.ack(wire.channel(message)))
        else:
            self.desk.take(exchange, order_id, connection)

    async def _replay(self) -> None:
        messages = self._source.messages()
        start, done = time.monotonic(), 0
        while True:
            due = int((time.monotonic() - start) * self._rate) - done
            skipped = max(0, due - max(1, int(MOST_BEHIND * self._rate)))
            done += due
            self.late += skipped
            for _ in range(due - skipped):
                exchange, frame = next(messages)
                client = self._clients.get(exchange)
                if client is None:
                    self.unheard += 1
                    continue
                try:
                    await client.send(frame)
                    self.sent[exchange.value] += 1
                except ConnectionClosed:
                    self.unheard += 1
            await asyncio.sleep(TICK)

    async def _disconnect_now_and_then(self) -> None:
        abrupt = True
        while True:
            for exchange in self._source.exchanges:
                await asyncio.sleep(self._disconnect_every)
                client = self._clients.get(exchange)
                if client is None:
                    continue
                self.disconnects += 1
                if abrupt:
                    client.transport.abort()
                else:
                    await client.close(1012, "service restart")
                abrupt = not abrupt
