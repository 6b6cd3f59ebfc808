"""The console: `time level logger: message | {context}` per record, JSON lines, or Python's logging."""

from __future__ import annotations

import errno
import io
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, TextIO

from ..config import ConsoleConfig
from ..record import LogLevel, LogRecord, LogType
from ._options import choice, level_named, typed_options
from ._text import INDENT, as_json, details, escape, local_time, reason_of, render, write_lines
from .base import Destination, Rejected, RetryLater

__all__ = ["ConsoleBackend"]

_MAY_PASS = frozenset({errno.EAGAIN, errno.EINTR, errno.ENOSPC, errno.EDQUOT})
_DIM, _BOLD, _RESET = "\x1b[2m", "\x1b[1m", "\x1b[0m"
_COLORS = ((50, "\x1b[1;37;41m"), (40, "\x1b[31m"), (30, "\x1b[33m"), (20, "\x1b[32m"), (0, "\x1b[36m"))


class ConsoleBackend(Destination):
    """Lines of TEXT records on stderr or stdout, in one write per batch.

    A message of several lines is continued on indented lines; other control characters show as Python escapes. A line
    that the stream took only half of is finished before anything else is written. With `through: stdlib` records go
    to Python's logging as they are; `hft_otel` is true on these, so that a bridge can leave them out.
    """

    accepts: ClassVar[frozenset[LogType]] = frozenset({LogType.TEXT})
    max_batch: int = 256

    enabled: bool = True
    stream: str = "stderr"
    format_type: str = "text"
    through: str = "direct"
    color: bool | None = None
    _colored: bool = False
    _torn: tuple[TextIO, LogRecord, bytes] | None = None

    def __init__(self, config: ConsoleConfig | Mapping[str, Any] | None = None) -> None:
        if isinstance(config, Mapping) and "environment" in config:  # how the plan's own class is made
            config = {"enabled": config["environment"] == "dev", **config}
            del config["environment"]
        options = typed_options(ConsoleConfig, config, "console")
        self.enabled = options.enabled
        self.min_level = level_named(options.min_level, "console")
        self.stream = choice(options.stream, ("stderr", "stdout"), "console.stream")
        self.format_type = choice(options.format, ("text", "json"), "console.format")
        self.through = choice(options.through, ("direct", "stdlib"), "console.through")
        self.color = options.color

    def should_handle(self, record: LogRecord) -> bool:
        return self.enabled and super().should_handle(record)

    def deliver(self, batch: Sequence[LogRecord]) -> Sequence[Rejected]:
        if self.through == "stdlib":
            return [refused for refused in map(self._log, batch) if refused]
        stream: TextIO = getattr(
            sys, self.stream
        )  # now: redirect_stderr and pytest replace it; None without a console
        try:
            descriptor = _own_descriptor(stream)
            self._colored = self.format_type == "text" and wants_color(stream, self.color)
            lines = self._lines(batch)
            if descriptor is None:
                _print(stream, b"".join(lines).decode())
                return ()
            stream.flush()  # what was printed before comes before
        except OSError as error:
            return self._failed(batch, 0, error)
        except Exception as error:  # noqa: BLE001 (a stand-in for sys.stderr may raise anything)
            reason = "stream_closed" if isinstance(error, ValueError) else "stream_unusable"
            return [Rejected(record, reason) for record in batch]
        return self._write(stream, descriptor, batch, lines)

    def _lines(self, batch: Sequence[LogRecord]) -> list[bytes]:
        if self.format_type == "json":
            return render(self._format_json, batch, as_json)
        return render(self._format_text, batch, lambda record: ConsoleBackend._format_text(self, record))

    def _write(
        self, stream: TextIO, descriptor: int, batch: Sequence[LogRecord], lines: list[bytes]
    ) -> Sequence[Rejected]:
        encoding = (stream.encoding or "utf-8").lower()
        if encoding != "utf-8":
            lines = [line.decode().encode(encoding, "backslashreplace") for line in lines]
        if self._torn is not None and lines:
            where, record, rest = self._torn
            if where is stream:
                lines[0] = rest if record is batch[0] else b"\n" + lines[0]
            self._torn = None
        written = write_lines(descriptor, lines)
        if written.error is None:
            return ()
        if written.torn:
            self._torn = (stream, batch[written.lines], lines[written.lines][written.torn :])
        return self._failed(batch, written.lines, written.error)

    def _failed(self, batch: Sequence[LogRecord], delivered: int, error: OSError) -> Sequence[Rejected]:
        if error.errno in _MAY_PASS:
            raise RetryLater(
                reason_of(error), f"{self.stream}: {error.strerror}", delivered=delivered
            ) from error
        reason = reason_of(error)
        return [Rejected(record, reason) for record in batch[delivered:]]

    def _format_text(self, record: LogRecord) -> str:
        second, micros = local_time(record.timestamp)
        level = record.level
        said = f"{record.message} | {record.context}" if record.context else record.message
        if not said.isprintable():
            said = INDENT.join(map(escape, said.splitlines()))
        name = record.logger_name if record.logger_name.isprintable() else escape(record.logger_name)
        moment = f"{second[-8:]}.{micros:06d}"
        if self._colored:
            line = f"{_DIM}{moment}{_RESET} {_color(level)}{level._name_:<8}{_RESET} {_BOLD}{name}{_RESET}: {said}"
        else:
            line = f"{moment} {level._name_:<8} {name}: {said}"
        return line + details(record) if record.exception or record.stack else line

    def _format_json(self, record: LogRecord) -> str:
        return as_json(record)

    def _convert_level(self, level: LogLevel) -> int:
        return int(level)

    def _log(self, record: LogRecord) -> Rejected | None:
        """Hand the record to Python's logging, with its own time; `%` in a message means nothing."""
        try:
            logger = logging.getLogger(record.logger_name)
            level = self._convert_level(record.level)
            if logger.isEnabledFor(level):
                said = f"{record.message} | {record.context}" if record.context else record.message
                made = logger.makeRecord(
                    record.logger_name, level, "", 0, said, (), None, extra={"hft_otel": True}
                )
                made.created, made.msecs = record.timestamp, record.timestamp % 1 * 1000
                made.exc_text = record.exception and record.exception.stacktrace
                made.stack_info = record.stack
                logger.handle(made)
        except Exception:  # noqa: BLE001 (a filter or handler of the application's)
            return Rejected(record, "handler_raised")
        return None


def wants_color(stream: TextIO, color: bool | None) -> bool:
    """Say whether to colour: on a terminal, unless the configuration or NO_COLOR forbids it; FORCE_COLOR: anywhere.

    `color: true` is what None is: the plan's file says it, and a pipe has to stay plain.
    """
    environ = os.environ
    if color is False or environ.get("NO_COLOR"):
        return False
    if environ.get("FORCE_COLOR"):
        return True
    return stream.isatty() and environ.get("TERM") != "dumb"


def _color(level: int) -> str:
    return next((code for least, code in _COLORS if level >= least), "")


def _own_descriptor(stream: TextIO) -> int | None:
    """Return the descriptor of a stream as the interpreter makes it; a stand-in's may lead elsewhere (Jupyter)."""
    if type(stream) is not io.TextIOWrapper:
        return None
    buffer = stream.buffer
    raw = getattr(buffer, "raw", buffer)
    return raw.fileno() if type(raw) is io.FileIO else None


def _print(stream: TextIO, text: str) -> None:
    try:
        stream.write(text)
    except UnicodeEncodeError:
        stream.write(text.encode("ascii", "backslashreplace").decode())
    stream.flush()
