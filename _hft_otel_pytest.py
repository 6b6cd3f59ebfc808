"""The pytest plugin of hft-otel: the fixture `hft_telemetry`, and `caplog` for our loggers.

Outside of the package, so that pytest does not import that for every run of every project (and before coverage begins).
"""

from __future__ import annotations

import logging
from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:  # types only
    from hft_otel.testing import Telemetry

__all__ = ["hft_telemetry"]


@pytest.fixture
def hft_telemetry() -> Iterator[Telemetry]:
    """Telemetry in memory: what any logger of hft-otel says in this test; see hft_otel.testing."""
    from hft_otel.testing import Telemetry

    with Telemetry() as telemetry:
        yield telemetry


class _ToCaplog(logging.Handler):
    """Hands records to those handlers of the root logger that are pytest's."""

    def handle(self, record: logging.LogRecord) -> bool:
        for handler in list(logging.root.handlers):
            if type(handler).__module__ == "_pytest.logging" and record.levelno >= handler.level:
                handler.handle(record)
        return True


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Let `caplog` hear our loggers, which do not propagate to the root, in the tests that ask for it."""
    if "caplog" not in getattr(item, "fixturenames", ()):
        return (yield)
    from hft_otel import listeners

    handler = _ToCaplog()
    listeners.observe(handler)
    try:
        return (yield)
    finally:
        listeners.unobserve(handler)
