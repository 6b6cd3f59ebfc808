"""Have a trading process log a mix of everything for minutes, and show that nothing of it grows: `make soak`.

    python -m tools.soak [--minutes 10] [--rate 2000] [--isolation process|thread] [--every 5] [--keep FOLDER]

Prints Markdown: samples, how each value went after the warm-up (the first fifth), and the account. Everything goes to
a file of JSON lines and to Prometheus's endpoint, and where one is built to a Collector. Exit status 1 where something
grows beyond its bound, buffers take 10 MB or more, or a record is not delivered; 2 for a misuse.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

from tools.nop_collector import nop_collector
from tools.soak.watch import Sample, Trend, sample, trends

ROOT = Path(__file__).resolve().parents[2]
WARM_UP = 0.2
"""Share of the time that comes before what is judged."""
BUFFERS = 10.0
"""Megabytes of buffers that a trading process may have."""
ROWS = 20

Told = dict[str, Any]


def main(arguments: list[str] | None = None) -> int:
    """Run it, print what was seen; return the exit status."""
    options = _options(arguments)
    folder = Path(tempfile.mkdtemp(prefix="hft-otel-soak-"))
    try:
        with nop_collector() as collector:
            _configure(folder, options.isolation, collector and collector.endpoint)
            samples, told = _run(folder, options)
        lines = _lines(folder / "out.jsonl")
    finally:
        if options.keep is not None:
            shutil.copytree(folder, options.keep)
        shutil.rmtree(folder)
    begin = samples[-1].at * WARM_UP
    found = trends([each for each in samples if each.at >= begin])
    faults = _faults(found, samples, told, lines)
    print("\n".join(_report(options, samples, found, told, lines, faults)))
    return 1 if faults else 0


def _options(arguments: list[str] | None) -> argparse.Namespace:
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("python -m tools.soak", description=__doc__, formatter_class=layout)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--rate", type=float, default=2000.0, help="records per second")
    parser.add_argument("--isolation", choices=("process", "thread"), default="process")
    parser.add_argument("--every", type=float, default=5.0, help="seconds between two samples")
    parser.add_argument(
        "--keep", type=Path, help="copy what is left to this folder, which must not be there yet"
    )
    options = parser.parse_args(arguments)
    seconds = options.minutes * 60
    if min(options.rate, options.every) <= 0 or seconds < 8 * options.every:
        parser.error("rate and every are above 0, and the time has room for 8 samples")
    if options.keep is not None and options.keep.exists():
        parser.error(f"{options.keep} is there already")
    return options


def _configure(folder: Path, isolation: str, endpoint: str | None) -> None:
    file = {"file_path": str(folder / "out.jsonl"), "format": "json", "rotation": False}
    backends: Told = {
        "file": {"enabled": True, "config": file},
        "prometheus": {"enabled": True, "config": {"port": 0}},
    }
    if endpoint is not None:
        backends["otlp"] = {"enabled": True, "config": {"endpoint": endpoint}}
    logging = {
        "isolation": isolation,
        "lanes": {"folder": str(folder / "lanes")},
        "journal": {
            "folder": str(folder / "journal"),
            "keep_days": 0,
        },  # kept, they would grow, as they should
        "exit_timeout": 20,
        "backends": backends,
        "routing_rules": [{"name": "everything", "backends": list(backends)}],
    }
    (folder / "logging.yaml").write_text(yaml.safe_dump({"logging": logging}))


def _run(folder: Path, options: argparse.Namespace) -> tuple[list[Sample], Told]:
    """Run the trading process; return the samples and what it said at its end."""
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    command = [sys.executable, "-m", "tools.soak.trader", str(options.rate), str(options.minutes * 60)]
    samples: list[Sample] = []
    told: Told = {}
    with subprocess.Popen(
        [*command, str(options.every)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        begin = time.monotonic()
        for line in process.stdout:
            told = json.loads(line)
            if "waiting" in told:
                at = time.monotonic() - begin
                samples.append(sample(at, told["emitted"], told["waiting"], folder, process.pid))
                print(f"\r{at:.0f} s", end="", file=sys.stderr, flush=True)
            else:
                begin = time.monotonic()
    print(file=sys.stderr)
    if process.returncode or "flushed" not in told:
        raise SystemExit(f"the trading process ended with status {process.returncode}")
    return samples, told


def _lines(path: Path) -> int:
    with path.open("rb") as file:
        return sum(1 for _ in file)


def _faults(found: list[Trend], samples: list[Sample], told: Told, lines: int) -> list[str]:
    faults = [
        f"{each.name} grew by {each.growth:.2f}, the bound is {each.bound:g}"
        for each in found
        if not each.flat
    ]
    buffers = max(each.trader.buffers for each in samples)
    if buffers >= BUFFERS:
        faults.append(f"buffers of the trading process took {buffers:.1f} MB")
    if len({each.agent is None for each in samples}) > 1:
        faults.append("the agent was not there all the time")
    emitted = told["emitted"]
    if told["reported"] != emitted:
        faults.append(f"logged {emitted}, reported {told['reported']}")
    if not told["flushed"] or told["dropped"] or told["pending"]:
        faults.append(f"dropped {told['dropped']}, pending {told['pending']}")
    if lines != sum(emitted.values()) - emitted["metric"]:
        faults.append(f"the file has {lines} lines")
    return faults


def _report(
    options: argparse.Namespace,
    samples: list[Sample],
    found: list[Trend],
    told: Told,
    lines: int,
    faults: list[str],
) -> list[str]:
    emitted = sum(told["emitted"].values())
    step = max(len(samples) // ROWS, 1)
    return [
        f"{options.minutes:g} minutes at {options.rate:g} records/s, isolation {options.isolation}, "
        f"Python {sys.version.split()[0]}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}",
        "",
        "| s | emitted | RSS, MB | PSS | buffers | fds | threads | agent RSS | PSS | fds | threads | files: lanes "
        "| journal | fill | waiting |",
        "|" + "---|" * 15,
        *(_row(each) for each in samples[::step]),
        "",
        "| after the warm-up | min | max | max - min | growth by fit | per hour | bound | flat |",
        "|" + "---|" * 8,
        *(
            f"| {each.name} | {each.least:.1f} | {each.most:.1f} | {each.most - each.least:.1f} | {each.growth:+.2f} "
            f"| {each.per_hour:+.1f} | {each.bound:g} | {'yes' if each.flat else 'NO'} |"
            for each in found
        ),
        "",
        f"Emitted {emitted} in {told['took']:.0f} s (the latest {told['late'] * 1000:.0f} ms late): dropped "
        f"{told['dropped']}, pending {told['pending']}; {lines} lines in the file.",
        *(["", told["report"], "", *(f"NOT FLAT: {fault}" for fault in faults)] if faults else ["Flat."]),
    ]


def _row(each: Sample) -> str:
    own, agent = each.trader, each.agent
    other = f"{agent.rss:.1f} | {agent.pss:.1f} | {agent.fds} | {agent.threads}" if agent else "| | |"
    return (
        f"| {each.at:.0f} | {each.emitted} | {own.rss:.1f} | {own.pss:.1f} | {own.buffers:.1f} | {own.fds} "
        f"| {own.threads} | {other} | {each.lane_files} | {each.journal_files} | {each.fill:.0%} | {each.waiting} |"
    )


if __name__ == "__main__":
    raise SystemExit(main())
