"""The file: the plan's layout, JSON lines, rotation, and what happens when the disk or the file goes away."""

import base64
import errno
import json
import logging
import logging.config
import os
import stat
import subprocess
import sys
import threading
from datetime import datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hft_otel.config import BackendConfig, ConfigError, FileConfig
from hft_otel.destinations.base import RetryLater
from hft_otel.destinations.file import FileBackend
from hft_otel.record import CapturedException, InstrumentKind, LogLevel, LogRecord, LogType, TraceIds
from tests.unit.small_disk import small_disk

AT = 1_700_000_000.25


def text(message="hello", level=LogLevel.WARNING, timestamp=AT, **fields):
    fields.setdefault("context", {"exchange": "mexc"})
    return LogRecord(timestamp, level, LogType.TEXT, "parser.mexc", message, **fields)


def audit(event="trade_executed", **fields):
    fields.setdefault("context", {"order_id": "A1"})
    return LogRecord(AT, LogLevel.INFO, LogType.AUDIT, "engine", event, audit_id="id-1", **fields)


def lines_of(path):
    return path.read_text().splitlines()


def plan(record):
    """The plan's own expression."""
    dt = datetime.fromtimestamp(record.timestamp)
    return f"{dt} {record.level.name} {record.logger_name}: {record.message} | {record.context}"


@pytest.fixture
def backend(tmp_path):
    made = FileBackend(FileConfig(file_path=str(tmp_path / "logs" / "hft.log")))
    yield made
    made.close(1.0)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "logs" / "hft.log"


@pytest.fixture
def as_json(tmp_path):
    made = FileBackend({"file_path": str(tmp_path / "json.log"), "format": "json"})

    def write(*records):
        made.deliver(records)
        return [json.loads(line) for line in lines_of(tmp_path / "json.log")]

    yield write
    made.close(1.0)


# -- text --


@given(
    timestamp=st.one_of(
        st.floats(min_value=-1e9, max_value=4e9),
        st.integers(0, 4_000_000_000),
        st.just(1_700_000_000.9999999),
    ),
    message=st.text(st.characters(categories=["L", "N", "P", "S"])),
    context=st.dictionaries(st.text(max_size=5), st.one_of(st.integers(), st.text(), st.none()), max_size=3),
)
def test_text_layout_is_the_plans(timestamp, message, context):
    record = text(message, timestamp=float(timestamp), context=context, time_ns=1)
    assert FileBackend()._format_text(record) == plan(record)


def test_lines_of_one_second_and_of_the_next_have_their_own_times(backend, path):
    records = [text(timestamp=AT + step) for step in (0, 0.5, 0.75, 1.75, 0)]
    assert backend.deliver(records) == ()
    assert lines_of(path) == [plan(record) for record in records]


def test_audit_shows_event_and_audit_id(backend, path):
    backend.deliver([audit()])
    assert lines_of(path)[0].endswith(" INFO engine: trade_executed | {'order_id': 'A1', 'audit.id': 'id-1'}")


def test_level_without_a_name_keeps_its_number(backend, path):
    backend.deliver([text(level=LogLevel(35))])
    assert " Level 35 parser.mexc: " in lines_of(path)[0]


def test_message_cannot_forge_a_line_or_steer_a_terminal(backend, path):
    backend.deliver([text("a\nFAKE ERROR\r\x1b[2J\x9b\u2028\u202e\x00 tab\tstays \\n ok")])
    content = path.read_bytes().decode()
    assert content.count("\n") == 1
    assert r"a\nFAKE ERROR\r\x1b[2J\x9b\u2028\u202e\x00 tab" in content
    assert "tab\tstays" in content  # harmless
    assert not {"\r", "\x1b", "\x9b", "\u2028", "\u202e", "\x00"} & set(content)


def test_stack_traces_stand_indented_below_their_line(backend, path):
    trace = 'Traceback (most recent call last):\n  File "x.py", line 1\nValueError: bad\n2026-01-01 FAKE'
    backend.deliver(
        [text(exception=CapturedException("ValueError", "bad", trace), stack="Stack\n  File y"), text("next")]
    )
    first, *below, last = lines_of(path)
    assert first.endswith("hello | {'exchange': 'mexc'}")
    assert below == [
        "    Traceback (most recent call last):",
        '      File "x.py", line 1',
        "    ValueError: bad",
        "    2026-01-01 FAKE",
        "    Stack",
        "      File y",
    ]
    assert "next" in last


class Unshowable:
    def __repr__(self):
        raise RuntimeError("no")


@pytest.mark.parametrize("layout", ["text", "json"])
@pytest.mark.parametrize(
    "broken",
    [
        text("\ud800 lone"),
        text(context={"key": "\ud800", "\udfff": 1}),
        text(context={"bad": Unshowable()}),
        text(context={("a", 1): {None: {2**100, 1}}}),
        text(context=None),
        text(context=[Unshowable()]),
        text(message=None),
        text(message=Unshowable()),
        text(timestamp=float("nan"), time_ns=1),
        text(timestamp=1e300, time_ns=1),
        text(time_ns=2**80),
        text(exception=CapturedException("E", "\ud800", "\ud800")),
        text(stack="\ud800"),
        "no record",
    ],
    ids=list("abcdefghijklmn"),
)
def test_a_record_that_cannot_be_formatted_still_becomes_one_line(tmp_path, layout, broken):
    path = tmp_path / "a.log"
    backend = FileBackend({"file_path": str(path), "format": layout})
    assert backend.deliver([text("before"), broken, text("after")]) == ()
    top = [line for line in lines_of(path) if not line.startswith("    ")]
    assert len(top) == 3
    assert "before" in top[0] and "after" in top[2]
    backend.close(1.0)


def test_recursive_context_does_not_harm(backend, path):
    context = {}
    context["self"] = context
    backend.deliver([text(context=context)])
    assert len(lines_of(path)) == 1


# -- JSON --


def test_json_line_is_named_after_otels_data_model(as_json):
    trace = TraceIds(0x0AF7651916CD43DD8448EB211C80319C, 0x00F067AA0BA902B7, 1)
    [line] = as_json(
        text("said", time_ns=1_700_000_000_123_456_789, trace=trace, context={"n": 1, "ok": True})
    )
    assert line == {
        "timestamp": "2023-11-14T22:13:20.123456789Z",
        "severity_text": "WARNING",
        "severity_number": 13,
        "scope": "parser.mexc",
        "body": "said",
        "attributes": {"n": 1, "ok": True},
        "trace_id": "0af7651916cd43dd8448eb211c80319c",
        "span_id": "00f067aa0ba902b7",
        "trace_flags": 1,
    }


def test_json_of_an_audit_event_has_event_name_and_id(as_json):
    [line] = as_json(audit())
    assert line["event_name"] == "audit.trade_executed"
    assert line["body"] == "trade_executed"
    assert line["attributes"] == {"order_id": "A1", "audit.id": "id-1"}


def test_json_of_an_exception_has_otels_attributes(as_json):
    [line] = as_json(
        text(exception=CapturedException("builtins.ValueError", "bad", "Trace\nback"), stack="S")
    )
    assert line["attributes"] == {
        "exchange": "mexc",
        "exception.type": "builtins.ValueError",
        "exception.message": "bad",
        "exception.stacktrace": "Trace\nback",
        "code.stacktrace": "S",
    }


def test_json_has_a_form_for_what_json_lacks(as_json):
    inf = float("inf")
    [line] = as_json(
        text(
            context={
                "nan": float("nan"),
                "deep": [{"up": inf}, -inf],
                "b": b"\x00\xff",
                "d": Decimal("1.10"),
                "no": None,
            }
        )
    )
    assert line["attributes"] == {
        "nan": "NaN",
        "deep": [{"up": "Infinity"}, "-Infinity"],
        "b": base64.b64encode(b"\x00\xff").decode(),
        "d": "1.10",
        "no": None,
    }


def test_json_of_a_measurement(as_json):
    record = LogRecord(AT, LogLevel.INFO, LogType.METRIC, "engine", metric_name="depth", metric_value=2.5)
    record.metric_tags, record.unit, record.instrument = {"symbol": "BTC"}, "1", InstrumentKind.HISTOGRAM
    lost = LogRecord(
        AT, LogLevel.INFO, LogType.METRIC, "engine", metric_name="depth", metric_value=float("nan")
    )
    first, second = as_json(record, lost)
    assert {key: first[key] for key in first if key not in ("timestamp", "scope")} == {
        "metric_name": "depth",
        "metric_value": 2.5,
        "metric_unit": "1",
        "instrument": "histogram",
        "attributes": {"symbol": "BTC"},
    }
    assert second["metric_value"] == "NaN"


def test_json_line_holds_no_raw_control_character(tmp_path, as_json):
    nasty = "a\n\r\x1b\x7f\x9b\u2028\u202eé"
    assert as_json(text(nasty))[0]["body"] == nasty
    raw = (tmp_path / "json.log").read_text(encoding="utf-8")
    assert raw.count("\n") == 1
    assert not {"\r", "\x1b", "\x9b", "\u2028", "\u202e"} & set(raw)


def test_severity_numbers_follow_otel_between_the_names(as_json):
    levels = (5, 10, 11, 19, 20, 30, 40, 50, 51, 60)
    numbers = [
        line["severity_number"] for line in as_json(*(text(level=LogLevel(level)) for level in levels))
    ]
    assert numbers == [1, 5, 6, 8, 9, 13, 17, 21, 22, 24]


# -- the file --


def test_building_opens_nothing_and_delivering_opens_by_itself(tmp_path):
    path = tmp_path / "new" / "deep" / "a.log"
    backend = FileBackend({"file_path": str(path)})
    assert not path.parent.exists()
    backend.deliver([text()])
    assert len(lines_of(path)) == 1
    backend.close(1.0)


def test_new_file_is_private_and_so_are_its_new_folders(tmp_path):
    old = os.umask(0)
    try:
        backend = FileBackend({"file_path": str(tmp_path / "new" / "deep" / "a.log")})
        backend.open()
    finally:
        os.umask(old)
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("new", "new/deep", "new/deep/a.log")]
    assert modes == [0o700, 0o700, 0o600]
    backend.close(1.0)


def test_rotation_keeps_whole_lines_private_files_and_the_limit(tmp_path):
    path = tmp_path / "a.log"
    limit = 4096
    backend = FileBackend({"file_path": str(path), "max_size_mb": limit / 1024 / 1024, "backup_count": 3})
    records = [text(f"number {number} é") for number in range(150)]
    for start in range(0, 150, 50):
        assert backend.deliver(records[start : start + 50]) == ()
    backend.close(1.0)
    files = [tmp_path / name for name in ("a.log.3", "a.log.2", "a.log.1", "a.log")]
    assert sorted(tmp_path.iterdir()) == sorted(files)
    kept = [line for file in files for line in lines_of(file)]
    assert kept == [plan(record) for record in records][-len(kept) :]
    assert all(
        0 < file.stat().st_size <= limit and stat.S_IMODE(file.stat().st_mode) == 0o600 for file in files
    )
    assert min(file.stat().st_size for file in files[:3]) > limit - 100  # filled before it was rotated away


def test_line_longer_than_the_limit_is_kept_whole(tmp_path):
    path = tmp_path / "a.log"
    backend = FileBackend({"file_path": str(path), "max_size_mb": 0.0001, "backup_count": 2})
    backend.deliver([text("x" * 500), text("y" * 500)])
    assert "x" * 500 in (tmp_path / "a.log.1").read_text()
    assert "y" * 500 in path.read_text()
    assert not (tmp_path / "a.log.2").exists()  # nothing empty was rotated away
    backend.close(1.0)


@pytest.mark.parametrize("options", [{"rotation": False}, {"backup_count": 0}])
def test_without_rotation_or_backups_one_file_grows(tmp_path, options):
    path = tmp_path / "a.log"
    backend = FileBackend({"file_path": str(path), "max_size_mb": 0.0001, **options})
    backend.deliver([text(f"{number}") for number in range(100)])
    assert len(lines_of(path)) == 100
    assert list(tmp_path.iterdir()) == [path]
    backend.close(1.0)


def test_rotation_that_fails_loses_nothing(tmp_path, monkeypatch):
    path = tmp_path / "a.log"
    backend = FileBackend({"file_path": str(path), "max_size_mb": 0.0001})
    tries = []

    def refuse(source, target):
        tries.append(source)
        raise PermissionError(errno.EACCES, "no")

    monkeypatch.setattr(os, "rename", refuse)
    for start in range(0, 40, 10):
        assert backend.deliver([text(f"{number}") for number in range(start, start + 10)]) == ()
    assert lines_of(path) == [plan(text(f"{number}")) for number in range(40)]
    assert len(tries) == 1  # and not with each record again
    backend.close(1.0)


@pytest.mark.parametrize("gone", ["deleted", "renamed", "folder"])
def test_file_that_went_away_is_written_anew(backend, path, gone):
    backend.deliver([text("one")])
    if gone == "deleted":
        path.unlink()
    elif gone == "renamed":
        path.rename(path.with_name("moved.log"))
    else:
        path.parent.rename(path.parent.with_name("elsewhere"))
    backend.deliver([text("two")])
    assert [line for line in lines_of(path) if "two" in line] == lines_of(path)
    if gone == "renamed":
        assert "one" in path.with_name("moved.log").read_text()


def test_torn_line_of_a_killed_process_is_ended_first(backend, path):
    path.parent.mkdir()
    path.write_text("whole\nhalf a li")
    backend.deliver([text("next")])
    assert lines_of(path)[:2] == ["whole", "half a li"]
    assert lines_of(path)[2] == plan(text("next"))


def test_dictconfig_and_logging_shutdown_do_not_close_the_file(backend, path):
    backend.deliver([text("one")])
    logging.shutdown()
    backend.deliver([text("two")])
    logging.config.dictConfig({"version": 1, "disable_existing_loggers": False})
    backend.deliver([text("three")])
    assert len(lines_of(path)) == 3


class FullDisk:
    """os.write that has room for so many bytes, in one file."""

    def __init__(self, monkeypatch, room, error=errno.ENOSPC):
        self.room, self.error, self.write = room, error, os.write
        monkeypatch.setattr(os, "write", self)
        really_truncate = os.ftruncate

        def truncate(descriptor, size):
            self.room += os.fstat(descriptor).st_size - size
            really_truncate(descriptor, size)

        monkeypatch.setattr(os, "ftruncate", truncate)

    def __call__(self, descriptor, data):
        if self.room <= 0:
            raise OSError(self.error, os.strerror(self.error))
        count = self.write(descriptor, bytes(data)[: self.room])
        self.room -= count
        return count


@pytest.mark.parametrize(
    ("error", "reason"), [(errno.ENOSPC, "disk_full"), (errno.EDQUOT, "disk_full"), (errno.EIO, "io_error")]
)
@pytest.mark.parametrize("layout", ["text", "json"])
def test_full_disk_is_reported_and_recovers(tmp_path, monkeypatch, error, reason, layout):
    path = tmp_path / "a.log"
    backend = FileBackend({"file_path": str(path), "format": layout})
    records = [text(f"item {number}") for number in range(10)]
    size = len(backend._format_json(records[0]) if layout == "json" else backend._format_text(records[0])) + 1
    disk = FullDisk(monkeypatch, room=size * 3 + 7, error=error)
    with pytest.raises(RetryLater) as later:
        backend.deliver(records)
    assert (later.value.delivered, later.value.reason) == (3, reason)
    assert path.read_bytes().endswith(b"\n") and len(lines_of(path)) == 3  # no torn line
    assert disk.room == 7
    with pytest.raises(RetryLater) as later:
        backend.deliver(records[3:])
    assert later.value.delivered == 0
    assert len(lines_of(path)) == 3
    disk.room = 10**6
    assert backend.deliver(records[3:]) == ()
    assert [line.count("item") for line in lines_of(path)] == [1] * 10
    assert [f"item {number}" in line for number, line in enumerate(lines_of(path))] == [True] * 10
    backend.close(1.0)


def test_torn_line_is_ended_where_it_cannot_be_taken_back(tmp_path, monkeypatch):
    path = tmp_path / "a.log"
    backend = FileBackend({"file_path": str(path)})
    disk = FullDisk(monkeypatch, room=10)
    monkeypatch.setattr(
        os, "ftruncate", lambda *_: (_ for _ in ()).throw(OSError(errno.EPERM, "append only"))
    )
    with pytest.raises(RetryLater):
        backend.deliver([text("one")])
    disk.room = 10**6
    backend.deliver([text("one")])
    assert lines_of(path) == [plan(text("one"))[:10], plan(text("one"))]
    backend.close(1.0)


def test_full_disk_during_rotation_counts_what_was_written(tmp_path, monkeypatch):
    path = tmp_path / "a.log"
    backend = FileBackend({"file_path": str(path), "max_size_mb": 0.0002, "backup_count": 50})
    records = [text(f"number {number}") for number in range(10)]
    backend.deliver(records[:1])
    FullDisk(monkeypatch, room=(len(plan(records[0])) + 1) * 5)
    with pytest.raises(RetryLater) as later:
        backend.deliver(records[1:])
    assert later.value.delivered == 5
    backend.close(1.0)


def test_really_full_file_system_is_reported_and_recovers(tmp_path):
    with small_disk(tmp_path / "disk", 64) as mounted:
        disk = mounted.path
        ballast = disk / "ballast"
        ballast.write_bytes(b"x" * 40_000)
        backend = FileBackend({"file_path": str(disk / "a.log")})
        left = [text(f"number {number:06d}") for number in range(1000)]
        with pytest.raises(RetryLater) as later:
            backend.deliver(left)
        assert later.value.reason == "disk_full"
        assert 0 < later.value.delivered < 1000
        assert len(lines_of(disk / "a.log")) == later.value.delivered
        assert (disk / "a.log").read_bytes().endswith(b"\n")
        ballast.unlink()
        left = left[later.value.delivered :][:200]
        assert backend.deliver(left) == ()
        assert lines_of(disk / "a.log")[-1] == plan(left[-1])
        assert all(line.startswith("20") and line.endswith("}") for line in lines_of(disk / "a.log"))
        backend.close(1.0)


def test_size_limit_of_the_process_is_reported(tmp_path):
    code = """
import resource, sys
from hft_otel.destinations.base import RetryLater
from hft_otel.destinations.file import FileBackend
from hft_otel.record import LogLevel, LogRecord, LogType
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
backend = FileBackend({"file_path": sys.argv[1]})
try:
    backend.deliver([LogRecord(1.0, LogLevel.INFO, LogType.TEXT, "x", "m" * 300)] * 10)
except RetryLater as later:
    print(later.reason, later.delivered)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "a.log")],
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    assert done.stdout.split() == ["file_too_large", "2"]
    assert len(lines_of(tmp_path / "a.log")) == 2


@pytest.mark.parametrize(
    ("error", "reason"),
    [(errno.EROFS, "not_writable"), (errno.EACCES, "not_writable"), (errno.ENXIO, "os_error")],
)
def test_file_that_cannot_be_opened_is_retried(backend, path, monkeypatch, error, reason):
    really_open = os.open

    def refuse(name, *rest, **options):
        if str(name) == str(path):
            raise OSError(error, os.strerror(error))
        return really_open(name, *rest, **options)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", refuse)
        with pytest.raises(RetryLater) as later:
            backend.deliver([text()])
        assert (later.value.reason, later.value.delivered) == (reason, 0)
        with pytest.raises(OSError, match=os.strerror(error)):
            backend.open()
    assert backend.deliver([text()]) == ()
    assert len(lines_of(path)) == 1


def test_file_in_the_place_of_the_folder_is_retried(backend, path):
    path.parent.write_text("in the way")
    with pytest.raises(RetryLater):
        backend.deliver([text()])
    path.parent.unlink()
    assert backend.deliver([text()]) == ()


def test_device_that_is_always_full(monkeypatch):
    backend = FileBackend({"file_path": "/dev/full"})
    with pytest.raises(RetryLater) as later:
        backend.deliver([text()])
    assert (later.value.reason, later.value.delivered) == ("disk_full", 0)
    assert backend.force_flush(1.0)
    backend.close(1.0)


def test_pipe_is_written_to_and_one_without_a_reader_does_not_block(tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    backend = FileBackend({"file_path": str(path), "max_size_mb": 0.00001})
    with pytest.raises(RetryLater):
        backend.deliver([text()])
    read = []
    reader = threading.Thread(target=lambda: read.append(path.read_text()))
    reader.start()
    deadline = datetime.now().timestamp() + 10
    while datetime.now().timestamp() < deadline:
        try:
            backend.deliver([text("through"), text("the pipe")])
            break
        except RetryLater:
            continue
    assert backend.force_flush(1.0)  # a pipe cannot be synced, and need not
    backend.close(1.0)
    reader.join(10)
    assert len(read[0].splitlines()) == 2


def test_flush_syncs_once_and_only_what_was_written(backend, monkeypatch):
    synced = []
    monkeypatch.setattr(os, "fsync", synced.append)
    assert backend.force_flush(1.0)
    assert synced == []
    backend.deliver([audit(), text()])
    assert backend.force_flush(1.0)
    assert backend.force_flush(1.0)
    assert len(synced) == 1


def test_flush_that_the_disk_refuses_is_said(backend, monkeypatch):
    def fail(descriptor):
        raise OSError(errno.EIO, "bad disk")

    backend.deliver([audit()])
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        assert not backend.force_flush(1.0)
    assert backend.force_flush(1.0)


def test_rotated_file_is_synced_before_it_goes(tmp_path, monkeypatch):
    backend = FileBackend({"file_path": str(tmp_path / "a.log"), "max_size_mb": 0.0001})
    backend.deliver([audit()])
    synced = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.fstat(descriptor).st_ino))
    inode = (tmp_path / "a.log").stat().st_ino
    backend.deliver([audit()])
    assert synced == [inode]
    backend.close(1.0)


def test_changing_the_working_directory_does_not_move_the_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    backend = FileBackend({"file_path": "logs/a.log"})
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    backend.deliver([text()])
    assert (tmp_path / "logs" / "a.log").exists()
    backend.close(1.0)


def test_layout_of_a_subclass_is_used_and_its_failure_mended(tmp_path):
    class Mine(FileBackend):
        def _format_text(self, record):
            return f"mine: {record.message}" if record.message != "bad" else 1 / 0

    path = tmp_path / "a.log"
    backend = Mine({"file_path": str(path)})
    backend.deliver([text("ok"), text("bad")])
    assert lines_of(path) == ["mine: ok", plan(text("bad"))]
    backend.close(1.0)


def test_subclass_with_an_init_of_its_own_works(tmp_path):
    class Mine(FileBackend):
        def __init__(self):
            self.file_path = str(tmp_path / "own.log")

    backend = Mine()
    backend.deliver([text()])
    backend.close(1.0)
    assert lines_of(tmp_path / "own.log") == [plan(text())]


def test_should_handle_takes_text_from_its_level_and_every_audit():
    backend = FileBackend(FileConfig(min_level="warning"))
    metric = LogRecord(AT, LogLevel.INFO, LogType.METRIC, "x", metric_name="m")
    taken = [backend.should_handle(item) for item in (text(), text(level=LogLevel.INFO), audit(), metric)]
    assert taken == [True, False, True, False]


def test_options_come_as_dataclass_mapping_or_the_plans_plain_config():
    for config in (
        FileConfig(file_path="x.log", format="json"),
        {"file_path": "x.log", "format": "json"},
        {"enabled": True, "config": {"file_path": "x.log", "format": "json"}},
        BackendConfig(config={"file_path": "x.log", "format": "json"}),
        FileConfig(file_path="other.log", config={"file_path": "x.log", "format": "json"}),
    ):
        backend = FileBackend(config)
        assert (backend.file_path, backend.format_type) == ("x.log", "json")
    assert FileBackend().file_path == FileConfig().file_path


@pytest.mark.parametrize(
    ("options", "cause"),
    [
        ({"file_pth": "x"}, "file.file_pth"),
        ({"format": "xml"}, "text, json"),
        ({"max_size_mb": 0}, "max_size_mb"),
        ({"max_size_mb": "big"}, "max_size_mb"),
        ({"file_path": ""}, "file_path"),
        ({"min_level": "LOUD"}, "DEBUG, INFO, WARNING, ERROR, CRITICAL"),
        ({"config": ["file_path"]}, "mapping"),
    ],
)
def test_options_that_cannot_be_used_name_the_place(options, cause):
    with pytest.raises(ConfigError, match=cause):
        FileBackend(options)


def test_size_out_of_range_is_refused_where_there_is_rotation():
    with pytest.raises(ConfigError, match="max_size_mb"):
        FileBackend(FileConfig(max_size_mb=0))
    assert not FileBackend(FileConfig(max_size_mb=0, rotation=False)).rotation


def test_torn_line_that_cannot_be_ended_for_lack_of_space_is_retried(tmp_path, monkeypatch):
    path = tmp_path / "a.log"
    path.write_text("half")
    backend = FileBackend({"file_path": str(path)})
    disk = FullDisk(monkeypatch, room=0)
    with pytest.raises(RetryLater) as later:
        backend.deliver([text()])
    assert (later.value.reason, later.value.delivered) == ("disk_full", 0)
    disk.room = 10**6
    assert backend.deliver([text()]) == ()
    assert lines_of(path) == ["half", plan(text())]
    backend.close(1.0)


def test_two_processes_that_share_a_file_lose_no_line(tmp_path):
    code = """
import sys
from hft_otel.destinations.file import FileBackend
from hft_otel.record import LogLevel, LogRecord, LogType
backend = FileBackend({"file_path": sys.argv[1]})
for number in range(200):
    backend.deliver([LogRecord(1.0, LogLevel.INFO, LogType.TEXT, sys.argv[2], "m" * 300)] * 5)
"""
    path = tmp_path / "a.log"
    started = [subprocess.Popen([sys.executable, "-c", code, str(path), name]) for name in ("one", "two")]
    assert [process.wait(60) for process in started] == [0, 0]
    lines = lines_of(path)
    assert len(lines) == 2000
    assert len(set(lines)) == 2


def test_writing_as_a_plain_backend(backend, path):
    import asyncio

    async def use():
        await backend.write(text())
        await backend.flush()

    asyncio.run(use())
    assert len(lines_of(path)) == 1
