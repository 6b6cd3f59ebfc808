"""The example's backend of one's own."""

from __future__ import annotations

import ast
import asyncio
import inspect
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from examples.trading_system import custom_backend
from examples.trading_system.custom_backend import PagerBackend
from hft_otel import LogBackend, LogLevel, LogRecord, LogType


def record(level: LogLevel, log_type: LogType = LogType.TEXT, **context: Any) -> LogRecord:
    return LogRecord(1.5, level, log_type, "arbitrage", "Trading paused", context)


@pytest.mark.parametrize(
    ("one", "wanted"),
    [
        (record(LogLevel.CRITICAL), True),
        (record(LogLevel.ERROR), False),
        (record(LogLevel.ERROR, alert="open_leg"), True),
        (record(LogLevel.CRITICAL, LogType.AUDIT), False),
    ],
)
def test_critical_records_and_alerts_are_wanted(tmp_path: Path, one: LogRecord, wanted: bool) -> None:
    assert PagerBackend({"file_path": str(tmp_path / "pager.jsonl")}).should_handle(one) is wanted


def test_each_page_is_one_json_line_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "pager.jsonl"
    backend = PagerBackend({"file_path": str(path)})

    async def write() -> None:
        await backend.write(record(LogLevel.CRITICAL, exchange="gateio", price=Decimal("1.5")))
        await backend.write(record(LogLevel.ERROR, alert="open_leg"))
        await backend.flush()

    asyncio.run(write())
    pages = [json.loads(line) for line in path.read_text().splitlines()]
    assert pages[0] == {
        "time": 1.5,
        "level": "CRITICAL",
        "message": "Trading paused",
        "exchange": "gateio",
        "price": "1.5",
    }
    assert pages[1]["alert"] == "open_leg"


def test_it_is_a_complete_backend_in_under_forty_lines() -> None:
    assert issubclass(PagerBackend, LogBackend)
    assert len(inspect.getsource(custom_backend).splitlines()) < 40


def test_the_example_imports_only_public_names() -> None:
    folder = Path(inspect.getfile(custom_backend)).parent
    for path in folder.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                assert not node.module.startswith("hft_otel."), f"{path.name}: {node.module}"
                assert node.module == "hft_otel" or not node.module.startswith("opentelemetry"), path.name
