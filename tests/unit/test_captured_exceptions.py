"""Exceptions: captured without reading a file, bounded whatever they are, and printed as Python prints them."""

from __future__ import annotations

import builtins
import linecache
import os
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from hft_otel.lanes.exceptions import MAX_SIZE, PackedException, capture_exception, render_exception


def raised(function: Callable[[], object]) -> BaseException:
    try:
        function()
    except BaseException as error:
        return error
    raise AssertionError("nothing was raised")


def printed(error: BaseException) -> str:
    return render_exception(sent(capture_exception(error))).stacktrace


def sent(packed: PackedException) -> PackedException:
    """Return it as it arrives on the worker's side."""
    return msgspec.msgpack.decode(msgspec.msgpack.encode(packed), type=PackedException)


def as_python_does(error: BaseException) -> str:
    return "".join(traceback.format_exception(error)).rstrip("\n")


def chained() -> None:
    try:
        {}["missing"]
    except KeyError as error:
        raise ValueError("no such order") from error


def during() -> None:
    try:
        chained()
    except ValueError:
        1 / 0  # noqa: B018


def noted() -> None:
    error = RuntimeError("with notes")
    error.add_note("first note")
    error.add_note("second\nnote")
    raise error


def suppressed() -> None:
    try:
        chained()
    except ValueError:
        raise RuntimeError("alone") from None


def without_text() -> None:
    raise ValueError


class OfThisModule(Exception):
    pass


def of_this_module() -> None:
    raise OfThisModule("here")


def not_python() -> None:
    compile("x = = 1", "<order>", "exec")


@pytest.mark.parametrize(
    "function", [chained, during, noted, suppressed, without_text, of_this_module, not_python]
)
def test_an_exception_prints_as_python_prints_it(function: Callable[[], object]) -> None:
    error = raised(function)
    assert printed(error) == as_python_does(error)


def test_type_and_message_are_what_otel_asks_for() -> None:
    found = render_exception(capture_exception(raised(of_this_module)))
    assert found.type == f"{__name__}.OfThisModule"
    assert found.message == "here"
    assert render_exception(capture_exception(ValueError())).type == "ValueError"


def test_a_group_shows_every_member_with_its_frames() -> None:
    def group() -> None:
        raise ExceptionGroup("both legs failed", [raised(chained), raised(noted)])  # type: ignore[list-item]

    text = printed(raised(group))
    for part in (
        "both legs failed (2 sub-exceptions)",
        "no such order",
        "KeyError: 'missing'",
        "first note",
        "in noted",
    ):
        assert part in text


def test_capturing_reads_no_file(monkeypatch: pytest.MonkeyPatch) -> None:
    error = raised(during)
    error.add_note("and a note")

    def forbidden(*arguments: object, **keywords: object) -> None:
        raise AssertionError("the caller's thread must not wait for a disk")

    with monkeypatch.context() as patch:
        for module, name in (
            (builtins, "open"),
            (os, "stat"),
            (linecache, "getlines"),
            (linecache, "checkcache"),
            (linecache, "lazycache"),
        ):
            patch.setattr(module, name, forbidden)
        packed = capture_exception(error)
    assert "no such order" in render_exception(packed).stacktrace


def test_a_source_file_that_is_gone_or_changed_costs_only_its_lines(tmp_path: Path) -> None:
    path = tmp_path / "strategy.py"
    for content in (None, "", "\n", "é" * 40 + "\n", "x = 1\n", b"\xff\xfe\0".decode("latin-1") * 9):
        path.write_text("def run():\n    return  {}['missing'],  1\nrun()\n")
        linecache.clearcache()
        packed = capture_exception(raised(lambda: exec(compile(path.read_text(), str(path), "exec"), {})))
        path.unlink() if content is None else path.write_text(content)
        linecache.clearcache()
        text = render_exception(packed).stacktrace
        assert f'File "{path}", line 2, in run' in text
        assert text.endswith("KeyError: 'missing'")


def test_a_traceback_that_cannot_be_formatted_keeps_its_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    packed = capture_exception(raised(chained))

    def broken(self: traceback.StackSummary) -> list[str]:
        raise IndexError

    monkeypatch.setattr(traceback.StackSummary, "format", broken)
    assert f'File "{__file__}", line' in render_exception(packed).stacktrace


def test_a_recursion_error_keeps_both_ends_and_says_how_much_is_missing() -> None:
    def deeper(depth: int) -> int:
        return deeper(depth + 1) + 1

    packed = capture_exception(raised(lambda: deeper(0)))
    text = render_exception(packed).stacktrace
    assert packed.skipped > 500
    assert f"[{packed.skipped} frames skipped]" in text
    assert "in raised" in text
    assert "RecursionError: maximum recursion depth exceeded" in text
    assert text.index("in raised") < text.index("frames skipped") < text.rindex("in deeper")


def circular() -> BaseException:
    first, second = ValueError("a"), ValueError("b")
    first.__cause__, second.__cause__ = second, first
    return first


def own_cause() -> BaseException:
    error = ValueError("own")
    error.__cause__ = error
    return error


def shared_groups() -> BaseException:
    error: Exception = raised(chained)  # type: ignore[assignment]
    for _ in range(12):
        error = ExceptionGroup("again", [error] * 15)
    return error


def long_chain() -> BaseException:
    def deep(left: int, cause: BaseException | None) -> None:
        if left:
            deep(left - 1, cause)
        raise ValueError("x" * 1000) from cause

    error: BaseException | None = None
    for _ in range(50):
        error = raised(lambda cause=error: deep(100, cause))  # type: ignore[misc]
    assert error is not None
    return error


def large_texts() -> BaseException:
    error = ValueError("x" * 10_000_000)
    error.__notes__ = ["y" * 1_000_000] * 1000
    return error


def wide_characters() -> BaseException:
    errors = [ValueError("\N{MONEY BAG}" * 5000) for _ in range(15)]
    return ExceptionGroup("\N{MONEY BAG}" * 5000, errors)


@pytest.mark.parametrize(
    "make", [circular, own_cause, shared_groups, long_chain, large_texts, wide_characters]
)
def test_any_exception_is_captured_quickly_and_fits_a_segment(make: Callable[[], BaseException]) -> None:
    error = make()
    start = time.perf_counter()
    packed = capture_exception(error)
    assert time.perf_counter() - start < 0.5
    assert len(msgspec.msgpack.encode(packed)) < 2 * MAX_SIZE - 8 * 1024
    assert render_exception(sent(packed)).stacktrace


class BrokenText(Exception):
    def __str__(self) -> str:
        raise ValueError("no")

    __repr__ = __str__


class BrokenType(type):
    def __getattribute__(cls, name: str) -> object:
        if name in ("__qualname__", "__name__", "__module__"):
            raise ValueError("no")
        return super().__getattribute__(name)


class OfBrokenType(Exception, metaclass=BrokenType):
    pass


class BrokenCause(Exception):
    @property
    def __cause__(self) -> BaseException | None:  # type: ignore[override]
        raise ValueError("no")


class BrokenNotes(Exception):
    __notes__ = 5  # type: ignore[assignment]


class OddModule(Exception):
    __module__ = None  # type: ignore[assignment]


class NoCopy(SyntaxError):
    def __copy__(self) -> None:
        raise ValueError("no")


def hostile() -> Iterator[BaseException]:
    for kind in (BrokenText, OfBrokenType, BrokenCause, BrokenNotes, OddModule, NoCopy):
        yield kind()
    yield ValueError("lone \udc80 surrogate")
    yield UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad")
    yield KeyboardInterrupt()
    yield SystemExit(3)
    yield raised(
        lambda: exec(compile("def f\N{LATIN SMALL LETTER E WITH ACUTE}(): 1/0\nf\xe9()", "a\udc80b", "exec"))
    )
    yield type("Anonymous", (Exception,), {"__notes__": [BrokenText(), "\udc80"]})()


@pytest.mark.parametrize(
    "error", list(hostile()), ids=lambda error: type.__repr__(type(error)).split(".")[-1]
)
def test_a_hostile_exception_is_captured_and_printed(error: BaseException) -> None:
    found = render_exception(sent(capture_exception(error)))
    assert found.type.encode()
    assert found.stacktrace.encode()


def test_a_line_number_that_is_missing_is_no_error() -> None:
    packed = capture_exception(raised(chained))
    packed.frames[0].line = None
    assert "no such order" in render_exception(packed).stacktrace


def test_frames_carry_the_position_in_the_line() -> None:
    [*_, last] = capture_exception(raised(without_text)).frames
    assert (last.name, last.line) == ("without_text", without_text.__code__.co_firstlineno + 1)
    assert last.column == 4
