"""The worker: drain, decode, redact, route, hand over, account. Here it is a thread of the trading process.

It works in slices of about half a millisecond and sleeps between them, so that the caller's thread never waits long
for the GIL. It waits for a destination only while that destination makes progress; otherwise the record is dropped
for that destination alone, and counted.
"""

from __future__ import annotations

import asyncio
import heapq
import operator
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from itertools import chain
from queue import Empty, SimpleQueue

from .audit_feed import AuditReader
from .lanes.intake import Intake, Pipeline
from .lanes.journal import Stream
from .lanes.room import Cursor, Room
from .lanes.segment import Segment
from .ledger import DestinationSums, FlushReport, LaneSums, observations
from .outbox import FlushTicket, Outbox
from .record import LogRecord, LogType
from .routes import Routes
from .unpack import Unpacker

__all__ = ["Worker"]

_SLICE = 64
_IDLE, _YIELD, _NAP = 0.01, 0.0005, 0.002
_PATIENCE = 1.0
"""Seconds for which a full destination is waited for after it last made progress, while the lanes have space."""
_OPENING = 5.0
"""The same for one that is being opened, since loading an exporter takes a slow machine seconds."""
_SLOWEST = 3000.0
"""Records per second; a destination that takes fewer is waited for at that rate, so that the others keep theirs."""

_Read = tuple[int, LogRecord, "_Lane"]
"""What a lane yields: the pipeline's number, the record, and the lane that it counts in."""


class _Lane:
    """A room with its reader's place and its sums; not for audit, which has its own reader."""

    def __init__(
        self, room: Room, log_type: LogType, decode: Callable[[bytes], tuple[int, LogRecord]]
    ) -> None:
        self.room = room
        self.cursor = Cursor(room.first)
        self.decode = decode
        self.sums = LaneSums(room.name, log_type.value)

    def read(self) -> list[_Read]:
        """Return the next records, and give segments that are done back to the room, zeroed."""
        bodies = self.cursor.read(_SLICE)
        while not bodies and (done := self.cursor.step()) is not None:
            done.zero(done.size)
            done.next = None
            self.room.supply.appendleft(done)  # the next one used, since it is still in the caches
            bodies = self.cursor.read(_SLICE)
        records: list[_Read] = []
        for body in bodies:
            try:
                records.append((*self.decode(body), self))
            except Exception:  # noqa: BLE001  (one bad record must not stop the drain)
                self.drop("unreadable")
        return records

    def drop(self, reason: str) -> None:
        """Count a record that was read and goes nowhere."""
        self.sums.dropped[reason] = self.sums.dropped.get(reason, 0) + 1


class Worker:
    """The drain of one process (see lanes.intake.Drain): one thread here, and one per destination."""

    def __init__(self, intake: Intake) -> None:
        self._intake = intake
        self.problem = ""
        """What went wrong last in the worker itself; empty unless there is a bug."""
        self._routes = Routes(self.observe)
        unpacker = Unpacker(lambda number: self._routes.pipelines[number].redactor)
        self._unpacker = unpacker
        self._high = _Lane(intake.high, LogType.TEXT, unpacker.text)
        self._metric = _Lane(intake.metric, LogType.METRIC, unpacker.metric)
        self._low = _Lane(intake.low, LogType.TEXT, unpacker.text)
        self._lanes = (self._high, self._metric, self._low)
        self._audits = AuditReader(
            "audit", intake.journal.stream, Cursor(intake.audit.first), 0, self._decode_audit, self._retire
        )
        self._recovered: list[tuple[Stream, AuditReader]] = []
        self.recovered_sums: list[LaneSums] = []
        self._requests: list[tuple[FlushTicket, tuple[tuple[int, int], ...]]] = []
        self._lock = threading.Lock()
        # No Event: a signal handler that logs or flushes may have interrupted this very thread in `Event.set`.
        self._wake: SimpleQueue[None] = SimpleQueue()
        self._stopping = False
        self._reported_drops = 0
        self._thread = threading.Thread(target=self._run, name="hft-otel-worker", daemon=True)

    @property
    def outboxes(self) -> dict[int, Outbox]:
        """The outboxes of all destinations, by the identity of the destination."""
        return self._routes.outboxes

    def start(self) -> None:
        """Start draining."""
        self._thread.start()

    def add(self, pipeline: Pipeline) -> None:
        """Serve a further pipeline, starting its destinations; the first one also gets what dead processes left."""
        with self._lock:
            self._audits.add(self._routes.add(pipeline))
            if len(self._routes.pipelines) == 1:
                self._recover(pipeline)

    def wake(self) -> None:
        """Look at the rooms soon."""
        self._wake.put(None)

    def flush(self, timeout: float) -> FlushReport:
        """Wait until all that was emitted before the call is delivered, at most `timeout` seconds."""
        ticket = self._request_flush(timeout)
        while self._waits(ticket):
            time.sleep(0.001)  # no lock: a signal handler may be what waits here
        return self._answer(ticket)

    async def flush_async(self, timeout: float) -> FlushReport:
        """Like `flush`, without blocking the event loop."""
        ticket = self._request_flush(timeout)
        while self._waits(ticket):
            await asyncio.sleep(0.002)
        return self._answer(ticket)

    def stop(self, timeout: float) -> FlushReport:
        """Drain, deliver and close everything within `timeout` seconds; what is left is in the report."""
        deadline = time.monotonic() + timeout
        self.flush(timeout * 0.8)
        for room in self._intake.rooms:
            room.shut()  # else threads that go on logging would keep the worker from ever being done
        self._stopping = True
        self._wake.put(None)
        self._thread.join(max(deadline - time.monotonic(), 0.05))
        for outbox in self.outboxes.values():
            outbox.close(deadline)
        for outbox in self.outboxes.values():
            outbox.closed.wait(max(deadline - time.monotonic(), 0.05))
        if (
            not self._thread.is_alive()
        ):  # else it is stuck in a router of the user's, and the next start sees to audits
            self._audits.turn()
            self._turn_recovered()
        report = self.report(complete=True)
        report.complete = not report.pending
        self._intake.journal.close(settled=self._audits.settled)
        for stream, reader in self._recovered:
            stream.close(settled=reader.settled)
        return report

    def report(self, *, complete: bool = True) -> FlushReport:
        """Return both sums as they stand."""
        # Not for ever: a signal handler may have interrupted the holder.
        held = self._lock.acquire(timeout=0.2)
        try:
            lanes = list(self._lane_sums())
            outboxes = list(self.outboxes.values())
        finally:
            if held:
                self._lock.release()
        destinations = [sums for outbox in outboxes for sums in _destination_sums(outbox)]
        return FlushReport(lanes, destinations, complete)

    def observe(self) -> Iterator[tuple[str, float, Mapping[str, str]]]:
        """Yield the counters as measurements of ledger.SELF_METRICS."""
        yield from observations(self.report())

    # -- the worker's thread --

    def _run(self) -> None:
        while True:
            try:
                moved = self._round()
            except Exception as error:  # noqa: BLE001  (a bug of ours must not end all telemetry)
                self.problem = f"{type(error).__name__}: {error}"
                moved = 0
            if moved:
                time.sleep(_YIELD if moved < _SLICE else 0)
            elif self._stopping:
                return
            elif self._requests:
                time.sleep(_YIELD)
            else:
                self._rest()

    def _round(self) -> int:
        with self._lock:
            moved, batches = self._turn()
        self._hand_over(batches)
        self._start_flushes()
        return moved

    def _rest(self) -> None:
        with suppress(Empty):
            self._wake.get(timeout=_IDLE)
            while True:
                self._wake.get_nowait()

    def _turn(self) -> tuple[int, dict[Outbox, list[LogRecord]]]:
        """Move one slice out of every room; return how many records moved, and those for each outbox."""
        journal = self._intake.journal
        if len(journal.supply) < journal.spare:
            journal.replenish()
        moved = self._audits.turn() + self._turn_recovered()
        high, metrics, low = (lane.read() for lane in self._lanes)
        # merged by time, yet each room's own order stays, also where the clock has stepped back
        text = heapq.merge(high, low, key=lambda item: item[1].time_ns) if high and low else high or low
        batches: dict[Outbox, list[LogRecord]] = {}
        for number, record, lane in chain(text, metrics):
            try:
                outboxes, record.via_collector = self._routes.find(number, record)
            except Exception:  # noqa: BLE001  (a router of the user's, which may raise whatever it likes)
                lane.drop("router_failed")
                continue
            if outboxes:
                lane.sums.routed += 1
            else:
                lane.sums.unrouted += 1
            for outbox in outboxes:
                batches.setdefault(outbox, []).append(record)
        return moved + len(high) + len(metrics) + len(low), batches

    def _hand_over(self, batches: Mapping[Outbox, list[LogRecord]]) -> None:
        """Queue a batch for each; then wait for those that are full as long as that is bearable, and drop for them alone."""
        late: dict[Outbox, list[LogRecord]] = {}
        for outbox, batch in batches.items():
            for record in batch:
                outbox.tallies.accepted[record.log_type] += 1
            outbox.credit = min(outbox.credit + len(batch) / _SLOWEST, _PATIENCE)
            taken = outbox.offer(batch)
            if taken < len(batch):
                late[outbox] = batch[taken:]
        while late:
            for outbox in list(late):
                del late[outbox][: outbox.offer(late[outbox])]
                if not late[outbox] or not self._may_wait_for(outbox):
                    for record in late.pop(outbox):
                        outbox.tallies.refused[record.log_type, "queue_full"] += 1
                elif not outbox.opening:
                    outbox.credit -= _NAP
            if late:
                time.sleep(_NAP)

    def _may_wait_for(self, outbox: Outbox) -> bool:
        """Say whether to wait: it moves, it has not been waited for too long, and callers have space meanwhile."""
        still = time.monotonic() - outbox.last_progress
        moves = still < _OPENING if outbox.opening else outbox.credit > 0 and still < _PATIENCE
        return moves and all(lane.room.has_space for lane in self._lanes) and not self._stopping

    def _decode_audit(self, body: bytes, audit_id: str) -> tuple[LogRecord, tuple[Outbox, ...]]:
        number, record = self._unpacker.audit(body, audit_id)
        outboxes, record.via_collector = self._routes.find_for_audit(number, record)
        return record, outboxes

    # -- the journal --

    def _recover(self, pipeline: Pipeline) -> None:
        """Read what dead processes left in the journal's folder; their events follow this pipeline's rules."""

        def decode(body: bytes, audit_id: str) -> tuple[LogRecord, tuple[Outbox, ...]]:
            _, record = self._unpacker.audit(body, audit_id)
            outboxes, record.via_collector = self._routes.find_for_audit(pipeline.number, record)
            return record, outboxes

        for stream in self._intake.journal.abandoned():
            if not stream.segments:
                stream.close(settled=True)
                continue
            offset, seq = stream.start
            start = Cursor(stream.segments[0], offset)
            reader = AuditReader("recovered", stream.name, start, seq, decode, stream.retire)
            reader.add(self.outboxes.values())
            self._recovered.append((stream, reader))
            self.recovered_sums.append(reader.sums)

    def _turn_recovered(self) -> int:
        moved = 0
        for stream, reader in list(self._recovered):
            moved += reader.turn()
            if reader.settled:
                stream.close(settled=True)
                self._recovered.remove((stream, reader))
        return moved

    def _retire(self, segment: Segment) -> None:
        self._intake.journal.retire(segment)

    # -- flushes and sums --

    def _request_flush(self, timeout: float) -> FlushTicket:
        ticket = FlushTicket(time.monotonic() + timeout, self._reported_drops)
        if not self._stopping:
            self._requests.append((ticket, tuple(room.position for room in self._intake.rooms)))
            self._wake.put(None)
        return ticket

    def _waits(self, ticket: FlushTicket) -> bool:
        return not ticket.done and time.monotonic() < ticket.deadline and self._thread.is_alive()

    def _answer(self, ticket: FlushTicket) -> FlushReport:
        """Return the sums with what was lost since the last answer; those who ask at the same time hear the same."""
        report = self.report()
        report.complete = ticket.done and ticket.pushed if self._thread.is_alive() else not report.pending
        report.newly_dropped = max(report.dropped - ticket.reported_drops, 0)
        self._reported_drops = report.dropped
        return report

    def _start_flushes(self) -> None:
        """Send on to the outboxes each flush before which everything has been read."""
        reached = (self._audits.position, *(lane.cursor.position for lane in self._lanes))
        for request in list(self._requests):
            ticket, positions = request
            if all(map(operator.ge, reached, positions)):
                self._requests.remove(request)
                ticket.waiting = {outbox: outbox.tallies.expected() for outbox in self.outboxes.values()}
                ticket.started = True
                for outbox in list(ticket.waiting):
                    outbox.flush(ticket)
            elif ticket.deadline < time.monotonic():
                self._requests.remove(request)

    def _lane_sums(self) -> Iterator[LaneSums]:
        """Yield the sums of every lane, the caller's drops and what is unread included."""
        for room, sums, unread in (
            (self._intake.audit, self._audits.sums, self._audits.pending),
            *((lane.room, lane.sums, lane.cursor.unread) for lane in self._lanes),
        ):
            dropped = dict(sums.dropped)
            for reason, tally in room.drops.copy().items():
                dropped[reason] = dropped.get(reason, 0) + tally.value
            yield LaneSums(sums.lane, sums.type, sums.routed, sums.unrouted, dropped, unread())
        if self.recovered_sums:
            yield self._recovered_total()

    def _recovered_total(self) -> LaneSums:
        total = LaneSums("recovered", LogType.AUDIT.value)
        reasons: Counter[str] = Counter()
        for sums in self.recovered_sums:
            total.routed += sums.routed
            total.unrouted += sums.unrouted
            reasons.update(sums.dropped)
        total.dropped = dict(reasons)
        total.pending = sum(reader.pending() for _, reader in self._recovered)
        return total


def _destination_sums(outbox: Outbox) -> Iterator[DestinationSums]:
    for sums in outbox.tallies.sums(outbox.name):
        if sums.type == LogType.METRIC:
            sums.exports_succeeded = outbox.destination.exports_succeeded
            sums.exports_failed = outbox.destination.exports_failed
        yield sums
