"""What dead processes left, read and delivered beside one's own; all of it follows one pipeline's rules."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Protocol

from .audit.exported import Outgoing, anchor_record, not_exported, note_exported
from .audit.parked import Parking
from .audit.reading import last_kept
from .audit.trail import Keeping, make_trail
from .audit_feed import AuditReader
from .lane_feed import SharedLaneReader
from .lanes.intake import Pipeline
from .lanes.journal import Journal, Stream
from .lanes.remote import RemoteIntake, RemoteJournal
from .lanes.room import Cursor
from .ledger import LaneSums
from .outbox import Outbox
from .record import LogRecord, LogType
from .routes import Routes
from .unpack import Unpacker

__all__ = ["Recovery"]

_RETRY_AFTER = 1.0
_NAMED = 5
"""How many damaged files are named."""


class _Close(Protocol):
    def __call__(self, *, settled: bool) -> None: ...


class _Left:
    """What one process left. `close` is told whether all of it is settled, and removes it then."""

    def __init__(self, audits: AuditReader, lanes: tuple[SharedLaneReader, ...], close: _Close) -> None:
        self.audits = audits
        self.lanes = lanes
        self.close = close

    @property
    def settled(self) -> bool:
        """Say whether everything is read and settled everywhere."""
        return self.audits.settled and all(lane.settled for lane in self.lanes)

    def totals(self) -> list[LaneSums]:
        """Return the sums of what was read and what is still to be read."""
        return [self.audits.total(), *(lane.total() for lane in self.lanes)]


class Recovery:
    """The streams of dead processes that are being read here; their length is how many there still are."""

    def __init__(self, routes: Routes) -> None:
        self.keeping: Keeping | None = None
        """How the trails of what was found are kept on."""
        self._outgoing = Outgoing()
        self._resend: Callable[[], None] | None = None
        self._routes = routes
        self._left: list[_Left] = []
        self._done: list[LaneSums] = []
        """The sums of those that are read and closed."""
        self._later: list[tuple[Stream, Pipeline]] = []
        """What cannot be opened at the moment."""
        self._later_why, self._later_at = "", 0.0
        self._damaged: list[str] = []

    def __len__(self) -> int:
        return len(self._left) + len(self._later)

    @property
    def lanes(self) -> list[SharedLaneReader]:
        """The lanes that there are of text and measurements."""
        return [lane for left in self._left for lane in left.lanes]

    def begin(self, journal: Journal | RemoteJournal, pipeline: Pipeline) -> None:
        """Read what dead processes left in the folders of this journal, and send again what has not left for good."""
        self.add_journals(journal.abandoned(), pipeline)
        if self.keeping is not None and self.keeping.days:
            folders = [folder.parent for folder in journal.stream_folders]
            self._resend = partial(self._send_again, folders, journal.stream, pipeline)

    def add_journals(self, found: Iterable[Stream], pipeline: Pipeline) -> None:
        """Read the journals that were found; later, where they cannot be opened now."""
        for stream in found:
            try:
                self._read(stream, pipeline)
            except OSError as error:
                self._later.append((stream, pipeline))
                self._later_why = f"{stream.folder} waits, as it cannot be read: {error}"
                self._later_at = time.monotonic() + _RETRY_AFTER

    def _read(self, stream: Stream, pipeline: Pipeline) -> None:
        """Begin to read a journal; raises OSError, before anything is done, where it cannot be opened now."""
        sums = LaneSums("recovered", LogType.AUDIT.value)
        if stream.segments:
            offset, seq = stream.start
            start = Cursor(stream.segments[0], offset)
            audits = self._audits(stream.folder, start, seq, stream.retire, pipeline)
            self._left.append(_Left(audits, (), stream.close))
            sums = audits.sums
        else:
            stream.close(settled=True)
            self._done.append(sums)
        if stream.damaged:
            sums.dropped["damaged"] = len(stream.damaged)
            self._damaged += stream.damaged

    def _send_again(self, folders: Sequence[Path], own: str, pipeline: Pipeline) -> None:
        """Have the anchors leave that did not before their processes ended."""
        for anchor in not_exported(folders, own):
            event = last_kept(folders[0], anchor.stream) or anchor_record(anchor, ())
            found, via = self._routes.find_for_audit(
                pipeline.number, event
            )  # who wanted that wants its anchor
            boxes = [box for box in found if box.destination.keeps_anchors]
            self._outgoing.send(anchor, via, boxes, partial(note_exported, folders[0]))

    def adopt(self, intake: RemoteIntake, pipeline: Pipeline) -> None:
        """Read the lanes that a process left, and its journal."""
        intake.writer_gone()
        unpacker = Unpacker(lambda number: pipeline.redactor)

        def text(body: bytes) -> tuple[int, LogRecord]:
            return pipeline.number, unpacker.text(body)[1]

        def metric(body: bytes) -> tuple[int, LogRecord]:
            return pipeline.number, unpacker.metric(body)[1]

        lanes = tuple(
            SharedLaneReader(room, kind, decode, lambda: True, intake.stream)
            for room, kind, decode in (
                (intake.high, LogType.TEXT, text),
                (intake.metric, LogType.METRIC, metric),
                (intake.low, LogType.TEXT, text),
            )
        )
        offset, seq = intake.audit.start
        start = Cursor(intake.audit.first, offset)
        folder = intake.journal.stream_folder
        audits = self._audits(folder, start, seq, intake.journal.retire, pipeline)
        self._left.append(_Left(audits, lanes, lambda *, settled: intake.close(remove=settled)))

    def _audits(
        self, folder: Path, start: Cursor, seq: int, retire: Callable[..., None], pipeline: Pipeline
    ) -> AuditReader:
        unpacker = Unpacker(lambda number: pipeline.redactor)

        def decode(body: bytes, audit_id: str) -> tuple[LogRecord, tuple[Outbox, ...]]:
            _, record = unpacker.audit(body, audit_id)
            outboxes, record.via_collector = self._routes.find_for_audit(pipeline.number, record)
            return record, outboxes

        audits = AuditReader("recovered", folder.name, start, seq, decode, retire)
        audits.keep(make_trail(folder.parent, folder.name, self.keeping))
        audits.parking = Parking(folder.parent, folder.name)
        audits.outgoing = self._outgoing
        audits.add(self._routes.outboxes.values())
        return audits

    @property
    def problem(self) -> str:
        """What cannot be read or kept on at the moment, and what could not be read for good; empty while all is well."""
        held_up = next((left.audits.problem for left in self._left if left.audits.problem), "")
        damaged = self._damaged[:_NAMED]
        if more := len(self._damaged) - len(damaged):
            damaged.append(f"{more} more files are damaged")
        return "; ".join(filter(None, (held_up, self._later_why, *damaged)))

    def anchor(self) -> None:
        """Anchor what is read so far."""
        for left in self._left:
            left.audits.anchor()

    def turn(self) -> int:
        """Read on in the journals; return how many events moved."""
        if self._later and time.monotonic() >= self._later_at:
            self._try_again()
        moved = sum(left.audits.turn() for left in self._left)
        if self._resend is not None:
            resend, self._resend = self._resend, None
            with suppress(OSError):  # the next start tries again
                resend()
        self._outgoing.turn()
        return moved

    def _try_again(self) -> None:
        later, self._later, self._later_why = self._later, [], ""
        for stream, pipeline in later:
            self.add_journals([stream], pipeline)

    def settle(self, outboxes: Collection[Outbox]) -> None:
        """Give back what the outboxes have settled, and remove what is settled as a whole."""
        for left in list(self._left):
            for lane in left.lanes:
                lane.settle(outboxes)
            if left.settled:
                left.audits.anchor()
                self._end(left)

    def close(self) -> None:
        """Leave what is not settled to the next start."""
        for left in list(self._left):
            self._end(left)
        while self._later:
            self._later.pop()[0].close(settled=False)

    def _end(self, left: _Left) -> None:
        self._left.remove(left)
        left.audits.finish()
        self._done += left.totals()
        left.close(settled=left.settled)

    def totals(self) -> Iterator[LaneSums]:
        """Yield the sums of everything that was found since the start, one per type."""
        by_type: dict[str, LaneSums] = {}
        for sums in (*self._done, *(sums for left in self._left for sums in left.totals())):
            total = by_type.setdefault(sums.type, LaneSums("recovered", sums.type))
            total.routed += sums.routed
            total.unrouted += sums.unrouted
            total.dropped = dict(Counter(total.dropped) + Counter(sums.dropped))
            total.pending += sums.pending
        yield from by_type.values()
