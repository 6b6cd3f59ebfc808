"""A file of text lines in the plan's layout, or of JSON lines; rotated, 0600, and whole lines only."""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from io import TextIOWrapper
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any, ClassVar

from ..config import ConfigError, FileConfig
from ..record import LogRecord, LogType
from ._options import choice, level_named, typed_options
from ._text import as_json, context_of, details, escape, local_time, reason_of, render, write_lines
from .base import Destination, Rejected, RetryLater

__all__ = ["FileBackend"]

ROTATION_PAUSE = 60.0
"""Seconds between two attempts at a rotation that failed; meanwhile the file grows, and nothing is lost."""


class FileBackend(Destination):
    """Lines of TEXT and AUDIT records; a full disk or a read-only folder is waited for, a moved file is replaced.

    The text layout is `{datetime} {level} {logger}: {message} | {context}`, one line per record, and the stack trace
    indented below it. A batch that breaks off is cut back to the last complete line. A pipe or terminal at
    `file_path` (such as /dev/stdout) is written to and never rotated.
    """

    accepts: ClassVar[frozenset[LogType]] = frozenset({LogType.TEXT, LogType.AUDIT})
    keeps_anchors = True
    max_batch: int = 256

    file_path: str = "logs/app.log"
    format_type: str = "text"
    rotation: bool = True
    max_bytes: int = 100 * 1024 * 1024
    backup_count: int = 10
    _handler: _Rotation | None = None
    _path: Path | None = None
    _unsynced: bool = False
    _next_rotation: float = 0.0

    def __init__(self, config: FileConfig | Mapping[str, Any] | None = None) -> None:
        options = typed_options(FileConfig, config, "file")
        if not options.file_path:
            raise ConfigError("is empty", path="file.file_path", cure="name the file to write")
        self.min_level = level_named(options.min_level, "file")
        self.file_path = str(Path(options.file_path).expanduser())
        self.format_type = choice(options.format, ("text", "json"), "file.format")
        self.rotation = options.rotation and options.backup_count > 0  # rotating away needs a place to go
        self.max_bytes = int(options.max_size_mb * 1024 * 1024)
        if self.rotation and self.max_bytes <= 0:
            raise ConfigError("must be more than 0", path="file.max_size_mb", cure="or set rotation: false")
        self.backup_count = options.backup_count
        self._path = Path(self.file_path).absolute()  # a later chdir of the application moves nothing

    def open(self) -> None:
        self._ready()

    def deliver(self, batch: Sequence[LogRecord]) -> Sequence[Rejected]:
        layout = self._format_json if self.format_type == "json" else self._format_text
        fallback = FileBackend._format_json if self.format_type == "json" else FileBackend._format_text
        lines = render(layout, batch, lambda record: fallback(self, record))
        done = 0
        try:
            handler = self._ready()
            if self._may_rotate() and handler.would_pass_limit(b"".join(lines)):
                for done, line in enumerate(lines):  # noqa: B007 (how far it came is for the error below)
                    if self._may_rotate() and handler.would_pass_limit(line) and not handler.is_empty():
                        handler = self._rotate(handler)
                    self._append(handler, [line])
            else:
                self._append(handler, lines)
        except RetryLater as failed:
            failed.delivered += done
            raise
        except OSError as error:
            self._release()
            raise self._later(error, done) from error
        return ()

    def force_flush(self, timeout: float) -> bool:
        return self._sync()

    def close(self, timeout: float) -> None:
        self._sync()
        self._release()

    def _format_text(self, record: LogRecord) -> str:
        second, micros = local_time(record.timestamp)
        moment = f"{second}.{micros:06d}" if micros else second  # as str(datetime) has it
        line = f"{moment} {record.level._name_} {record.logger_name}: {record.message} | {context_of(record)}"
        if not line.isprintable():
            line = escape(line)
        return line + details(record) if record.exception or record.stack else line

    def _format_json(self, record: LogRecord) -> str:
        return as_json(record)

    def _ready(self) -> _Rotation:
        handler = self._handler
        if handler is not None and handler.is_moved():
            self._release()
            handler = None
        if handler is None:
            path = self._path or Path(self.file_path).absolute()  # a subclass may have an __init__ of its own
            _make_private_folder(path.parent)
            handler = _Rotation(path, self.max_bytes if self.rotation else 0, self.backup_count)
            try:
                handler.end_torn_line()
            except OSError:
                handler.finish()
                raise
            self._handler = handler
        return handler

    def _append(self, handler: _Rotation, lines: list[bytes]) -> None:
        descriptor = handler.descriptor()
        self._unsynced = True
        written = write_lines(descriptor, lines)
        if written.error is not None:
            if written.torn:
                _take_back(descriptor, written.torn)
            self._release()  # opening again finds out what became of the disk, and of a torn line
            raise self._later(written.error, written.lines)

    def _may_rotate(self) -> bool:
        return self.rotation and time.monotonic() >= self._next_rotation

    def _rotate(self, handler: _Rotation) -> _Rotation:
        self._sync()
        try:
            handler.doRollover()
        except OSError:
            self._next_rotation = time.monotonic() + ROTATION_PAUSE
            self._release()
        return self._ready()

    def _sync(self) -> bool:
        if self._handler is None or not self._unsynced:
            return True
        descriptor = self._handler.descriptor()
        try:
            if stat.S_ISREG(os.fstat(descriptor).st_mode):
                os.fsync(descriptor)
        except OSError:
            return False
        self._unsynced = False
        return True

    def _release(self) -> None:
        handler, self._handler = self._handler, None
        if handler is not None:
            with suppress(OSError):
                handler.finish()

    def _later(self, error: OSError, delivered: int) -> RetryLater:
        return RetryLater(
            reason_of(error), f"{self.file_path}: {error.strerror or error}", delivered=delivered
        )


class _Rotation(RotatingFileHandler):
    """The standard library's rotation around a file that only FileBackend writes to; new files are 0600."""

    def __init__(self, path: Path, max_bytes: int, backup_count: int) -> None:
        super().__init__(path, maxBytes=max_bytes, backupCount=backup_count, encoding="utf-8")

    def _open(self) -> TextIOWrapper:
        return open(self.baseFilename, "a", encoding="utf-8", opener=_open_private)

    def close(self) -> None:
        """Do nothing: logging.shutdown and dictConfig close every handler there is, while this one is in use."""

    def finish(self) -> None:
        """Close the file."""
        super().close()

    def descriptor(self) -> int:
        """Return the open file's descriptor."""
        if self.stream is None:
            raise OSError(errno.EBADF, "the file is closed")
        return self.stream.fileno()

    def would_pass_limit(self, data: bytes) -> bool:
        """Say whether the data calls for a rotation first."""
        # From the file itself: `shouldRollover` goes by the stream, which does not see what was written to its descriptor.
        status = os.fstat(self.descriptor())
        return stat.S_ISREG(status.st_mode) and 0 < self.maxBytes <= status.st_size + len(data)

    def is_empty(self) -> bool:
        """Say whether there is nothing to rotate away."""
        return not os.fstat(self.descriptor()).st_size

    def is_moved(self) -> bool:
        """Say whether the path no longer leads to the open file."""
        try:
            there = Path(self.baseFilename).stat()
        except FileNotFoundError:
            return True
        return not os.path.samestat(there, os.fstat(self.descriptor()))

    def end_torn_line(self) -> None:
        """End the line that a killed process left unfinished, so that the next record starts its own."""
        status = os.fstat(self.descriptor())
        if not stat.S_ISREG(status.st_mode) or not status.st_size:
            return
        with (
            suppress(PermissionError),
            Path(self.baseFilename).open("rb") as file,
        ):  # a file may be write-only
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                os.write(self.descriptor(), b"\n")


def _open_private(path: str, flags: int) -> int:
    descriptor = os.open(
        path, flags | os.O_NONBLOCK, 0o600
    )  # a pipe that nobody reads is an error, not a wait
    os.set_blocking(descriptor, True)
    return descriptor


def _make_private_folder(folder: Path) -> None:
    """Create the folder and its missing parents, all of them 0700."""
    if not folder.is_dir():
        _make_private_folder(folder.parent)
        folder.mkdir(mode=0o700, exist_ok=True)


def _take_back(descriptor: int, torn: int) -> None:
    """Cut off the last `torn` bytes, which are the begin of a line, unless another process has written since."""
    with suppress(OSError):
        size = os.fstat(descriptor).st_size
        if os.lseek(descriptor, 0, os.SEEK_CUR) == size:
            os.ftruncate(descriptor, size - torn)
