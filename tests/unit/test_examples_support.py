"""What the tests of the example system share: a logger that remembers, and where the recordings are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, NamedTuple, Self

import pytest

from hft_otel import HFTLoggerInterface

ROOT = Path(__file__).resolve().parents[2]
MARKET_DATA = ROOT.parent / "shared" / "market-data"

needs_recordings = pytest.mark.skipif(
    not MARKET_DATA.is_dir(), reason="no ../shared/market-data beside the repository: no recordings to parse"
)
recordings = sorted(MARKET_DATA.glob("*/*.jsonl*"))

SCOPE: ContextVar[dict[str, Any]] = ContextVar("scope", default={})  # noqa: B039  (never changed in place)


class Call(NamedTuple):
    """One call of a logger, with the context that a record of it would have."""

    method: str
    args: tuple[Any, ...]
    keywords: dict[str, Any]
    context: dict[str, Any]


def _remembered(method: str) -> Callable[..., None]:
    def call(self: RecordingLogger, /, *args: Any, **keywords: Any) -> None:
        self.calls.append(Call(method, args, keywords, {**self.context, **SCOPE.get(), **keywords}))

    return call


class RecordingLogger(HFTLoggerInterface):
    """Keeps its calls and those of its children in one list."""

    def __init__(self, context: dict[str, Any] | None = None, calls: list[Call] | None = None) -> None:
        self.calls: list[Call] = [] if calls is None else calls
        self._context = dict(context or {})

    debug = _remembered("debug")
    info = _remembered("info")
    warning = _remembered("warning")
    error = _remembered("error")
    critical = _remembered("critical")
    exception = _remembered("exception")
    log = _remembered("log")
    metric = _remembered("metric")
    counter = _remembered("counter")
    latency = _remembered("latency")
    audit = _remembered("audit")

    @property
    def context(self) -> dict[str, Any]:
        return self._context

    def set_context(self, /, **context: Any) -> None:
        self._context.update(context)

    def bind(self, /, **context: Any) -> Self:
        return type(self)({**self._context, **context}, self.calls)

    @contextmanager
    def scoped(self, /, **context: Any) -> Iterator[None]:
        token = SCOPE.set({**SCOPE.get(), **context})
        try:
            yield
        finally:
            SCOPE.reset(token)

    async def flush(self, timeout: float | None = None) -> Any:
        return True

    def force_flush(self, timeout: float = 5.0) -> Any:
        return True

    def close(self, timeout: float = 2.0) -> Any:
        return True

    def of(self, method: str, first: str | None = None) -> list[Call]:
        """Return the calls of a method, those only whose first argument begins so."""
        return [
            call
            for call in self.calls
            if call.method == method and (first is None or str(call.args[0]).startswith(first))
        ]


def test_a_bound_child_keeps_its_context_to_itself() -> None:
    parent = RecordingLogger({"a": 1})
    child = parent.bind(b=2)
    child.info("hello")
    assert parent.context == {"a": 1}
    assert parent.calls[0].context == {"a": 1, "b": 2}
