"""The lanes as files: the reader's side, over files that another process writes, or wrote until it died.

What is written cannot be told from the writer's position, which is its own. So a frame counts as whole only with proof:

- something begins behind it: the next frame's tag is there, or the segment has a successor. Either is looked at before
  the frame is read (again), and a machine that keeps the order of stores then shows all of it;
- its checksum holds (audit), or it has no zero byte: memory ahead is zero, so what is missing of a frame is zero;
- the writer said so: it notes its positions in the control page when `ask` reaches it, and for a flush.

What a killed process leaves without proof is delivered if it can be decoded, marked as unconfirmed; else it is counted
as torn. Nothing in here raises for what stands in the files; OSError only where there is no stream at all.
"""

from __future__ import annotations

import mmap
import platform
import time
from collections.abc import Callable
from contextlib import suppress
from itertools import islice
from pathlib import Path

from .control import RoomPage
from .frames import unseal_audit
from .room import Tally
from .segment import HEADER_SIZE, Segment, is_tag, last_frame, split_frames

__all__ = ["RemoteRoom", "RemoteSegment", "Writer"]

_CHUNK = 32 * 1024
_SETTLE = 0.0 if platform.machine() in ("x86_64", "AMD64", "i686") else 0.001
"""Seconds between two looks at the same bytes; where stores may be seen in another order, all are seen by then."""
_ASK_AFTER, _ASK_EVERY = 0.1, 0.5
"""Seconds that a frame is without proof before the writer is asked, and between two questions: each costs it a wake-up."""
_AGED = 0.05
"""Seconds after which a frame counts as whole where nobody can be asked."""


class Writer:
    """The process that writes, as far as its reader knows it."""

    def __init__(self) -> None:
        self.gone = False
        """It has died: what has no proof by now will never have any."""
        self.ask: Callable[[], None] | None = None
        """Has it call `Intake.publish` soon; None where it cannot be reached."""


class RemoteSegment(Segment):
    """A segment that another process writes. `proven` is the offset up to which frames are known to be whole."""

    __slots__ = ("_doubted", "_doubted_since", "_following", "_room", "_tail_seen", "proven")

    def __init__(self, memory: mmap.mmap, path: Path | None = None, index: int = 0) -> None:
        self._room: RemoteRoom | None = None
        super().__init__(memory, path, index)
        self.enter(-2)

    def enter(self, turn: int) -> None:
        """Begin to read it, as the one before which so many others were active."""
        self.turn = turn
        self.proven = HEADER_SIZE
        self._following: Segment | None = None
        self._doubted, self._doubted_since = 0, 0.0
        self._tail_seen = False

    def belong_to(self, room: RemoteRoom) -> RemoteSegment:
        """Say which room it is of; return it."""
        self._room = room
        return self

    @property
    def next(self) -> Segment | None:
        """The segment that follows, once there is one: nothing more is written to this one then."""
        if self._following is None and self._room is not None:
            turn, found = self.turn, self._room.after(self)
            if self.turn == turn:  # another thread that reads may have given it back meanwhile
                self._following = found
        return self._following

    @next.setter
    def next(self, following: Segment | None) -> None:
        self._following = following

    def committed(self) -> int:
        """Return the offset up to which frames may be read, after looking for more."""
        room = self._room
        if room is None:
            return self.size
        finished = room.writer_gone or self.read_word("following") != 0  # before the look at the frames
        self._prove(room)
        if finished:
            self._look_at_tail(room)
            return self.size
        return self.proven

    def unproven(self, offset: int) -> bool:
        """Say whether the last frame before the offset is what a killed process was perhaps still writing."""
        return offset > self.proven and self.read_word("following") == 0

    def settled_offset(self) -> int:
        """Return the offset up to which a reader before us had settled everything; the end of a frame in any case."""
        noted = self.read_word("settled")
        if noted == self.size:  # it was about to give it back, and may have begun to clear it
            return noted
        before = self.memory[HEADER_SIZE : min(max(noted, HEADER_SIZE), self.size)]
        return noted if HEADER_SIZE + last_frame(before)[1] == noted else HEADER_SIZE

    def visible_end(self) -> int:
        """Return the offset behind the last frame that can be seen, whole or not."""
        return HEADER_SIZE + last_frame(self.memory[HEADER_SIZE:])[1]

    def _prove(self, room: RemoteRoom) -> None:
        """Move `proven` on; at most a chunk at a time."""
        start = self.proven
        if start < self.size and not self.memory[start]:
            return  # by far the most frequent answer, for one byte instead of a chunk
        chunk = self.memory[start : start + _CHUNK]
        last, end = last_frame(chunk)
        if not end and chunk and is_tag(chunk[0]):  # a frame longer than a chunk
            chunk = self.memory[start:]
            last, end = last_frame(chunk)
        if not end:
            return
        behind = self.memory[start + end] if start + end < self.size else 0
        if not is_tag(behind) and (behind != 0 or not self._is_whole(chunk[last:end], start + end, room)):
            end = last
        if end:
            if _SETTLE:
                time.sleep(_SETTLE)
            # Again, as something was seen behind it by now. A length of which only half was seen would differ.
            if self.memory[start : start + end] == chunk[:end]:
                self.proven = start + end

    def _is_whole(self, frame: bytes, end: int, room: RemoteRoom) -> bool:
        """Say whether the last frame, behind which there is nothing yet, is proven to be whole."""
        if room.has_checksums:
            bodies, _ = split_frames(frame, 1)
            return unseal_audit(bodies[0]) is not None
        turn, offset = room.page.position
        if 0 not in frame or (turn == self.turn and offset >= end):
            return True
        now = time.monotonic()
        if self._doubted != end:
            self._doubted, self._doubted_since = end, now
        return room.doubt(now - self._doubted_since)

    def _look_at_tail(self, room: RemoteRoom) -> None:
        """Count, once, what was being written when its process died, and of which the beginning is missing."""
        if not self._tail_seen and self.proven < self.size and not self.memory[self.proven]:
            self._tail_seen = True
            if self.holds_more(self.proven):
                room.lost("torn")


class RemoteRoom:
    """A room of another process: its segments, each used again and again."""

    has_checksums = False

    def __init__(self, name: str, page: RoomPage, writer: Writer, segments: list[RemoteSegment]) -> None:
        self.name = name
        self.page = page
        self._writer = writer
        self._segments = [segment.belong_to(self) for segment in segments]
        self._lost: dict[str, int] = {}
        self._asked_at = 0.0
        if released := self.page.released:
            self.lost("agent_killed", released)
            self.page.released = 0
        for (
            segment
        ) in self._segments:  # contents first: one that is being taken now gets its turn before them
            if segment.holds_more(HEADER_SIZE) and segment.read_word("turn") == segment.read_word("freed"):
                self.lost("damaged")
        self._nothing = RemoteSegment(mmap.mmap(-1, HEADER_SIZE * 2)).belong_to(self)
        self._nothing.enter(-1)
        self.first: Segment = self._first()

    @property
    def writer_gone(self) -> bool:
        """Say whether nobody writes any more."""
        return self._writer.gone

    @property
    def drops(self) -> dict[str, Tally]:
        """What the writer dropped and what was lost between it and us, by reason."""
        counts = self.page.dropped()
        for reason, number in self._lost.items():
            counts[reason] = counts.get(reason, 0) + number
        return {reason: Tally(number) for reason, number in counts.items()}

    @property
    def has_space(self) -> bool:
        """Say whether more than an eighth of the segments wait to be written."""
        # There may be many, and this is asked all the time: begins where the writer, who takes the lowest, is last.
        last = reversed(self._segments)
        free = (each for each in last if each.read_word("turn") == each.read_word("freed"))
        enough = len(self._segments) // 8 + 1
        return sum(1 for _ in islice(free, enough)) == enough

    @property
    def fill(self) -> float:
        """How much of it holds something, from 0 to 1."""
        return len(self._used()) / max(len(self._segments), 1)

    @property
    def released(self) -> int:
        """Records that were taken out of the lane and are not settled; a successor counts them, should we be killed."""
        return self.page.released

    @released.setter
    def released(self, number: int) -> None:
        self.page.released = number

    @property
    def position(self) -> tuple[int, int]:
        """How far there is something to read; to compare with a cursor's."""
        newest = self._newest()
        if newest is None:
            return -1, HEADER_SIZE
        turn = newest.read_word("turn") - 1
        if newest.turn == turn and not self.writer_gone:
            return turn, newest.committed()
        return turn, newest.visible_end()

    def lost(self, reason: str, number: int = 1) -> None:
        """Count records that were lost between the writer and us."""
        self._lost[reason] = self._lost.get(reason, 0) + number

    def doubt(self, seconds: float) -> bool:
        """See to proof for a frame that has been without for so long; say whether none is needed any more."""
        ask = self._writer.ask
        if ask is None:
            return seconds >= _AGED and not self.writer_gone
        now = time.monotonic()
        if seconds >= _ASK_AFTER and now - self._asked_at >= _ASK_EVERY:
            self._asked_at = now
            with suppress(Exception):
                ask()
        return False

    def after(self, segment: RemoteSegment) -> Segment | None:
        """Return the segment that follows, if that can be known."""
        number = segment.read_word("following") if segment is not self._nothing else 0
        if not number and not self.writer_gone and segment is not self._nothing:
            return None
        found = next((each for each in self._segments if each.index + 1 == number), None)
        if found is None or found is segment or found.read_word("turn") != segment.turn + 2:
            found = self._next_best(segment)  # its header is damaged
        if found is not None and found.turn != found.read_word("turn") - 1:
            found.enter(found.read_word("turn") - 1)
        return found

    def _next_best(self, segment: RemoteSegment) -> RemoteSegment | None:
        """Return the next one of those not entered in their present turn: nothing is met twice, whatever headers say."""
        unread = [each for each in self._used() if each.turn < each.read_word("turn") - 1]
        later = [each for each in unread if each.read_word("turn") > segment.turn + 1]
        if not later and self.writer_gone:  # whatever has something in it, if in the wrong order
            later = [each for each in unread if each.holds_more(HEADER_SIZE)]
        return min(later, key=_order, default=None)

    def release(self, segment: Segment) -> None:
        """Give back a segment that is read."""
        if segment is not self._nothing:
            segment.note_settled(segment.size)
            segment.zero(segment.size, HEADER_SIZE)
            segment.note_settled(HEADER_SIZE)
            segment.note_freed(segment.turn + 1)

    def close(self) -> None:
        """Unmap the segments."""
        for segment in (*self._segments, self._nothing):
            segment.close()

    def _used(self) -> list[RemoteSegment]:
        return [each for each in self._segments if each.read_word("turn") != each.read_word("freed")]

    def _first(self) -> Segment:
        """Return where reading begins: at what was not given back."""
        oldest = min(self._used(), key=_order, default=None)
        if oldest is None:
            return self._nothing
        oldest.enter(oldest.read_word("turn") - 1)
        return oldest

    def _newest(self) -> RemoteSegment | None:
        return max(self._used(), key=_order, default=None)


def _order(segment: RemoteSegment) -> tuple[int, bool]:
    """Sort by turn; a signal handler and a kill in the middle of a change may leave an empty one with the same."""
    return segment.read_word("turn"), not segment.memory[HEADER_SIZE]
