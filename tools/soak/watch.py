"""What a process and its agent hold at one moment, by what the system says; and whether it grows."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from hft_otel.agent.status import Status, look

__all__ = ["BOUNDS", "Held", "Sample", "Trend", "agent_of", "sample", "trends"]

MEGABYTE = 1e6


@dataclass(frozen=True)
class Held:
    """What one process holds; memory in megabytes, `buffers` being mapped lanes and journal."""

    rss: float
    pss: float
    buffers: float
    fds: int
    threads: int


@dataclass(frozen=True)
class Sample:
    """One look; `at` in seconds since the first call, `fill` of the fullest lane from 0 to 1."""

    at: float
    emitted: int
    trader: Held
    agent: Held | None
    lane_files: int
    journal_files: int
    fill: float
    waiting: int


class Trend(NamedTuple):
    """How one value went: where it was, and its growth by a linear fit, over the time measured and per hour."""

    name: str
    least: float
    most: float
    growth: float
    per_hour: float
    bound: float

    @property
    def flat(self) -> bool:
        """Say whether it grew by no more than its bound."""
        return self.growth <= self.bound


BOUNDS = {
    "trading process RSS, MB": 1.0,
    "trading process buffers, MB": 1.0,
    "trading process fds": 1.0,
    "trading process threads": 1.0,
    "agent RSS, MB": 4.0,
    "agent fds": 2.0,
    "agent threads": 1.0,
    "files of lanes": 1.0,
    "files of the journal": 2.0,
    "records waiting": 2000.0,
}
"""How much each may grow over the time measured, by the fit: what warms up late, and no leak of some bytes per record.

PSS is shown and not judged: it goes up when another program ends that had the same libraries mapped.
"""
WORKER = "agent RSS, MB"
"""Whose bound holds for the trading process too where it delivers by itself."""


def trends(samples: Sequence[Sample]) -> list[Trend]:
    """Return how each value went over these samples, which begin after the warm-up."""
    series: dict[str, list[float]] = {name: [] for name in BOUNDS}
    for each in samples:
        for process, held in (("trading process", each.trader), ("agent", each.agent)):
            if held is not None:
                series[f"{process} RSS, MB"].append(held.rss)
                series[f"{process} fds"].append(held.fds)
                series[f"{process} threads"].append(held.threads)
        series["trading process buffers, MB"].append(each.trader.buffers)
        series["files of lanes"].append(each.lane_files)
        series["files of the journal"].append(each.journal_files)
        series["records waiting"].append(each.waiting)
    times = [each.at for each in samples]
    bounds = BOUNDS if series[WORKER] else {**BOUNDS, "trading process RSS, MB": BOUNDS[WORKER]}
    return [
        _trend(name, times[-len(values) :], values, bounds[name]) for name, values in series.items() if values
    ]


def _trend(name: str, times: Sequence[float], values: Sequence[float], bound: float) -> Trend:
    slope = _slope(times, values)
    growth = slope * (times[-1] - times[0])
    return Trend(name, min(values), max(values), growth, slope * 3600, bound)


def _slope(times: Sequence[float], values: Sequence[float]) -> float:
    """Return the slope of the line that fits best, per second."""
    middle, mean = sum(times) / len(times), sum(values) / len(values)
    spread = sum((time - middle) ** 2 for time in times)
    if not spread:
        return 0.0
    return sum((time - middle) * (value - mean) for time, value in zip(times, values, strict=True)) / spread


def sample(at: float, emitted: int, waiting: int, folder: Path, pid: int) -> Sample:
    """Look at the trading process, its agent if there is one, and their files."""
    status = _status(folder)
    agent = agent_of(pid)
    fill = 0.0
    if status is not None:
        fill = max((lane.fill for lane in status.lanes), default=0.0)
        waiting = sum(lane.pending for lane in status.lanes)
        waiting += sum(each.pending for each in status.destinations)
    lanes, journal = (sum(1 for _ in (folder / part).rglob("*.seg")) for part in ("lanes", "journal"))
    return Sample(at, emitted, _held(pid, folder), _agent_held(agent, folder), lanes, journal, fill, waiting)


def agent_of(pid: int) -> int:
    """Return the agent among a process's children; 0 where there is none."""
    for task in Path(f"/proc/{pid}/task").iterdir():
        with suppress(OSError):
            for child in (task / "children").read_text().split():
                if b"hft_otel/agent/__main__.py" in Path(f"/proc/{child}/cmdline").read_bytes():
                    return int(child)
    return 0


def _status(folder: Path) -> Status | None:
    found = [seen.status for seen in look(folder / "lanes") if seen.status is not None]
    return found[0] if found else None


def _agent_held(pid: int, folder: Path) -> Held | None:
    with suppress(OSError):  # it may end at any moment
        return _held(pid, folder) if pid else None
    return None


def _held(pid: int, folder: Path) -> Held:
    process = Path(f"/proc/{pid}")
    memory = {}
    for line in (process / "smaps_rollup").read_text().splitlines()[1:]:
        name, size, *_ = line.split()
        memory[name] = int(size) * 1024 / MEGABYTE
    mapped = 0
    for line in (process / "maps").read_text().splitlines():
        if str(folder) in line:
            low, _, high = line.split()[0].partition("-")
            mapped += int(high, 16) - int(low, 16)
    return Held(
        memory["Rss:"],
        memory["Pss:"],
        mapped / MEGABYTE,
        len(os.listdir(process / "fd")),  # noqa: PTH208  (names are all that is wanted)
        len(os.listdir(process / "task")),  # noqa: PTH208
    )
