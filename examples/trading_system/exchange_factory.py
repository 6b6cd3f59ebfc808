"""Builds the parts of the system and hands each of them its logger."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from hft_otel import HFTLoggerInterface, LogConfig, LoggerFactory

from .arbitrage_engine import ArbitrageEngine, EngineSettings, OrderVenue
from .base_parser import EnhancedBaseMessageParser
from .gateio_parser import GateioPublicMessageParser
from .generic_parser import GenericMessageParser
from .mappers import BaseExchangeMapper, GateioUnifiedMappings, GenericMappings, MexcUnifiedMappings
from .messages import ExchangeEnum
from .mexc_parser import MexcPublicMessageParser
from .public_exchange import GateioPublicExchange, GenericPublicExchange, MexcPublicExchange, PublicExchange

__all__ = ["ExchangeConfig", "ExchangeFactory", "LoggerSource"]

LoggerSource = Callable[[str, LogConfig | None], HFTLoggerInterface]

ENDPOINTS = {
    ExchangeEnum.GATEIO: "wss://api.gateio.ws/ws/v4/",
    ExchangeEnum.MEXC: "wss://contract.mexc.com/edge",
}


@dataclass(frozen=True)
class ExchangeConfig:
    """What the factory is told: where to connect, how to log, and who makes the loggers."""

    url: str | None = None
    logging_config: LogConfig | None = None
    create_logger: LoggerSource = LoggerFactory.create_logger


class ExchangeFactory:
    """Enhanced factory with logger injection."""

    @staticmethod
    def create_public_exchange(
        exchange_enum: ExchangeEnum, symbols: Sequence[str], config: ExchangeConfig | None = None
    ) -> PublicExchange:
        """Build one exchange with its parser and connection, which log through children of one logger."""
        config = config or ExchangeConfig()
        url = config.url or ENDPOINTS.get(exchange_enum)
        if url is None:
            raise ValueError(
                f"no endpoint is known for {exchange_enum.value!r}: give ExchangeConfig(url=...)"
            )

        # Create exchange-specific logger
        logger = config.create_logger(f"exchange.{exchange_enum.value}.public", config.logging_config)

        # Create exchange with injected logger
        mapper: BaseExchangeMapper
        parser: EnhancedBaseMessageParser
        if exchange_enum == ExchangeEnum.MEXC:
            mapper = MexcUnifiedMappings()
            parser = MexcPublicMessageParser(mapper, logger=logger)
            return MexcPublicExchange(parser, url, symbols, logger=logger)

        if exchange_enum == ExchangeEnum.GATEIO:
            mapper = GateioUnifiedMappings()
            parser = GateioPublicMessageParser(mapper, logger=logger)
            return GateioPublicExchange(parser, url, symbols, logger=logger)

        mapper = GenericMappings()
        parser = GenericMessageParser(mapper, logger=logger, exchange_name=exchange_enum.value)
        return GenericPublicExchange(parser, url, symbols, logger=logger)

    @staticmethod
    def create_arbitrage_engine(
        venues: Mapping[str, OrderVenue],
        config: ExchangeConfig | None = None,
        settings: EngineSettings | None = None,
    ) -> ArbitrageEngine:
        """Build the engine that trades on the venues."""
        config = config or ExchangeConfig()
        logger = config.create_logger("arbitrage", config.logging_config).bind(component="arbitrage_engine")
        return ArbitrageEngine(venues, logger=logger, settings=settings)
