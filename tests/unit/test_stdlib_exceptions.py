"""Exceptions and call-sites as they leave: the text of logging's own formatter, and OpenTelemetry's attributes."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from hft_otel.destinations._text import as_json
from hft_otel.lanes.exceptions import (
    MAX_SIZE,
    PackedException,
    capture_exception,
    printed_exception,
    render_exception,
)
from hft_otel.otel.convert import own_attributes
from hft_otel.record import CallSite, LogLevel, LogRecord, LogType


def caught(raising: Callable[[], object]) -> BaseException:
    try:
        raising()
    except BaseException as error:
        return error
    raise AssertionError("it raised nothing")


def through_the_lane(error: BaseException, trace: Any = None) -> str:
    packed = msgspec.msgpack.encode(capture_exception(error, trace))
    return render_exception(msgspec.msgpack.decode(packed, type=PackedException)).stacktrace


def as_logging_prints(error: BaseException, trace: Any = None) -> str:
    return logging.Formatter().formatException((type(error), error, trace or error.__traceback__))


def chained() -> None:
    try:
        {}["px"]
    except KeyError as error:
        raise ValueError("no px") from error


def in_handling() -> None:
    try:
        {}["px"]
    except KeyError:
        raise ValueError("no px")  # noqa: B904  (the context is the point)


def suppressed() -> None:
    try:
        {}["px"]
    except KeyError:
        raise ValueError from None


def circular() -> None:
    first, second = ValueError("first"), ValueError("second")
    first.__cause__, second.__cause__ = second, first
    raise first


def group(size: int) -> Callable[[], None]:
    def raising() -> None:
        raise ExceptionGroup("many", [caught(chained) for _ in range(size)])  # type: ignore[type-var]

    return raising


def nested() -> None:
    inner = ExceptionGroup("inner", [caught(suppressed), TypeError("t")])  # type: ignore[list-item]
    try:
        raise inner
    except ExceptionGroup as error:
        raise BaseExceptionGroup("outer", [error, KeyboardInterrupt()]) from ValueError("cause")


def noted() -> None:
    error = ValueError("px")
    error.add_note("while filling\norder 42")
    error.add_note("")
    raise error


def syntax() -> None:
    compile("a = (1,\nb = 2", "<rules>", "exec")


def several_lines() -> None:
    raise RuntimeError("one\ntwo\n\nfour\n")


class Order(Exception):
    """An exception of a module's own, with a name to qualify."""


def own() -> None:
    raise Order("42", 7)


@pytest.mark.parametrize(
    "raising",
    [
        chained,
        in_handling,
        suppressed,
        circular,
        group(1),
        group(15),
        group(16),
        group(40),
        nested,
        noted,
        syntax,
        several_lines,
        own,
    ],
)
def test_the_text_is_that_of_loggings_formatter(raising: Callable[[], None]) -> None:
    error = caught(raising)
    assert through_the_lane(error) == as_logging_prints(error)
    assert through_the_lane(error, error.__traceback__ and error.__traceback__.tb_next) == as_logging_prints(
        error, error.__traceback__ and error.__traceback__.tb_next
    )


def test_an_exception_that_was_not_raised_has_no_traceback() -> None:
    assert through_the_lane(ValueError("px")) == "ValueError: px"
    assert through_the_lane(ValueError()) == "ValueError"


def test_a_recursion_is_bounded_and_says_so() -> None:
    def endless(number: int) -> int:
        return endless(number + 1)

    text = through_the_lane(caught(lambda: endless(0)))
    assert "frames skipped]" in text
    assert text.startswith("Traceback (most recent call last):\n")
    assert text.endswith("RecursionError: maximum recursion depth exceeded")


def test_the_size_is_bounded_whatever_is_raised() -> None:
    def huge(depth: int) -> None:
        if depth:
            try:
                huge(depth - 1)
            except Exception as error:
                raise ExceptionGroup("x" * 10_000, [error] * 1000) from error
        raise ValueError("y" * 100_000)

    packed = capture_exception(caught(lambda: huge(12)))
    assert len(msgspec.msgpack.encode(packed)) < 2 * MAX_SIZE
    assert "ExceptionGroup" in render_exception(packed).stacktrace


@pytest.mark.parametrize(
    ("text", "kind", "message"),
    [
        ("Traceback (most recent call last):\n  File ...\nKeyError: 'px'", "KeyError", "'px'"),
        ("ValueError", "ValueError", ""),
        ("mexc.errors.Refused: 42: no px\n", "mexc.errors.Refused", "42: no px"),
    ],
)
def test_of_one_that_was_printed_elsewhere_type_and_message_are_found(
    text: str, kind: str, message: str
) -> None:
    found = render_exception(printed_exception(text))
    assert found == (kind, message, text)


def test_the_call_site_leaves_as_attributes() -> None:
    site = CallSite("/app/desk.py", 42, "Desk.fill")
    record = LogRecord(1.0, LogLevel.WARNING, LogType.TEXT, "desk", "slow", {"k": 1}, call_site=site)
    named = {"code.file.path": "/app/desk.py", "code.line.number": 42, "code.function.name": "Desk.fill"}
    assert own_attributes(record) == named
    assert json.loads(as_json(record))["attributes"] == {"k": 1, **named}
