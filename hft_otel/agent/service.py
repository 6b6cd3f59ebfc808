"""What reads the lanes of a trading process and delivers: the agent's work, or that of a thread where no agent can be."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Self

from ..audit.trail import Keeping
from ..building import Builder, make_router
from ..destinations.base import Destination, Rejected
from ..interfaces import LogBackend
from ..lanes import streams
from ..lanes.control import ControlPage
from ..lanes.intake import Pipeline
from ..lanes.remote import RemoteIntake
from ..lanes.segment import BadSegment
from ..lanes.shared import CONTROL, remove_unfinished
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

_TICK = 0.02
_CLOSING = 2.0
"""Seconds for closing destinations, where all the time went into delivering."""


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
        self.told = ""
        """What the trading process said last of where its audit events are written; empty while all is well."""
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
        if not self._pipelines:
            self.worker.keep(Keeping.of(config.journal))
        backends: dict[str, LogBackend]
        try:
            backends = self._builder.backends(config)
        except Exception as error:  # noqa: BLE001  (one that cannot be used beside the others)
            backends = {name: Unbuilt(name, error) for name, part in config.backends.items() if part.enabled}
        router = make_router(config, backends)
        self._add(Pipeline(message.number, router, tuple(backends.values()), Redactor(config.redact)))

    def _add(self, pipeline: Pipeline) -> None:
        # Before the worker looks for journals: it leaves those alone whose lanes we have.
        orphans = [] if self._pipelines else list(self._orphans())
        self._pipelines[pipeline.number] = pipeline
        self.worker.add(pipeline)
        for orphan in orphans:
            self.worker.adopt(orphan)

    def _orphans(self) -> Iterator[RemoteIntake]:
        """Take on the lanes of dead processes in the same folder, if their journals stand in the same folder as ours."""
        own = self.intake
        for folder in streams.others(own.stream_folder.parent, own.stream_folder.name):
            with contextlib.suppress(OSError, BadSegment):
                remove_unfinished(folder)
                page = ControlPage.load(folder / CONTROL)
                same = [Path(each).parent for each in page.journals[:1]] == [own.journal.stream_folder.parent]
                page.close()
                lock = streams.try_lock(folder) if same else None
                if lock is not None:  # its process is gone
                    try:
                        yield RemoteIntake(folder)  # OSError where an agent still drains it
                    finally:
                        os.close(lock)

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
            problems=(self.worker.problem, self.worker.trail_problem, self.intake.problem, self.told),
        )

    def writer_gone(self) -> None:
        """Take what the trading process has left as it is; a pipeline that it had no time to name is like the first."""
        self.intake.writer_gone()
        for number in range(self.intake.announced):
            if self._pipelines and number not in self._pipelines:
                self._add(next(iter(self._pipelines.values()))._replace(number=number))
        self.start()

    def stop(self, timeout: float) -> FlushReport:
        """Deliver within `timeout` seconds what is there, dead processes' too; leave the rest to the next start.

        That is all, where the trading process has died before it could say how to deliver.
        """
        if not self._started:
            report = self.worker.report()
            report.complete = not report.pending
            self.intake.close(remove=False)
            return report
        deadline = time.monotonic() + timeout
        while not self.worker.settled and time.monotonic() < deadline:
            time.sleep(_TICK)
        self._notices.stop()
        report = self.worker.stop(max(deadline - time.monotonic(), _CLOSING))
        self.intake.close(remove=self.worker.settled)
        return report


def _problem(box: Outbox | None) -> str:
    return "" if box is None else box.problem or box.destination.export_error
