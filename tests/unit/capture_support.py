"""The core without the factory: loggers, rooms, journal and worker over a backend that remembers."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hft_otel.interfaces import LogBackend
from hft_otel.lanes.intake import Drain, Intake, Sizes
from hft_otel.lanes.journal import Journal
from hft_otel.ledger import FlushReport
from hft_otel.logger import HFTLogger
from hft_otel.record import LogRecord, LogType
from hft_otel.worker import Worker

ROOT = Path(__file__).resolve().parents[2]
SMALL = Sizes(segment=64 * 1024, low=4, high=4, metric=4)
"""Rooms that cost no time to make; enough for what a test says between two flushes."""


class Remembering(LogBackend):
    """Keeps every record."""

    def __init__(self) -> None:
        self.records: list[LogRecord] = []

    async def write(self, record: LogRecord) -> None:
        self.records.append(record)

    def of(self, log_type: LogType) -> list[LogRecord]:
        return [record for record in self.records if record.log_type is log_type]


class Process:
    """What one process has: an intake and a worker; `logger()` makes loggers as the factory would."""

    def __init__(
        self,
        folder: Path,
        sizes: Sizes = SMALL,
        *,
        segment_size: int = 64 * 1024,
        spare: int = 3,
        started: bool = True,
    ) -> None:
        self.backend = Remembering()
        self.intake = Intake(Journal(folder, segment_size, spare), sizes)
        self.intake.start_drain = self._start if started else None

    def _start(self, intake: Intake) -> Drain:
        worker = Worker(intake)
        for pipeline in intake.pipelines:
            worker.add(pipeline)
        worker.start()
        return worker

    def logger(
        self, name: str = "test", *backends: LogBackend, context: Mapping[str, Any] | None = None
    ) -> HFTLogger:
        return HFTLogger(name, backends or [self.backend], intake=self.intake, context=context)

    @property
    def worker(self) -> Worker:
        assert isinstance(self.intake.drain, Worker)
        return self.intake.drain

    def flush(self) -> FlushReport:
        """Wait for everything that was logged; fails the test if it does not come."""
        report = self.worker.flush(10)
        assert report.complete, str(report)
        return report

    def records(self, log_type: LogType = LogType.TEXT) -> list[LogRecord]:
        """Return what has arrived of what was logged before this call."""
        self.flush()
        return self.backend.of(log_type)

    def only(self, log_type: LogType = LogType.TEXT) -> LogRecord:
        """Return the one record that has arrived since the last look."""
        [record] = self.records(log_type)
        self.backend.records.clear()
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

    def close(self) -> FlushReport | None:
        return self.intake.drain.stop(5) if isinstance(self.intake.drain, Worker) else None


def wait_until(condition: Callable[[], object], seconds: float = 10.0) -> bool:
    """Poll until the condition holds; say whether it came to that."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.002)
    return False


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
