"""One line on stderr when something begins to be lost or cannot be delivered, and one when it recovers.

On a thread of its own, since a full pipe behind stderr must stop nothing else.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from .ledger import FlushReport
from .outbox import Outbox

__all__ = ["Notices", "say"]

_PERIOD = 1.0
_REPEAT = 30.0
_QUIET = 5.0
"""Seconds without a further loss after which it counts as recovered."""
_CURES = {
    "room_full": "more is logged than the worker can take; log less, or raise the logger's min_level",
    "queue_full": "it takes less than it is sent; see its problem above, or route less to it",
    "shutdown": "give exit_timeout more seconds if this matters",
}


def say(message: str) -> None:
    """Write one line to stderr; never raises."""
    try:
        sys.stderr.write(f"hft-otel: {message}\n")
        sys.stderr.flush()
    except Exception:  # closed, or a pipe that nobody reads: there is nobody left to tell
        return


@dataclass(slots=True)
class _Loss:
    """A place and reason where records are being lost."""

    total: int
    last_growth: float
    last_said: float


class Notices:
    """Watches the sums and the destinations' problems, and says what changed; rate limited per place and reason."""

    def __init__(
        self,
        sums: Callable[[], FlushReport],
        outboxes: Callable[[], list[Outbox]],
        journal_problem: Callable[[], str],
        out: Callable[[str], None] = say,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._sums = sums
        self._outboxes = outboxes
        self._journal_problem = journal_problem
        self._out = out
        self._clock = clock
        self._known: dict[tuple[str, str], int] = {}
        self._losses: dict[tuple[str, str], _Loss] = {}
        self._problems: dict[str, str] = {}
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="hft-otel-notices", daemon=True)

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def stop(self) -> None:
        """Watch no longer."""
        self._stopped.set()

    def _run(self) -> None:
        while not self._stopped.wait(_PERIOD):
            self.look()

    def look(self) -> None:
        """Compare with the last look and say what changed."""
        now = self._clock()
        for (place, reason), total in _losses(self._sums()):
            self._compare(place, reason, total, now)
        problems = {box.name: box.problem or box.destination.export_error for box in self._outboxes()}
        problems["audit journal"] = self._journal_problem()
        for place, problem in problems.items():
            if problem and place not in self._problems:
                self._problems[place] = problem
                kept = "in memory only" if place == "audit journal" else "records wait, or are dropped and counted"
                self._out(f"{place} has a problem: {problem}; {kept}")
            elif not problem and self._problems.pop(place, ""):
                self._out(f"{place} has recovered")

    def _compare(self, place: str, reason: str, total: int, now: float) -> None:
        key = (place, reason)
        grown = total - self._known.get(key, 0)
        self._known[key] = total
        loss = self._losses.get(key)
        if grown and loss is None:
            self._losses[key] = _Loss(total, now, now)
            cure = _CURES.get(reason)
            self._out(f"losing records at {place} ({reason}): {total} so far" + (f"; {cure}" if cure else ""))
        elif grown and loss is not None:
            loss.total, loss.last_growth = total, now
            if now - loss.last_said >= _REPEAT:
                loss.last_said = now
                self._out(f"still losing records at {place} ({reason}): {total} so far")
        elif loss is not None and now - loss.last_growth >= _QUIET:
            del self._losses[key]
            self._out(f"no longer losing records at {place} ({reason}): {total} lost in all")


def _losses(report: FlushReport) -> Iterator[tuple[tuple[str, str], int]]:
    for lane in report.lanes:
        for reason, number in lane.dropped.items():
            yield (f"{lane.lane} lane", reason), number
    for sums in report.destinations:
        for reason, number in sums.dropped.items():
            yield (f"{sums.destination} {sums.type}", reason), number
