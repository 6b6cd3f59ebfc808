"""The example's parsers: generated, recorded and malformed frames."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import itertools
import json
import random
import zlib
from pathlib import Path
from typing import Any

import pytest

from examples.trading_system.base_parser import EnhancedBaseMessageParser
from examples.trading_system.errors import MalformedMessage
from examples.trading_system.faults import KINDS, malformed_frame
from examples.trading_system.gateio_parser import GateioPublicMessageParser
from examples.trading_system.generator import MessageGenerator
from examples.trading_system.generic_parser import GenericMessageParser
from examples.trading_system.mappers import GateioUnifiedMappings, GenericMappings, MexcUnifiedMappings
from examples.trading_system.messages import (
    Ack,
    BookUpdate,
    ExchangeEnum,
    Level,
    OrderFill,
    OrderReject,
    OtherMessage,
    ParsedMessage,
    Quote,
    Side,
    Trade,
    TradeBatch,
)
from examples.trading_system.mexc_parser import MexcPublicMessageParser
from tests.unit.test_examples_support import MARKET_DATA, RecordingLogger, needs_recordings, recordings


def gateio(logger: RecordingLogger | None = None) -> EnhancedBaseMessageParser:
    return GateioPublicMessageParser(GateioUnifiedMappings(), logger or RecordingLogger())


def mexc(logger: RecordingLogger | None = None) -> EnhancedBaseMessageParser:
    return MexcPublicMessageParser(MexcUnifiedMappings(), logger or RecordingLogger())


def generic(logger: RecordingLogger | None = None) -> EnhancedBaseMessageParser:
    return GenericMessageParser(GenericMappings(), logger or RecordingLogger())


PARSERS = {ExchangeEnum.GATEIO: gateio, ExchangeEnum.MEXC: mexc, ExchangeEnum.GENERIC: generic}


def parse(parser: EnhancedBaseMessageParser, frame: Any) -> ParsedMessage:
    return asyncio.run(parser.parse_message(frame if isinstance(frame, str | bytes) else json.dumps(frame)))


def test_gateio_book_update_has_levels_and_sequence_numbers() -> None:
    result = {"s": "BTC_USDT", "U": 5, "u": 9, "b": [["100.5", "2"]], "a": [["100.7", "0"]]}
    frame = {"time": 1, "channel": "spot.order_book_update", "event": "update", "result": result}
    assert parse(gateio(), frame) == BookUpdate(
        "BTC/USDT", (Level(100.5, 2.0),), (Level(100.7, 0.0),), first_id=5, last_id=9
    )


def test_gateio_futures_trades_with_a_negative_size_are_sells() -> None:
    rows = [
        {"contract": "ETH_USDT", "price": "96.4", "size": -3},
        {"contract": "ETH_USDT", "price": 96.5, "size": 2},
    ]
    frame = {"channel": "futures.trades", "event": "update", "result": rows}
    assert parse(gateio(), frame) == TradeBatch(
        (Trade("ETH/USDT", 96.4, 3.0, Side.SELL), Trade("ETH/USDT", 96.5, 2.0, Side.BUY))
    )


@pytest.mark.parametrize(
    ("frame", "expected"),
    [
        (
            {"channel": "spot.trades", "event": "subscribe", "result": {"status": "success"}},
            Ack("spot.trades", ok=True),
        ),
        (
            {"channel": "spot.trades", "event": "subscribe", "error": {"code": 2, "message": "no such pair"}},
            Ack("spot.trades", ok=False, detail="no such pair"),
        ),
        (
            {
                "request_id": "o1",
                "header": {"status": "400", "channel": "spot.order_place"},
                "data": {"errs": {"label": "BALANCE_NOT_ENOUGH", "message": "Not enough balance"}},
            },
            OrderReject("o1", "BALANCE_NOT_ENOUGH", "Not enough balance"),
        ),
        (
            {"label": "INVALID_KEY", "message": "Invalid key provided"},
            OrderReject("", "INVALID_KEY", "Invalid key provided"),
        ),
        (
            {
                "channel": "spot.book_ticker",
                "event": "update",
                "result": {"s": "BTC_USDT", "b": "1", "B": "2", "a": "3", "A": "4"},
            },
            Quote("BTC/USDT", Level(1.0, 2.0), Level(3.0, 4.0)),
        ),
        (
            {"channel": "spot.candlesticks", "event": "update", "result": {}},
            OtherMessage("spot.candlesticks"),
        ),
    ],
)
def test_gateio_message_is_understood(frame: dict[str, Any], expected: ParsedMessage) -> None:
    assert parse(gateio(), frame) == expected


@pytest.mark.parametrize(
    ("frame", "expected"),
    [
        (
            {"symbol": "BTC_USDT", "data": {"deals": [{"p": "9", "q": "1", "T": 2}]}, "channel": "push.deal"},
            TradeBatch((Trade("BTC/USDT", 9.0, 1.0, Side.SELL),)),
        ),
        (
            {"channel": "push.deal", "data": {"p": 9, "v": 8, "T": 1}, "symbol": "BTC_USD"},
            TradeBatch((Trade("BTC/USD", 9.0, 8.0, Side.BUY),)),
        ),
        (
            ["push.symbol", {"symbol": "BTC_USDT", "data": {"bids": [{"p": "9", "q": "0"}]}}],
            BookUpdate("BTC/USDT", (Level(9.0, 0.0),), ()),
        ),
        (
            {"channel": "push.depth.full", "data": {"asks": [[10, 5, 1]], "bids": []}, "symbol": "BTC_USD"},
            BookUpdate("BTC/USD", (), (Level(10.0, 5.0),), snapshot=True),
        ),
        (
            {
                "c": "spot@public.bookTicker.v3.api@ETHUSDT",
                "d": {"a": "2", "A": "1", "b": "1.5", "B": "3"},
                "s": "ETHUSDT",
            },
            Quote("ETH/USDT", Level(1.5, 3.0), Level(2.0, 1.0)),
        ),
        (
            {"id": "o1", "code": 30004, "msg": "Insufficient position"},
            OrderReject("o1", "30004", "Insufficient position"),
        ),
        ({"id": "o1", "code": 0, "msg": "success", "data": {"orderId": "C1"}}, OrderFill("o1", "C1")),
        ({"channel": "rs.sub.deal", "data": "success"}, Ack("sub.deal", ok=True, detail="success")),
    ],
)
def test_mexc_message_is_understood(frame: Any, expected: ParsedMessage) -> None:
    assert parse(mexc(), frame) == expected


@pytest.mark.parametrize(
    ("frame", "expected"),
    [
        (
            {"stream": "x", "data": {"s": "NKNUSDT", "b": "0.3", "B": "6", "a": "0.4", "A": "3"}},
            Quote("NKN/USDT", Level(0.3, 6.0), Level(0.4, 3.0)),
        ),
        (
            {"stream": "x", "data": {"e": "trade", "s": "BTCUSDT", "p": "9", "q": "1", "b": 88, "a": 50}},
            TradeBatch((Trade("BTC/USDT", 9.0, 1.0, Side.BUY),)),
        ),
        (
            {
                "type": "l2update",
                "product_id": "SKL-BTC",
                "changes": [["sell", "2", "3"], ["buy", "1", "0"]],
            },
            BookUpdate("SKL/BTC", (Level(1.0, 0.0),), (Level(2.0, 3.0),)),
        ),
        (
            [993, [["354.1", "0.9", "1618678142.5", "s", "l", ""]], "trade", "XMR/USD"],
            TradeBatch((Trade("XMR/USD", 354.1, 0.9, Side.SELL),)),
        ),
        (
            [1360, {"as": [["2", "1", "0"]], "bs": [["1", "4", "0"]]}, "book-1000", "SC/EUR"],
            BookUpdate("SC/EUR", (Level(1.0, 4.0),), (Level(2.0, 1.0),), snapshot=True),
        ),
        (
            {"data": {"bestAsk": "3", "bestBid": "2", "price": "2"}, "topic": "/market/ticker:SNX-BTC"},
            Quote("SNX/BTC", Level(2.0, 0.0), Level(3.0, 0.0)),
        ),
        ({"event": "heartbeat"}, OtherMessage("heartbeat")),
        ({"event": "subscribe", "arg": {"channel": "tickers"}}, Ack("tickers", ok=True)),
        (
            {"op": "order", "id": "o1", "status": "rejected", "reason": "R", "message": "m"},
            OrderReject("o1", "R", "m"),
        ),
    ],
)
def test_generic_message_is_understood(frame: Any, expected: ParsedMessage) -> None:
    assert parse(generic(), frame) == expected


@pytest.mark.parametrize("wbits", [-15, 31], ids=["raw deflate", "gzip"])
def test_compressed_binary_frame_is_read_like_its_text(wbits: int) -> None:
    text = json.dumps({"type": "match", "product_id": "BTC-USD", "price": "9", "size": "1", "side": "sell"})
    deflater = zlib.compressobj(wbits=wbits)
    frame = deflater.compress(text.encode()) + deflater.flush()
    assert parse(generic(), frame) == parse(generic(), text)


def test_a_bomb_of_compressed_zeros_is_refused() -> None:
    deflater = zlib.compressobj(wbits=-15)
    frame = deflater.compress(b" " * 64 * 1024 * 1024) + deflater.flush()
    with pytest.raises(MalformedMessage, match="too large"):
        parse(generic(), frame)


def test_parsed_book_gives_latencies_depth_and_count() -> None:
    logger = RecordingLogger()
    data = {"bids": [[9, 1]], "asks": [[10, 1]]}
    parse(mexc(logger), {"channel": "push.depth", "symbol": "BTC_USDT", "data": data})
    assert [call.args[0] for call in logger.of("latency")] == ["parse_orderbook", "parse_message"]
    assert logger.of("latency")[1].keywords == {"message_type": "BOOK"}
    assert logger.of("metric", "orderbook_depth")[0].args[1] == 2
    assert logger.of("counter", "messages_parsed")[0].keywords == {"tags": {"type": "book"}}
    assert all(call.context["component"] == "message_parser" for call in logger.calls)


def test_kucoin_rows_that_only_count_on_are_left_out() -> None:
    changes = {"asks": [["0", "0", "161"], ["3", "1", "162"]], "bids": []}
    frame = {"data": {"changes": changes}, "subject": "trade.l2update", "topic": "/market/level2:SNX-BTC"}
    assert parse(generic(), frame) == BookUpdate("SNX/BTC", (), (Level(3.0, 1.0),))


def test_failure_is_logged_with_a_short_preview_and_raised() -> None:
    logger = RecordingLogger()
    with pytest.raises(MalformedMessage):
        parse(gateio(logger), "x" * 5_000)
    [error] = logger.of("error")
    assert str(error.args[0]).startswith("Parse failed: not JSON")
    assert len(error.keywords["message_preview"]) == 100
    assert error.keywords["error_type"] == "MalformedMessage"
    assert error.context["exchange"] == "gateio"


def test_parsers_that_share_a_logger_do_not_change_its_context() -> None:
    logger = RecordingLogger({"service": "s"})
    gateio(logger)
    mexc(logger)
    assert logger.context == {"service": "s"}


@pytest.mark.parametrize("exchange", PARSERS)
@pytest.mark.parametrize("price", ["NaN", "inf", "-1", "0", None, {}, "1e400"])
def test_a_price_that_is_none_is_malformed(exchange: ExchangeEnum, price: Any) -> None:
    frames = {
        ExchangeEnum.GATEIO: {
            "channel": "spot.order_book_update",
            "event": "update",
            "result": {"s": "A_B", "b": [[price, "1"]]},
        },
        ExchangeEnum.MEXC: {"channel": "push.depth", "symbol": "A_B", "data": {"bids": [[price, "1"]]}},
        ExchangeEnum.GENERIC: {"type": "snapshot", "symbol": "A-B", "asks": [{"price": price, "size": "1"}]},
    }
    with pytest.raises(MalformedMessage):
        parse(PARSERS[exchange](), frames[exchange])


@pytest.mark.parametrize("exchange", PARSERS)
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_broken_frame_is_malformed(exchange: ExchangeEnum, kind: Any) -> None:
    dice = random.Random(1)
    sound = next(m.frame for m in MessageGenerator(malformed_share=0).messages() if m.exchange is exchange)
    logger = RecordingLogger()
    for _ in range(50):
        with pytest.raises(MalformedMessage):
            parse(PARSERS[exchange](logger), kind(dice, sound))
    assert len(logger.of("error", "Parse failed")) == 50


def test_no_cut_and_no_swapped_byte_of_a_generated_frame_escapes_as_another_error() -> None:
    dice = random.Random(2)
    for message in itertools.islice(MessageGenerator(seed=3).messages(), 400):
        parser = PARSERS[message.exchange]()
        frame = message.frame if isinstance(message.frame, bytes) else message.frame.encode()
        for _ in range(5):
            broken = bytearray(frame or b" ")
            broken[dice.randrange(len(broken))] = dice.randrange(256)
            with contextlib.suppress(MalformedMessage):
                parse(parser, bytes(broken[: dice.randrange(1, len(broken) + 1)]))


def test_everything_that_the_generator_makes_is_parsed_or_malformed_on_purpose() -> None:
    kinds: dict[ExchangeEnum, set[str]] = {exchange: set() for exchange in PARSERS}
    for message in itertools.islice(MessageGenerator(malformed_share=0, reject_share=0.02).messages(), 1_500):
        kinds[message.exchange].add(parse(PARSERS[message.exchange](), message.frame).message_type.value)
    assert kinds[ExchangeEnum.GATEIO] == {"ack", "book", "trade", "order_reject"}
    assert kinds[ExchangeEnum.MEXC] == {"ack", "book", "trade", "order_reject"}
    assert kinds[ExchangeEnum.GENERIC] == {"ack", "book", "quote", "trade", "order_reject"}


def lines(path: Path) -> list[dict[str, Any]]:
    with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as file:
        return [json.loads(line) for line in file]


@needs_recordings
@pytest.mark.parametrize("path", recordings, ids=lambda path: str(path.relative_to(MARKET_DATA)))
def test_every_line_of_a_recording_is_parsed_or_gives_a_logged_error(path: Path) -> None:
    name = path.parent.name + path.name
    first = gateio if "gate" in name.lower() else mexc if "mexc" in name else generic
    for make in {first, generic}:
        logger = RecordingLogger()
        parser = make(logger)
        frames = [row["data"] for row in lines(path) if row.get("t") not in ("connect", "config", "http")]

        async def parse_all(parser: EnhancedBaseMessageParser, frames: list[str]) -> int:
            failed = 0
            for frame in frames:
                try:
                    await parser.parse_message(frame)
                except MalformedMessage:
                    failed += 1
            return failed

        failed = asyncio.run(parse_all(parser, frames))
        assert len(logger.of("error", "Parse failed")) == failed
        assert len(logger.of("latency", "parse_message")) == len(frames) - failed
        if path.parent.name == "cryptofeed":  # of real sessions, everything is understood
            assert failed == 0


def test_malformed_frame_is_the_same_for_the_same_dice() -> None:
    frames = [[malformed_frame(random.Random(5), '{"a": 1}') for _ in range(3)] for _ in range(2)]
    assert frames[0] == frames[1]
