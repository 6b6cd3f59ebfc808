"""What arrives at a Collector when records come faster than it can take them: ours beside the plain SDK pipeline.

    make bench-throughput   (or: python benchmarks/throughput.py [--records 200000] [--rate 100000] [--rounds 3])

Each variant runs in a process of its own: a loop offers the records at the rate, or as fast as the calls go, and then
waits for delivery. What arrived is counted by the Collector itself, a real one that throws it away behind the count.
Ours has lanes that hold such a burst (`lanes.low_mb`); the SDK's processor has its queue as it is by default. The variants
take turns, and the medians over the rounds are given. CPU milliseconds are given per 1,000 records: those
of the trading process per 1,000 calls, those of all, its agent included, per 1,000 that arrived. They say more than the
rates where other programs share the machine: how much of it those have taken is given too.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from benchmarks.tail_trader import otel_logger  # noqa: E402  (found beside this file)
from tools.nop_collector import NopCollector, nop_collector  # noqa: E402
from tools.soak.watch import agent_of  # noqa: E402

FACTOR = 5.0
"""The bar: so many times what the plain SDK delivers per second."""

QUIET = 0.25
"""Share of the machine that others may take where rates are to be judged."""

Result = dict[str, Any]


class Variant(NamedTuple):
    """One way to log: a call; what waits for delivery and returns how many were said to be dropped."""

    call: Callable[[int], object]
    end: Callable[[], int | None]


LANE_MB = 40
"""Of ours, for a burst of two seconds at a rate above what anybody can deliver; 2 by default."""


def ours(endpoint: str, isolation: str) -> Variant:
    """Return our logger, everything to OTLP."""
    from hft_otel import LogConfig, LoggerFactory

    logging_yaml = {
        "isolation": isolation,
        "agent": {"nice": 0},  # of equal rank with the SDK's thread, or neighbours would decide
        "journal": {"folder": "journal"},
        "lanes": {"folder": str(Path("lanes").absolute()), "low_mb": LANE_MB},
        "backends": {"otlp": {"enabled": True, "config": {"endpoint": endpoint}}},
        "routing_rules": [{"name": "all", "backends": ["otlp"]}],
    }
    Path("logging.yaml").write_text(json.dumps({"logging": logging_yaml}))
    logger: Any = LoggerFactory.create_logger("bench", LogConfig.from_yaml("logging.yaml"))
    info = logger.info

    def call(number: int) -> None:
        info("order filled", symbol="BTCUSDT", px=1.5)

    return Variant(call, lambda: int(logger.force_flush(120).dropped))


def sdk(endpoint: str) -> Variant:
    """Return OpenTelemetry's handler, sending over OTLP."""
    logger, provider = otel_logger(endpoint)

    def call(number: int) -> None:
        logger.info("order filled", extra={"symbol": "BTCUSDT", "px": 1.5})

    def end() -> None:
        provider.force_flush(120_000)

    return Variant(call, end)


VARIANTS: dict[str, Callable[[str], Variant]] = {
    "ours-process": lambda endpoint: ours(endpoint, "process"),
    "ours-thread": lambda endpoint: ours(endpoint, "thread"),
    "sdk": sdk,
}


def play(variant: Variant, records: int, rate: float) -> Result:
    """Offer the records and wait for what is delivered."""
    for number in range(100):
        variant.call(number)
    variant.end()  # exporters are loaded now, connections open
    print("ready", flush=True)
    sys.stdin.readline()
    agent = agent_of(os.getpid())
    cpu, others, begin, done = _cpu_of(os.getpid(), agent), _machine(), time.perf_counter(), 0
    while done < records:
        due = min(int((time.perf_counter() - begin) * rate) + 1, records)
        for number in range(done, due):
            variant.call(number)
        if due == done:
            time.sleep(0.002)
        done = max(done, due)
    offered = time.perf_counter() - begin
    dropped = variant.end()
    return {
        "offering": offered,
        "seconds": time.perf_counter() - begin,
        "cpu": [now - before for now, before in zip(_cpu_of(os.getpid(), agent), cpu, strict=True)],
        "machine": [now - before for now, before in zip(_machine(), others, strict=True)],
        "dropped": dropped,
    }


def run(name: str, options: argparse.Namespace, collector: NopCollector) -> Result:
    """Run a variant in a process of its own; adds what the Collector has counted."""
    command = [sys.executable, str(HERE / "throughput.py"), "--play", name, "--otlp", collector.endpoint]
    command += ["--records", str(options.records), "--rate", str(options.rate)]
    paths = [str(HERE.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder,
        subprocess.Popen(
            command,
            cwd=folder,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as process,
    ):
        assert process.stdin is not None and process.stdout is not None
        process.stdout.readline()
        before, its_cpu = collector.log_records(), _cpu_of(collector.pid)[0]
        process.stdin.write("\n")
        process.stdin.flush()
        answer = process.stdout.readline()
        if process.wait() or not answer:
            raise SystemExit(f"{name} ended with status {process.returncode}")
        result: Result = json.loads(answer)
        result["arrived"] = collector.log_records() - before
        idle, spent = result["machine"]
        ours = sum(result["cpu"]) + _cpu_of(collector.pid)[0] - its_cpu
        result["foreign"] = max(spent - idle - ours, 0.0) / spent
        with suppress(OSError):
            while any(Path(folder, "lanes").iterdir()):  # its agent is at work still
                time.sleep(0.05)
    return result


def table(found: dict[str, list[Result]], records: int) -> list[str]:
    """Return the table in Markdown."""
    lines = [
        "| variant | offered in, s | arrived | lost, and said so | delivered/s | of SDK | CPU ms per 1,000 calls, trading "
        "process | of SDK | CPU ms per 1,000 arrived, all | of SDK | others' share |",
        "|" + "---|" * 11,
    ]
    rates, calls, costs = (
        {name: median(results, of) for name, results in found.items()}
        for of in (rate, lambda each: each["cpu"][0] * 1e6 / records, cost)
    )
    for name, results in found.items():
        arrived = median(results, lambda each: each["arrived"])
        said = [each["dropped"] for each in results if each["dropped"] is not None]
        lost = f"{records - arrived:,.0f}, {f'{statistics.median(said):,.0f}' if said else 'not told'}"
        ratios = [
            f"{rates[name] / rates['sdk']:.1f}x" if "sdk" in rates else "",
            *(f"1/{part['sdk'] / part[name]:.1f}" if "sdk" in part else "" for part in (calls, costs)),
        ]
        lines.append(
            f"| {name} | {median(results, lambda each: each['offering']):.1f} | {arrived:,.0f} | {lost} "
            f"| {rates[name]:,.0f} | {ratios[0]} | {calls[name]:.1f} | {ratios[1]} | {costs[name]:.1f} | {ratios[2]} "
            f"| {median(results, lambda each: each['foreign']):.0%} |"
        )
    return lines


def rate(result: Result) -> float:
    """Return the records that arrived per second, from the first call to the last delivery."""
    return float(result["arrived"] / result["seconds"])


def cost(result: Result) -> float:
    """Return the CPU milliseconds of trading process and agent per 1,000 records that arrived."""
    return float(sum(result["cpu"]) * 1e6 / result["arrived"])


def median(results: list[Result], of: Callable[[Result], float]) -> float:
    """Return the median over the rounds."""
    return statistics.median(map(of, results))


def _cpu_of(*pids: int) -> list[float]:
    """Return the CPU seconds of each process; 0 for one that is not there."""
    found = []
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() if pid else ["0"] * 13
        found.append((int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK"))
    return found


def _machine() -> tuple[float, float]:
    """Return in seconds, over all cores, what was idle and all there was."""
    fields = [int(value) for value in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    ticks = os.sysconf("SC_CLK_TCK")
    return (fields[3] + fields[4]) / ticks, sum(fields) / ticks


def main() -> int:
    """Run the benchmark; exit status 1 where a record is not accounted for, or ours is below the bar."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--records", type=int, default=200_000)
    parser.add_argument("--rate", type=float, default=100_000, help="records per second offered")
    parser.add_argument("--rounds", type=int, default=3, help="medians are given (default %(default)s)")
    parser.add_argument("--variants", default=",".join(VARIANTS), help="which (default all: %(default)s)")
    parser.add_argument("--play", choices=VARIANTS, help=argparse.SUPPRESS)
    parser.add_argument("--otlp", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.play:
        print(json.dumps(play(VARIANTS[options.play](options.otlp), options.records, options.rate)))
        return 0
    variants = options.variants.split(",")
    if unknown := set(variants) - set(VARIANTS):
        parser.error(f"unknown variants {', '.join(sorted(unknown))}; there are {', '.join(VARIANTS)}")
    found: dict[str, list[Result]] = {}
    load = os.getloadavg()[0]
    with nop_collector(counts=True) as collector:
        if collector is None:
            return 1
        for number in range(options.rounds):
            for name in variants:
                print(f"round {number + 1}: {name}", file=sys.stderr, flush=True)
                found.setdefault(name, []).append(run(name, options, collector))
    print(
        f"{options.records:,} records offered at {options.rate:,.0f}/s; medians of {options.rounds} interleaved rounds. "
        f"{platform.python_implementation()} {platform.python_version()}, {platform.machine()}, {os.cpu_count()} cores; "
        f"load at the start {load:.2f}.\n"
    )
    print("\n".join(table(found, options.records)))
    return _judge(found, options.records)


def _judge(found: dict[str, list[Result]], records: int) -> int:
    status = 0
    for name, results in found.items():
        if any(
            each["dropped"] is not None and each["arrived"] + each["dropped"] != records for each in results
        ):
            print(f"{name}: NOT ACCOUNTED FOR: {[(each['arrived'], each['dropped']) for each in results]}")
            status = 1
    if {"ours-process", "sdk"} <= set(found):
        ours_rate, plain = (median(found[name], rate) for name in ("ours-process", "sdk"))
        foreign = max(each["foreign"] for name in ("ours-process", "sdk") for each in found[name])
        if foreign > QUIET:
            print(f"Rates say nothing here: others took up to {foreign:.0%} of the machine. CPU times do.")
            return status
        holds = ours_rate >= FACTOR * plain
        print(
            f"ours-process delivers {ours_rate / plain:.1f}x the SDK (bar: {FACTOR:g}x): {'holds' if holds else 'MISSED'}"
        )
        status = status if holds else 1
    return status


if __name__ == "__main__":
    sys.exit(main())
