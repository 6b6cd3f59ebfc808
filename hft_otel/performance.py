"""PerformanceLogger: durations of operations and the trade execution pair of the plan."""

from __future__ import annotations

import functools
import inspect
import time
from collections.abc import AsyncGenerator, Callable, Generator
from contextvars import ContextVar, Token
from typing import Any, ParamSpec, TypeVar

from .interfaces import HFTLoggerInterface

__all__ = ["PerformanceLogger"]

P = ParamSpec("P")
R = TypeVar("R")

_MISSING = object()


_INNERMOST: ContextVar[object] = ContextVar("hft-otel-timed")
"""The mark of the block that the current task has entered last."""


class _Timed:
    """Records one latency when left, also by an exception; works with `with`, `async with` and as a decorator.

    It may be entered again, nested, and by many tasks and threads at once.
    """

    def __init__(self, logger: HFTLoggerInterface, operation: str, tags: dict[str, Any]) -> None:
        self._logger = logger
        self._operation = operation
        self._tags = tags
        self._entries: dict[object, tuple[float, Token[object]]] = {}
        """Start and token by the mark of the entry."""

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        """Time every call of the function.

        A coroutine function or a generator function is timed from its first to its last step, with what others do in
        between; one that is never begun is not timed.
        """
        wrapper: Any = _timed
        if inspect.iscoroutinefunction(function):
            wrapper = _timed_coroutine
        elif inspect.isasyncgenfunction(function):
            wrapper = _timed_async_generator
        elif inspect.isgeneratorfunction(function):
            wrapper = _timed_generator
        timed: Callable[P, R] = functools.wraps(function)(wrapper(function, self._again))
        return timed

    def _again(self) -> _Timed:
        return _Timed(self._logger, self._operation, self._tags)

    def __enter__(self) -> None:
        entry = object()
        token = _INNERMOST.set(entry)
        self._entries[entry] = (time.perf_counter(), token)

    def __exit__(self, *_: object) -> None:
        end = time.perf_counter()
        found = self._entries.pop(_INNERMOST.get(None), None)
        try:
            # Something else was entered last, and is still, or this is another task, closing an async generator.
            start, token = found or self._entries.popitem()[1]
        except KeyError:  # left more often than entered
            return
        try:  # noqa: SIM105 (suppress is several times as slow)
            _INNERMOST.reset(token)
        except ValueError:  # it is of another task
            pass
        self._logger.latency(self._operation, (end - start) * 1000, **self._tags)

    async def __aenter__(self) -> None:
        self.__enter__()

    async def __aexit__(self, *_: object) -> None:
        self.__exit__()


def _timed(function: Callable[..., Any], again: Callable[[], _Timed]) -> Callable[..., Any]:
    def timed(*args: Any, **kwargs: Any) -> Any:
        with again():
            return function(*args, **kwargs)

    return timed


def _timed_coroutine(function: Callable[..., Any], again: Callable[[], _Timed]) -> Callable[..., Any]:
    async def timed(*args: Any, **kwargs: Any) -> Any:
        with again():
            return await function(*args, **kwargs)

    return timed


def _timed_generator(function: Callable[..., Any], again: Callable[[], _Timed]) -> Callable[..., Any]:
    def timed(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        with again():
            return (yield from function(*args, **kwargs))

    return timed


def _timed_async_generator(function: Callable[..., Any], again: Callable[[], _Timed]) -> Callable[..., Any]:
    async def timed(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        steps = function(*args, **kwargs)
        with again():
            try:  # what `yield from` would be, if there were one for these
                step = await anext(steps)
                while True:
                    try:
                        sent = yield step
                    except GeneratorExit:
                        raise
                    except BaseException as error:  # noqa: BLE001 (whatever the caller throws in)
                        step = await steps.athrow(error)
                    else:
                        step = await steps.asend(sent)
            except StopAsyncIteration:
                return
            finally:
                await steps.aclose()

    return timed


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
