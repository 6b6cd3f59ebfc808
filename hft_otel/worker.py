"""The worker: drain, decode, redact, route, hand over, account; in a thread of the trading process, or in its agent.

In a trading process it works in slices of about half a millisecond and sleeps between them, so that the caller's thread
never waits long for the GIL; in an agent it lets records gather, since each round has its price. It waits for a
destination only while that makes progress; otherwise the record is dropped for that destination alone, and counted.
"""

from __future__ import annotations

import asyncio
import heapq
import operator
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from itertools import chain
from queue import Empty, SimpleQueue

from .audit.parked import Parking
from .audit.trail import Keeping, make_trail
from .audit_feed import AuditReader
from .handover import hand_over
from .lane_feed import SHARED_SLICE, SLICE, LaneReader, SharedLaneReader, oldest_unread, with_drops
from .lanes.durability import DiskSync, Flusher
from .lanes.intake import Intake, Pipeline
from .lanes.remote import RemoteIntake
from .lanes.remote_room import RemoteRoom
from .lanes.room import Cursor, Room
from .lanes.segment import Segment
from .ledger import DestinationSums, FlushReport, LaneSums, observations
from .outbox import FlushTicket, Outbox
from .record import LogRecord, LogType
from .recovery import Recovery
from .routes import Routes
from .unpack import Unpacker

__all__ = ["Worker"]

_YIELD, _GATHER = 0.0005, 0.005
_IDLE, _LONG_IDLE, _QUIET = 0.01, 0.05, 1.0
"""Seconds of sleep where nothing has come; the longer one once nothing has for so many seconds."""

Positions = tuple[tuple[int, int], ...]
"""How far each room is written; in the order of Intake.rooms."""


class Worker:
    """The drain of one process (see lanes.intake.Drain): one thread here, and one per destination."""

    def __init__(self, intake: Intake | RemoteIntake) -> None:
        self._intake = intake
        self.problem = ""
        """What went wrong last in the worker itself; empty unless there is a bug."""
        self.on_late: Callable[[], object] | None = None
        """Called once where something is logged after `stop` and lost."""
        self._routes = Routes(self.observe)
        unpacker = Unpacker(lambda number: self._routes.pipelines[number].redactor)
        self._unpacker = unpacker
        self._shared = isinstance(intake, RemoteIntake)
        self._slice = SHARED_SLICE if self._shared else SLICE
        self._last_moved = time.monotonic()
        self._high = self._lane(intake.high, LogType.TEXT, unpacker.text)
        self._metric = self._lane(intake.metric, LogType.METRIC, unpacker.metric)
        self._low = self._lane(intake.low, LogType.TEXT, unpacker.text)
        self._lanes = (self._high, self._metric, self._low)
        self._audits = AuditReader(
            "audit",
            intake.journal.stream,
            Cursor(intake.audit.first, intake.audit_start[0]),
            intake.audit_start[1],
            self._decode_audit,
            self._retire,
            self._knows_all,
        )
        self._flusher: Flusher | None = None
        self._recovered = Recovery(self._routes)
        self._requests: list[tuple[FlushTicket, tuple[tuple[int, int], ...]]] = []
        self._lock = threading.Lock()
        # No Event: a signal handler that logs or flushes may have interrupted this very thread in `Event.set`.
        self._wake: SimpleQueue[None] = SimpleQueue()
        self._stopping = self._handing_over = False
        self._reported_drops = 0
        self._thread = threading.Thread(target=self._run, name="hft-otel-worker", daemon=True)

    @property
    def outboxes(self) -> dict[int, Outbox]:
        """The outboxes of all destinations, by the identity of the destination."""
        return self._routes.outboxes

    def start(self) -> None:
        """Start draining."""
        self._thread.start()
        if self._flusher is not None:
            self._flusher.start()

    def keep(self, keeping: Keeping) -> None:
        """Keep a trail of all audit events that are read here; before the first `add`."""
        journal = self._intake.journal
        self._audits.keep(make_trail(journal.stream_folder.parent, journal.stream, keeping))
        self._audits.parking = Parking(journal.stream_folder.parent, journal.stream)
        self._recovered.keeping = keeping
        if keeping.group_interval:
            room, cursor = self._intake.audit, self._audits.cursor
            self._flusher = Flusher(
                DiskSync(lambda: journal.stream_folders),
                keeping.group_interval,
                lambda: room.position,
                lambda: cursor.segment.index,
            )

    @property
    def trail_problem(self) -> str:
        """Why a trail cannot be kept at the moment; empty while it is."""
        disk = self._flusher.problem if self._flusher is not None else ""
        return self._audits.problem or self._recovered.problem or disk

    def add(self, pipeline: Pipeline) -> None:
        """Serve a further pipeline, starting its destinations; the first one also gets what dead processes left."""
        with self._lock:
            self._audits.add(self._routes.add(pipeline))
            if len(self._routes.pipelines) == 1:
                self._recovered.begin(self._intake.journal, pipeline)

    def adopt(self, intake: RemoteIntake) -> None:
        """Deliver also what a dead process left in its lanes; its records follow the first pipeline's rules."""
        with self._lock:
            self._recovered.adopt(intake, next(iter(self._routes.pipelines.values())))

    def wake(self) -> None:
        """Look at the rooms soon."""
        if self._stopping:
            on_late, self.on_late = self.on_late, None
            if on_late is not None:
                on_late()
        else:
            self._wake.put(None)

    def flush(self, timeout: float, positions: Positions | None = None) -> FlushReport:
        """Wait until all that was emitted before the call is delivered, at most `timeout` seconds.

        `positions` of all rooms say where that ends, if not where they are now.
        """
        ticket = self._request_flush(timeout, positions)
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
        self._intake.shut()  # else threads that go on logging would keep the worker from ever being done
        self._stopping = True
        self._wake.put(None)
        if self._flusher is not None:
            self._flusher.stop()
        self._thread.join(max(deadline - time.monotonic(), 0.05))
        for outbox in self.outboxes.values():
            outbox.close(deadline)
        for outbox in self.outboxes.values():
            outbox.closed.wait(max(deadline - time.monotonic(), 0.05))
        if (
            not self._thread.is_alive()
        ):  # else it is stuck in a router of the user's, and the next start sees to audits
            self._audits.turn()
            self._recovered.turn()
            self._settle_delivered()
            self._audits.finish()
        report = self.report(complete=True)
        report.complete = not report.pending
        self._intake.journal.close(settled=self._audits.settled)
        self._recovered.close()
        return report

    @property
    def settled(self) -> bool:
        """Say whether all that was written is settled everywhere; for a reader of what a dead process left."""
        lanes = [lane for lane in self._lanes if isinstance(lane, SharedLaneReader)]
        with self._lock:
            all_read = self._audits.settled and not self._recovered and all(lane.settled for lane in lanes)
            return all_read and not self._handing_over

    @property
    def lag(self) -> float:
        """The age of the oldest record that is not read yet, in seconds; 0 where all is read."""
        if not self._lock.acquire(timeout=0.2):
            return 0.0
        try:
            cursors = [lane.cursor for lane in self._lanes] + [self._audits.cursor]
            oldest = [written for cursor in cursors if (written := oldest_unread(cursor)) is not None]
        finally:
            self._lock.release()
        return max((time.time_ns() - min(oldest)) / 1e9, 0.0) if oldest else 0.0

    def report(self, *, complete: bool = True) -> FlushReport:
        """Return both sums as they stand."""
        # Not for ever: a signal handler may have interrupted the holder.
        held = self._lock.acquire(timeout=0.2)
        try:
            if held:
                self._audits.note_settled()  # before anybody is told that they are delivered
            lanes = list(self._lane_sums())
            outboxes = list(self.outboxes.values())
        finally:
            if held:
                self._lock.release()
        destinations = [sums for outbox in outboxes for sums in _destination_sums(outbox)]
        return FlushReport(lanes, destinations, complete)

    def observe(self) -> Iterator[tuple[str, float, Mapping[str, str]]]:
        """Yield the counters as measurements of ledger.SELF_METRICS."""
        yield from observations(self.report(), self._intake.journal.displaced)

    def _lane(
        self, room: Room | RemoteRoom, log_type: LogType, decode: Callable[[bytes], tuple[int, LogRecord]]
    ) -> LaneReader:
        if isinstance(room, RemoteRoom):
            return SharedLaneReader(room, log_type, decode, self._knows_all, self._intake.journal.stream)
        return LaneReader(room, log_type, decode)

    def _knows_all(self) -> bool:
        """Say whether every pipeline is known that a record may be of."""
        return self._intake.announced <= len(self._routes.pipelines)

    # -- the worker's thread --

    def _run(self) -> None:
        while True:
            try:
                moved = self._round()
            except Exception as error:  # noqa: BLE001  (a bug of ours must not end all telemetry)
                self.problem = f"{type(error).__name__}: {error}"
                moved = 0
            if moved:
                self._last_moved = time.monotonic()
                gather = self._shared and not self._requests
                time.sleep(0 if moved >= self._slice else _GATHER if gather else _YIELD)
            elif self._stopping:
                self._anchor()
                return
            elif self._requests:
                time.sleep(_YIELD)
            else:
                self._rest()

    def _anchor(self) -> None:
        """Anchor all that was read, while the destinations are still open."""
        with self._lock, suppress(Exception):  # a bug of ours must not keep the process from ending
            self._audits.anchor()
            self._recovered.anchor()

    def _round(self) -> int:
        with self._lock:
            moved, batches = self._turn()
            self._handing_over = True
        hand_over(batches, self._may_wait)
        with self._lock:
            if self._shared or self._recovered:
                self._settle()
            self._handing_over = False
        self._start_flushes()
        return moved

    def _rest(self) -> None:
        quiet = time.monotonic() - self._last_moved > _QUIET
        with suppress(Empty):
            self._wake.get(timeout=_LONG_IDLE if quiet else _IDLE)
            while True:
                self._wake.get_nowait()

    def _turn(self) -> tuple[int, dict[Outbox, list[LogRecord]]]:
        """Move one slice out of every room; return how many records moved, and those for each outbox."""
        if self._shared and self._stopping:  # what is not read by now is for whoever reads next
            return 0, {}
        journal = self._intake.journal
        if len(journal.supply) < journal.spare:
            journal.replenish()
        moved = self._audits.turn() + self._recovered.turn()
        found = [(lane.log_type, lane.read()) for lane in chain(self._lanes, self._recovered.lanes)]
        texts = [read for log_type, read in found if read and log_type is LogType.TEXT]
        # merged by time, yet each room's own order stays, also where the clock has stepped back
        text = heapq.merge(*texts, key=lambda item: item[1].time_ns) if len(texts) > 1 else chain(*texts)
        metrics = chain(*(read for log_type, read in found if log_type is LogType.METRIC))
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
        return moved + sum(len(read) for _, read in found), batches

    def _may_wait(self) -> bool:
        return all(lane.has_space for lane in self._lanes) and not self._stopping

    def _decode_audit(self, body: bytes, audit_id: str) -> tuple[LogRecord, tuple[Outbox, ...]]:
        number, record = self._unpacker.audit(body, audit_id)
        outboxes, record.via_collector = self._routes.find_for_audit(number, record)
        return record, outboxes

    # -- giving back --

    def _settle(self) -> None:
        """Give back what every destination has settled."""
        outboxes = self.outboxes.values()
        for lane in self._lanes:
            if isinstance(lane, SharedLaneReader):
                lane.settle(outboxes)
        self._recovered.settle(outboxes)

    def _settle_delivered(self) -> None:
        """Do so at the end; but what was given up for lack of time is left to a successor."""
        if not any(outbox.tallies.dropped[LogType.TEXT, "shutdown"] for outbox in self.outboxes.values()):
            self._settle()

    def _retire(self, segment: Segment) -> None:
        self._intake.journal.retire(segment)

    # -- flushes and sums --

    def _request_flush(self, timeout: float, positions: Positions | None = None) -> FlushTicket:
        ticket = FlushTicket(time.monotonic() + timeout, self._reported_drops)
        if not self._stopping:
            positions = positions or tuple(room.position for room in self._intake.rooms)
            self._requests.append((ticket, positions))
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
        audits = self._audits.total()
        audits.dropped = with_drops(audits.dropped, self._intake.audit)
        yield audits
        for lane in self._lanes:
            yield lane.total()
        yield from self._recovered.totals()


def _destination_sums(outbox: Outbox) -> Iterator[DestinationSums]:
    for sums in outbox.tallies.sums(outbox.name):
        if sums.type == LogType.METRIC:
            sums.exports_succeeded = outbox.destination.exports_succeeded
            sums.exports_failed = outbox.destination.exports_failed
        yield sums
