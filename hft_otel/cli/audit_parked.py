"""`hft-otel audit show --parked`: what a destination refused for good, and why."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path

import click
import msgspec
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ..audit.parked import Parked, read_parked
from ..destinations._text import as_json as record_as_json
from ..record import LogRecord
from .audit import utc

__all__ = ["run_parked"]

_Found = Iterable[tuple[Parked, LogRecord]]


def run_parked(folder: Path, suits: Callable[[LogRecord], bool], limit: int | None, *, as_json: bool) -> int:
    """Print the parked events that are asked for; 0 where there is none."""
    found: _Found = deque((each for each in read_parked(folder) if suits(each[1])), limit)
    if as_json:
        for parked, record in found:
            click.echo(_line(parked, record))
    else:
        _print(found)
    return 1 if found else 0


def _line(parked: Parked, record: LogRecord) -> bytes:
    told = {key: value for key, value in msgspec.structs.asdict(parked).items() if key != "body"}
    return msgspec.json.encode({**told, "event": msgspec.Raw(record_as_json(record).encode())})


def _print(found: _Found) -> None:
    grid = Table(header_style="bold")
    for heading in ("refused (UTC)", "by", "why", "event", "context", "audit.id"):
        grid.add_column(heading, overflow="fold")
    count = 0
    for parked, record in found:
        count += 1
        why = f"{parked.reason}: {parked.detail}" if parked.detail else parked.reason
        context = ", ".join(f"{key}={value}" for key, value in record.context.items())
        cells = (utc(parked.time_ns), parked.destination, why, record.message, context, parked.audit_id)
        grid.add_row(*map(escape, cells))
    out = Console()
    if count:
        out.print(grid)
    out.print(f"{count:,} event{'' if count == 1 else 's'} parked")
