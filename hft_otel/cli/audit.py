"""What the commands of `hft-otel audit` do."""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import Callable, Iterable
from datetime import datetime
from fnmatch import fnmatchcase
from itertools import chain
from pathlib import Path

import click
import msgspec
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ..audit.chain import Anchor
from ..audit.outside import NotJsonLines, anchors_in
from ..audit.reading import read_events
from ..audit.verify import Verdict, verify
from ..destinations._text import as_json as record_as_json
from ..record import LogRecord

__all__ = ["picker", "run_show", "run_verify", "say_nothing_is_here", "time_of", "utc"]

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_Window = tuple[int | None, int | None]
"""The times to show, in nanoseconds: from the first on, before the second."""


def run_verify(folder: Path, fallback: Path | None, anchors: tuple[Path, ...], *, as_json: bool) -> int:
    """Print a verdict per stream; 0 where all are healthy, and there is one."""
    verdicts = verify(folder, _from_outside(anchors) if anchors else None, fallback)
    if not verdicts:
        say_nothing_is_here(folder)
    elif as_json:
        for verdict in verdicts:
            click.echo(msgspec.json.encode({**msgspec.to_builtins(verdict), "healthy": verdict.healthy}))
    else:
        _print_verdicts(verdicts)
    return 0 if verdicts and all(verdict.healthy for verdict in verdicts) else 1


def say_nothing_is_here(folder: Path, more: str = "") -> None:
    """Say on stderr that a folder holds no events, which proves nothing."""
    click.echo(
        f"{folder} holds no audit event, which proves nothing: is it the journal's folder?{more}", err=True
    )


def _from_outside(paths: tuple[Path, ...]) -> list[Anchor]:
    try:
        found = list(chain(*map(anchors_in, paths)))
    except (NotJsonLines, OSError, UnicodeError) as error:
        raise click.UsageError(f"--anchors: {error}") from error
    if not found:
        raise click.ClickException(
            f"--anchors: no anchor is in {', '.join(map(str, paths))}; name a file of a destination that gets all audit"
            " events, with all its rotated parts, or leave the option out"
        )
    return found


def _print_verdicts(verdicts: list[Verdict]) -> None:
    out = Console()
    grid = Table(header_style="bold")
    for heading in ("stream", "events", "removed", "last", "proven up to", "from outside", ""):
        is_text = heading in ("stream", "")
        grid.add_column(
            heading, justify="left" if is_text else "right", overflow="fold" if is_text else "ellipsis"
        )
    for each in verdicts:
        state = "[green]healthy[/green]" if each.healthy else "[red]BROKEN[/red]"
        proven = map(_number, (each.last, each.anchored, each.outside))
        grid.add_row(escape(each.stream), f"{each.events:,}", f"{each.removed:,}", *proven, state)
    out.print(grid)
    for each in verdicts:
        for problem in each.problems:
            out.print(f"[red]broken:[/red] {escape(each.stream)}: {escape(problem)}", soft_wrap=True)
        for note in each.notes:
            out.print(f"[yellow]note:[/yellow] {escape(each.stream)}: {escape(note)}", soft_wrap=True)
    alone = [each.stream for each in verdicts if each.healthy and each.outside < 0]
    if alone:
        which = f" for {', '.join(alone)}" if len(alone) < len(verdicts) else ""
        out.print(
            f"no anchors from outside were given{escape(which)}: whoever can write all of this folder could have made a"
            " trail that fits; see --anchors",
            soft_wrap=True,
        )


def _number(seq: int) -> str:
    return "" if seq < 0 else f"{seq:,}"


def run_show(
    folder: Path,
    fallback: Path | None,
    suits: Callable[[LogRecord], bool],
    limit: int | None,
    *,
    as_json: bool,
) -> int:
    """Print the events that are asked for; 0 where there is one."""
    found: Iterable[LogRecord] = filter(suits, read_events(folder, fallback))
    if limit is not None:
        found = deque(found, limit)
    return 0 if (_print_lines if as_json else _print_events)(found) else 1


def _print_lines(found: Iterable[LogRecord]) -> int:
    count = 0
    for record in found:
        click.echo(record_as_json(record))
        count += 1
    return count


def _print_events(found: Iterable[LogRecord]) -> int:
    grid = Table(header_style="bold", title_justify="left")
    for heading in ("time (UTC)", "event", "logger", "context", "audit.id"):
        grid.add_column(heading, overflow="fold")
    count = 0
    for record in found:
        count += 1
        context = ", ".join(f"{key}={value}" for key, value in record.context.items())
        cells = (utc(record.time_ns), record.message, record.logger_name, context, record.audit_id or "")
        grid.add_row(*map(escape, cells))
    out = Console()
    if count:
        out.print(grid)
    out.print(f"{count:,} event{'' if count == 1 else 's'}")
    return count


def utc(time_ns: int) -> str:
    """Return a time as text, to the microsecond."""
    second, nanos = divmod(time_ns, 1_000_000_000)
    return f"{time.strftime('%Y-%m-%d %H:%M:%S', time.gmtime(second))}.{nanos // 1000:06d}"


def picker(events: tuple[str, ...], window: _Window, context: tuple[str, ...]) -> Callable[[LogRecord], bool]:
    """Return what says whether an event is asked for: by name, time and KEY=VALUE of its context."""
    since, until = window
    wanted = _pairs(context)

    def suits(record: LogRecord) -> bool:
        return (
            (not events or any(fnmatchcase(record.message, glob) for glob in events))
            and (since is None or record.time_ns >= since)
            and (until is None or record.time_ns < until)
            and all(
                key in record.context and str(record.context[key]) == each for key, each in wanted.items()
            )
        )

    return suits


def _pairs(context: tuple[str, ...]) -> dict[str, str]:
    found = {}
    for each in context:
        key, equals, value = each.partition("=")
        if not equals or not key:
            raise click.UsageError(f"--context {each!r} is not KEY=VALUE")
        found[key] = value
    return found


def time_of(text: str, option: str) -> int:
    """Return the time that is meant, in nanoseconds since the epoch: ISO 8601 (local time without a zone), or `15m` ago."""
    ago = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", text)
    if ago:
        return int((time.time() - float(ago[1]) * _UNITS[ago[2]]) * 1e9)
    try:
        return int(datetime.fromisoformat(text).timestamp() * 1_000_000) * 1000
    except (ValueError, OverflowError) as error:
        raise click.UsageError(
            f"{option} {text!r} is neither a time such as 2026-03-01T09:30 nor 15m, 2h, 3d"
        ) from error
