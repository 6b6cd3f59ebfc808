"""A backend of one's own: what somebody must be woken up for is appended to a pager's file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hft_otel import LogBackend, LogLevel, LogRecord, LogType


class PagerBackend(LogBackend):
    """Takes CRITICAL records and those with an `alert` in their context; one JSON line per page."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.path = Path(config.get("file_path", "logs/pager.jsonl"))
        self.path.parent.mkdir(parents=True, exist_ok=True)

    def should_handle(self, record: LogRecord) -> bool:
        return record.log_type is LogType.TEXT and (
            record.level >= LogLevel.CRITICAL or "alert" in record.context
        )

    async def write(self, record: LogRecord) -> None:
        page = {
            "time": record.timestamp,
            "level": record.level.name,
            "message": record.message,
            **record.context,
        }
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(page, default=str) + "\n")

    async def flush(self) -> None:
        """Nothing is kept back: write has written."""
