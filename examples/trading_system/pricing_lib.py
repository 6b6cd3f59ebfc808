"""Stands for a library of somebody else's: it knows nothing of hft_otel and logs the way libraries do."""

from __future__ import annotations

import logging

__all__ = ["microprice", "spread_bps"]

logger = logging.getLogger(__name__)

WIDE_SPREAD_BPS = 100.0


def microprice(bid: float, bid_size: float, ask: float, ask_size: float) -> float:
    """Return the price between bid and ask that the sizes lean to; the middle where no size is known."""
    total = bid_size + ask_size
    price = (bid * ask_size + ask * bid_size) / total if total else (bid + ask) / 2
    logger.debug("microprice %.8g from %.8g x %.6g and %.8g x %.6g", price, bid, bid_size, ask, ask_size)
    return price


def spread_bps(bid: float, ask: float) -> float:
    """Return the spread in hundredths of a percent, with a warning where it is too wide to trust."""
    spread = (ask / bid - 1) * 10_000
    if spread > WIDE_SPREAD_BPS:
        logger.warning("spread of %.1f bps is wide, above %.0f", spread, WIDE_SPREAD_BPS)
    return spread
