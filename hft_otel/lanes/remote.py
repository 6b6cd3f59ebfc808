"""The lanes as files: the stream of another process as a whole, with its journal, for the worker that reads it.

Segments, and what makes a frame whole, are in remote_room.py. Nothing in here raises for what stands in the files;
OSError where there is no stream at all, and where the process is short of descriptors or memory: whatever asks for an
audit segment then is to try again later.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

from . import streams
from .control import ControlPage, RoomPage
from .journal import STAND_IN, Stream, abandoned, segment_files, segment_name
from .remote_room import RemoteRoom, RemoteSegment, Writer
from .segment import HEADER_SIZE, MAX_WORD, BadSegment, Segment, is_shortage
from .shared import CONTROL

__all__ = ["RemoteAudit", "RemoteIntake", "RemoteJournal"]


class RemoteAudit(RemoteRoom):
    """The audit room of another process: its journal's segments, found as one leads to the next."""

    has_checksums = True

    def __init__(self, page: RoomPage, writer: Writer, journal: RemoteJournal) -> None:
        self._journal = journal
        journal.audit = self
        self._known: dict[int, RemoteSegment] = {}
        self._end: RemoteSegment | None = None
        """The last segment of a writer that is gone: nobody makes one after it, so none is looked for again."""
        super().__init__("audit", page, writer, [])

    @property
    def has_space(self) -> bool:
        """Say that there is: the journal grows."""
        return True

    @property
    def position(self) -> tuple[int, int]:
        """How far there is something to read; out of reach, where that cannot be known now."""
        with suppress(OSError):
            return super().position
        return MAX_WORD, HEADER_SIZE

    def after(self, segment: RemoteSegment) -> Segment | None:
        """Return the segment that follows, if that can be known; one that cannot be read is left out and counted.

        Raises OSError where it cannot be opened now: it must neither be left out nor taken for the end.
        """
        gone = self.writer_gone  # before the look at the files
        number = segment.read_word("following") if segment is not self._nothing else 0
        if segment is self._end or (
            not number and not gone and not segment.is_lost and segment is not self._nothing
        ):
            return None
        index = -1 if segment is self._nothing else segment.index
        named = self._load(number - 1) if number - 1 > index else None
        if named is not None and named.read_word("turn") == segment.read_word("turn") + 1:
            return named
        found = map(self._load, sorted(each for each in self._journal.numbers() if each > index))
        following = next((each for each in found if each is not None and _is_used(each)), None)
        if gone and following is None:
            self._end = segment
        return following

    def close(self) -> None:
        """Unmap the segments."""
        for segment in self._known.values():
            segment.close()
        super().close()

    @property
    def start(self) -> tuple[int, int]:
        """Where reading begins in the first segment, and the number of that segment's first event."""
        first = self.first
        if not isinstance(first, RemoteSegment) or first is self._nothing:
            return HEADER_SIZE, 0
        return first.settled_offset(), max(first.read_word("first_seq") - 1, 0)

    def forget(self, segment: Segment) -> None:
        """Leave out a segment that was retired."""
        self._known.pop(segment.index, None)

    def _load(self, number: int) -> RemoteSegment | None:
        if number not in self._known:
            found = self._journal.load(number)
            if found is None:
                return None
            found.belong_to(self).enter(found.read_word("turn") - 1)
            return self._known.setdefault(number, found)  # one object, also where two threads come here
        return self._known[number]

    def _first(self) -> Segment:
        return self.after(self._nothing) or self._nothing

    def _newest(self) -> RemoteSegment | None:
        """Return the last of those that one gets to from what is known."""
        found = max(self._known.values(), key=lambda each: each.index, default=None)
        while found is not None and isinstance(following := found.next, RemoteSegment):
            found.set_aside()  # there may be any number of them
            found = following
        return found


def _is_used(segment: RemoteSegment) -> bool:
    """Say whether anything was ever written to it; others are made ahead."""
    return segment.read_word("turn") != 0 or segment.holds_more(HEADER_SIZE)


class RemoteJournal:
    """The journal of another process; `folders` are those of its stream, the one where segments belong first."""

    def __init__(self, folders: Sequence[Path], lanes_folder: Path) -> None:
        self.stream = lanes_folder.name
        self.stream_folders = tuple(folders)
        self.stream_folder = folders[0]
        self.problem = ""
        self.supply: tuple[Segment, ...] = ()
        self.spare = 0
        self.audit: RemoteAudit | None = None
        self.damaged: dict[int, str] = {}
        self.cut: list[str] = []
        self.displaced: Counter[str] = Counter()
        """How many segments were found that are not where they belong, by where they are: `fallback`, `memory`."""
        self._lanes_folder = lanes_folder
        self._places = (*((folder, "") for folder in folders), (lanes_folder, STAND_IN))
        self._locks: dict[Path, int] = {}

    def replenish(self) -> None:
        """Do nothing: the writer does."""

    def numbers(self) -> Iterator[int]:
        """Yield the numbers of all segments that are there and not known to be damaged; raises OSError as `load` does."""
        for folder, prefix in self._places:
            for path in _files(folder, prefix):
                digits = path.stem.removeprefix(prefix)
                if digits.isdecimal() and int(digits) not in self.damaged:
                    yield int(digits)

    def load(self, number: int) -> RemoteSegment | None:
        """Map a segment; None where it cannot be read, which is counted, or is no longer there.

        Raises OSError where the process is short of descriptors or memory.
        """
        if number in self.damaged:
            return None
        for folder, prefix in self._places:
            path = folder / f"{prefix}{segment_name(number)}"
            try:
                found = RemoteSegment.load(path)
            except FileNotFoundError:
                continue
            except (BadSegment, OSError, ValueError) as error:
                if is_shortage(error):
                    raise
                self.damaged[number] = str(error)
                if self.audit is not None:
                    self.audit.lost("damaged")
                return None
            found.index = number
            if found.is_cut:
                self._note_cut(path)
            if folder != self.stream_folder:
                self.displaced["memory" if prefix else "fallback"] += 1
                with suppress(OSError):  # the folder may have been made since the last look
                    self.hold()
            return found
        return None

    def hold(self) -> None:
        """Take agent.lock in each of the folders that there is by now; raises OSError where another reader has it."""
        for folder in self.stream_folders:
            if folder not in self._locks and folder != self._lanes_folder and folder.is_dir():
                self._locks[folder] = _agent_lock(folder)

    def let_go(self) -> None:
        """Give back what `hold` has taken."""
        while self._locks:
            os.close(self._locks.popitem()[1])

    def _note_cut(self, path: Path) -> None:
        self.cut.append(f"{path} was cut short")
        if self.audit is not None:
            self.audit.lost("damaged")

    def retire(self, segment: Segment) -> None:
        """Remove a segment whose every event is settled; the writer may still map it."""
        if self.audit is not None:
            self.audit.forget(segment)
        with suppress(OSError):
            segment.close(unlink=True)

    def abandoned(self) -> Iterator[Stream]:
        """Yield the streams that dead processes left in the same folders, locked."""
        yield from abandoned([folder.parent for folder in self.stream_folders], self.stream_folder.name)

    def close(self, *, settled: bool) -> None:
        """Do nothing: RemoteIntake.close does."""


class RemoteIntake:
    """What a Worker needs of an Intake, over the stream of another process; one reader at a time.

    Takes `agent.lock` of the lanes and of the journal, which is where the control page says unless one is given. Raises
    BlockingIOError where another reader holds them, and OSError where there is no such stream, or the process is short of
    descriptors or memory. `problem` says what could not be read.
    """

    def __init__(self, stream_folder: Path, journal_folder: Path | None = None) -> None:
        self.stream_folder = stream_folder
        self.stream = stream_folder.name
        self._writer = Writer()
        self._problems: list[str] = []
        self._unreadable: dict[str, int] = {}
        self._locks = [_agent_lock(stream_folder)]
        with ExitStack() as undo:
            undo.callback(self._let_go)
            self.control = self._load_control()
            self.journal = RemoteJournal(self._noted_journals(journal_folder), stream_folder)
            undo.callback(self.journal.let_go)
            self.journal.hold()
            self._open_rooms()
            undo.pop_all()

    def _open_rooms(self) -> None:
        self.high, self.metric, self.low = (
            RemoteRoom(name, self.control.rooms[name], self._writer, self._load(name)) for name in _TEXT_ROOMS
        )
        for name, number in self._unreadable.items():
            getattr(self, name).lost("damaged", number)
        self.audit = RemoteAudit(self.control.rooms["audit"], self._writer, self.journal)

    @property
    def rooms(self) -> tuple[RemoteRoom, RemoteRoom, RemoteRoom, RemoteRoom]:
        """All rooms, in the order of Intake.rooms."""
        return self.audit, self.high, self.metric, self.low

    @property
    def announced(self) -> int:
        """How many pipelines the writer has; nothing is taken while the worker knows fewer."""
        return self.control.pipelines

    @property
    def problem(self) -> str:
        """What could not be read; empty if nothing."""
        return "; ".join([*self._problems, *self.journal.damaged.values(), *self.journal.cut])

    @property
    def audit_start(self) -> tuple[int, int]:
        """Where reading begins in the first audit segment, and the number of its first event."""
        return self.audit.start

    def shut(self) -> None:
        """Do nothing: its process goes on writing, for whoever reads next."""

    def writer_gone(self) -> None:
        """Say that the writer has died: what has no proof by now will never have any."""
        self._writer.gone = True

    @property
    def ask(self) -> Callable[[], None] | None:
        """Has the writer call `Intake.publish` soon; to be set by who can reach it, called on the worker's thread."""
        return self._writer.ask

    @ask.setter
    def ask(self, ask: Callable[[], None] | None) -> None:
        self._writer.ask = ask

    def close(self, *, remove: bool) -> None:
        """Unmap all and let go of the locks; with `remove`, where all is settled and the writer gone, remove the stream."""
        for room in self.rooms:
            room.close()
        self.control.close()
        if remove:
            for folder in {self.stream_folder, *self.journal.stream_folders}:
                streams.remove(folder)
        self.journal.let_go()
        self._let_go()

    def _let_go(self) -> None:
        while self._locks:
            os.close(self._locks.pop())

    def _load_control(self) -> ControlPage:
        try:
            return ControlPage.load(self.stream_folder / CONTROL)
        except (BadSegment, OSError, ValueError) as error:
            if is_shortage(error):
                raise
            self._problems.append(str(error))
            return ControlPage.blank()

    def _noted_journals(self, known: Path | None) -> tuple[Path, ...]:
        """Return the folders that the control page names, as far as they are this stream's; else the lanes' own."""
        noted = [Path(text) for text in self.control.journals if "\0" not in text]
        own = [path for path in noted if path.name == self.stream] or [self.stream_folder]
        return tuple(dict.fromkeys((known, *own[1:]) if known is not None else own))

    def _load(self, room: str) -> list[RemoteSegment]:
        """Map a room's segments; leave out, and count, those that cannot be read."""
        found: list[RemoteSegment] = []
        for path in _files(self.stream_folder, f"{room}-"):
            try:
                found.append(RemoteSegment.load(path))
                problem = f"{path} was cut short" if found[-1].is_cut else ""
            except (BadSegment, OSError, ValueError) as error:
                if is_shortage(error):
                    raise
                problem = str(error)
            if problem:
                self._problems.append(problem)
                self._unreadable[room] = self._unreadable.get(room, 0) + 1
        return found


_TEXT_ROOMS = ("high", "metric", "low")


def _files(folder: Path, prefix: str) -> list[Path]:
    """Return the segments in a folder; none where it cannot be read, but raises OSError where that may be so only now."""
    try:
        return segment_files(folder, prefix)
    except OSError as error:
        if is_shortage(error):
            raise
        return []


def _agent_lock(folder: Path) -> int:
    lock = streams.try_lock(folder, streams.AGENT_LOCK)
    if lock is None:
        raise BlockingIOError(f"{folder} is being read by another agent")
    return lock
