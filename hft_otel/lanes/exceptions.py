"""Exceptions: the caller captures type, message and frames; the worker reads source lines and makes the text.

Bounded in depth, breadth and frames, since a chain may be circular and a recursion error has thousands of frames.
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
MAX_EXCEPTIONS = 64
"""Exceptions captured of one chain or tree, since groups may share members over and over."""
MAX_FRAMES = 128
MAX_TEXT = 16_384
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
    """An exception without its objects: `last_lines` is what stands below the frames, such as `KeyError: 'x'`."""

    type: str
    message: str
    last_lines: str
    frames: list[PackedFrame]
    skipped: int
    cause: PackedException | None = None
    context: PackedException | None = None
    group: list[PackedException] | None = None


def capture_exception(error: BaseException) -> PackedException:
    """Return what is needed to print the exception later; runs on the caller's thread and reads no file."""
    try:
        return _capture(error, MAX_CHAIN, [MAX_EXCEPTIONS])
    except Exception as problem:
        kind = cut(class_name(type(error)), 512)
        return PackedException(kind, "", f"{kind} [{class_name(type(problem))} while it was captured]\n", [], 0)


def _capture(error: BaseException, depth: int, left: list[int]) -> PackedException:
    left[0] -= 1
    frames, skipped = _frames(error.__traceback__)
    kind = type(error)
    module = kind.__module__
    qualified = kind.__qualname__ if module in ("builtins", "__main__") else f"{module}.{kind.__qualname__}"
    qualified, message = cut(qualified, 512), cut(message_text(error), MAX_TEXT)
    packed = PackedException(qualified, message, _last_lines(error, qualified, message), frames, skipped)
    if depth and left[0] > 0:
        if error.__cause__ is not None:
            packed.cause = _capture(error.__cause__, depth - 1, left)
        elif error.__context__ is not None and not error.__suppress_context__:
            packed.context = _capture(error.__context__, depth - 1, left)
        if isinstance(error, BaseExceptionGroup):
            packed.group = [_capture(each, depth - 1, left) for each in error.exceptions[:MAX_GROUP] if left[0] > 0]
    return packed


def _last_lines(error: BaseException, qualified: str, message: str) -> str:
    """Return what stands below the frames, as `traceback.format_exception_only` does, which reads source files."""
    if isinstance(error, SyntaxError):
        with suppress(Exception):  # one that cannot be copied
            shown = copy.copy(error)
            shown.__traceback__ = shown.__cause__ = shown.__context__ = None
            return cut("".join(traceback.format_exception_only(type(error), shown)), MAX_TEXT)
    lines = f"{qualified}: {message}\n" if message else f"{qualified}\n"
    notes = getattr(error, "__notes__", ())
    listed = notes[:MAX_GROUP] if isinstance(notes, (list, tuple)) else (text(notes),)
    return lines + "".join(f"{cut(message_text(note), MAX_TEXT)}\n" for note in listed)


def _frames(trace: TracebackType | None) -> tuple[list[PackedFrame], int]:
    """Return the outermost and innermost frames, and how many were skipped between them."""
    chain: list[TracebackType] = []
    while trace is not None:
        chain.append(trace)
        trace = trace.tb_next
    skipped = max(len(chain) - MAX_FRAMES, 0)
    if skipped:
        chain = chain[: MAX_FRAMES // 2] + chain[-MAX_FRAMES // 2 :]
    return [_frame(entry) for entry in chain], skipped


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
        half = MAX_FRAMES // 2 if packed.skipped else len(packed.frames)
        lines += _stack(packed.frames[:half])
        if packed.skipped:
            lines += [f"  [{packed.skipped} frames skipped]\n", *_stack(packed.frames[half:])]
    lines.append(packed.last_lines)
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
