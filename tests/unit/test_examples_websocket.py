"""The example's connection: real websockets on this machine, on free ports."""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import Awaitable, Callable, Iterator

import pytest
from websockets.asyncio.server import ServerConnection, serve

from examples.trading_system.errors import NotConnected, OrderFailed, OrderRejected, OrderTimeout
from examples.trading_system.exchange_factory import ExchangeConfig, ExchangeFactory
from examples.trading_system.generator import MessageGenerator, WireMessage
from examples.trading_system.messages import ExchangeEnum, Order, Quote, Side
from examples.trading_system.public_exchange import PublicExchange
from examples.trading_system.replay_server import ReplayServer
from examples.trading_system.websocket_manager import Backoff, ConnectionState, WebSocketManager
from tests.unit.test_examples_support import RecordingLogger

Handler = Callable[[ServerConnection], Awaitable[None]]


async def until(condition: Callable[[], object], seconds: float = 30.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)


def managed(
    handler: Handler, act: Callable[[WebSocketManager, list[str | bytes]], Awaitable[None]]
) -> RecordingLogger:
    """Run a manager against a server with this handler while `act` runs."""
    logger = RecordingLogger()

    async def main() -> None:
        received: list[str | bytes] = []

        async def on_message(frame: str | bytes) -> None:
            received.append(frame)

        async with serve(handler, "127.0.0.1", 0) as server:
            port = next(iter(server.sockets)).getsockname()[1]
            manager = WebSocketManager(
                f"ws://127.0.0.1:{port}", on_message, logger, backoff=Backoff(first=0.01)
            )
            running = asyncio.create_task(manager.run())
            await act(manager, received)
            await manager.stop()
            await running
        assert manager.state is ConnectionState.CLOSED

    asyncio.run(main())
    return logger


def states(logger: RecordingLogger) -> list[str]:
    return [
        str(call.args[0]).removeprefix("Connection state: ") for call in logger.of("info", "Connection state")
    ]


def test_connecting_is_measured_audited_and_told() -> None:
    async def handler(connection: ServerConnection) -> None:
        await connection.send("hello")
        await connection.send(b"\xff")
        await connection.wait_closed()

    async def act(manager: WebSocketManager, received: list[str | bytes]) -> None:
        await until(lambda: received == ["hello", b"\xff"])

    logger = managed(handler, act)
    assert states(logger) == ["disconnected → connecting", "connecting → connected", "connected → closed"]
    assert logger.of("latency", "websocket_connect")[0].args[1] > 0
    assert str(logger.of("audit", "connection_established")[0].keywords["endpoint"]).startswith(
        "ws://127.0.0.1"
    )
    assert not logger.of("warning")


@pytest.mark.parametrize("how", ["abort", "close", "error"])
def test_lost_connection_is_told_and_made_again(how: str) -> None:
    async def handler(connection: ServerConnection) -> None:
        await connection.send("hello")
        if how == "abort":
            connection.transport.abort()
        elif how == "close":
            await connection.close()
        else:
            await connection.close(1012, "service restart")

    async def act(manager: WebSocketManager, received: list[str | bytes]) -> None:
        await until(lambda: manager.reconnects >= 2)

    logger = managed(handler, act)
    assert len(logger.of("warning", "Connection error")) >= 2
    assert len(logger.of("audit", "connection_established")) >= 3
    assert "disconnected → reconnecting" in states(logger)


def test_server_that_is_not_there_is_tried_again_and_stop_ends_the_wait() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    logger = RecordingLogger()

    async def nothing(frame: str | bytes) -> None: ...

    async def main() -> None:
        manager = WebSocketManager(f"ws://127.0.0.1:{port}", nothing, logger, backoff=Backoff(first=0.001))
        running = asyncio.create_task(manager.run())
        await until(lambda: len(logger.of("error", "Connection failed")) >= 3)
        await asyncio.wait_for(manager.stop(), 20.0)
        await asyncio.wait_for(running, 20.0)
        assert not await manager.send("too late")

    asyncio.run(main())
    assert not logger.of("warning")


def test_backoff_doubles_up_to_its_bound_with_jitter() -> None:
    backoff = Backoff(first=0.1, longest=1.0, random=random.Random(1))
    delays = [backoff.next_delay() for _ in range(50)]
    for delay, whole in zip(delays, [0.1, 0.2, 0.4, 0.8, *[1.0] * 46], strict=True):
        assert whole / 2 <= delay <= whole
    assert len(set(delays)) == 50
    backoff.reset()
    assert backoff.next_delay() <= 0.1


class Scripted:
    """A source of a few frames, and then of one without end."""

    def __init__(self, exchange: ExchangeEnum, *frames: str | bytes) -> None:
        self.exchanges = (exchange,)
        self.symbols = ("BTC/USDT",)
        self.frames = frames

    def messages(self) -> Iterator[WireMessage]:
        for frame in self.frames:
            yield WireMessage(self.exchanges[0], frame)
        while True:
            yield WireMessage(self.exchanges[0], "{}")


def connected(
    source: Scripted | MessageGenerator,
    act: Callable[[PublicExchange, ReplayServer], Awaitable[None]],
    *,
    rate: float = 500.0,
    disconnect_every: float = 60.0,
) -> RecordingLogger:
    """Run the source's first exchange against a replay server while `act` runs."""
    logger = RecordingLogger()

    async def main() -> None:
        async with ReplayServer(source, rate=rate, disconnect_every=disconnect_every) as server:
            config = ExchangeConfig(server.url(source.exchanges[0]), None, lambda name, config: logger)
            exchange = ExchangeFactory.create_public_exchange(source.exchanges[0], source.symbols, config)
            running = asyncio.create_task(exchange.run())
            await until(
                lambda: exchange.outcomes["ack"] and exchange.manager.state is ConnectionState.CONNECTED
            )
            try:
                await act(exchange, server)
            finally:
                await exchange.stop()
                await running

    asyncio.run(main())
    return logger


def order(number: int) -> Order:
    return Order(f"o{number}", "BTC/USDT", Side.BUY, 100.0, 1.0)


@pytest.mark.parametrize("exchange", [ExchangeEnum.GATEIO, ExchangeEnum.MEXC, ExchangeEnum.GENERIC])
def test_orders_are_filled_or_refused_over_the_wire(
    exchange: ExchangeEnum, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("examples.trading_system.public_exchange.ORDER_TIMEOUT", 30.0)
    monkeypatch.setattr("examples.trading_system.order_desk.SILENT_SHARE", 0.0)
    monkeypatch.setattr("examples.trading_system.order_desk.REJECT_SHARE", 0.2)

    async def act(public: PublicExchange, server: ReplayServer) -> None:
        answers = await asyncio.gather(
            *(public.place_order(order(n)) for n in range(60)), return_exceptions=True
        )
        refused = [answer for answer in answers if isinstance(answer, OrderRejected)]
        filled = [answer for answer in answers if not isinstance(answer, BaseException)]
        assert len(refused) == server.desk.rejected > 0
        assert len(filled) == server.desk.filled > 30
        assert all(answer.reason and "None" not in str(answer) for answer in refused)
        assert {fill.order_id for fill in filled} <= {f"o{n}" for n in range(60)}

    logger = connected(Scripted(exchange), act, rate=50)
    assert len(logger.of("latency", "order_round_trip")) == 60


def test_order_without_an_answer_times_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("examples.trading_system.public_exchange.ORDER_TIMEOUT", 0.02)
    monkeypatch.setattr("examples.trading_system.order_desk.SILENT_SHARE", 2.0)

    async def act(exchange: PublicExchange, server: ReplayServer) -> None:
        with pytest.raises(OrderTimeout):
            await exchange.place_order(order(1))

    connected(Scripted(ExchangeEnum.GATEIO), act)


def test_order_without_a_connection_fails_at_once() -> None:
    async def act(exchange: PublicExchange, server: ReplayServer) -> None:
        await exchange.stop()
        await until(lambda: exchange.manager.state is ConnectionState.CLOSED)
        with pytest.raises(NotConnected):
            await exchange.place_order(order(1))

    connected(Scripted(ExchangeEnum.MEXC), act)


def test_orders_that_wait_are_given_up_at_the_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("examples.trading_system.order_desk.SILENT_SHARE", 2.0)

    async def act(exchange: PublicExchange, server: ReplayServer) -> None:
        waiting = asyncio.create_task(exchange.place_order(order(1)))
        await asyncio.sleep(0.05)
        await exchange.stop()
        with pytest.raises(OrderFailed):
            await waiting

    connected(Scripted(ExchangeEnum.GENERIC), act)


def test_rejection_that_nobody_waits_for_is_still_logged_and_audited() -> None:
    frame = '{"id": "old-1", "code": 30004, "msg": "Insufficient position"}'

    async def act(exchange: PublicExchange, server: ReplayServer) -> None:
        await until(lambda: exchange.outcomes["order_reject"])

    logger = connected(Scripted(ExchangeEnum.MEXC, *[frame] * 100), act)
    assert logger.of("error", "Order rejected: 30004")[0].context["order_id"] == "old-1"
    assert logger.of("audit", "order_rejected")[0].context["exchange"] == "mexc"


def test_malformed_frames_are_counted_and_the_stream_goes_on() -> None:
    async def act(exchange: PublicExchange, server: ReplayServer) -> None:
        await until(lambda: exchange.outcomes["malformed"] and exchange.outcomes["other"] > 20)

    broken: list[str | bytes] = ["", b"\xff\xff", "{", "[1]"]
    connected(Scripted(ExchangeEnum.GATEIO, *broken * 50), act)


def test_forced_disconnects_are_survived_and_gaps_are_told() -> None:
    quotes: list[Quote] = []

    async def act(exchange: PublicExchange, server: ReplayServer) -> None:
        exchange.listeners.append(lambda name, quote: quotes.append(quote))
        await until(lambda: exchange.manager.reconnects >= 2 and server.disconnects >= 2)
        seen = len(quotes)
        await until(lambda: len(quotes) > seen + 50)

    logger = connected(MessageGenerator(seed=5), act, rate=1_000.0, disconnect_every=0.2)
    assert logger.of("warning", "Connection error")
    assert logger.of("warning", "Sequence gap")


def test_unknown_path_is_refused_by_the_replay_server() -> None:
    logger = RecordingLogger()

    async def nothing(frame: str | bytes) -> None: ...

    async def main() -> None:
        async with ReplayServer(Scripted(ExchangeEnum.GATEIO), rate=10.0) as server:
            url = server.url(ExchangeEnum.GATEIO).replace("gateio", "nowhere")
            manager = WebSocketManager(url, nothing, logger)
            running = asyncio.create_task(manager.run())
            await until(lambda: logger.of("warning", "Connection error"))
            await manager.stop()
            await running

    asyncio.run(main())
    assert "no exchange called 'nowhere'" in str(logger.of("warning")[0].args[0])


def test_factory_needs_an_address_for_an_exchange_that_it_does_not_know() -> None:
    with pytest.raises(ValueError, match="no endpoint is known for 'generic'"):
        ExchangeFactory.create_public_exchange(ExchangeEnum.GENERIC, [], ExchangeConfig())
