"""The core without the factory: an intake, a worker and loggers, over destinations that do what they are told."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
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

ROOT = Path(__file__).resolve().parents[2]
SMALL = Sizes(segment=64 * 1024, low=4, high=4, metric=4)
"""Rooms that cost no time to make; enough for what a test says between two flushes."""
TRADER = """
import os, sys, time
from pathlib import Path
from hft_otel import LogConfig, LoggerFactory
folder = Path(sys.argv[1])
config = LogConfig.from_dict({"logging": {
    "environment": "prod", "isolation": "process", "agent": {"nice": 0},
    "journal": {"folder": str(folder / "journal")}, "lanes": {"folder": str(folder / "lanes")},
    "backends": {"file": {"enabled": True, "config": {"file_path": str(folder / "out.log")}}},
    "routing_rules": [{"backends": ["file"]}],
}})
log = LoggerFactory.create_logger("x", config)
"""
"""The beginning of a trading process with an agent, all of it in the folder that is its first argument."""


def poll(condition: Callable[[], Any], within: float = 30.0) -> None:
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

    def of(self, log_type: LogType) -> list[LogRecord]:
        return [record for record in self.got if record.log_type is log_type]

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


class Process:
    """What one process has: an intake and a worker over it; `logger()` makes loggers as the factory would."""

    log: HFTLogger
    """Set by `core`: a logger over the destinations that it was given."""

    def __init__(
        self,
        folder: Path,
        sizes: Sizes = SMALL,
        *,
        segment_size: int = 64 * 1024,
        spare: int = 3,
        started: bool = True,
    ) -> None:
        self.backend = Recorder()
        self.intake = Intake(Journal(folder, segment_size, spare), sizes)
        self.intake.start_drain = self._start if started else None
        self.stopped = False

    def _start(self, intake: Intake) -> Worker:
        worker = Worker(intake)
        for pipeline in intake.pipelines:
            worker.add(pipeline)
        worker.start()
        return worker

    def logger(
        self,
        name: str = "test",
        *backends: LogBackend,
        router: Any = None,
        context: Mapping[str, Any] | None = None,
    ) -> HFTLogger:
        return HFTLogger(name, backends or [self.backend], router, intake=self.intake, context=context)

    @property
    def worker(self) -> Worker:
        assert isinstance(self.intake.drain, Worker)
        return self.intake.drain

    def flush(self) -> FlushReport:
        """Wait for everything that was logged; fails the test if it does not come."""
        report = self.worker.flush(30)
        assert report.complete, str(report)
        return report

    def records(self, log_type: LogType = LogType.TEXT) -> list[LogRecord]:
        """Return what has arrived of what was logged before this call."""
        self.flush()
        return self.backend.of(log_type)

    def only(self, log_type: LogType = LogType.TEXT) -> LogRecord:
        """Return the one record that has arrived since the last look."""
        [record] = self.records(log_type)
        self.backend.got.clear()
        return record

    def emitted(self) -> int:
        """Return how many calls were counted, whatever became of them."""
        return self.worker.report().emitted

    def dropped(self) -> dict[str, int]:
        """Return the reasons why rooms have dropped records, with their numbers."""
        reasons: dict[str, int] = {}
        for lane in self.worker.report().lanes:
            for reason, number in lane.dropped.items():
                reasons[reason] = reasons.get(reason, 0) + number
        return reasons

    def lane(self, name: str, report: FlushReport | None = None) -> LaneSums:
        return next(lane for lane in (report or self.worker.report()).lanes if lane.lane == name)

    def sums(
        self, name: str, kind: LogType = LogType.TEXT, report: FlushReport | None = None
    ) -> DestinationSums:
        found = (report or self.worker.report()).destinations
        return next(
            (sums for sums in found if (sums.destination, sums.type) == (name, kind)),
            DestinationSums(name, kind),
        )

    def stop(self, timeout: float = 2.0) -> FlushReport:
        self.stopped = True
        return self.worker.stop(timeout)

    def close(self) -> None:
        """End its threads, where it has any."""
        if not self.stopped and isinstance(self.intake.drain, Worker):
            self.stop(5)


@contextmanager
def core(
    folder: Path, *backends: LogBackend, router: Any = None, sizes: Sizes | None = None
) -> Iterator[Process]:
    """Run a process with one logger, and end its threads whatever its destinations do."""
    made = Process(folder, sizes or Sizes(), segment_size=16 * 1024, spare=2)
    made.log = made.logger("core", *backends, router=router)
    try:
        yield made
    finally:
        for backend in backends:
            if isinstance(backend, Blocked):
                backend.go.set()
            if isinstance(backend, Down):
                backend.up = True
        made.close()


def run_python(folder: Path, *command: object) -> subprocess.CompletedProcess[str]:
    """Run Python with these arguments in that folder, with the repository on its path."""
    return subprocess.run(
        [sys.executable, *map(str, command)],
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=100,
        cwd=folder,
    )


def python(script: str, *arguments: object, measured: bool = True) -> subprocess.Popen[str]:
    """Start a process of its own that runs the script with the repository on its path.

    One that forks while other threads run must not be `measured`: a child would wait for coverage's lock for ever.
    """
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    if not measured:
        environment = {key: value for key, value in environment.items() if not key.startswith("COV")}
    return subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
