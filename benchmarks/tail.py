"""What logging does to a paced trading loop: ours, in a process and in a thread, beside its floor and its peers.

    make bench-tail       (or: python benchmarks/tail.py [--rates 1000,5000] [--seconds 4] [--rounds 7] [--help])

Each variant runs in a process of its own (benchmarks/tail_trader.py), its loop pinned to one core; its threads and
children, the Collector and this program have the other. The variants take turns, round by round, and the medians over
the rounds are given. "Tick to done" counts from the moment a tick was due, so it has the lateness that a thread of the
logging library causes by holding the interpreter's lock, and that of calls before it. Ticks that were late because the
hypervisor or another program took the core away are set aside and counted ("stalls", of all rounds), and the loop begins
its schedule anew behind them; "raw p99.9" has them. On a machine of your own there are hardly any. Not all can be told
apart, and a virtual machine whose other core works loses more of them: "none-busy" is no telemetry beside a process that
works half of the time, as an agent does.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from benchmarks.tail_trader import VARIANTS  # noqa: E402  (found beside this file)
from tools.nop_collector import nop_collector  # noqa: E402

RATES = (1_000, 5_000, 10_000, 20_000)
NEED_COLLECTOR = ("ours-process", "ours-thread", "otel-handler-batch", "logfire-otlp")
FACTOR, EXTRA_US = 2.0, 50.0
"""The bar at p99.9: at most this many times no telemetry, or this many microseconds more."""

Result = dict[str, Any]


def run(variant: str, rate: int, options: argparse.Namespace, otlp: str | None) -> Result | None:
    """Run one variant once; None where it cannot run here."""
    command = [sys.executable, str(HERE / "tail_trader.py"), variant, "--rate", str(rate)]
    command += ["--seconds", str(options.seconds), "--otlp", otlp or ""]
    command += ["--trader-core", str(options.cores[0]), "--other-core", str(options.cores[1])]
    answer = subprocess.run(
        command, capture_output=True, text=True, timeout=options.seconds + 120, check=False
    )
    try:
        result: Result = json.loads(answer.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        print(
            f"{variant} at {rate}/s failed with status {answer.returncode}:\n{answer.stderr[-2000:]}",
            file=sys.stderr,
        )
        return None
    if "missing" in result:
        print(f"{variant} left out: {result['missing']} (pip install 'hft-otel[bench]')", file=sys.stderr)
        return None
    return result


def median_of(results: list[Result], part: str, key: str) -> float:
    """Return the median over the rounds."""
    return statistics.median(result[part][key] for result in results)


def table(rate: int, found: dict[str, list[Result]]) -> list[str]:
    """Return the lines of one rate's table, in Markdown."""
    floor = median_of(found["none"], "done", "p99.9")
    lines = [
        f"### {rate:,} calls/s",
        "",
        "| variant | call p50 | p99 | p99.9 | tick to done p50 | p99 | p99.9 | max | p99.9 of none | raw p99.9 | stalls | lost |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for variant, results in found.items():
        call = [f"{median_of(results, 'call', key):,.1f}" for key in ("p50", "p99", "p99.9")]
        done = [f"{median_of(results, 'done', key):,.1f}" for key in ("p50", "p99", "p99.9", "max")]
        ratio = median_of(results, "done", "p99.9") / floor
        told = [result["lost"] for result in results if result["lost"] is not None]
        lost = f"{sum(told):,}" if told else "not told"
        raw, stalls = median_of(results, "raw", "p99.9"), sum(result["stalls"] for result in results)
        cells = [variant, *call, *done, f"{ratio:,.1f}x", f"{raw:,.1f}", f"{stalls:,}", lost]
        lines.append(f"| {' | '.join(cells)} |")
    return [*lines, ""]


def verdict(rate: int, found: dict[str, list[Result]]) -> str:
    """Return how ours in a process stands against the bar."""
    if "ours-process" not in found:
        return ""
    floor, ours = (median_of(found[name], "done", "p99.9") for name in ("none", "ours-process"))
    bar = max(FACTOR * floor, floor + EXTRA_US)
    beside = ""
    if "none-busy" in found:
        beside = f" ({median_of(found['none-busy'], 'done', 'p99.9'):,.1f} us where the other core works)"
    return (
        f"{rate:,} calls/s: ours-process p99.9 {ours:,.1f} us, no telemetry {floor:,.1f} us{beside}, the bar {bar:,.1f} us: "
        f"{'holds' if ours <= bar else 'MISSED'}"
    )


def draw(found: dict[int, dict[str, list[Result]]], path: Path) -> None:
    """Draw the percentile curves, the median round of each variant, as an SVG picture."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "hft-otel"
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, len(found), figsize=(6 * len(found), 5), sharey=True, squeeze=False)
    for axis, (rate, variants) in zip(axes[0], found.items(), strict=True):
        for name, results in variants.items():
            middle = sorted(results, key=lambda result: result["done"]["p99.9"])[len(results) // 2]
            nines = [1 / (1 - share / 100) for share, _ in middle["curve"]]
            width = 2.4 if name in ("none", "none-busy", "ours-process") else 1.2
            axis.plot(nines, [us for _, us in middle["curve"]], label=name, linewidth=width)
        axis.set(xscale="log", yscale="log", title=f"{rate:,} calls/s", xlabel="percentile")
        axis.set_xticks([1, 10, 100, 1000, 10_000], ["0", "90", "99", "99.9", "99.99"])
        axis.grid(visible=True, which="major", alpha=0.3)
    axes[0][0].set_ylabel("tick to done, us")
    axes[0][-1].legend(fontsize="small")
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--rates", default=",".join(map(str, RATES)), help="calls per second (default %(default)s)"
    )
    parser.add_argument("--seconds", type=float, default=4.0, help="length of a run (default %(default)s)")
    parser.add_argument(
        "--rounds", type=int, default=7, help="rounds; medians are given (default %(default)s)"
    )
    parser.add_argument("--variants", default=",".join(VARIANTS), help="which (default all: %(default)s)")
    parser.add_argument(
        "--out", type=Path, help="write the tables to this Markdown file, the picture beside it"
    )
    options = parser.parse_args()
    try:
        options.rates = [int(rate) for rate in options.rates.split(",")]
    except ValueError:
        parser.error(f"--rates wants numbers with commas, not {options.rates!r}")
    options.variants = list(dict.fromkeys(["none", *options.variants.split(",")]))
    if unknown := set(options.variants) - set(VARIANTS):
        parser.error(f"unknown variants {', '.join(sorted(unknown))}; there are {', '.join(VARIANTS)}")
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        parser.error("two cores are needed: one for the trader, one for all else")
    options.cores = cores[:2]
    return options


def main() -> int:
    """Run the benchmark; exit status 1 where ours in a process misses the bar."""
    options = _options()
    os.sched_setaffinity(0, {options.cores[1]})
    found: dict[int, dict[str, list[Result]]] = {rate: {} for rate in options.rates}
    load = os.getloadavg()[0]
    with nop_collector({options.cores[1]}) as collector:
        otlp = collector and collector.endpoint
        variants = [name for name in options.variants if otlp or name not in NEED_COLLECTOR]
        steps, step = options.rounds * len(options.rates) * len(variants), 0
        for _ in range(options.rounds):
            for rate in options.rates:
                for variant in variants:
                    step += 1
                    print(f"[{step}/{steps}] {variant} at {rate:,}/s", file=sys.stderr, flush=True)
                    if (result := run(variant, rate, options, otlp)) is not None:
                        found[rate].setdefault(variant, []).append(result)
    machine = (
        f"Microseconds; medians of {options.rounds} interleaved rounds of {options.seconds:g} s. "
        f"{platform.python_implementation()} {platform.python_version()}, {platform.machine()}, {os.cpu_count()} cores; "
        f"trader on core {options.cores[0]}, all else on core {options.cores[1]}; load at the start {load:.2f}."
    )
    verdicts = [line for rate in found if (line := verdict(rate, found[rate]))]
    lines = [machine, "", *(line for rate in found for line in table(rate, found[rate])), *verdicts]
    print("\n".join(lines))
    if options.out:
        options.out.write_text("\n".join(lines) + "\n")
        draw(found, options.out.with_suffix(".svg"))
    return 1 if any("MISSED" in line for line in verdicts) else 0


if __name__ == "__main__":
    sys.exit(main())
