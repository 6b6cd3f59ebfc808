"""The example system as a whole, for a second or two."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from examples.trading_system.generator import MessageGenerator
from examples.trading_system.replay import open_source
from examples.trading_system.session import Progress, SessionResult, run_session
from hft_otel import LogConfig, LoggerFactory
from tests.unit.test_examples_support import MARKET_DATA, RecordingLogger, needs_recordings


@pytest.fixture
def logger(monkeypatch: pytest.MonkeyPatch) -> RecordingLogger:
    """Let the factory hand out one logger that remembers."""
    recording = RecordingLogger()
    monkeypatch.setattr(LoggerFactory, "create_logger", staticmethod(lambda name, config=None: recording))
    return recording


def session(
    path: Path | None = None,
    *,
    seconds: float = 1.5,
    rate: float = 600.0,
    progress: list[Progress] | None = None,
) -> SessionResult:
    source = MessageGenerator(seed=7, malformed_share=0.05) if path is None else open_source(path)
    seen = [] if progress is None else progress
    return asyncio.run(
        run_session(
            LogConfig(), source, seconds=seconds, rate=rate, on_progress=seen.append, disconnect_every=0.3
        )
    )


def test_session_counts_what_it_did_and_all_that_it_logged(logger: RecordingLogger) -> None:
    progress: list[Progress] = []
    for seconds in (1.5, 6.0, 24.0):  # a busy machine comes to reconnect later
        logger.calls.clear()
        progress.clear()
        result = session(seconds=seconds, progress=progress)
        if result.reconnects and result.opportunities:
            break

    assert set(result.messages) == {"gateio", "mexc", "generic"}
    assert 100 < result.message_count < 1_000 * seconds  # 900 in the first on a machine that is not busy
    assert result.malformed > 0
    assert result.reconnects >= 1
    assert result.opportunities >= 1
    assert result.executed + result.failed == result.opportunities

    logged = dict.fromkeys(result.calls, 0)
    for call in logger.calls:
        logged[{"exception": "error"}.get(call.method, call.method).upper()] += 1
    assert result.calls == logged
    assert min(
        result.calls[kind] for kind in ("DEBUG", "INFO", "ERROR", "METRIC", "LATENCY", "COUNTER", "AUDIT")
    )
    assert len(result.cost_ns["LATENCY"]) == min(2_000, result.calls["LATENCY"])
    assert 0 < result.cost(0.5) <= result.cost(0.99)
    assert result.cost(0.5, "AUDIT") > 0
    assert result.cpu_seconds > 0

    assert progress[0].messages == 0
    assert [one.elapsed for one in progress] == sorted(one.elapsed for one in progress)
    assert progress[-1].calls == result.calls
    assert progress[-1].messages == result.message_count
    assert progress[-1].opportunities == result.opportunities
    assert any(one.last_event.startswith("AUDIT ") for one in progress)


def test_every_opportunity_has_one_correlation_id_on_all_that_is_said_of_it(logger: RecordingLogger) -> None:
    result = session(seconds=0.8)
    detected = logger.of("audit", "arbitrage_opportunity_detected")
    assert len({call.context["correlation_id"] for call in detected}) == len(detected) == result.opportunities
    for call in detected:
        same = [
            c.method
            for c in logger.calls
            if c.context.get("correlation_id") == call.context["correlation_id"]
        ]
        assert {"audit", "metric", "counter", "latency"} <= set(same)
        assert "info" in same or "error" in same


def test_parts_do_not_mix_their_contexts(logger: RecordingLogger) -> None:
    session(seconds=0.5)
    for call in logger.of("latency", "parse_message"):
        assert call.context["component"] == "message_parser"
    for call in logger.of("latency", "websocket_connect"):
        assert call.context["component"] == "websocket"
    for call in logger.of("audit", "arbitrage_opportunity_detected"):
        assert (call.context["component"], call.context.get("exchange")) == ("arbitrage_engine", None)


@needs_recordings
@pytest.mark.parametrize(
    "name", ["cryptofeed/GATEIO.jsonl.gz", "mexc/fixtures.jsonl", "gateio_rest/rest.jsonl"]
)
def test_recording_fills_the_time_on_its_exchange_and_again_delayed(
    logger: RecordingLogger, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr("examples.trading_system.replay.DELAY", 20)
    result = session(MARKET_DATA / name, seconds=0.8, rate=1_500.0)
    own = "mexc" if "mexc" in name else "gateio"
    assert set(result.messages) == {own, "delayed"}
    assert result.message_count > 100
    assert sum(result.messages["delayed"].values()) > 10


def test_cancelled_session_stops_cleanly(logger: RecordingLogger) -> None:
    async def main() -> int:
        running = asyncio.create_task(run_session(LogConfig(), MessageGenerator(), seconds=60.0, rate=200.0))
        await asyncio.sleep(0.3)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(running, 20.0)
        return len(asyncio.all_tasks())

    assert asyncio.run(main()) == 1
    assert [c for c in logger.of("info", "Connection state") if str(c.args[0]).endswith("closed")]


def test_error_in_the_progress_callback_stops_the_session_cleanly(logger: RecordingLogger) -> None:
    def broken(progress: Progress) -> None:
        raise RuntimeError("the screen is gone")

    with pytest.raises(RuntimeError, match="the screen is gone"):
        asyncio.run(
            run_session(LogConfig(), MessageGenerator(), seconds=60.0, rate=200.0, on_progress=broken)
        )
