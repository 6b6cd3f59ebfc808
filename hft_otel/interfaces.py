"""What others implement (LogBackend) or are handed (HFTLoggerInterface)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:  # types only
    from .ledger import FlushReport
    from .record import LogRecord

__all__ = ["HFTLoggerInterface", "LogBackend"]


class HFTLoggerInterface(ABC):
    """The logger that components are handed as `self.logger`: logging's calls, measurements and audit events.

    No call raises and none waits. On text calls `exc_info`, `stack_info`, `stacklevel` and `extra` mean what they
    mean in Python's logging, on metric calls `tags` is a mapping of tags; any other keyword is context or a tag.
    """

    @abstractmethod
    def debug(self, msg: object = ..., /, *args: object, **context: Any) -> None:
        """Log at DEBUG."""

    @abstractmethod
    def info(self, msg: object = ..., /, *args: object, **context: Any) -> None:
        """Log at INFO."""

    @abstractmethod
    def warning(self, msg: object = ..., /, *args: object, **context: Any) -> None:
        """Log at WARNING."""

    @abstractmethod
    def error(self, msg: object = ..., /, *args: object, **context: Any) -> None:
        """Log at ERROR."""

    @abstractmethod
    def critical(self, msg: object = ..., /, *args: object, **context: Any) -> None:
        """Log at CRITICAL."""

    @abstractmethod
    def exception(self, msg: object = ..., /, *args: object, **context: Any) -> None:
        """Log at ERROR with the exception being handled."""

    @abstractmethod
    def log(self, level: int = ..., msg: object = ..., /, *args: object, **context: Any) -> None:
        """Log at a level given as a number, with Python logging's numbers."""

    @abstractmethod
    def metric(self, name: str = ..., value: float = ..., /, **tags: Any) -> None:
        """Record a measurement on a gauge, or on the instrument that the configuration names."""

    @abstractmethod
    def counter(self, name: str = ..., value: float = 1, /, **tags: Any) -> None:
        """Add a non-negative value to a counter."""

    @abstractmethod
    def latency(self, operation: str = ..., duration_ms: float = ..., /, **tags: Any) -> None:
        """Record the duration of an operation, in milliseconds, on the latency histogram."""

    @abstractmethod
    def audit(self, event: str = ..., /, **context: Any) -> None:
        """Record an audit event durably; it is in file-backed memory when the call returns."""

    @property
    @abstractmethod
    def context(self) -> dict[str, Any]:
        """The persistent context; changing it changes what later calls carry."""

    @abstractmethod
    def set_context(self, /, **context: Any) -> None:
        """Add to the persistent context of this logger."""

    @abstractmethod
    def bind(self, /, **context: Any) -> Self:
        """Return a child logger with more context; this logger stays as it is."""

    @abstractmethod
    def scoped(self, /, **context: Any) -> AbstractContextManager[None]:
        """Add context to every call of this task, and of the tasks and `asyncio.to_thread` calls it starts, until exit.

        Other threads do not have it, a ThreadPoolExecutor's included, unless they are handed the caller's context:
        `submit(contextvars.copy_context().run, function)`.
        """

    @abstractmethod
    async def flush(self, timeout: float | None = None) -> FlushReport:
        """Wait, without blocking the event loop, until what was logged so far is delivered; see `force_flush`."""

    @abstractmethod
    def force_flush(self, timeout: float | None = 5.0) -> FlushReport:
        """Wait at most `timeout` seconds until what was logged so far is delivered; falsy when something is not."""

    @abstractmethod
    def close(self, timeout: float = 2.0) -> FlushReport:
        """Flush, and ignore (but count) every later call of this logger."""


class LogBackend(ABC):
    """A destination for records; subclass it to add one.

    The constructor is given the `config:` mapping of the YAML file. Every backend has a thread, an event loop and a
    bounded queue of its own: one that is slow or raises hurts only itself. What `write` raises is counted as dropped.
    It must not log through a logger that is routed to itself: each record would make another, without end.
    """

    def should_handle(self, record: LogRecord) -> bool:
        """Say whether this backend wants the record, quickly."""
        return True

    @abstractmethod
    async def write(self, record: LogRecord) -> None:
        """Deliver one record; formatting belongs here. A plain `def` that does not block for long will do, too."""

    async def flush(self) -> None:
        """Deliver what `write` has buffered."""
        return None
