"""What the tests of the core share: destinations that do what they are told, and a worker over rooms of its own."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hft_otel.destinations.base import Destination, Rejected, RetryLater
from hft_otel.interfaces import LogBackend
from hft_otel.lanes.intake import Intake, Sizes
from hft_otel.lanes.journal import Journal
from hft_otel.ledger import DestinationSums, FlushReport, LaneSums
from hft_otel.logger import HFTLogger
from hft_otel.record import LogLevel, LogRecord, LogType
from hft_otel.worker import Worker


def poll(condition: Callable[[], Any], within: float = 10.0) -> None:
    """Wait until the condition holds; fail loudly where it never does."""
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline, "it never came to that"
        time.sleep(0.001)


def text(number: int = 0, level: int = LogLevel.INFO, **context: Any) -> LogRecord:
    return LogRecord(1.0, LogLevel(level), LogType.TEXT, "x", str(number), context)


def metric(number: int = 0) -> LogRecord:
    return LogRecord(1.0, LogLevel.INFO, LogType.METRIC, "x", str(number), metric_name="m", metric_value=1.0)


def audit(number: int = 0) -> LogRecord:
    return LogRecord(1.0, LogLevel.INFO, LogType.AUDIT, "x", str(number), audit_id=f"s-{number}")


class Recorder(Destination):
    """Keeps what it is given, in order."""

    def __init__(self, name: str = "recorder", **attributes: Any) -> None:
        self.name = name
        self.got: list[LogRecord] = []
        self.closed_with: float | None = None
        vars(self).update(attributes)

    @property
    def messages(self) -> list[str]:
        return [record.message for record in self.got]

    def deliver(self, batch: Sequence[LogRecord]) -> Sequence[Rejected]:
        self.got += batch
        return ()

    def close(self, timeout: float) -> None:
        self.closed_with = timeout


class Blocked(Recorder):
    """Blocks in `deliver` until it is let go, as a destination behind a dead network does."""

    def __init__(self, name: str = "blocked", **attributes: Any) -> None:
        super().__init__(name, **attributes)
        self.entered = threading.Event()
        self.go = threading.Event()

    def deliver(self, batch: Sequence[LogRecord]) -> Sequence[Rejected]:
        self.entered.set()
        self.go.wait(30)
        return super().deliver(batch)


class Down(Recorder):
    """Asks for a retry until it is up."""

    def __init__(self, name: str = "down", **attributes: Any) -> None:
        self.up = False
        self.tries = 0
        super().__init__(name, **attributes)

    def deliver(self, batch: Sequence[LogRecord]) -> Sequence[Rejected]:
        if not self.up:
            self.tries += 1
            raise RetryLater("unavailable", "nobody is there", after=0.005)
        return super().deliver(batch)


class Core:
    """A logger over a worker with rooms of its own."""

    def __init__(
        self, folder: Path, backends: Sequence[LogBackend], router: Any = None, sizes: Sizes | None = None
    ) -> None:
        self.intake = Intake(Journal(folder, 16 * 1024, 2), sizes or Sizes())
        self.intake.start_drain = self._start
        self.worker: Worker
        self.log = HFTLogger("core", list(backends), router, intake=self.intake)
        self.stopped = False

    def _start(self, intake: Intake) -> Worker:
        self.worker = Worker(intake)
        for pipeline in intake.pipelines:
            self.worker.add(pipeline)
        self.worker.start()
        return self.worker

    def stop(self, timeout: float = 2.0) -> FlushReport:
        self.stopped = True
        return self.worker.stop(timeout)

    def sums(
        self, name: str, kind: LogType = LogType.TEXT, report: FlushReport | None = None
    ) -> DestinationSums:
        found = (report or self.worker.report()).destinations
        return next(
            (sums for sums in found if (sums.destination, sums.type) == (name, kind)),
            DestinationSums(name, kind),
        )

    def lane(self, name: str, report: FlushReport | None = None) -> LaneSums:
        return next(lane for lane in (report or self.worker.report()).lanes if lane.lane == name)


@contextmanager
def core(
    folder: Path, *backends: LogBackend, router: Any = None, sizes: Sizes | None = None
) -> Iterator[Core]:
    """Run a core, and end its threads whatever its destinations do."""
    made = Core(folder, backends, router, sizes)
    try:
        yield made
    finally:
        for backend in backends:
            if isinstance(backend, Blocked):
                backend.go.set()
            if isinstance(backend, Down):
                backend.up = True
        if not made.stopped:
            made.stop(5)
