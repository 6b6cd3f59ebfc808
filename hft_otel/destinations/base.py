"""What every destination is to the worker: a batch goes in, and it says what became of it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import ClassVar, NamedTuple

from ..interfaces import LogBackend
from ..record import LogLevel, LogRecord, LogType

__all__ = ["Destination", "Rejected", "RetryLater"]

ALL_TYPES = frozenset(LogType)


class Rejected(NamedTuple):
    """A record that will never be delivered here, and why: a counter's key in snake_case, and what the other side said."""

    record: LogRecord
    reason: str
    detail: str = ""


class RetryLater(Exception):
    """Raised by `deliver` when the rest of the batch may succeed later.

    `delivered` says how many records from the front of the batch are done; `after` is the wait in seconds that the
    other side asked for, if it did; `reason` is the counter's key should the retries run out.
    """

    def __init__(
        self, reason: str, detail: str = "", *, delivered: int = 0, after: float | None = None
    ) -> None:
        super().__init__(detail or reason)
        self.reason = reason
        self.delivered = delivered
        self.after = after


class Destination(LogBackend):
    """A backend with a batch interface, run on a thread of its own.

    Order of calls, all on that thread: `open` once (again in a forked child, on a new object), then `deliver`, `idle`
    and `force_flush` in any order, then `close` once. Building one opens nothing.
    """

    accepts: ClassVar[frozenset[LogType]] = ALL_TYPES
    max_batch: int = 512
    """The most records that one `deliver` is given."""
    linger: float = 0.0
    """Seconds to wait for a fuller batch before `deliver`."""

    keeps_anchors: ClassVar[bool] = False
    """Whether it is also given the anchors of the audit trail, which are to be kept beside the events."""

    name: str = ""
    min_level: LogLevel = LogLevel.DEBUG
    retry_for: float = 300.0
    """Seconds to go on retrying TEXT and METRIC after RetryLater; AUDIT is retried without end."""

    telemetry: Callable[[], Iterable[tuple[str, float, Mapping[str, str]]]] | None = None
    """Where a destination of metrics reads the logger's own counters (see ledger.SELF_METRICS); set before `open`."""
    exports_succeeded: int = 0
    exports_failed: int = 0
    """Exports of aggregated metrics, which happen beside `deliver` (a measurement is delivered when aggregated)."""
    export_error: str = ""
    """The last failed export's cause, for the line on stderr; empty while exports succeed."""

    def should_handle(self, record: LogRecord) -> bool:
        """Say whether type and level suit this destination; levels apply to TEXT only."""
        return record.log_type in self.accepts and (
            record.log_type is not LogType.TEXT or record.level >= self.min_level
        )

    def open(self) -> None:
        """Acquire files, sockets and threads; what it raises is reported once and retried with the next batch."""

    @abstractmethod
    def deliver(self, batch: Sequence[LogRecord]) -> Sequence[Rejected]:
        """Deliver the records and return those that never will be; raise RetryLater for those that may be later."""

    def idle(self) -> None:
        """Do periodic work; called at least every half second, also under load."""

    def force_flush(self, timeout: float) -> bool:
        """Push out what `deliver` has buffered within `timeout` seconds; say whether all of it went."""
        return True

    def close(self, timeout: float) -> None:
        """Release everything within `timeout` seconds."""

    async def write(self, record: LogRecord) -> None:
        """Deliver one record, for those who use the destination as a plain LogBackend."""
        self.deliver([record])

    async def flush(self) -> None:
        """Push out what is buffered, for those who use the destination as a plain LogBackend."""
        self.force_flush(5.0)
