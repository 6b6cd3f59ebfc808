"""How each exchange writes a symbol, and how this system does: BASE/QUOTE."""

from __future__ import annotations

from abc import ABC, abstractmethod

__all__ = ["BaseExchangeMapper", "GateioUnifiedMappings", "GenericMappings", "MexcUnifiedMappings"]

QUOTES = (
    "USDT",
    "USDC",
    "BUSD",
    "TUSD",
    "DAI",
    "USD",
    "EUR",
    "GBP",
    "CHF",
    "BTC",
    "XBT",
    "ETH",
    "BNB",
    "TRY",
)


class BaseExchangeMapper(ABC):
    """Translates symbols; answers are remembered, since the same few hundred names come by all day."""

    def __init__(self) -> None:
        self._unified: dict[str, str] = {}

    def to_unified(self, name: object) -> str:
        """Return BASE/QUOTE for the exchange's name; what is not a text with content raises TypeError."""
        if not isinstance(name, str) or not name:
            raise TypeError(f"a symbol is a text, not {name!r:.40}")
        known = self._unified.get(name)
        if known is None:
            known = self._unified[name] = self._translate(name)
        return known

    @abstractmethod
    def to_exchange(self, symbol: str) -> str:
        """Return the exchange's name for BASE/QUOTE."""

    @abstractmethod
    def _translate(self, name: str) -> str:
        """Return BASE/QUOTE for a name that is not yet known."""


class GateioUnifiedMappings(BaseExchangeMapper):
    """Gate.io writes BTC_USDT, and for dated futures BTC_USDT_20210326."""

    def to_exchange(self, symbol: str) -> str:
        """Return the exchange's name for BASE/QUOTE."""
        return symbol.replace("/", "_")

    def _translate(self, name: str) -> str:
        return name.replace("_", "/", 1)


class MexcUnifiedMappings(BaseExchangeMapper):
    """MEXC writes BTC_USDT, and BTCUSDT in its third version."""

    def to_exchange(self, symbol: str) -> str:
        """Return the exchange's name for BASE/QUOTE."""
        return symbol.replace("/", "_")

    def _translate(self, name: str) -> str:
        return name.replace("_", "/", 1) if "_" in name else split_by_quote(name)


class GenericMappings(BaseExchangeMapper):
    """Any exchange: BTC-USDT, BTC/USDT, BTC_USDT, BTCUSDT."""

    def to_exchange(self, symbol: str) -> str:
        """Return the exchange's name for BASE/QUOTE."""
        return symbol.replace("/", "-")

    def _translate(self, name: str) -> str:
        for separator in ("/", "-", "_"):
            if separator in name:
                return name.upper().replace(separator, "/", 1)
        return split_by_quote(name.upper())


def split_by_quote(name: str) -> str:
    """Split BTCUSDT before the quote currency that it ends with; other names stay as they are."""
    for quote in QUOTES:
        if name.endswith(quote) and len(name) > len(quote):
            return f"{name[: -len(quote)]}/{quote}"
    return name
