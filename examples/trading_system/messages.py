"""The domain's types: what parsers return, what the engine sees and what orders are made of."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import ClassVar, NamedTuple, TypeAlias

__all__ = [
    "Ack",
    "BookUpdate",
    "ExchangeEnum",
    "Execution",
    "Level",
    "MessageType",
    "Opportunity",
    "Order",
    "OrderFill",
    "OrderReject",
    "OtherMessage",
    "ParsedMessage",
    "Quote",
    "Side",
    "Trade",
    "TradeBatch",
]


class ExchangeEnum(Enum):
    """The exchanges that the factory can build."""

    GATEIO = "gateio"
    MEXC = "mexc"
    GENERIC = "generic"
    DELAYED = "delayed"


class MessageType(Enum):
    """What a parsed message is about."""

    BOOK = "book"
    QUOTE = "quote"
    TRADE = "trade"
    ACK = "ack"
    ORDER_FILL = "order_fill"
    ORDER_REJECT = "order_reject"
    OTHER = "other"


class Side(Enum):
    """The side of an order or of the taker of a trade."""

    BUY = "buy"
    SELL = "sell"


class Level(NamedTuple):
    """One price level of a book; size 0 in an update removes the level."""

    price: float
    size: float


@dataclass(frozen=True, slots=True)
class BookUpdate:
    """Changes to a book, or (`snapshot`) the whole of it; ids are the exchange's sequence numbers, 0 if none."""

    message_type: ClassVar[MessageType] = MessageType.BOOK
    symbol: str
    bids: tuple[Level, ...]
    asks: tuple[Level, ...]
    snapshot: bool = False
    first_id: int = 0
    last_id: int = 0


@dataclass(frozen=True, slots=True)
class Quote:
    """The best bid and ask of a symbol on one exchange; a size of 0 is not known."""

    message_type: ClassVar[MessageType] = MessageType.QUOTE
    symbol: str
    bid: Level
    ask: Level


@dataclass(frozen=True, slots=True)
class Trade:
    """One public trade."""

    symbol: str
    price: float
    size: float
    side: Side


@dataclass(frozen=True, slots=True)
class TradeBatch:
    """The trades of one message."""

    message_type: ClassVar[MessageType] = MessageType.TRADE
    trades: tuple[Trade, ...]


@dataclass(frozen=True, slots=True)
class Ack:
    """An answer to a subscription."""

    message_type: ClassVar[MessageType] = MessageType.ACK
    channel: str
    ok: bool
    detail: str = ""


@dataclass(frozen=True, slots=True)
class OrderFill:
    """An order that was taken and filled."""

    message_type: ClassVar[MessageType] = MessageType.ORDER_FILL
    order_id: str
    exchange_order_id: str


@dataclass(frozen=True, slots=True)
class OrderReject:
    """An order that the exchange refused."""

    message_type: ClassVar[MessageType] = MessageType.ORDER_REJECT
    order_id: str
    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class OtherMessage:
    """A well-formed message that this system has no use for, such as a candlestick or a heartbeat."""

    message_type: ClassVar[MessageType] = MessageType.OTHER
    kind: str


ParsedMessage: TypeAlias = BookUpdate | Quote | TradeBatch | Ack | OrderFill | OrderReject | OtherMessage


@dataclass(frozen=True, slots=True)
class Order:
    """A limit order, immediate or cancel."""

    id: str
    symbol: str
    side: Side
    price: float
    size: float


@dataclass(frozen=True, slots=True)
class Opportunity:
    """The same symbol is cheaper to buy on one exchange than it sells for on another."""

    id: str
    symbol: str
    buy_on: str
    sell_on: str
    buy_price: float
    sell_price: float
    size: float

    @property
    def profit_bps(self) -> float:
        """The gap in hundredths of a percent of the buying price."""
        return (self.sell_price / self.buy_price - 1) * 10_000

    @property
    def volume(self) -> float:
        """What the buying leg costs, in the quote currency."""
        return self.buy_price * self.size

    @property
    def exchanges(self) -> tuple[str, str]:
        """Where to buy, and where to sell."""
        return self.buy_on, self.sell_on


@dataclass(frozen=True, slots=True)
class Execution:
    """An opportunity of which both legs were filled."""

    opportunity: Opportunity
    fills: tuple[OrderFill, OrderFill]

    @property
    def profit(self) -> float:
        """What the two legs earned, in the quote currency."""
        return (self.opportunity.sell_price - self.opportunity.buy_price) * self.opportunity.size
