"""The base of every message parser, with the logger injected."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from typing import Any

from hft_otel import HFTLoggerInterface, LogConfig, LoggerFactory, PerformanceLogger

from .decoding import decode_json, levels
from .errors import MalformedMessage
from .mappers import BaseExchangeMapper
from .messages import BookUpdate, ParsedMessage

__all__ = ["EnhancedBaseMessageParser"]

PREVIEW = 100
WRONG_SHAPE = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError)
"""What reading a value of an unexpected shape raises; to the caller all of it is MalformedMessage."""


class EnhancedBaseMessageParser(ABC):
    """Enhanced base with injected logger."""

    def __init__(
        self, mapper: BaseExchangeMapper, exchange_name: str, logger: HFTLoggerInterface | None = None
    ) -> None:
        self.mapper = mapper
        self.exchange_name = exchange_name

        self.logger: HFTLoggerInterface
        if logger is None:
            self.logger = LoggerFactory.create_logger(
                f"parser.{exchange_name}", LogConfig.for_component("message_parser")
            )
            self.logger.set_context(exchange=exchange_name, component="message_parser")
        else:  # shared with other parts of this exchange: a child, so that our context stays ours
            self.logger = logger.bind(exchange=exchange_name, component="message_parser")
        self._performance = PerformanceLogger(self.logger)

    async def parse_message(self, msg: str | bytes) -> ParsedMessage:
        """Return what the frame says; raise MalformedMessage, logged, when it says nothing."""
        start = time.perf_counter()
        try:
            result = await self._parse(msg)

            # Latency metric - goes to Prometheus
            self.logger.latency(
                "parse_message",
                (time.perf_counter() - start) * 1000,
                message_type=result.message_type.name,
            )
            return result

        except Exception as e:
            # Error with context - goes to file
            self.logger.error(
                f"Parse failed: {e}",
                message_preview=str(msg[:PREVIEW])[:PREVIEW],
                error_type=type(e).__name__,
            )
            self.logger.counter("parse_failures", tags={"error_type": type(e).__name__})
            raise

    async def _parse(self, msg: str | bytes) -> ParsedMessage:
        # Debug logging (goes to console in DEV)
        self.logger.debug(f"Parsing message: {msg[:PREVIEW]!r}")
        payload = decode_json(msg)
        try:
            result = self._read(payload)
        except MalformedMessage:
            raise
        except WRONG_SHAPE as e:
            raise MalformedMessage(f"unexpected shape: {type(e).__name__}: {e}") from e
        self.logger.counter("messages_parsed", tags={"type": result.message_type.value})
        return result

    @abstractmethod
    def _read(self, payload: Any) -> ParsedMessage:
        """Return the message that a decoded JSON value stands for."""

    def _parse_orderbook(
        self,
        symbol: str,
        bids: Any,
        asks: Any,
        *,
        snapshot: bool = False,
        first_id: int = 0,
        last_id: int = 0,
    ) -> BookUpdate:
        with self._performance.time_operation("parse_orderbook"):
            result = BookUpdate(
                symbol=self.mapper.to_unified(symbol),
                bids=levels(bids),
                asks=levels(asks),
                snapshot=snapshot,
                first_id=first_id,
                last_id=last_id,
            )
        # Metrics (go to Prometheus)
        self.logger.metric("orderbook_depth", len(result.bids) + len(result.asks), symbol=result.symbol)
        return result
