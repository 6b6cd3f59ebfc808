"""One line on stderr when something begins to be lost or cannot be delivered, and one when it recovers.

On a thread of its own, since whatever stands behind stderr must stop nothing else.
"""

from __future__ import annotations

import os
import select
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, TextIO

from .ledger import FlushReport
from .outbox import Outbox
from .redaction import Redactor
from .worker import Worker

__all__ = ["Notices", "last_words", "say", "watching"]

_PERIOD = 1.0
_REPEAT = 30.0
"""Seconds between two lines that say that the same thing is going wrong."""
_QUIET = 5.0
"""Seconds without a further loss after which it counts as recovered."""
_LONGEST = 1024
"""Bytes of a line; a pipe that takes anything takes as many without blocking."""
_redactor = Redactor()
"""What others say of a failure may show the URL, and with it a password."""
_CURES = {
    "room_full": "more is logged than the worker can take; log less, or raise the logger's min_level",
    "queue_full": "it takes less than it is sent; route less to it",
    "too_many_series": "a tag holds an identifier, such as an order's; leave it out, or log it as text or audit",
    "too_many_metrics": "a metric's name holds an identifier; put it into a tag of few values, or nowhere",
    "sdk_disabled": "OTEL_SDK_DISABLED is true in the environment; unset it",
}

_PARKED = "; refused audit events are parked: hft-otel audit show --parked"


def say(message: str) -> None:
    """Write one line to stderr; never raises, and gives up after a fifth of a second where nobody reads."""
    line = f"hft-otel: {' '.join(_redactor.redact_text(message).split())}"
    try:
        stream = sys.stderr
        descriptor = _descriptor(stream)
        if descriptor is None:
            stream.write(f"{line}\n")
            stream.flush()
        elif _takes(descriptor):
            # Past the stream's buffer, whose lock a signal handler may not take twice and a blocked writer keeps.
            os.write(descriptor, line.encode(errors="backslashreplace")[:_LONGEST] + b"\n")
    except Exception:  # noqa: BLE001  (closed, gone, or replaced by who knows what: there is nobody left to tell)
        return


def _takes(descriptor: int) -> bool:
    """Wait for at most a fifth of a second until a write does not block; by `poll`: `select` ends at descriptor 1023."""
    watched = select.poll()
    watched.register(descriptor, select.POLLOUT)
    return bool(watched.poll(200))


def _descriptor(stream: TextIO | None) -> int | None:
    """Return the descriptor of the process's own stderr; None for what has been put in its place."""
    own = sys.__stderr__
    return own.fileno() if own is not None and stream is own else None


def last_words(report: FlushReport, timeout: float, then: str) -> str:
    """Return what a process says that ends before all is delivered; `then` is what becomes of the rest."""
    left = [f"{sums.destination} {sums.type} {sums.pending}" for sums in report.destinations if sums.pending]
    what = f" ({', '.join(left)})" if left else ""
    return f"exit after at most {timeout:g} s with records not delivered yet{what}; {then}"


class _Lines(NamedTuple):
    """What to say of one thing: when it begins to go wrong, while it goes on (if anything), and when it is over."""

    begins: str
    goes_on: str
    ends: str


@dataclass(slots=True)
class _Trouble:
    """Something that goes wrong at the moment: when it was last seen, and what was said about it, if anything."""

    seen: float
    said: str = ""


class Notices:
    """Watches the sums and the destinations' problems, and says what changed; rate limited per place and reason."""

    def __init__(
        self,
        sums: Callable[[], FlushReport],
        outboxes: Callable[[], list[Outbox]],
        journal_problem: Callable[[], str],
        worker_problem: Callable[[], str] = str,
        out: Callable[[str], None] = say,
        clock: Callable[[], float] = time.monotonic,
        trail_problem: Callable[[], str] = str,
    ) -> None:
        self._sums = sums
        self._outboxes = outboxes
        self._journal_problem = journal_problem
        self._worker_problem = worker_problem
        self._trail_problem = trail_problem
        self._out = out
        self._clock = clock
        self._lost: Counter[tuple[str, str]] = Counter()
        self._troubles: dict[object, _Trouble] = {}
        self._last_said: dict[object, float] = {}
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
            try:
                self.look()
            except Exception:  # noqa: BLE001  (the next look may succeed, and a traceback would help nobody)
                continue

    def look(self) -> None:
        """Compare with the last look and say what changed."""
        now = self._clock()
        outboxes = self._outboxes()
        for key, total in _losses(self._sums()).items():
            place, reason = key
            grown, self._lost[key] = total > self._lost[key], total
            hint = _CURES.get(reason) or _last_error(outboxes, place)
            hint += _PARKED if any(box.parks for box in outboxes if box.name == place) else ""
            losing = f"losing records at {place} ({reason}): {total} so far" + (f"; {hint}" if hint else "")
            over = f"no longer losing records at {place} ({reason}): {total} lost in all"
            self._notice(key, grown, _Lines(losing, f"still {losing}", over), now, _QUIET)
        for box in outboxes:
            problem = box.problem or box.destination.export_error
            begins = f"{box.name} has a problem: {problem}"
            begins += "; records wait, or are dropped and counted" if box.problem else ""
            self._notice(box, bool(problem), _Lines(begins, "", f"{box.name} has recovered"), now)
        problem = self._journal_problem()
        begins = f"the audit journal has a problem: {problem}"
        self._notice("journal", bool(problem), _Lines(begins, begins, "the audit journal has recovered"), now)
        problem = self._trail_problem()
        self._notice("trail", bool(problem), _Lines(problem, "", "the audit trail has recovered"), now)
        problem = self._worker_problem()
        begins = f"the worker has a bug: {problem}; it goes on, please report this"
        self._notice("worker", bool(problem), _Lines(begins, "", ""), now)

    def _notice(self, key: object, wrong: bool, lines: _Lines, now: float, quiet: float = 0) -> None:
        """Say what is new about one thing; that it goes wrong at most every _REPEAT seconds, however often it does."""
        trouble = self._troubles.get(key)
        if wrong:
            trouble = trouble or self._troubles.setdefault(key, _Trouble(now))
            trouble.seen = now
            line = lines.goes_on if trouble.said else lines.begins
            if line and line != trouble.said and now - self._last_said.get(key, float("-inf")) >= _REPEAT:
                self._last_said[key] = now
                trouble.said = line
                self._out(line)
        elif trouble is not None and now - trouble.seen >= quiet:
            del self._troubles[key]
            if trouble.said:
                self._out(lines.ends)


def watching(worker: Worker, journal_problem: Callable[[], str]) -> Notices:
    """Return what watches a worker, its destinations and the journal that it reads; not started yet."""
    outboxes = worker.outboxes
    return Notices(
        worker.report,
        lambda: list(outboxes.values()),
        journal_problem,
        lambda: worker.problem,
        trail_problem=lambda: worker.trail_problem,
    )


def _losses(report: FlushReport) -> Counter[tuple[str, str]]:
    """Return what was lost so far by place and reason."""
    lost: Counter[tuple[str, str]] = Counter()
    for lane in report.lanes:
        for reason, number in lane.dropped.items():
            lost[f"the {lane.lane} lane", reason] += number
    for sums in report.destinations:
        for reason, number in sums.dropped.items():
            lost[sums.destination, reason] += number
    return lost


def _last_error(outboxes: list[Outbox], place: str) -> str:
    """Return what went wrong last at a destination, for those that say so."""
    errors = (
        getattr(box.destination, "last_error", "") or box.problem for box in outboxes if box.name == place
    )
    return next(filter(None, errors), "")
