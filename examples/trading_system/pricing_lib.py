"""Stands for a library of somebody else's: it knows nothing of hft_otel and logs the way libraries do."""

from __future__ import annotations

import logging

__all__ = ["edge_bps", "microprice"]

logger = logging.getLogger(__name__)

SUSPICIOUS_EDGE_BPS = 3.0


def microprice(bid: float, bid_size: float, ask: float, ask_size: float) -> float:
    """Return the price between bid and ask that the sizes lean to; the middle where no size is known."""
    total = bid_size + ask_size
    price = (bid * ask_size + ask * bid_size) / total if total else (bid + ask) / 2
    logger.debug("microprice %.8g from %.8g x %.6g and %.8g x %.6g", price, bid, bid_size, ask, ask_size)
    return price


def edge_bps(buy_price: float, sell_price: float) -> float:
    """Return the gap in hundredths of a percent, with a warning where it is too good to be true."""
    edge = (sell_price / buy_price - 1) * 10_000
    if edge > SUSPICIOUS_EDGE_BPS:
        logger.warning(
            "edge of %.1f bps is suspicious, above %.0f: is a quote stale?", edge, SUSPICIOUS_EDGE_BPS
        )
    return edge
