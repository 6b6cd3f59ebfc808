"""Exceptions: the caller captures type, message and frames; the worker reads source lines and makes the text.

Bounded in depth, breadth, frames and size, since a chain may be circular, a group may hold one member over and over,
and a recursion error has thousands of frames.
"""

from __future__ import annotations

import copy
import traceback
from contextlib import suppress
from itertools import islice
from types import TracebackType
from typing import Any

import msgspec

from ..record import CapturedException
from .capture import class_name, cut, message_text, text

__all__ = ["PackedException", "capture_exception", "render_exception"]

MAX_CHAIN = 8
MAX_GROUP = 15
MAX_FRAMES, MIN_FRAMES = 128, 4
MAX_TEXT = 8192
MAX_SIZE = 32 * 1024
"""Roughly the bytes of all that is captured, which has to fit into a segment beside the record's context."""
_CAUSE = "\nThe above exception was the direct cause of the following exception:\n\n"
_CONTEXT = "\nDuring handling of the above exception, another exception occurred:\n\n"


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


def capture_exception(error: BaseException) -> PackedException:
    """Return what is needed to print the exception later; runs on the caller's thread and reads no file."""
    try:
        return _capture(error, MAX_CHAIN, [MAX_SIZE])
    except Exception as problem:  # an exception of the user's that cannot be looked into
        kind = cut(class_name(type(error)), 512)
        shown = f"{kind} [{class_name(type(problem))} while it was captured]\n"
        return PackedException(kind, "", shown, "", [], 0)


def _capture(error: BaseException, depth: int, left: list[int]) -> PackedException:
    kind = type(error)
    module = kind.__module__
    qualified = kind.__qualname__ if module in ("builtins", "__main__") else f"{module}.{kind.__qualname__}"
    texts = cut(qualified, 512), cut(message_text(error), MAX_TEXT), _shown(error), _notes(error)
    left[0] -= sum(map(_size, texts))
    frames, skipped = _frames(error.__traceback__, left)
    packed = PackedException(*texts, frames, skipped)
    if depth and left[0] > 0:
        if error.__cause__ is not None:
            packed.cause = _capture(error.__cause__, depth - 1, left)
        elif error.__context__ is not None and not error.__suppress_context__:
            packed.context = _capture(error.__context__, depth - 1, left)
        if isinstance(error, BaseExceptionGroup):
            packed.group = [
                _capture(each, depth - 1, left) for each in error.exceptions[:MAX_GROUP] if left[0] > 0
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
    """Return the exception with its stack trace as text, source lines included where the files can be read."""
    return CapturedException(packed.type, packed.message, "".join(_lines(packed)).rstrip("\n"))


def _lines(packed: PackedException) -> list[str]:
    lines: list[str] = []
    if packed.cause is not None:
        lines += [*_lines(packed.cause), _CAUSE]
    elif packed.context is not None:
        lines += [*_lines(packed.context), _CONTEXT]
    if packed.frames:
        lines.append("Traceback (most recent call last):\n")
        half = len(packed.frames) // 2 if packed.skipped else len(packed.frames)
        lines += _stack(packed.frames[:half])
        if packed.skipped:
            lines += [f"  [{packed.skipped} frames skipped]\n", *_stack(packed.frames[half:])]
    lines.append(packed.shown or f"{packed.type}{packed.message and ': '}{packed.message}\n")
    if packed.notes:
        lines.append(f"{packed.notes}\n")
    for number, member in enumerate(packed.group or [], 1):
        lines.append(f"  +---------------- {number} ----------------\n")
        lines += [f"  | {line}\n" for line in "".join(_lines(member)).rstrip("\n").split("\n")]
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
