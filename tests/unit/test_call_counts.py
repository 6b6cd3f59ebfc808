"""What a call costs, counted in Python calls, which no noise of the machine can change."""

from __future__ import annotations

import gc
import logging
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

from hft_otel import calls
from hft_otel.logger import HFTLogger
from hft_otel.otel import current
from tests.unit.core_support import Process


@pytest.fixture
def log(tmp_path: Path) -> Iterator[HFTLogger]:
    process = Process(tmp_path, started=False)
    yield process.logger("count", context={"exchange": "mexc"})
    process.intake.journal.close(settled=True)


def python_calls(function: Callable[[], object]) -> int:
    """Count the Python functions entered."""
    count = 0

    def profile(frame: object, event: str, argument: object) -> None:
        nonlocal count
        count += event == "call"

    function()  # what is decided once is decided now
    gc.disable()  # what others have hung on the collector is not ours to count
    sys.setprofile(profile)
    try:
        function()
    finally:
        sys.setprofile(None)
        gc.enable()
    return count


def test_a_disabled_call_is_one(log: HFTLogger) -> None:
    log.setLevel("ERROR")
    assert python_calls(partial(log.debug, "book", symbol="BTCUSDT", px=1.5)) == 1
    assert python_calls(partial(log.info, "book %s", "x", symbol="BTCUSDT")) == 1


CALLS: dict[str, tuple[int, Callable[[HFTLogger], None]]] = {
    "text": (1, lambda log: log.info("filled", symbol="BTCUSDT", px=1.5)),
    "warning": (1, lambda log: log.warning("filled", symbol="BTCUSDT", px=1.5)),
    "with extra": (1, lambda log: log.info("filled", extra={"symbol": "BTCUSDT"}, stacklevel=2)),
    "with arguments": (1, lambda log: log.info("filled %s at %.2f", "BTCUSDT", 1.5)),
    "warning with arguments": (1, lambda log: log.warning("filled %s at %.2f", "BTCUSDT", 1.5)),
    "metric": (1, lambda log: log.metric("depth", 5, symbol="BTCUSDT", side="bid")),
    "counter": (1, lambda log: log.counter("messages", tags={"type": "book"})),
    "latency": (1, lambda log: log.latency("parse", 0.2, message_type="book")),
    "audit": (3, lambda log: log.audit("filled", symbol="BTCUSDT", px=1.5)),
}


@pytest.mark.parametrize("kind", CALLS)
def test_an_enabled_call_is_at_most_three(log: HFTLogger, kind: str) -> None:
    count, call = CALLS[kind]
    assert python_calls(partial(call, log)) - 1 == count
    assert count <= 3


@pytest.mark.parametrize("kind", CALLS)
def test_a_scope_costs_one_more_at_most_and_a_span_nothing_beyond(log: HFTLogger, kind: str) -> None:
    count, call = CALLS[kind]
    tracer = TracerProvider().get_tracer("test")
    with log.scoped(correlation_id="c1"):
        in_scope = python_calls(partial(call, log)) - 1
        with tracer.start_as_current_span("order"):
            in_both = python_calls(partial(call, log)) - 1
    with tracer.start_as_current_span("order"):
        in_span = python_calls(partial(call, log)) - 1
    assert in_scope == in_both == in_span <= count + 1


def test_the_short_ways_into_opentelemetry_and_logging_are_the_ones_in_use() -> None:
    """They rest on names that are not public; where those are gone all works on, and this says what it costs."""
    assert current.current_context is not otel_context.get_current
    assert current._span_of is not trace.get_current_span
    assert calls._switch is logging.root.manager
