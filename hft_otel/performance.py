"""PerformanceLogger: durations of operations and the trade execution pair of the plan."""

from __future__ import annotations

import functools
import inspect
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, ParamSpec, TypeVar

from .interfaces import HFTLoggerInterface

__all__ = ["PerformanceLogger"]

P = ParamSpec("P")
R = TypeVar("R")

_MISSING = object()


class _Timed:
    """Records one latency when left, also by an exception; works with `with`, `async with` and as a decorator."""

    def __init__(self, logger: HFTLoggerInterface, operation: str, tags: dict[str, Any]) -> None:
        self._logger = logger
        self._operation = operation
        self._tags = tags
        self._start = 0.0

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        """Time every call of the function; a coroutine function from its first to its last step."""
        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def timed_coroutine(*args: P.args, **kwargs: P.kwargs) -> Any:
                with self._again():
                    return await function(*args, **kwargs)

            return timed_coroutine  # type: ignore[return-value]  # a coroutine function for a coroutine function

        @functools.wraps(function)
        def timed(*args: P.args, **kwargs: P.kwargs) -> R:
            with self._again():
                return function(*args, **kwargs)

        return timed

    def _again(self) -> _Timed:
        return _Timed(self._logger, self._operation, self._tags)

    def __enter__(self) -> None:
        self._start = time.perf_counter()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        duration_ms = (time.perf_counter() - self._start) * 1000
        self._logger.latency(self._operation, duration_ms, **self._tags)

    async def __aenter__(self) -> None:
        self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, trace)


class PerformanceLogger:
    """Performance logging over an injected logger."""

    def __init__(self, logger: HFTLoggerInterface) -> None:
        self.logger = logger

    def time_operation(self, operation: Any = _MISSING, /, **tags: Any) -> _Timed:
        """Return a context manager that records the duration of its body as a latency, on exception too."""
        if operation is _MISSING:
            operation = tags.pop("operation", "")
        return _Timed(
            self.logger, operation, {key: value for key, value in tags.items() if value is not None}
        )

    def log_trade_execution(self, /, order_id: str, latency_ms: float, **context: Any) -> None:
        """Record a trade as an audit event and its latency, in milliseconds, as a metric."""
        self.logger.audit("trade_executed", order_id=order_id, latency_ms=latency_ms, **context)
        where = {key: context[key] for key in ("exchange", "symbol") if context.get(key) is not None}
        self.logger.metric("trade_execution_latency", latency_ms, **where)
