"""Blocks 2.1 and 2.3 of the plan run unchanged as subclasses of our backends, alone and behind the adapter."""

import asyncio
import logging
import types
from datetime import datetime
from pathlib import Path

import pytest

from hft_otel.destinations.console import ConsoleBackend
from hft_otel.destinations.file import FileBackend
from hft_otel.destinations.foreign import ForeignBackend, as_destination
from hft_otel.record import LogLevel, LogRecord, LogType


class _Opened:
    def __init__(self, path, mode):
        self.path, self.mode = path, mode

    async def __aenter__(self):
        self.file = Path(self.path).open(self.mode)  # noqa: SIM115 (closed in __aexit__)
        return self

    async def __aexit__(self, *exc_info):
        self.file.close()

    async def write(self, said):
        await asyncio.sleep(0)
        self.file.write(said)


aiofiles = types.SimpleNamespace(open=_Opened)


BLOCK_2_1 = r'''
class FileBackend(LogBackend):
    """
    High-performance file logging with rotation.
    Handles text formatting only when writing.
    """

    def should_handle(self, record: LogRecord) -> bool:
        return (record.level >= LogLevel.WARNING and
                record.log_type in [LogType.TEXT, LogType.AUDIT])

    async def write(self, record: LogRecord) -> None:
        # Format ONLY when writing (not in hot path)
        if self.format_type == 'json':
            formatted = self._format_json(record)
        else:
            formatted = self._format_text(record)

        async with aiofiles.open(self.file_path, 'a') as f:
            await f.write(formatted + '\n')

    def _format_text(self, record: LogRecord) -> str:
        # Human-readable format with context
        dt = datetime.fromtimestamp(record.timestamp)
        return f"{dt} {record.level.name} {record.logger_name}: {record.message} | {record.context}"
'''

BLOCK_2_3 = r'''
class ConsoleBackend(LogBackend):
    """
    DEV environment console output using Python logging.
    Maintains full backwards compatibility.
    """

    def __init__(self, config):
        self.enabled = config.get('environment') == 'dev'

    def should_handle(self, record: LogRecord) -> bool:
        return self.enabled and record.log_type == LogType.TEXT

    async def write(self, record: LogRecord) -> None:
        # Use existing Python logger for compatibility
        py_logger = logging.getLogger(record.logger_name)
        py_level = self._convert_level(record.level)

        # Keep existing format exactly
        message = record.message
        if record.context:
            message += f" | {record.context}"

        py_logger.log(py_level, message)
'''


def subclass(block, base):
    """Run a block of the plan, with our backend in the place of LogBackend."""
    names = {
        "LogBackend": base,
        "LogLevel": LogLevel,
        "LogRecord": LogRecord,
        "LogType": LogType,
        "aiofiles": aiofiles,
        "datetime": datetime,
        "logging": logging,
    }
    exec(block, names)
    return names[base.__name__]


PlanFile = subclass(BLOCK_2_1, FileBackend)
PlanConsole = subclass(BLOCK_2_3, ConsoleBackend)


def text(message="100 % done", level=LogLevel.WARNING, **context):
    return LogRecord(
        1_700_000_000.25, level, LogType.TEXT, "parser.mexc", message, context or {"exchange": "mexc"}
    )


@pytest.mark.parametrize("through_adapter", [False, True])
@pytest.mark.parametrize("layout", ["text", "json"])
def test_file_block_writes_what_our_own_backend_writes(tmp_path, through_adapter, layout):
    backend = PlanFile({"file_path": str(tmp_path / "plan.log"), "format": layout})
    ours = FileBackend({"file_path": str(tmp_path / "ours.log"), "format": layout})
    records = [text(), text("second", LogLevel.ERROR)]
    if through_adapter:
        adapter = as_destination(backend, "file")
        assert isinstance(adapter, ForeignBackend)  # or its own write would never be called
        assert not adapter.deliver(records)
        adapter.close(1.0)
    else:
        for record in records:
            asyncio.run(backend.write(record))
    ours.deliver(records)
    ours.close(1.0)
    assert (tmp_path / "plan.log").read_text() == (tmp_path / "ours.log").read_text() != ""


def test_file_block_decides_what_it_takes():
    backend = as_destination(PlanFile())
    taken = [backend.should_handle(item) for item in (text(), text(level=LogLevel.INFO))]
    assert taken == [True, False]


@pytest.mark.parametrize("through_adapter", [False, True])
def test_console_block_writes_what_our_own_backend_writes(caplog, through_adapter):
    backend = PlanConsole({"environment": "dev"})
    ours = ConsoleBackend({"through": "stdlib"})
    records = [text(), LogRecord(1.0, LogLevel.ERROR, LogType.TEXT, "parser.mexc", "bare", {})]
    if through_adapter:
        adapter = as_destination(backend, "console")
        assert not adapter.deliver(records)
        adapter.close(1.0)
    else:
        for record in records:
            asyncio.run(backend.write(record))
    theirs = [(item.name, item.levelno, item.getMessage()) for item in caplog.records]
    caplog.clear()
    ours.deliver(records)
    assert theirs == [(item.name, item.levelno, item.getMessage()) for item in caplog.records]
    assert theirs[0] == ("parser.mexc", logging.WARNING, "100 % done | {'exchange': 'mexc'}")


@pytest.mark.parametrize(("environment", "takes"), [("dev", True), ("prod", False)])
def test_console_block_is_for_development(environment, takes):
    assert PlanConsole({"environment": environment}).should_handle(text()) is takes
    assert as_destination(PlanConsole({"environment": environment})).should_handle(text()) is takes
