"""Answers orders as an exchange does: mostly with a fill, sometimes with a refusal, rarely not at all."""

from __future__ import annotations

import asyncio
import random
from collections import Counter

from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed

from .messages import ExchangeEnum
from .wire_formats import WIRE_FORMATS

__all__ = ["OrderDesk"]

REJECT_SHARE = 0.05
BAD_SPELL_SHARE = 0.02
"""How often an order begins a spell in which its exchange refuses everything."""
BAD_SPELL_ORDERS = 4
SILENT_SHARE = 0.01


class OrderDesk:
    """Takes orders for all exchanges; answers come after a few milliseconds, in any order."""

    def __init__(self, dice: random.Random) -> None:
        self.filled = 0
        self.rejected = 0
        self.unanswered = 0
        self._dice = dice
        self._refusing: Counter[ExchangeEnum] = Counter()
        self._tasks: set[asyncio.Task[None]] = set()

    def take(self, exchange: ExchangeEnum, order_id: str, client: ServerConnection) -> None:
        """Answer the order in a while, over the client's connection."""
        if self._dice.random() < SILENT_SHARE:
            self.unanswered += 1
            return
        task = asyncio.get_running_loop().create_task(self._answer(exchange, order_id, client))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Forget the orders that are not yet answered."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _answer(self, exchange: ExchangeEnum, order_id: str, client: ServerConnection) -> None:
        wire, refused = WIRE_FORMATS[exchange], self._refuses(exchange)
        variant = self._dice.randrange(4)
        await asyncio.sleep(self._dice.uniform(0.001, 0.02))
        if refused:
            self.rejected += 1
            frame = wire.reject(order_id, variant)
        else:
            self.filled += 1
            frame = wire.fill(order_id, self.filled)
        try:
            await client.send(frame)
        except ConnectionClosed:
            self.unanswered += 1

    def _refuses(self, exchange: ExchangeEnum) -> bool:
        if self._refusing[exchange]:
            self._refusing[exchange] -= 1
            return True
        if self._dice.random() < BAD_SPELL_SHARE:
            self._refusing[exchange] = BAD_SPELL_ORDERS - 1
            return True
        return self._dice.random() < REJECT_SHARE
