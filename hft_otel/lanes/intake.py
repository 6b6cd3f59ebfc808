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
from .control import RoomPage
from .durability import DiskSync, SyncedRoom
from .journal import Journal
from .room import Room, Supply
from .segment import HEADER_SIZE, Segment
from .shared import SharedLanes, Sizes

__all__ = [
    "Drain",
    "Intake",
    "Pipeline",
    "Router",
    "Sizes",
    "agent_intake",
    "drain_by_default",
    "process_intake",
]


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


class Intake:
    """The rooms of this process and their drain.

    Rooms: `low` for DEBUG and INFO, `high` for WARNING and above, `metric`, and `audit`, whose segments are files.
    With `lanes` that are usable all rooms' segments are, and another process can read them.
    """

    def __init__(
        self,
        journal: Journal,
        sizes: Sizes = Sizes(),  # noqa: B008  (an immutable value)
        lanes: SharedLanes | None = None,
    ) -> None:
        self.sizes = sizes
        self.journal = journal
        self.lanes = lanes
        self.pipelines: list[Pipeline] = []
        self.drain: Drain | None = None
        self.start_drain: Callable[[Intake], Drain] | None = None
        """How a drain is started when the first record of a forked child, or the first pipeline, needs one."""
        self._lock = threading.RLock()
        self._starting = False
        self._forked = False
        self.low, self.high, self.metric, self.audit = (
            Room(name, supply, self._wake, page, left)
            for name, (supply, page, left) in self._supplies().items()
        )
        self.audit_door: Room | SyncedRoom = self.audit
        """Where loggers write audit events."""
        _live.add(self)

    def sync_audits(self) -> None:
        """Have audit calls of loggers made from now on return once the disk has their events."""
        if not isinstance(self.audit_door, SyncedRoom):
            self.audit_door = SyncedRoom(self.audit, DiskSync(lambda: self.journal.stream_folders))

    @property
    def problem(self) -> str:
        """Why audit events are not where they should be; empty while they are."""
        door = self.audit_door
        on_disk = door.problem if isinstance(door, SyncedRoom) else ""
        return "; ".join(filter(None, (self.journal.problem, on_disk)))

    @property
    def rooms(self) -> tuple[Room, Room, Room, Room]:
        """All rooms, the ones that must not wait first."""
        return self.audit, self.high, self.metric, self.low

    @property
    def shared(self) -> bool:
        """Say whether another process can read the rooms."""
        return self.lanes is not None and self.lanes.usable

    @property
    def announced(self) -> int:
        """How many pipelines there are that a reader may meet without having been told yet: none, in one process."""
        return 0

    @property
    def audit_start(self) -> tuple[int, int]:
        """Where reading begins in the first audit segment, and the number of its first event."""
        return HEADER_SIZE, 0

    def _supplies(self) -> dict[str, tuple[Supply, RoomPage | None, deque[Segment] | None]]:
        """Return what each room begins with."""
        text = ("low", "high", "metric")
        if self.lanes is not None and self.lanes.usable:
            self.lanes.control.journals = tuple(map(str, self.journal.stream_folders))
            pages = self.lanes.control.rooms
            return {
                **{name: (self.lanes.supplies[name], pages[name], None) for name in text},
                "audit": (self.journal.supply, pages["audit"], self.journal.left),
            }
        return {
            **{name: (self._anonymous(getattr(self.sizes, name)), None, None) for name in text},
            "audit": (self.journal.supply, None, None),
        }

    def _anonymous(self, count: int) -> deque[Segment]:
        return deque(Segment.anonymous(self.sizes.segment) for _ in range(count))

    def announce(self, pipelines: int) -> None:
        """Let another process that reads know how many pipelines there are, before the first record of a new one."""
        if self.lanes is not None:
            self.lanes.control.pipelines = pipelines

    def publish(self) -> None:
        """Let another process that reads know what was dropped, and up to where each room's frames are whole.

        That is until where they are written when this is called: whoever calls it holds the GIL, so nobody is writing.
        """
        for room in self.rooms:
            room.publish()

    def fall_back(self) -> None:
        """Begin all rooms anew in private memory, for a drain in this process; only before anything was logged."""
        if self.lanes is not None:
            self.journal.close(settled=True)
            self.lanes.close(remove=True)
            self._begin_rooms()

    def shut(self) -> None:
        """Take nothing more that needs the drain; audit events go on, into a journal of their own for the next start."""
        for room in (self.high, self.metric, self.low):
            room.shut()
        self.audit.shut(_late_audits(self))

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
        if self.lanes is not None:
            self.lanes.leave()
        for room in self.rooms:
            room.leave(_first_write(self, room))
        if isinstance(self.audit_door, SyncedRoom):
            self.audit_door.forget()

    def _begin_child(self) -> None:
        if self.lanes is not None:
            self.lanes.begin()
        self._begin_rooms()
        self._forked = False

    def _begin_rooms(self) -> None:
        self.journal.begin()
        for name, (supply, page, left) in self._supplies().items():
            getattr(self, name).begin(supply, page, left)


def _first_write(intake: Intake, room: Room) -> Callable[[bytes], object]:
    """Return the `write` of a forked child's room, which begins the child's own and starts its drain."""

    def write(frame: bytes) -> object:
        with suppress(Exception):  # no further thread, say: the rooms keep what they can
            intake.ensure_drain()
        if room.write is write:
            raise ValueError("interrupted by a signal handler while the child's rooms were being made")
        return room.write(frame)

    return write


def _late_audits(intake: Intake) -> Callable[[bytes], object]:
    """Return the `write` of an audit room that nobody reads any longer; the first event makes the journal."""
    made: list[tuple[Room, DiskSync]] = []

    def write(frame: bytes) -> object:
        if not made:
            journal = intake.journal.successor()
            room = Room("audit", journal.supply, _nothing)
            # In one step: another thread that audits finds both, or none.
            made.append((room, DiskSync(lambda: journal.stream_folders)))
        room, disk = made[0]
        if room.active.path is None or not room.put(frame):
            raise ValueError("there is no file for it")
        if isinstance(intake.audit_door, SyncedRoom):
            disk.sync(room.active.index)
        return None

    return write


def _nothing() -> None:
    """Nobody needs to be woken."""


_live: weakref.WeakSet[Intake] = weakref.WeakSet()
_process: Intake | None = None
_agents: Intake | None = None
_default_drain: Callable[[Intake], Drain] | None = None
_process_lock = threading.Lock()


def process_intake(
    folder: str = "logs/journal",
    segment_size: int = 512 * 1024,
    spare: int = 3,
    fallback: str | None = None,
    sizes: Sizes | None = None,
) -> Intake:
    """Return the intake of this process, made at the first call; later calls get the same, whatever they ask for."""
    global _process  # noqa: PLW0603  (one intake per process is the point)
    with _process_lock:
        if _process is None:
            second = Path(fallback) if fallback else None
            journal = Journal(Path(folder), segment_size, spare, fallback=second)
            _process = Intake(journal, sizes or Sizes())
            _process.start_drain = _default_drain
        return _process


def agent_intake(
    folder: str,
    segment_size: int,
    spare: int,
    lanes_folder: Path,
    sizes: Sizes | None = None,
    fallback: str | None = None,
) -> Intake:
    """Return the intake of this process that an agent reads, made at the first call; see `process_intake`.

    Where its lanes cannot be made it is like any other: ask `shared`, and `lanes.problem`.
    """
    global _agents  # noqa: PLW0603  (one intake per process is the point)
    with _process_lock:
        if _agents is None:
            sizes = sizes or Sizes()
            lanes = SharedLanes(lanes_folder, sizes)
            second = Path(fallback) if fallback else None
            _agents = Intake(Journal(Path(folder), segment_size, spare, lanes, second), sizes, lanes)
        return _agents


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
