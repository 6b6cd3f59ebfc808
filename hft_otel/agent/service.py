"""What reads the lanes of a trading process and delivers: the agent's work, or that of a thread where no agent can be."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from ..building import Builder, make_router
from ..destinations.base import Destination, Rejected
from ..interfaces import LogBackend
from ..lanes.intake import Pipeline
from ..lanes.remote import RemoteIntake
from ..ledger import FlushReport
from ..notices import watching
from ..outbox import Outbox
from ..record import LogRecord
from ..redaction import Redactor
from ..worker import Worker
from .packing import unpack_config
from .status import Pulse
from .wire import Positions, Serve

__all__ = ["Service", "Unbuilt"]


class Unbuilt(Destination):
    """Stands where a backend could not be built: its records wait, then are dropped and counted; audits are kept."""

    def __init__(self, name: str, error: Exception) -> None:
        self.name = name
        self.why = str(error) or type(error).__name__

    def open(self) -> None:
        """Say why, again and again; the worker's notices make one line of it."""
        raise RuntimeError(self.why)

    def deliver(self, batch: Sequence[LogRecord]) -> Sequence[Rejected]:
        """Deliver nothing; never called, since it never opens."""
        raise RuntimeError(self.why)


class Service:
    """A worker over the lanes of a trading process, that process's configurations, and the lines on stderr."""

    def __init__(self, intake: RemoteIntake, builder: Builder) -> None:
        self.intake = intake
        self.worker = Worker(intake)
        self._builder = builder
        self._notices = watching(self.worker, lambda: intake.problem)
        self._pipelines: dict[int, Pipeline] = {}
        self._started = False

    @classmethod
    def open(cls, stream: str, journal: str, builder: Builder) -> Self:
        """Take on a stream; raises OSError where it is not there, or somebody else reads it."""
        return cls(RemoteIntake(Path(stream), Path(journal)), builder)

    def serve(self, message: Serve) -> None:
        """Serve a further pipeline; what cannot be built of it is reported like a destination that is down."""
        for name, number in message.levels.items():
            logging.addLevelName(number, name)
        config = unpack_config(message.config)
        backends: dict[str, LogBackend]
        try:
            backends = self._builder.backends(config)
        except Exception as error:  # noqa: BLE001  (one that cannot be used beside the others)
            backends = {name: Unbuilt(name, error) for name, part in config.backends.items() if part.enabled}
        router = make_router(config, backends)
        self._add(Pipeline(message.number, router, tuple(backends.values()), Redactor(config.redact)))

    def _add(self, pipeline: Pipeline) -> None:
        self._pipelines[pipeline.number] = pipeline
        self.worker.add(pipeline)

    def start(self) -> bool:
        """Begin to read, once all is known that the trading process has announced; say whether it began just now."""
        if self._started or not self._pipelines or len(self._pipelines) < self.intake.announced:
            return False
        self._started = True
        self.worker.start()
        self._notices.start()
        return True

    def flush(self, positions: Positions, deadline: float) -> FlushReport:
        """Answer once all before these positions is delivered, at the latest at the deadline (time.monotonic)."""
        return self.worker.flush(max(deadline - time.monotonic(), 0.0), positions)

    def beat(self, pulse: Pulse, state: str) -> None:
        """Have the status written."""
        boxes = {box.name: box for box in self.worker.outboxes.values()}
        fill = {room.name: room.fill for room in self.intake.rooms}
        pulse.beat(
            self.worker.report(),
            state=state,
            lag=self.worker.lag,
            fill=lambda lane: fill.get(lane, 0.0),
            problem_of=lambda name: _problem(boxes.get(name)),
            problems=(self.worker.problem, self.intake.problem),
        )

    def writer_gone(self) -> None:
        """Take what the trading process has left as it is; a pipeline that it had no time to name is like the first."""
        self.intake.writer_gone()
        for number in range(self.intake.announced):
            if self._pipelines and number not in self._pipelines:
                self._add(next(iter(self._pipelines.values()))._replace(number=number))
        self.start()

    def stop(self, timeout: float) -> FlushReport:
        """Deliver and close everything within `timeout` seconds; what is left is in the report."""
        self._notices.stop()
        return self.worker.stop(timeout)


def _problem(box: Outbox | None) -> str:
    return "" if box is None else box.problem or box.destination.export_error
