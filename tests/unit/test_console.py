"""The console: layout, colour, what a broken stream does, and the way through Python's logging."""

import contextlib
import errno
import fcntl
import io
import json
import logging
import os
import pty
import re
import sys
from datetime import datetime

import pytest

from hft_otel.config import ConfigError, ConsoleConfig
from hft_otel.destinations.base import RetryLater
from hft_otel.destinations.console import ConsoleBackend
from hft_otel.record import CapturedException, LogLevel, LogRecord, LogType

AT = 1_700_000_000.25
TIME = datetime.fromtimestamp(AT).strftime("%H:%M:%S.%f")


def text(message="message", level=LogLevel.WARNING, **fields):
    fields.setdefault("context", {"exchange": "mexc"})
    return LogRecord(fields.pop("timestamp", AT), level, LogType.TEXT, "parser.mexc", message, **fields)


@pytest.fixture(autouse=True)
def no_color_wishes(monkeypatch):
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")


def shown(records, capsys, **options):
    assert ConsoleBackend({**options}).deliver(records) == ()
    return capsys.readouterr().err


# -- layout --


def test_line_is_the_plans_message_and_context_after_time_level_and_logger(capsys):
    said = shown([text(), text("short", LogLevel.INFO), text("bare", LogLevel.CRITICAL, context={})], capsys)
    assert said.splitlines() == [
        f"{TIME} WARNING  parser.mexc: message | {{'exchange': 'mexc'}}",
        f"{TIME} INFO     parser.mexc: short | {{'exchange': 'mexc'}}",
        f"{TIME} CRITICAL parser.mexc: bare",
    ]


def test_time_has_microseconds_also_on_the_second(capsys):
    assert ".000000 WARNING" in shown([text(timestamp=1_700_000_000.0)], capsys)


def test_stack_trace_follows_indented(capsys):
    error = CapturedException("ValueError", "bad", "Traceback:\n  File x\nValueError: bad\x1b[2J")
    said = shown([text(exception=error, stack="Stack:")], capsys)
    assert said.splitlines()[1:] == [
        "    Traceback:",
        "      File x",
        r"    ValueError: bad\x1b[2J",
        "    Stack:",
    ]


def test_message_of_several_lines_is_indented_and_cannot_forge_a_record(capsys):
    said = shown([text(f"one\n{TIME} ERROR    fake: x\r\x1b[31mred\u2028end")], capsys)
    first, *rest = said.splitlines()
    assert first == f"{TIME} WARNING  parser.mexc: one"
    assert rest == [
        f"    {TIME} ERROR    fake: x",
        r"    \x1b[31mred",
        "    end | {'exchange': 'mexc'}",
    ]
    assert "\x1b" not in said


def test_logger_name_and_context_cannot_forge_either(capsys):
    record = text(context={"a\nb": "c\x1bd"})
    record.logger_name = "x\ny"
    assert shown([record], capsys) == f"{TIME} WARNING  x\\ny: message | {{'a\\nb': 'c\\x1bd'}}\n"


def test_json_lines_are_those_of_the_file(capsys):
    line = json.loads(shown([text()], capsys, format="json"))
    assert (line["body"], line["severity_text"], line["attributes"]) == (
        "message",
        "WARNING",
        {"exchange": "mexc"},
    )


@pytest.mark.parametrize("layout", ["text", "json"])
def test_record_that_cannot_be_formatted_still_shows(capsys, layout):
    class Unshowable:
        def __repr__(self):
            raise RuntimeError("no")

    said = shown(
        [text(), text("\ud800", context={"bad": Unshowable()}), text(context=None)], capsys, format=layout
    )
    assert len(said.splitlines()) == 3
    assert "Unshowable" in said


def test_stream_can_be_stdout_and_is_looked_up_at_each_write(capsys, monkeypatch):
    backend = ConsoleBackend(ConsoleConfig(stream="stdout"))
    backend.deliver([text()])
    other = io.StringIO()
    monkeypatch.setattr(sys, "stdout", other)
    backend.deliver([text("later")])
    assert "message" in capsys.readouterr().out
    assert "later" in other.getvalue()


# -- colour --


class on_a_terminal:  # noqa: N801 (reads as a place where it is used)
    """sys.stderr on a pseudo-terminal; set within the test, since pytest puts its own back before the call."""

    def __init__(self, monkeypatch):
        self.ours, theirs = pty.openpty()
        self.stream = os.fdopen(theirs, "w", encoding="utf-8")
        monkeypatch.setattr(sys, "stderr", self.stream)

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        self.stream.close()
        os.close(self.ours)

    def read(self):
        return os.read(self.ours, 65536).decode()


def test_terminal_gets_colour_around_an_untouched_message(monkeypatch):
    with on_a_terminal(monkeypatch) as terminal:
        ConsoleBackend().deliver([text(), text(level=LogLevel(60)), text(level=LogLevel(0))])
        said = terminal.read()
    assert said.count("message | {'exchange': 'mexc'}\r\n") == 3
    assert said.count("\x1b[") > 6
    plain = re.sub(r"\x1b\[[\d;]*m", "", said)
    assert plain.splitlines()[0] == f"{TIME} WARNING  parser.mexc: message | {{'exchange': 'mexc'}}"


@pytest.mark.parametrize(
    ("environ", "options"),
    [
        ({"NO_COLOR": "1"}, {}),
        ({"NO_COLOR": "1", "FORCE_COLOR": "1"}, {"color": True}),
        ({"TERM": "dumb"}, {}),
        ({}, {"color": False}),
        ({"FORCE_COLOR": "1"}, {"color": False}),
        ({}, {"format": "json"}),
    ],
)
def test_terminal_stays_plain_where_that_is_asked(monkeypatch, environ, options):
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    with on_a_terminal(monkeypatch) as terminal:
        ConsoleBackend(options).deliver([text()])
        assert "\x1b" not in terminal.read()


@pytest.mark.parametrize("color", [None, True])
def test_pipe_stays_plain_unless_colour_is_forced(monkeypatch, color):
    with broken_off(monkeypatch) as pipe:
        ConsoleBackend({"color": color}).deliver([text()])
        assert "\x1b" not in pipe.read()
        monkeypatch.setenv("FORCE_COLOR", "1")
        ConsoleBackend({"color": color}).deliver([text()])
        assert "\x1b[33mWARNING" in pipe.read()


# -- streams that do not take it --


class broken_off:  # noqa: N801 (reads as a verb where it is used)
    """sys.stderr as the interpreter makes it, on a pipe whose other end the test holds."""

    def __init__(self, monkeypatch, unbuffered=False, encoding="utf-8"):
        self.reader, writer = os.pipe()
        buffer = io.FileIO(writer, "w")
        self.stream = io.TextIOWrapper(buffer if unbuffered else io.BufferedWriter(buffer), encoding=encoding)
        self.writer = writer
        monkeypatch.setattr(sys, "stderr", self.stream)

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        if self.reader is not None:
            os.close(self.reader)
        with contextlib.suppress(OSError):
            self.stream.close()

    def read(self):
        return os.read(self.reader, 1 << 20).decode(self.stream.encoding)

    def fill(self):
        """Leave little room in the pipe, and none that is waited for."""
        fcntl.fcntl(self.writer, fcntl.F_SETPIPE_SZ, 4096)
        os.set_blocking(self.writer, False)

    def drain(self):
        os.set_blocking(self.reader, False)
        chunks = []
        while True:
            try:
                chunks.append(os.read(self.reader, 1 << 16))
            except BlockingIOError:
                return b"".join(chunks).decode()


@pytest.mark.parametrize("unbuffered", [False, True])
def test_full_pipe_is_retried_where_it_stopped_and_no_line_is_torn(monkeypatch, unbuffered):
    with broken_off(monkeypatch, unbuffered) as pipe:
        pipe.fill()
        backend = ConsoleBackend()
        left = [text(f"number {number:03d}") for number in range(300)]
        said, rounds = "", 0
        while left:
            try:
                assert backend.deliver(left) == ()
                left = []
            except RetryLater as later:
                assert later.reason == "would_block"
                left = left[later.delivered :]
                rounds += 1
            said += pipe.drain()
        assert rounds > 2
        assert [line[len(TIME) + 23 : len(TIME) + 33] for line in said.splitlines()] == [
            f"number {number:03d}" for number in range(300)
        ]


def test_torn_line_that_is_given_up_is_ended_before_the_next(monkeypatch):
    with broken_off(monkeypatch) as pipe:
        pipe.fill()
        backend = ConsoleBackend()
        with pytest.raises(RetryLater):
            backend.deliver([text("x" * 5000)])
        torn = pipe.drain()
        assert backend.deliver([text("next")]) == ()
        assert torn.endswith("x")
        assert pipe.drain() == f"\n{TIME} WARNING  parser.mexc: next | {{'exchange': 'mexc'}}\n"


def test_torn_line_does_not_concern_another_stream(monkeypatch, capsys):
    backend = ConsoleBackend()
    with broken_off(monkeypatch) as pipe:
        pipe.fill()
        with pytest.raises(RetryLater):
            backend.deliver([text("x" * 5000)])
    with broken_off(monkeypatch) as pipe:
        backend.deliver([text("next")])
        assert pipe.read().startswith(TIME)


def test_pipe_without_a_reader_rejects_what_did_not_go(monkeypatch):
    with broken_off(monkeypatch) as pipe:
        os.close(pipe.reader)
        pipe.reader = None
        records = [text(), text()]
        rejected = ConsoleBackend().deliver(records)
    assert [item.reason for item in rejected] == ["broken_pipe"] * 2
    assert [item.record for item in rejected] == records


@pytest.mark.parametrize(
    "kind", [io.StringIO, lambda: io.TextIOWrapper(io.BytesIO()), lambda: os.fdopen(os.dup(1), "w")]
)
def test_closed_stream_rejects(monkeypatch, kind):
    stream = kind()
    stream.close()
    monkeypatch.setattr(sys, "stderr", stream)
    assert [item.reason for item in ConsoleBackend().deliver([text()])] == ["stream_closed"]


def test_missing_stream_rejects(monkeypatch):
    monkeypatch.setattr(sys, "stderr", None)
    assert [item.reason for item in ConsoleBackend().deliver([text()])] == ["stream_unusable"]


class Standin(io.StringIO):
    def __init__(self, error):
        super().__init__()
        self.error = error

    def write(self, said):
        raise self.error


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (RuntimeError("no"), "stream_unusable"),
        (BrokenPipeError(errno.EPIPE, "gone"), "broken_pipe"),
        (OSError(errno.EIO, "hung up"), "io_error"),
        (ValueError("closed"), "stream_closed"),
    ],
)
def test_stand_in_that_raises_rejects(monkeypatch, error, reason):
    monkeypatch.setattr(sys, "stderr", Standin(error))
    assert [item.reason for item in ConsoleBackend().deliver([text()])] == [reason]


@pytest.mark.parametrize(("code", "reason"), [(errno.EAGAIN, "would_block"), (errno.ENOSPC, "disk_full")])
def test_stand_in_that_may_recover_is_retried(monkeypatch, code, reason):
    monkeypatch.setattr(sys, "stderr", Standin(OSError(code, "later")))
    with pytest.raises(RetryLater) as later:
        ConsoleBackend().deliver([text()])
    assert (later.value.reason, later.value.delivered) == (reason, 0)


def test_stand_ins_descriptor_is_not_written_to(monkeypatch, capfd):
    class Notebook(io.StringIO):
        def fileno(self):
            return 2

    notebook = Notebook()
    monkeypatch.setattr(sys, "stderr", notebook)
    ConsoleBackend().deliver([text()])
    assert "message" in notebook.getvalue()
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("standin", [False, True])
def test_stream_of_few_characters_gets_escapes(monkeypatch, standin):
    record = text("Zürich → é", context={})
    if standin:
        raw = io.BytesIO()
        monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(raw, encoding="ascii"))
        ConsoleBackend().deliver([record])
        said = raw.getvalue().decode("ascii")
    else:
        with broken_off(monkeypatch, encoding="ascii") as pipe:
            ConsoleBackend().deliver([record])
            said = pipe.read()
    assert said.endswith(r"Z\xfcrich \u2192 \xe9" + "\n")


def test_what_was_printed_before_comes_before(monkeypatch):
    with broken_off(monkeypatch) as pipe:
        print("printed", file=sys.stderr)
        ConsoleBackend().deliver([text()])
        assert pipe.read().splitlines()[0] == "printed"


def test_a_batch_is_one_write(monkeypatch):
    with broken_off(monkeypatch):
        writes = []
        really = os.write
        monkeypatch.setattr(os, "write", lambda *given: writes.append(given) or really(*given))
        ConsoleBackend().deliver([text()] * 100)
        assert len(writes) == 1


# -- through Python's logging --


def test_stdlib_gets_the_plans_message_level_and_time(caplog):
    backend = ConsoleBackend({"through": "stdlib"})
    with caplog.at_level(logging.DEBUG):
        assert not backend.deliver([text("50 % done %s"), text("bare", LogLevel.DEBUG, context={})])
    first, second = caplog.records
    assert first.getMessage() == "50 % done %s | {'exchange': 'mexc'}"
    assert (first.name, first.levelno, first.created, first.msecs) == (
        "parser.mexc",
        logging.WARNING,
        AT,
        250,
    )
    assert first.hft_otel is True
    assert (second.getMessage(), second.levelno) == ("bare", logging.DEBUG)


def test_stdlib_gets_the_stack_trace(caplog):
    error = CapturedException("ValueError", "bad", "Traceback:\nValueError: bad")
    ConsoleBackend({"through": "stdlib"}).deliver([text(exception=error, stack="Stack:")])
    formatted = logging.Formatter("%(message)s").format(caplog.records[0])
    assert formatted.splitlines() == [
        "message | {'exchange': 'mexc'}",
        "Traceback:",
        "ValueError: bad",
        "Stack:",
    ]


def test_stdlib_level_decides(caplog):
    backend = ConsoleBackend({"through": "stdlib"})
    with caplog.at_level(logging.ERROR, "parser.mexc"):
        assert not backend.deliver([text()])
    assert caplog.records == []


def test_stdlib_handler_that_raises_rejects_its_record():
    class Bad(logging.Handler):
        def emit(self, record):
            if "bad" in record.getMessage():
                raise RuntimeError("no")

    handler = Bad()
    logging.getLogger("parser.mexc").addHandler(handler)
    try:
        rejected = ConsoleBackend({"through": "stdlib"}).deliver([text("ok"), text("bad")])
    finally:
        logging.getLogger("parser.mexc").removeHandler(handler)
    assert [(item.record.message, item.reason) for item in rejected] == [("bad", "handler_raised")]


# -- options --


def test_should_handle_takes_text_from_its_level_while_enabled():
    metric = LogRecord(AT, LogLevel.INFO, LogType.METRIC, "x", metric_name="m")
    audit = LogRecord(AT, LogLevel.INFO, LogType.AUDIT, "x", "event")
    backend = ConsoleBackend({"min_level": "WARNING"})
    assert [backend.should_handle(item) for item in (text(), text(level=LogLevel.INFO), metric, audit)] == [
        True,
        False,
        False,
        False,
    ]
    assert not ConsoleBackend({"environment": "prod"}).should_handle(text())
    assert ConsoleBackend({"environment": "dev"}).should_handle(text())
    assert not ConsoleBackend(ConsoleConfig(enabled=False)).should_handle(text())


@pytest.mark.parametrize(
    "options", [{"stream": "stdlog"}, {"through": "air"}, {"format": "xml"}, {"colour": True}]
)
def test_options_that_cannot_be_used_are_refused(options):
    with pytest.raises(ConfigError):
        ConsoleBackend(options)
