"""What can go wrong in the trading system, as exception types."""

from __future__ import annotations

__all__ = ["MalformedMessage", "NotConnected", "OrderFailed", "OrderRejected", "OrderTimeout", "SourceError"]


class MalformedMessage(ValueError):
    """A frame that no message can be read from: broken JSON, wrong types, binary noise."""


class OrderFailed(Exception):
    """An order that was not filled."""

    def __init__(self, order_id: str, detail: str) -> None:
        super().__init__(f"{order_id}: {detail}")
        self.order_id = order_id


class OrderRejected(OrderFailed):
    """The exchange answered, and said no."""

    def __init__(self, order_id: str, reason: str, detail: str) -> None:
        super().__init__(order_id, f"{reason}: {detail}")
        self.reason = reason


class OrderTimeout(OrderFailed):
    """The exchange did not answer in time; the order may or may not have been filled."""


class NotConnected(OrderFailed):
    """There was no connection to send the order over."""


class SourceError(ValueError):
    """A file of recorded messages that cannot be replayed; says what is wrong and what to do about it."""
