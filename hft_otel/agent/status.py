"""What an agent says of itself, once a second, in a file beside the lanes; and who reads it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from ..lanes import streams
from ..ledger import DestinationSums, FlushReport, LaneSums
from ..redaction import Redactor

__all__ = ["FILE", "STALE", "DestinationStatus", "LaneStatus", "Pulse", "Seen", "Status", "look", "read"]

FILE = "status.json"
_redactor = Redactor()
STALE = 5.0
"""Seconds after which a status says nothing of now."""


class LaneStatus(msgspec.Struct):
    """One lane: what came since the start, the rate in records per second, how full it is (0 to 1)."""

    lane: str
    type: str
    emitted: int
    pending: int
    dropped: dict[str, int]
    rate: float = 0.0
    fill: float = 0.0


class DestinationStatus(msgspec.Struct):
    """One destination and type; `problem` is why it cannot deliver at the moment."""

    destination: str
    type: str
    accepted: int
    delivered: int
    pending: int
    dropped: dict[str, int]
    rate: float = 0.0
    problem: str = ""


class Status(msgspec.Struct):
    """One agent at one moment; times in seconds since the epoch, lag in seconds."""

    trader: int
    agent: int
    state: str
    started: float
    written: float
    lag: float = 0.0
    """Age of the oldest record that is not read yet."""
    lanes: list[LaneStatus] = []
    destinations: list[DestinationStatus] = []
    problems: list[str] = []


class Seen(msgspec.Struct):
    """A stream that was found: who of the two lives, and what its agent said last, if anything."""

    stream: str
    trader_alive: bool
    agent_alive: bool
    age: float
    """Seconds since the agent said it; -1 where it has said nothing."""
    status: Status | None

    @property
    def verdict(self) -> str:
        """Say in a word how it stands with the two."""
        if self.agent_alive:
            if 0 <= self.age <= STALE:
                return "serving" if self.trader_alive else "draining"
            return "silent"
        return "no agent" if self.trader_alive else "orphaned"


class Pulse:
    """Writes the status of one agent, with rates since the last time."""

    def __init__(self, folder: Path, trader: int, clock: Callable[[], float] = time.time) -> None:
        self._path = folder / FILE
        self._clock = clock
        self._base = Status(trader, os.getpid(), "serving", clock(), clock())
        self._before: dict[tuple[str, str], int] = {}

    def beat(
        self,
        report: FlushReport,
        *,
        state: str = "serving",
        lag: float = 0.0,
        fill: Callable[[str], float] = lambda lane: 0.0,
        problem_of: Callable[[str], str] = lambda destination: "",
        problems: Sequence[str] = (),
    ) -> Status:
        """Write the status and return it; where it cannot be written, the next time may do."""
        now = self._clock()
        elapsed = max(now - self._base.written, 1e-3)
        status = msgspec.structs.replace(
            self._base,
            state=state,
            written=now,
            lag=lag,
            lanes=[self._lane(sums, elapsed, fill) for sums in report.lanes],
            destinations=[self._destination(sums, elapsed, problem_of) for sums in report.destinations],
            problems=[_redactor.redact_text(problem) for problem in problems if problem],
        )
        self._base.written = now
        with contextlib.suppress(OSError):
            unready = self._path.with_suffix(".new")
            descriptor = os.open(unready, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(msgspec.json.encode(status))
            unready.replace(self._path)
        return status

    def _lane(self, sums: LaneSums, elapsed: float, fill: Callable[[str], float]) -> LaneStatus:
        rate = self._rate(sums.lane, sums.type, sums.emitted, elapsed)
        return LaneStatus(
            sums.lane, sums.type, sums.emitted, sums.pending, sums.dropped, rate, fill(sums.lane)
        )

    def _destination(
        self, sums: DestinationSums, elapsed: float, problem_of: Callable[[str], str]
    ) -> DestinationStatus:
        return DestinationStatus(
            sums.destination,
            sums.type,
            sums.accepted,
            sums.delivered,
            sums.pending,
            sums.dropped,
            self._rate(f"to {sums.destination}", sums.type, sums.delivered, elapsed),
            _redactor.redact_text(problem_of(sums.destination)),
        )

    def _rate(self, place: str, kind: str, total: int, elapsed: float) -> float:
        before = self._before.get((place, kind), total if not self._before else 0)
        self._before[place, kind] = total
        return round(max(total - before, 0) / elapsed, 1)


def read(stream: Path) -> Status | None:
    """Return what the agent of a stream said last; None where it has said nothing, or nothing that can be read."""
    with contextlib.suppress(OSError, msgspec.MsgspecError):
        return msgspec.json.decode((stream / FILE).read_bytes(), type=Status)
    return None


def look(folder: Path, clock: Callable[[], float] = time.time) -> list[Seen]:
    """Return what stands in the folder of the lanes; empty where there is none."""
    return [_seen(stream, clock()) for stream in streams.others(folder)]


def _seen(stream: Path, now: float) -> Seen:
    status = read(stream)
    age = max(now - status.written, 0.0) if status else -1.0
    trader, agent = (_held(stream / name) for name in (streams.LOCK, streams.AGENT_LOCK))
    return Seen(stream.name, trader, agent, age, status)


def _held(lock: Path) -> bool:
    """Say whether a process holds the lock; it is shared for a moment, which keeps nobody out who tries again."""
    try:
        descriptor = os.open(lock, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False
