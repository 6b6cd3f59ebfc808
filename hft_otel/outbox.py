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

    def __init__(self, deadline: float) -> None:
        self.deadline = deadline
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

    def __init__(self, destination: Destination, limit: int = 2048) -> None:
        self.destination = destination
        self.name = destination.name
        self.limit = limit
        self.tallies = Tallies()
        self.problem = ""
        """Why the destination cannot deliver at the moment; empty while it can."""
        self.problem_since = 0.0
        self.last_progress = time.monotonic()
        self.audits_offered = 0
        """Audit events that were queued here so far; kept by who reads the journal."""
        self._consult = type(destination).should_handle is not Destination.should_handle
        self._queue: deque[LogRecord] = deque()
        self._in_flight = 0
        self._tickets: list[FlushTicket] = []
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._deadline = float("inf")
        self._opened = False
        self._thread = threading.Thread(target=self._run, name=f"hft-otel-{self.name}", daemon=True)
        self.closed = threading.Event()

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    @property
    def waiting(self) -> int:
        """How many records are queued or being delivered."""
        return len(self._queue) + self._in_flight

    @property
    def space(self) -> int:
        """How many more records fit."""
        return max(self.limit - self.waiting, 0)

    def offer(self, records: Sequence[LogRecord]) -> int:
        """Queue records from the front of the list while there is space; return how many."""
        count = min(self.space, len(records))
        self._queue.extend(records[:count] if count < len(records) else records)
        if count:
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
        finally:
            try:
                if self._opened:
                    self.destination.close(max(self._deadline - time.monotonic(), 0.05))
            except Exception as error:
                self._has_problem(f"close raised {type(error).__name__}: {error}")
            self.closed.set()

    def _turn(self) -> None:
        """One round: wait for work, deliver a batch, answer flushes, let the destination do its periodic work."""
        if not self._queue and not self._tickets:
            self._wake.wait(_TICK)
        self._wake.clear()
        if self.destination.linger and 0 < len(self._queue) < self.destination.max_batch and not self._tickets:
            self._closing.wait(self.destination.linger)
        if self._queue or not self._opened:
            self._deliver(self._take())
        self._answer_tickets()
        try:
            if self._opened:
                self.destination.idle()
        except Exception as error:
            self._has_problem(f"{type(error).__name__}: {error}")
        if self._tickets and not self._queue:
            time.sleep(0.001)  # a ticket that waits for records still on their way here

    def _take(self) -> list[LogRecord]:
        size = min(len(self._queue), self.destination.max_batch)
        self._in_flight = size
        return [self._queue.popleft() for _ in range(size)]

    def _deliver(self, batch: list[LogRecord]) -> None:
        """Deliver a batch: retry while that makes sense, and split it where the destination raises."""
        started, backoff = time.monotonic(), _FIRST_BACKOFF
        work = [self._wanted(batch)]
        while work and not self._out_of_time():
            part = work[0]
            self._in_flight = sum(map(len, work))
            try:
                self._open()
                self._settle(part, self.destination.deliver(part) if part else ())
                self.problem = ""
                del work[0]
            except RetryLater as later:
                self._has_problem(str(later))
                self._settle(part[: later.delivered], ())
                work[0] = part = self._give_up(part[later.delivered :], later.reason, started)
                if not part:
                    del work[0]
                wait = backoff * random.uniform(0.75, 1.25) if later.after is None else later.after
                self._pause(min(wait, _MAX_ASKED_WAIT))
                backoff = min(backoff * 2, _MAX_BACKOFF)
            except Exception as error:
                self._has_problem(f"{type(error).__name__}: {error}")
                if len(part) > 1:  # find the record that makes it raise
                    work[:1] = [part[: len(part) // 2], part[len(part) // 2 :]]
                else:
                    self._settle(part, [Rejected(record, "destination_raised") for record in part])
                    del work[0]
        for part in work:
            self._abandon(part)
        self._in_flight = 0

    def _open(self) -> None:
        if self._opened:
            return
        try:
            self.destination.open()
        except RetryLater:
            raise
        except Exception as error:
            raise RetryLater("open_failed", f"{type(error).__name__}: {error}") from error
        self._opened = True

    def _wanted(self, batch: list[LogRecord]) -> list[LogRecord]:
        """Ask a `should_handle` that the destination brings along."""
        if not self._consult:
            return batch
        wanted: list[LogRecord] = []
        for record in batch:
            try:
                takes = self.destination.should_handle(record)
            except Exception as error:
                self._has_problem(f"should_handle raised {type(error).__name__}: {error}")
                self.tallies.dropped[record.log_type, "should_handle_raised"] += 1
                continue
            if takes:
                wanted.append(record)
            else:
                self.tallies.declined[record.log_type] += 1
        return wanted

    def _settle(self, batch: Sequence[LogRecord], rejected: Sequence[Rejected]) -> None:
        """Count a batch as delivered, but for those rejected."""
        tallies = self.tallies
        lost = Counter(item.record.log_type for item in rejected)
        for kind, number in Counter(record.log_type for record in batch).items():
            tallies.delivered[kind] += number - lost[kind]
        for item in rejected:
            tallies.dropped[item.record.log_type, item.reason] += 1
        self.last_progress = time.monotonic()

    def _give_up(self, batch: list[LogRecord], reason: str, started: float) -> list[LogRecord]:
        """Drop what was retried long enough; audit events never are."""
        if time.monotonic() - started < self.destination.retry_for:
            return batch
        kept: list[LogRecord] = []
        for record in batch:
            if record.log_type is LogType.AUDIT:
                kept.append(record)
            else:
                self.tallies.dropped[record.log_type, reason] += 1
        return kept

    def _pause(self, seconds: float) -> None:
        """Wait before the next try; shorter while closing, and letting go of flushes whose time is up."""
        end = time.monotonic() + seconds
        while (now := time.monotonic()) < end and not self._out_of_time():
            if self._closing.is_set():
                end = min(end, now + _FIRST_BACKOFF)
                time.sleep(min(end - now, 0.02))
            else:
                self._closing.wait(min(end - now, 0.05))
            self._tickets = [ticket for ticket in self._tickets if ticket.deadline > now]

    def _out_of_time(self) -> bool:
        return self._closing.is_set() and time.monotonic() >= self._deadline

    def _abandon(self, records: Iterable[LogRecord]) -> None:
        """Count as dropped, at the end of the time to close, what is not an audit event; the journal has those."""
        for record in records:
            if record.log_type is not LogType.AUDIT:
                self.tallies.dropped[record.log_type, "shutdown"] += 1

    def _answer_tickets(self) -> None:
        for ticket in list(self._tickets):
            targets = ticket.waiting.get(self, {})
            remaining = ticket.deadline - time.monotonic()
            if remaining > 0 and any(self.tallies.settled(kind) < count for kind, count in targets.items()):
                continue
            self._tickets.remove(ticket)
            try:
                if remaining <= 0 or (self._opened and not self.destination.force_flush(remaining)):
                    ticket.pushed = False
            except Exception as error:
                self._has_problem(f"flush raised {type(error).__name__}: {error}")
                ticket.pushed = False
            ticket.waiting.pop(self, None)

    def _drop_late_tickets(self, now: float) -> None:
        self._tickets = [ticket for ticket in self._tickets if ticket.deadline > now]

    def _has_problem(self, problem: str) -> None:
        if not self.problem:
            self.problem_since = time.monotonic()
        self.problem = problem
