"""Exceptions: the caller captures type, message and frames; the worker reads source lines and makes the text.

Bounded in depth, breadth, frames and size, since a chain may be circular, a group may hold one member over and over,
and a recursion error has thousands of frames.
"""

from __future__ import annotations

import copy
import traceback
from collections.abc import Generator
from contextlib import suppress
from itertools import islice
from types import TracebackType
from typing import Any, cast

import msgspec

from ..record import CapturedException
from .capture import class_name, cut, message_text, text

__all__ = ["PackedException", "capture_exception", "printed_exception", "render_exception"]

MAX_CHAIN = 8
MAX_GROUP = 15
MAX_FRAMES, MIN_FRAMES = 128, 4
MAX_TEXT = 8192
MAX_SIZE = 32 * 1024
"""Roughly the bytes of all that is captured, which has to fit into a segment beside the record's context."""


class PackedFrame(msgspec.Struct, array_like=True):
    """One frame of a traceback, as `traceback.FrameSummary` wants it."""

    file: str
    line: int | None
    name: str
    end_line: int | None
    column: int | None
    end_column: int | None


class PackedException(msgspec.Struct, array_like=True):
    """An exception without its objects; `shown` stands below the frames where it is not just type and message."""

    type: str
    message: str
    shown: str
    notes: str
    frames: list[PackedFrame]
    skipped: int
    cause: PackedException | None = None
    context: PackedException | None = None
    group: list[PackedException] | None = None
    members: int = 0
    """How many exceptions the group has, those that were not captured included."""


def capture_exception(error: BaseException, trace: TracebackType | None = None) -> PackedException:
    """Return what is needed to print the exception later; runs on the caller's thread and reads no file."""
    try:
        return _capture(error, trace or error.__traceback__, MAX_CHAIN, [MAX_SIZE], set())
    except Exception as problem:  # an exception of the user's that cannot be looked into
        kind = cut(class_name(type(error)), 512)
        shown = f"{kind} [{class_name(type(problem))} while it was captured]\n"
        return PackedException(kind, "", shown, "", [], 0)


def printed_exception(stacktrace: str) -> PackedException:
    """Return an exception of which only the text is left, as it came from another process."""
    last = stacktrace.rstrip("\n").rpartition("\n")[2]
    kind, _, message = last.partition(": ")
    return PackedException(
        cut(kind, 512), cut(message, MAX_TEXT), cut(stacktrace, MAX_SIZE) + "\n", "", [], 0
    )


def _capture(
    error: BaseException, trace: TracebackType | None, depth: int, left: list[int], seen: set[int]
) -> PackedException:
    seen.add(id(error))
    kind = type(error)
    module = kind.__module__
    qualified = kind.__qualname__ if module in ("builtins", "__main__") else f"{module}.{kind.__qualname__}"
    texts = cut(qualified, 512), cut(message_text(error), MAX_TEXT), _shown(error), _notes(error)
    left[0] -= sum(map(_size, texts))
    frames, skipped = _frames(trace, left)
    packed = PackedException(*texts, frames, skipped)
    if depth and left[0] > 0:
        cause, context = error.__cause__, error.__context__
        if cause is not None and id(cause) not in seen:
            packed.cause = _capture(cause, cause.__traceback__, depth - 1, left, seen)
        elif context is not None and not error.__suppress_context__ and id(context) not in seen:
            packed.context = _capture(context, context.__traceback__, depth - 1, left, seen)
        if isinstance(error, BaseExceptionGroup):
            packed.members = len(error.exceptions)
            packed.group = [
                _capture(each, each.__traceback__, depth - 1, left, seen)
                for each in error.exceptions[:MAX_GROUP]
                if left[0] > 0
            ]
    return packed


def _size(value: str) -> int:
    return len(value) if value.isascii() else 4 * len(value)


def _shown(error: BaseException) -> str:
    """Return what Python prints below the frames of a SyntaxError; nothing for others, whose type and message it is.

    `traceback.format_exception_only` would do for all, but it walks the causes too, and reads their source files.
    """
    if isinstance(error, SyntaxError):
        with suppress(Exception):  # one that cannot be copied
            copied = copy.copy(error)
            copied.__traceback__ = copied.__cause__ = copied.__context__ = None
            vars(copied).clear()  # its notes
            return cut("".join(traceback.format_exception_only(type(error), copied)), MAX_TEXT)
    return ""


def _notes(error: BaseException) -> str:
    notes = getattr(error, "__notes__", None)
    if not notes:
        return ""
    listed = notes[:MAX_GROUP] if isinstance(notes, (list, tuple)) else (text(notes),)
    return cut("\n".join(map(message_text, listed)), MAX_TEXT)


def _frames(trace: TracebackType | None, left: list[int]) -> tuple[list[PackedFrame], int]:
    """Return the outermost and innermost frames that there is room for, and how many were skipped between them."""
    chain: list[TracebackType] = []
    while trace is not None:
        chain.append(trace)
        trace = trace.tb_next
    limit = min(MAX_FRAMES, max(left[0] // 128, MIN_FRAMES))
    skipped = max(len(chain) - limit, 0)
    if skipped:
        chain = chain[: limit // 2] + chain[limit // 2 - limit :]
    frames = [_frame(entry) for entry in chain]
    left[0] -= sum(_size(frame.file) + _size(frame.name) + 16 for frame in frames)
    return frames, skipped


def _frame(trace: TracebackType) -> PackedFrame:
    code = trace.tb_frame.f_code
    position: tuple[Any, ...] = (None, None, None, None)
    if trace.tb_lasti >= 0:
        position = next(islice(code.co_positions(), trace.tb_lasti // 2, None), position)
    _, end_line, column, end_column = position
    name = cut(code.co_name, 512)
    return PackedFrame(cut(code.co_filename, 1024), trace.tb_lineno, name, end_line, column, end_column)


def render_exception(packed: PackedException) -> CapturedException:
    """Return the exception with its stack trace as logging's formatter prints it, source lines included where readable."""
    return CapturedException(
        packed.type, packed.message, "".join(_Printed(packed).format()).removesuffix("\n")
    )


class _Printed(traceback.TracebackException):
    """Python's own printer, over what was captured."""

    def __init__(self, packed: PackedException) -> None:
        self.packed = packed
        # What `format` reads; the rest belongs to `format_exception_only`, which is replaced below.
        self.stack = cast("traceback.StackSummary", _Stack(packed))
        self.max_group_width, self.max_group_depth = MAX_GROUP, MAX_CHAIN + 1
        self.__cause__ = None if packed.cause is None else _Printed(packed.cause)
        self.__context__ = None if packed.context is None else _Printed(packed.context)
        self.__suppress_context__ = False
        self.exceptions: Any = None
        if packed.group is not None:
            self.exceptions = _Members(map(_Printed, packed.group))
            self.exceptions.total = packed.members
            self.max_group_width = len(packed.group)

    def format_exception_only(self, *_: Any, **__: Any) -> Generator[str, None, None]:
        packed = self.packed
        yield packed.shown or f"{packed.type}{packed.message and ': '}{packed.message}\n"
        if packed.notes:
            yield f"{packed.notes}\n"


class _Members(list[_Printed]):
    """The captured exceptions of a group; its length is that of the whole group."""

    total = 0

    def __len__(self) -> int:
        return self.total


class _Stack:
    """The frames of an exception, as the printer wants them."""

    def __init__(self, packed: PackedException) -> None:
        self.frames, self.skipped = packed.frames, packed.skipped

    def __bool__(self) -> bool:
        return bool(self.frames)

    def format(self, **_: Any) -> list[str]:
        """Return the lines of the frames, with what was skipped named between them."""
        half = len(self.frames) // 2 if self.skipped else len(self.frames)
        lines = _stack(self.frames[:half])
        if self.skipped:
            lines += [f"  [{self.skipped} frames skipped]\n", *_stack(self.frames[half:])]
        return lines


def _stack(frames: list[PackedFrame]) -> list[str]:
    summary = traceback.StackSummary.from_list([_summary(frame) for frame in frames])
    try:
        return summary.format()
    except Exception:
        return [f'  File "{frame.file}", line {frame.line}, in {frame.name}\n' for frame in frames]


def _summary(frame: PackedFrame) -> traceback.FrameSummary:
    return traceback.FrameSummary(
        frame.file,
        frame.line,
        frame.name,
        lookup_line=False,
        end_lineno=frame.end_line,
        colno=frame.column,
        end_colno=frame.end_column,
    )
