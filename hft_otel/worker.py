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
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain
from typing import Any

from .audit_feed import AuditReader
from .destinations.base import Destination
from .destinations.foreign import as_destination
from .destinations.group import Group, ViaCollector
from .interfaces import LogBackend
from .lanes.intake import Intake, Pipeline
from .lanes.journal import Stream
from .lanes.room import Cursor, Room
from .lanes.segment import Segment
from .ledger import DestinationSums, FlushReport, LaneSums, observations
from .outbox import FlushTicket, Outbox
from .record import LogRecord, LogType
from .router import LogRouter
from .unpack import Unpacker

__all__ = ["Worker"]

_SLICE = 64
_IDLE, _YIELD = 0.01, 0.0005
_PATIENCE = 1.0
"""Seconds for which a full destination is waited for after it last made progress, while the lanes have space."""

Route = tuple[tuple[Outbox, ...], tuple[str, ...]]
"""The outboxes that a record goes to, and the names of the backends behind the Collector that want it."""

_Read = tuple[int, LogRecord, LaneSums]
"""What a lane yields: the pipeline's number, the record, and the sums that it counts in."""


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
                records.append((*self.decode(body), self.sums))
            except Exception:  # noqa: BLE001  (one bad record must not stop the drain)
                self.sums.dropped["unreadable"] = self.sums.dropped.get("unreadable", 0) + 1
        return records


class Worker:
    """The drain of one process (see lanes.intake.Drain): one thread here, and one per destination."""

    def __init__(self, intake: Intake) -> None:
        self._intake = intake
        self._pipelines: dict[int, Pipeline] = {}
        self.outboxes: dict[int, Outbox] = {}
        """By the identity of their destination."""
        self._parts: dict[int, tuple[Destination, ...]] = {}
        self._routes: dict[tuple[Any, ...], Route] = {}
        unpacker = Unpacker(lambda number: self._pipelines[number].redactor)
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
        self._wake = threading.Event()
        self._stopping = False
        self._last_dropped = 0
        self._thread = threading.Thread(target=self._run, name="hft-otel-worker", daemon=True)

    def start(self) -> None:
        """Start draining."""
        self._thread.start()

    def add(self, pipeline: Pipeline) -> None:
        """Serve a further pipeline, starting its destinations; the first one also gets what dead processes left."""
        with self._lock:
            self._pipelines[pipeline.number] = pipeline
            fresh = [outbox for backend in pipeline.backends for outbox in self._outboxes_of(backend)]
            self._audits.add(fresh)
            if len(self._pipelines) == 1:
                self._recover(pipeline)

    def wake(self) -> None:
        """Look at the rooms soon."""
        self._wake.set()

    def flush(self, timeout: float) -> FlushReport:
        """Wait until all that was emitted before the call is delivered, at most `timeout` seconds."""
        ticket = self._request_flush(timeout)
        while not ticket.done and time.monotonic() < ticket.deadline:
            time.sleep(0.001)  # no lock: a signal handler may be what waits here
        return self.report(complete=ticket.done and ticket.pushed)

    async def flush_async(self, timeout: float) -> FlushReport:
        """Like `flush`, without blocking the event loop."""
        ticket = self._request_flush(timeout)
        while not ticket.done and time.monotonic() < ticket.deadline:
            await asyncio.sleep(0.002)
        return self.report(complete=ticket.done and ticket.pushed)

    def stop(self, timeout: float) -> FlushReport:
        """Drain, deliver and close everything within `timeout` seconds; what is left is in the report."""
        deadline = time.monotonic() + timeout
        self.flush(timeout * 0.8)
        self._stopping = True
        self._wake.set()
        self._thread.join(max(deadline - time.monotonic(), 0.05))
        for outbox in self.outboxes.values():
            outbox.close(deadline)
        for outbox in self.outboxes.values():
            outbox.closed.wait(max(deadline - time.monotonic(), 0.05))
        for room in self._intake.rooms:
            room.shut()
        self._audits.turn()
        report = self.report(complete=True)
        report.complete = not report.pending
        self._intake.journal.close(settled=self._audits.settled)
        for stream, reader in self._recovered:
            stream.close(settled=reader.settled)
        return report

    def report(self, *, complete: bool = True) -> FlushReport:
        """Return both sums as they stand."""
        held = self._lock.acquire(
            timeout=0.2
        )  # not for ever: a signal handler may have interrupted the holder
        try:
            lanes = list(self._lane_sums())
            destinations = [sums for outbox in self.outboxes.values() for sums in _destination_sums(outbox)]
            report = FlushReport(lanes, destinations, complete)
            report.newly_dropped = max(report.dropped - self._last_dropped, 0)
            self._last_dropped = report.dropped
            return report
        finally:
            if held:
                self._lock.release()

    def observe(self) -> Iterator[tuple[str, float, Mapping[str, str]]]:
        """Yield the counters as measurements of ledger.SELF_METRICS."""
        with self._lock:
            lanes = list(self._lane_sums())
        destinations = [sums for outbox in self.outboxes.values() for sums in _destination_sums(outbox)]
        yield from observations(FlushReport(lanes, destinations, complete=True))

    # -- the worker's thread --

    def _run(self) -> None:
        while True:
            with self._lock:
                moved, batches = self._turn()
            for outbox, batch in batches.items():
                self._hand_over(outbox, batch)
            self._start_flushes()
            if moved:
                time.sleep(_YIELD if moved < _SLICE else 0)
            elif self._stopping:
                return
            elif not self._requests:
                self._wake.wait(_IDLE)
                self._wake.clear()

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
        for number, record, sums in chain(text, metrics):
            outboxes, record.via_collector = self._route(number, record)
            if outboxes:
                sums.routed += 1
            else:
                sums.unrouted += 1
            for outbox in outboxes:
                batches.setdefault(outbox, []).append(record)
        return moved + len(high) + len(metrics) + len(low), batches

    def _hand_over(self, outbox: Outbox, batch: list[LogRecord]) -> None:
        """Queue a batch; wait for space only while the destination makes progress, then drop for it alone."""
        for record in batch:
            outbox.tallies.accepted[record.log_type] += 1
        taken = outbox.offer(batch)
        while taken < len(batch) and self._may_wait_for(outbox):
            time.sleep(0.002)
            taken += outbox.offer(batch[taken:])
        for record in batch[taken:]:
            outbox.tallies.refused[record.log_type, "queue_full"] += 1

    def _may_wait_for(self, outbox: Outbox) -> bool:
        lanes_have_space = all(lane.room.has_space for lane in self._lanes)
        return lanes_have_space and time.monotonic() - outbox.last_progress < _PATIENCE and not self._stopping

    def _decode_audit(self, body: bytes, audit_id: str) -> tuple[LogRecord, tuple[Outbox, ...]]:
        number, record = self._unpacker.audit(body, audit_id)
        outboxes, record.via_collector = self._route(number, record)
        return record, outboxes

    # -- routes --

    def _route(self, number: int, record: LogRecord) -> Route:
        """Return where a record goes; cached by what the route table's answer depends on."""
        router = self._pipelines[number].router
        if type(router) is not LogRouter:
            return self._resolve(record, router.get_backends(record))
        names = router.table.names(record)
        key = (number, record.log_type, names)
        route = self._routes.get(key)
        if route is None:
            route = self._routes[key] = self._resolve(record, [router.backends[name] for name in names])
        return route

    def _resolve(self, record: LogRecord, backends: Iterable[LogBackend]) -> Route:
        outboxes: dict[Outbox, None] = {}
        via: list[str] = []
        for backend in backends:
            if isinstance(backend, ViaCollector):
                via.append(backend.name)
            for destination in self._destinations_of(backend):
                if record.log_type in destination.accepts:
                    outboxes[self.outboxes[id(destination)]] = None
        return tuple(outboxes), tuple(via)

    def _destinations_of(self, backend: LogBackend) -> tuple[Destination, ...]:
        """Return what a backend consists of; a plain LogBackend is wrapped, once."""
        if isinstance(backend, ViaCollector):
            backend = backend.otlp
        if isinstance(backend, Group):
            return backend.parts
        parts = self._parts.get(id(backend))
        if parts is None:
            parts = self._parts[id(backend)] = (as_destination(backend, _name_of(backend)),)
        return parts

    def _outboxes_of(self, backend: LogBackend) -> list[Outbox]:
        """Return the outboxes of a backend, starting those that are new."""
        found: list[Outbox] = []
        for destination in self._destinations_of(backend):
            outbox = self.outboxes.get(id(destination))
            if outbox is None:
                destination.telemetry = self.observe
                outbox = self.outboxes[id(destination)] = Outbox(destination)
                outbox.start()
            found.append(outbox)
        return found

    # -- the journal --

    def _recover(self, pipeline: Pipeline) -> None:
        """Read what dead processes left in the journal's folder; their events follow this pipeline's rules."""

        def decode(body: bytes, audit_id: str) -> tuple[LogRecord, tuple[Outbox, ...]]:
            _, record = self._unpacker.audit(body, audit_id)
            outboxes, record.via_collector = self._route(pipeline.number, record)
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
        ticket = FlushTicket(time.monotonic() + timeout)
        self._requests.append((ticket, tuple(room.position for room in self._intake.rooms)))
        self._wake.set()
        return ticket

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
        for sums in self.recovered_sums:
            yield LaneSums(sums.lane, sums.type, sums.routed, sums.unrouted, dict(sums.dropped))


def _destination_sums(outbox: Outbox) -> Iterator[DestinationSums]:
    for sums in outbox.tallies.sums(outbox.name):
        if sums.type == LogType.METRIC:
            sums.exports_succeeded = outbox.destination.exports_succeeded
            sums.exports_failed = outbox.destination.exports_failed
        yield sums


def _name_of(backend: LogBackend) -> str:
    return str(getattr(backend, "name", "") or type(backend).__name__)
