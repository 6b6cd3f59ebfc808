"""The outbox of one destination: its bounded queue, its thread, its retries and its counts.

A destination that raises, blocks or is down fills its own outbox and nobody else's. Records leave in the order in
which they came; each ends as delivered, dropped with a reason, or declined by `should_handle`.
"""

from __future__ import annotations

import random
import threading
import time
from collections import Counter, deque
from collections.abc import Iterable, Sequence

from .destinations.base import Destination, Rejected, RetryLater
from .ledger import Tallies
from .record import LogRecord, LogType

__all__ = ["FlushTicket", "Outbox"]

_FIRST_BACKOFF, _MAX_BACKOFF, _MAX_ASKED_WAIT = 0.1, 5.0, 30.0
_TICK = 0.25


class FlushTicket:
    """One flush on its way through the outboxes: who still has to answer, and whether all went out."""

    def __init__(self, deadline: float, reported_drops: int = 0) -> None:
        self.deadline = deadline
        self.reported_drops = reported_drops
        """How many losses earlier flushes have reported."""
        self.waiting: dict[Outbox, dict[LogType, int]] = {}
        """Per outbox, the counts of settled records at which it is done."""
        self.pushed = True
        self.started = False

    @property
    def done(self) -> bool:
        """Say whether every outbox has answered."""
        return self.started and not self.waiting


class Outbox:
    """Queue and thread of one destination; `offer` is the worker's side, all else happens on the thread."""

    def __init__(self, destination: Destination, limit: int = 2048, name: str = "") -> None:
        self.destination = destination
        self.name = name or destination.name
        self.limit = limit
        self.tallies = Tallies()
        self.problem = ""
        """Why the destination cannot deliver at the moment; empty while it can."""
        self.last_progress = time.monotonic()
        """When it last settled records, or was given some after it had none."""
        self.credit = 0.0
        """Seconds for which the worker may still wait for space here; kept by the worker."""
        self.audits_offered = 0
        """Audit events that were queued here so far; kept by who reads the journal."""
        self.refused: dict[str, Rejected] = {}
        """Audit events that were refused for good, by identity, until who reads the journal has parked them."""
        self.parks = 0
        """How many of them there were."""
        self.closed = threading.Event()
        self._consult = type(destination).should_handle is not Destination.should_handle
        self._queue: deque[LogRecord] = deque()
        self._in_flight = 0
        self._backoff = _FIRST_BACKOFF
        self._tickets: list[FlushTicket] = []
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._deadline = float("inf")
        self._opened = False
        self._thread = threading.Thread(target=self._run, name=f"hft-otel-{self.name}", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    @property
    def waiting(self) -> int:
        """How many records are queued or being delivered."""
        return len(self._queue) + self._in_flight

    @property
    def opening(self) -> bool:
        """Say whether the destination is being opened, and has not failed to."""
        return not self._opened and not self.problem

    @property
    def space(self) -> int:
        """How many more records fit."""
        return max(self.limit - self.waiting, 0)

    def offer(self, records: Sequence[LogRecord]) -> int:
        """Queue records from the front of the list while there is space; return how many."""
        waiting = self.waiting
        count = min(max(self.limit - waiting, 0), len(records))
        if count:
            if not waiting:  # it had nothing to do: the time in which it should make progress begins now
                self.last_progress = time.monotonic()
            self._queue.extend(records[:count] if count < len(records) else records)
            self._wake.set()
        return count

    def flush(self, ticket: FlushTicket) -> None:
        """Ask for an answer to the ticket once what it waits for is settled."""
        self._tickets.append(ticket)
        self._wake.set()

    def close(self, deadline: float) -> None:
        """Ask the thread to finish by `deadline` (time.monotonic); `closed` is set when it has."""
        self._deadline = deadline
        self._closing.set()
        self._wake.set()

    def _run(self) -> None:
        try:
            while not self._closing.is_set() or (self._queue and not self._out_of_time()):
                self._turn()
            self._abandon(self._queue)
            self._queue.clear()
            self._answer_tickets()
            if self._opened:
                self.destination.close(max(self._deadline - time.monotonic(), 0.05))
        except BaseException as error:  # noqa: BLE001  (a `close` of the user's may raise even SystemExit)
            self._has_problem(error)
        finally:
            self.closed.set()

    def _turn(self) -> None:
        """One round: wait for work, deliver a batch, answer flushes, let the destination do its periodic work."""
        if not self._queue and not self._tickets:
            self._wake.wait(_TICK)
        self._wake.clear()
        if (
            self.destination.linger
            and 0 < len(self._queue) < self.destination.max_batch
            and not self._tickets
        ):
            self._closing.wait(self.destination.linger)
        if self._queue or not self._opened:
            self._deliver(self._take())
        self._answer_tickets()
        self._idle()
        if self._tickets and not self._queue:
            time.sleep(0.001)  # a ticket that waits for records still on their way here

    def _idle(self) -> None:
        if not self._opened:
            return
        try:
            self.destination.idle()
        except BaseException as error:  # noqa: BLE001  (no code of the user's may end this thread)
            self._has_problem(error)

    def _take(self) -> list[LogRecord]:
        size = min(len(self._queue), max(self.destination.max_batch, 1))
        self._in_flight = size
        return [self._queue.popleft() for _ in range(size)]

    def _deliver(self, batch: list[LogRecord]) -> None:
        """Deliver a batch: retry while that makes sense, and split it where the destination raises."""
        started = time.monotonic()
        wanted, unwanted = self._wanted(batch)
        work = [wanted]
        while work and not self._out_of_time():
            work[:1] = self._attempt(work[0], started)
        for part in work:
            self._abandon(part)
        # Counted last: what is settled counts from the front, so a flush and the journal would else take these for
        # records before them which are still being retried.
        for record, reason in unwanted:
            if work and record.log_type is LogType.AUDIT:
                continue
            if reason is None:
                self.tallies.decline(record.log_type)
            else:
                self._drop(Rejected(record, reason, self.problem))
        self._in_flight = 0

    def _attempt(self, part: list[LogRecord], started: float) -> list[list[LogRecord]]:
        """Try once to deliver; return what is still to be tried, in order."""
        try:
            self._open()
            rejected = tuple(self.destination.deliver(part) or ()) if part else ()
        except RetryLater as later:
            self._has_problem(later)
            done = max(later.delivered, 0)
            self._settle(part[:done], ())
            rest = self._give_up(part[done:], later.reason, started)
            self._pause(later.after)
            return [rest] if rest else []
        except BaseException as error:  # noqa: BLE001  (no code of the user's may end this thread)
            self._has_problem(error)
            if len(part) > 1:  # find the record that makes it raise
                middle = len(part) // 2
                return [part[:middle], part[middle:]]
            self._settle(part, [Rejected(record, "destination_raised", self.problem) for record in part])
            return []
        self.problem, self._backoff = "", _FIRST_BACKOFF
        self._settle(part, rejected)
        return []

    def _open(self) -> None:
        if self._opened:
            return
        try:
            self.destination.open()
        except RetryLater:
            raise
        except BaseException as error:
            raise RetryLater("open_failed", _text(error)) from error
        self.last_progress = time.monotonic()
        self._opened = True

    def _wanted(self, batch: list[LogRecord]) -> tuple[list[LogRecord], list[tuple[LogRecord, str | None]]]:
        """Ask a `should_handle` that the destination brings along; what is not wanted comes with its reason, if any."""
        if not self._consult:
            return batch, []
        wanted: list[LogRecord] = []
        unwanted: list[tuple[LogRecord, str | None]] = []
        for record in batch:
            try:
                if self.destination.should_handle(record):
                    wanted.append(record)
                else:
                    unwanted.append((record, None))
            except BaseException as error:  # noqa: BLE001  (no code of the user's may end this thread)
                self._has_problem(error)
                unwanted.append((record, "should_handle_raised"))
        return wanted, unwanted

    def _settle(self, batch: Sequence[LogRecord], rejected: Sequence[Rejected]) -> None:
        """Count a batch as delivered, but for those rejected."""
        if rejected:
            refused = {id(item.record): item for item in rejected}
            for record in batch:
                item = refused.get(id(record))
                if item is None:
                    self.tallies.deliver(record.log_type)
                else:
                    self._drop(item)
        else:
            for kind, number in Counter([record.log_type for record in batch]).items():
                self.tallies.deliver(kind, number)
        self._in_flight -= len(batch)
        self.last_progress = time.monotonic()

    def _drop(self, item: Rejected) -> None:
        """Count a record as dropped; an audit event is there to be parked before it counts as settled."""
        if item.record.audit_id is not None:
            self.refused[item.record.audit_id] = item
            self.parks += 1
        self.tallies.drop(item.record.log_type, item.reason)

    def _give_up(self, batch: list[LogRecord], reason: str, started: float) -> list[LogRecord]:
        """Drop what was retried long enough; audit events never are."""
        if time.monotonic() - started < self.destination.retry_for:
            return batch
        kept: list[LogRecord] = []
        for record in batch:
            if record.log_type is LogType.AUDIT:
                kept.append(record)
            else:
                self.tallies.drop(record.log_type, reason)
        self._in_flight -= len(batch) - len(kept)
        return kept

    def _pause(self, asked: float | None) -> None:
        """Wait before the next try, as long as the other side asked or a little longer each time; less while closing."""
        seconds = self._backoff * random.uniform(0.75, 1.25) if asked is None else min(asked, _MAX_ASKED_WAIT)
        self._backoff = min(self._backoff * 2, _MAX_BACKOFF)
        end = time.monotonic() + seconds
        idle_at = time.monotonic() + _TICK
        while (now := time.monotonic()) < end and not self._out_of_time():
            if self._closing.is_set():
                end = min(end, now + _FIRST_BACKOFF)
                time.sleep(min(end - now, 0.02))
            else:
                self._closing.wait(min(end - now, 0.05))
            if now >= idle_at:
                self._idle()
                idle_at = now + _TICK
            for ticket in [ticket for ticket in self._tickets if ticket.deadline <= now]:
                self._tickets.remove(ticket)  # nobody waits for it any more

    def _out_of_time(self) -> bool:
        return self._closing.is_set() and time.monotonic() >= self._deadline

    def _abandon(self, records: Iterable[LogRecord]) -> None:
        """Count as dropped, at the end of the time to close, what is not an audit event; the journal has those."""
        for record in records:
            if record.log_type is not LogType.AUDIT:
                self.tallies.drop(record.log_type, "shutdown")

    def _answer_tickets(self) -> None:
        for ticket in list(self._tickets):
            targets = ticket.waiting.get(self, {})
            remaining = ticket.deadline - time.monotonic()
            if remaining > 0 and any(self.tallies.settled[kind] < count for kind, count in targets.items()):
                continue
            self._tickets.remove(ticket)
            try:
                if remaining <= 0 or (self._opened and not self.destination.force_flush(remaining)):
                    ticket.pushed = False
            except BaseException as error:  # noqa: BLE001  (no code of the user's may end this thread)
                self._has_problem(error)
                ticket.pushed = False
            ticket.waiting.pop(self, None)

    def _has_problem(self, error: BaseException) -> None:
        self.problem = _text(error)


def _text(error: BaseException) -> str:
    """Return what an exception says, also where its own `__str__` raises."""
    try:
        said = str(error)
    except Exception:  # noqa: BLE001  (see the docstring)
        said = ""
    if isinstance(error, RetryLater) and said:
        return said
    return f"{type(error).__name__}: {said}" if said else type(error).__name__
