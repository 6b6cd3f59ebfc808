"""Keeps one websocket connected, and says what happens to it."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from enum import Enum

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, WebSocketException

from hft_otel import HFTLoggerInterface, LoggerFactory

__all__ = ["Backoff", "ConnectionState", "WebSocketManager"]

MAX_FRAME = 16 * 1024 * 1024
OPEN_TIMEOUT = 5.0


class ConnectionState(Enum):
    """Where a connection is in its life."""

    DISCONNECTED = "disconnected"
    CONNECTING = "connecting"
    CONNECTED = "connected"
    RECONNECTING = "reconnecting"
    CLOSED = "closed"


@dataclass
class Backoff:
    """The wait before the next attempt: doubling, bounded, with jitter so that clients do not come in step."""

    first: float = 0.05
    longest: float = 5.0
    random: random.Random = field(default_factory=random.Random)
    attempt: int = 0

    def next_delay(self) -> float:
        """Return the seconds to wait, between half and the whole of the doubled delay."""
        delay = min(self.longest, self.first * 2.0**self.attempt)
        self.attempt = min(self.attempt + 1, 30)
        return delay * self.random.uniform(0.5, 1.0)

    def reset(self) -> None:
        """Start anew after a success."""
        self.attempt = 0


class WebSocketManager:
    """Connects, hands frames to `on_message`, and connects again whenever the connection is lost."""

    def __init__(
        self,
        url: str,
        on_message: Callable[[str | bytes], Awaitable[None]],
        logger: HFTLoggerInterface | None = None,
        *,
        on_connected: Callable[[], Awaitable[None]] | None = None,
        backoff: Backoff | None = None,
    ) -> None:
        # Backwards compatible - existing logs still work
        self.logger = logger or LoggerFactory.create_logger("websocket")
        self.url = url
        self.state = ConnectionState.DISCONNECTED
        self.connections = 0
        self._on_message = on_message
        self._on_connected = on_connected
        self._backoff = backoff or Backoff()
        self._connection: ClientConnection | None = None
        self._stopping = asyncio.Event()

    @property
    def reconnects(self) -> int:
        """How many times a lost connection was made again."""
        return max(0, self.connections - 1)

    async def run(self) -> None:
        """Stay connected until `stop`."""
        try:
            while not self._stopping.is_set():
                try:
                    connection = await self.connect()
                    await self._receive(connection)
                except (OSError, TimeoutError, WebSocketException) as error:
                    self._lost(error)
                await self._pause()
        finally:
            self._move_to(ConnectionState.CLOSED)

    async def connect(self) -> ClientConnection:
        """Open the connection once; raise what the attempt raised, logged."""
        self._move_to(ConnectionState.RECONNECTING if self.connections else ConnectionState.CONNECTING)
        start = time.perf_counter()
        try:
            connection = self._connection = await connect(
                self.url, compression=None, max_size=MAX_FRAME, open_timeout=OPEN_TIMEOUT, ping_interval=None
            )
            elapsed_ms = (time.perf_counter() - start) * 1000
            self.connections += 1
            self._backoff.reset()
            self._move_to(ConnectionState.CONNECTED)

            # New HFT features available
            self.logger.latency("websocket_connect", elapsed_ms)
            self.logger.audit("connection_established", endpoint=self.url, attempt=self.connections)
            return connection

        except Exception as e:
            self.logger.error(f"Connection failed: {e}", endpoint=self.url, error_type=type(e).__name__)
            self.logger.counter("websocket_connect_failures")
            raise

    async def send(self, text: str) -> bool:
        """Send a text frame; say whether there was a connection that took it."""
        if self._connection is None:
            return False
        try:
            await self._connection.send(text)
        except ConnectionClosed:
            return False
        return True

    async def stop(self) -> None:
        """Close the connection and let `run` return."""
        self._stopping.set()
        if self._connection is not None:
            await self._connection.close()

    async def _receive(self, connection: ClientConnection) -> None:
        try:
            if self._stopping.is_set():  # while the connection was being made
                return
            if self._on_connected is not None:
                await self._on_connected()
            async for frame in connection:
                await self._on_message(frame)
            if not self._stopping.is_set():
                self._lost(ConnectionError("closed by the exchange"))
        finally:
            self._connection = None
            await connection.close()

    def _lost(self, error: Exception) -> None:
        if self._stopping.is_set():
            return
        if self.state is ConnectionState.CONNECTED:  # a failed attempt was logged by connect()
            self.logger.warning(
                f"Connection error: {error}", endpoint=self.url, error_type=type(error).__name__
            )
            self.logger.counter("websocket_disconnects")
        self._move_to(ConnectionState.DISCONNECTED)

    async def _pause(self) -> None:
        if self._stopping.is_set():
            return
        delay = self._backoff.next_delay()
        self.logger.debug(f"Next attempt in {delay:.3f} s", endpoint=self.url)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), delay)

    def _move_to(self, new: ConnectionState) -> None:
        old, self.state = self.state, new
        if old is not new:
            # Existing Python logging calls work unchanged
            self.logger.info(f"Connection state: {old.value} → {new.value}", endpoint=self.url)
