"""The intake of a process: its rooms, the pipelines that its loggers belong to, and who drains them."""

from __future__ import annotations

import os
import threading
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, Protocol

from ..interfaces import LogBackend
from ..ledger import FlushReport
from ..record import LogRecord, LogType
from ..redaction import Redactor
from .journal import Journal
from .room import Room
from .segment import Segment

__all__ = ["Drain", "Intake", "Pipeline", "Router", "Sizes", "drain_by_default", "process_intake"]


class Router(Protocol):
    """What a logger and the worker ask of a router; any object with `get_backends` will do for the latter."""

    def get_backends(self, record: LogRecord) -> Sequence[LogBackend]:
        """Return the backends that want the record."""
        ...


class Pipeline(NamedTuple):
    """One configuration's way from loggers to backends; its number is what travels in the records."""

    number: int
    router: Router
    backends: tuple[LogBackend, ...]
    redactor: Redactor

    def threshold(self, logger_name: str) -> int:
        """The lowest level of TEXT that some backend may want from this logger."""
        ask = getattr(self.router, "threshold", None)
        return 0 if ask is None else int(ask(logger_name))

    def wants_metrics(self, logger_name: str) -> bool:
        """Say whether some backend may want measurements from this logger."""
        ask = getattr(self.router, "wants", None)
        return True if ask is None else bool(ask(LogType.METRIC, logger_name))


class Drain(Protocol):
    """Whoever empties the rooms: a thread of this process, later an agent process."""

    def add(self, pipeline: Pipeline) -> None:
        """Serve a further pipeline."""
        ...

    def wake(self) -> None:
        """Look at the rooms soon: a segment is full."""
        ...

    def flush(self, timeout: float) -> FlushReport:
        """Wait until all that was emitted before the call is delivered, at most `timeout` seconds."""
        ...

    async def flush_async(self, timeout: float) -> FlushReport:
        """Like `flush`, without blocking the event loop."""
        ...


class Sizes(NamedTuple):
    """The bounds on memory, in bytes: segments per room times the size of one."""

    segment: int = 64 * 1024
    low: int = 32
    high: int = 16
    metric: int = 24


class Intake:
    """The rooms of this process and their drain.

    Rooms: `low` for DEBUG and INFO, `high` for WARNING and above, `metric`, and `audit`, whose segments are files.
    """

    def __init__(self, journal: Journal, sizes: Sizes = Sizes()) -> None:  # noqa: B008  (an immutable value)
        self.sizes = sizes
        self.journal = journal
        self.pipelines: list[Pipeline] = []
        self.drain: Drain | None = None
        self.start_drain: Callable[[Intake], Drain] | None = None
        """How a drain is started when the first record of a forked child, or the first pipeline, needs one."""
        self._lock = threading.RLock()
        self._starting = False
        self._forked = False
        self.low = Room("low", self._anonymous(sizes.low), self._wake)
        self.high = Room("high", self._anonymous(sizes.high), self._wake)
        self.metric = Room("metric", self._anonymous(sizes.metric), self._wake)
        self.audit = Room("audit", journal.supply, self._wake)
        _live.add(self)

    @property
    def rooms(self) -> tuple[Room, Room, Room, Room]:
        """All rooms, the ones that must not wait first."""
        return self.audit, self.high, self.metric, self.low

    def _anonymous(self, count: int) -> deque[Segment]:
        return deque(Segment.anonymous(self.sizes.segment) for _ in range(count))

    def _wake(self) -> None:
        drain = self.drain
        if drain is not None:
            drain.wake()

    def register(self, router: Router, backends: Sequence[LogBackend], redactor: Redactor) -> Pipeline:
        """Add a pipeline and see that a drain serves it."""
        with self._lock:
            pipeline = Pipeline(len(self.pipelines), router, tuple(backends), redactor)
            self.pipelines.append(pipeline)
            if self.drain is not None:
                self.drain.add(pipeline)
        self.ensure_drain()
        return pipeline

    def ensure_drain(self) -> Drain | None:
        """Start the drain if there is none; in a forked child the parent's does not count."""
        if self.drain is None:
            with self._lock:
                if (
                    not self._starting
                ):  # else a signal handler has interrupted this very function on this thread
                    self._start()
        return self.drain

    def _start(self) -> None:
        self._starting = True
        try:
            if self._forked:
                self._begin_child()
            if self.drain is None and self.start_drain is not None:
                self.drain = self.start_drain(self)
        finally:
            self._starting = False

    def after_fork(self) -> None:
        """Let go of the parent's rooms and drain; the child's own begin when it first logs or flushes.

        Most children never log, and what each of them made here nobody would remove.
        """
        self._lock = threading.RLock()
        self._starting = False
        self._forked = True
        self.drain = None
        self.journal.leave()
        for room in self.rooms:
            room.leave(_first_write(self, room))

    def _begin_child(self) -> None:
        self.journal.begin()
        for room, count in (
            (self.low, self.sizes.low),
            (self.high, self.sizes.high),
            (self.metric, self.sizes.metric),
        ):
            room.begin(self._anonymous(count))
        self.audit.begin(self.journal.supply)
        self._forked = False


def _first_write(intake: Intake, room: Room) -> Callable[[bytes], object]:
    """Return the `write` of a forked child's room, which begins the child's own and starts its drain."""

    def write(frame: bytes) -> object:
        with suppress(Exception):  # no further thread, say: the rooms keep what they can
            intake.ensure_drain()
        if room.write is write:
            raise ValueError("interrupted by a signal handler while the child's rooms were being made")
        return room.write(frame)

    return write


_live: weakref.WeakSet[Intake] = weakref.WeakSet()
_process: Intake | None = None
_default_drain: Callable[[Intake], Drain] | None = None
_process_lock = threading.Lock()


def process_intake(folder: str = "logs/journal", segment_size: int = 512 * 1024, spare: int = 3) -> Intake:
    """Return the intake of this process, made at the first call; later calls get the same, whatever they ask for."""
    global _process  # noqa: PLW0603  (one intake per process is the point)
    with _process_lock:
        if _process is None:
            _process = Intake(Journal(Path(folder), segment_size, spare))
            _process.start_drain = _default_drain
        return _process


def drain_by_default(start: Callable[[Intake], Drain]) -> None:
    """Name what drains the intake of this process; the factory does, as it knows every class."""
    global _default_drain  # noqa: PLW0603  (one per process is the point)
    _default_drain = start


def _after_fork_in_child() -> None:
    global _process_lock  # noqa: PLW0603  (the inherited lock may be held for ever)
    _process_lock = threading.Lock()
    for intake in list(_live):
        intake.after_fork()


os.register_at_fork(after_in_child=_after_fork_in_child)
