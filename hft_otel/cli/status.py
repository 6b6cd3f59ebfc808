"""`hft-otel status`: how the agents of this machine's trading processes are doing."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import click
import msgspec

from ..agent.status import DestinationStatus, LaneStatus, Seen, look
from ..config import LogConfig
from ..lanes.shared import default_folder

__all__ = ["run"]

_EVERY = 1.0
_ORPHANED = "  nobody delivers what it has left; the next start of a program with these lanes and the same journal folder does"
_FULL = 0.75
"""How full a lane may be before it is said in colour."""


def run(file: Path | None, folder: Path | None, pid: int | None, *, watch: bool, as_json: bool) -> int:
    """Print what the agents say, or that of `pid`'s; 0 where each serves and nothing was lost, else 1.

    Raises UsageError where there is no such `folder`; one that a configuration names is made by the first process.
    """
    if folder is not None and not folder.is_dir():
        raise click.UsageError(f"--folder: there is no folder {folder}")
    where = folder or _folder_of(file)
    while True:
        seen = look(where)
        if pid is not None:
            seen = _of_process(pid, seen)
        if watch and not as_json:
            click.clear()
        click.echo(_json(seen) if as_json else "\n".join(_lines(seen, where, pid)))
        if not watch:
            return 1 if any(_bad(each) for each in seen) or (pid is not None and not seen) else 0
        time.sleep(_EVERY)


def _of_process(pid: int, seen: list[Seen]) -> list[Seen]:
    """Return what is of a process: of those that had its number, the one that lives, or else all."""
    found = [each for each in seen if each.stream.split("-")[-2:-1] == [str(pid)]]
    return [each for each in found if each.trader_alive] or found


def _folder_of(file: Path | None) -> Path:
    config = LogConfig.from_yaml(file) if file is not None else LogConfig.default()
    return Path(config.lanes.folder) if config.lanes.folder else default_folder()


def _json(seen: list[Seen]) -> str:
    """Return one line, an object per stream with its verdict."""
    return msgspec.json.encode(
        [{**msgspec.to_builtins(each), "verdict": each.verdict} for each in seen]
    ).decode()


def _bad(seen: Seen) -> bool:
    if seen.verdict not in ("serving", "draining") or seen.status is None:
        return True
    status = seen.status
    parts: list[LaneStatus | DestinationStatus] = [*status.lanes, *status.destinations]
    losing = any(any(part.dropped.values()) for part in parts)
    return losing or bool(status.problems) or any(part.problem for part in status.destinations)


def _lines(seen: list[Seen], where: Path, pid: int | None) -> Iterator[str]:
    if not seen:
        who = "no trading process" if pid is None else f"no trading process with pid {pid}"
        yield f"{who} has its lanes in {where} (those with isolation: thread have none)"
    for each in seen:
        yield from _process_lines(each)


def _process_lines(seen: Seen) -> Iterator[str]:
    yield from _state_lines(seen)
    if seen.verdict == "orphaned":
        yield _ORPHANED


def _state_lines(seen: Seen) -> Iterator[str]:
    status = seen.status
    color = {"serving": "green", "draining": "yellow"}.get(seen.verdict, "red")
    yield f"{click.style(seen.verdict, fg=color, bold=True)}  {seen.stream}"
    if status is None:
        yield "  the agent has said nothing yet"
        return
    ages = f"up {_span(status.written - status.started)}, said {_span(seen.age)} ago"
    trader = f"{status.trader}" if seen.trader_alive else f"{status.trader} (ended)"
    agent = f"{status.agent}" if seen.agent_alive else f"{status.agent} (ended)"
    yield f"  trading process {trader}, agent {agent}, {ages}, lag {status.lag * 1000:.0f} ms"
    for lane in status.lanes:
        fill = f"{lane.fill:>5.0%}"
        fill = click.style(fill, fg="red") if lane.fill > _FULL else fill
        counts = f"{lane.rate:>9,.0f}/s {fill} full {lane.emitted:>12,} in {lane.pending:>8,} waiting"
        yield f"  lane {lane.lane:<10} {lane.type:<6} {counts}{_dropped(lane.dropped)}"
    for part in status.destinations:
        counts = f"{part.rate:>9,.0f}/s {part.delivered:>12,} delivered {part.pending:>8,} waiting"
        problem = click.style(f"  problem: {part.problem}", fg="red") if part.problem else ""
        yield f"  to {part.destination:<12} {part.type:<6} {counts}{_dropped(part.dropped)}{problem}"
    for problem in status.problems:
        yield click.style(f"  problem: {problem}", fg="red")


def _dropped(dropped: dict[str, int]) -> str:
    total = sum(dropped.values())
    if not total:
        return ""
    reasons = ", ".join(f"{reason} {number:,}" for reason, number in sorted(dropped.items()) if number)
    return click.style(f"  dropped {total:,} ({reasons})", fg="red")


def _span(seconds: float) -> str:
    """Return a length of time, as short as it may be."""
    for size, name in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {name}"
    return f"{max(seconds, 0):.0f} s"
