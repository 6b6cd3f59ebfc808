"""The lanes as files: the reader's side, over files that another process writes, or wrote until it died.

What is written cannot be told from the writer's position, which is its own. So a frame counts as whole only with proof:

- something begins behind it: the next frame's tag is there, or the segment has a successor. Both are looked at before
  the frame itself is read, and machines that keep the order of stores then show all of it;
- its checksum holds (audit), or it has no zero byte: memory ahead is zero, so what is missing of a frame is zero;
- the writer said so: it has noted its position in the control page, asked by us (`ask`) or for a flush.

What a killed process leaves without proof counts if it can be decoded, as `unconfirmed`, else as `torn`. Nothing in here
raises for what stands in the files; OSError only from `RemoteIntake` itself, where there is no stream at all.
"""

from __future__ import annotations

__all__ = ["RemoteIntake", "RemoteRoom", "RemoteSegment"]


class RemoteIntake:
    """What a Worker needs of an Intake, over the stream of another process; one reader at a time.

    rooms, audit, high, metric, low: RemoteRoom (name, first, drops, has_space, released, release, shut, position)
    journal: RemoteJournal (stream, supply, spare, replenish, retire, abandoned, close, problem)
    stream: the stream's name; control: the ControlPage; problem: what could not be read, empty if nothing
    ask: Callable[[], None] | None, to be set by who can reach the writer: have it call `Intake.publish()` soon
    """

    def __init__(self, stream_folder: object, journal_folder: object = None) -> None:
        """Map what is there and take `agent.lock` of both folders. Raises OSError, or BlockingIOError where it is held."""
        raise NotImplementedError

    def writer_gone(self) -> None:
        """Say that the writer has died: what has no proof yet will never have any."""
        raise NotImplementedError

    @property
    def announced(self) -> int:
        """How many pipelines the writer has; no record is taken while the worker knows fewer."""
        raise NotImplementedError

    def close(self, *, remove: bool) -> None:
        """Unmap all and let go of the locks; with `remove` (all settled, writer gone) remove the streams."""
        raise NotImplementedError


class RemoteRoom:
    """A room of another process."""


class RemoteSegment:
    """A segment that another process writes."""
