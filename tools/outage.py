"""Take the Collector away from a process that logs 1,000 audit events a second, and give it back: `make outage`.

    python -m tools.outage [--seconds 600] [--isolation thread] [--folder FOLDER]

Needs the small Collector of the tests (`make collector`), and about 5 KB of disk per event for what the Collector writes.
Prints what was seen as a table; exit status 1 where an event was lost, came out of order, or memory grew.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.real.outages import AUDITS, MEGABYTE, TEXTS, Outage, Plan, play
from tests.real.running import Collector
from tools import parts

COLLECTOR = "otelcol-hft-test"


def main() -> int:
    """Play the outage and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=600.0, help="for which the Collector is away")
    parser.add_argument("--isolation", choices=("process", "thread"), default="process")
    parser.add_argument("--padding", type=int, default=0, help="bytes that each event is larger by")
    parser.add_argument("--folder", type=Path, help="where to work, in a folder that is removed at the end")
    options = parser.parse_args()
    binary = parts.locate(COLLECTOR)
    if binary is None:
        print(f"{COLLECTOR} is not here: {parts.cure(COLLECTOR)}", file=sys.stderr)
        return 2
    plan = Plan(options.isolation, options.seconds, options.padding)
    print(
        f"{AUDITS:,} audit events and {TEXTS:,} text records a second, isolation: {plan.isolation}, the Collector away"
        f" for {plan.seconds:g} s; Python {sys.version.split()[0]}, {time.strftime('%Y-%m-%d')}",
        flush=True,
    )
    with tempfile.TemporaryDirectory(prefix="hft-otel-outage-", dir=options.folder) as name:
        folder = Path(name)
        otel = Collector(binary, folder / "collector")
        try:
            outage = play(plan, folder / "system", otel)
        finally:
            if otel.running:
                otel.kill()
    print("\n| | |\n|---|---|")
    for what, seen in rows(outage):
        print(f"| {what} | {seen} |")
    problems = list(outage.problems())
    for problem in problems:
        print(f"NOT AS IT SHOULD BE: {problem}")
    return 1 if problems else 0


def rows(outage: Outage) -> Iterator[tuple[str, str]]:
    """Yield the lines of the table."""
    yield "audit events logged, of them in the outage", f"{outage.events:,}, {outage.behind:,}"
    yield (
        "missing; out of order; span events missing",
        (f"{outage.missing:,}; {outage.out_of_order:,}; {outage.spans_missing:,}"),
    )
    yield "came again, with the same audit.id", f"{outage.repeats:,}"
    for process, seen in outage.memory.items():
        sizes = (
            f"{_mb(seen[when].resident)} {when}" for when in ("before", "end of outage", "most", "after")
        )
        yield f"resident memory of the {process}, MB", ", ".join(sizes)
    sizes = (f"{_mb(size)} {when}" for when, size in outage.journal.items())
    yield "journal on the disk, MB", ", ".join(sizes)
    yield "of it per event that waits", f"{outage.bytes_per_event:.0f} bytes"
    speed = (outage.behind + outage.catching_up * AUDITS) / max(outage.catching_up, 0.1)
    yield "caught up, while logging goes on", f"after {outage.catching_up:.0f} s: {speed:,.0f} events/s"
    lost = ", ".join(f"{number:,} {reason}" for reason, number in outage.texts_dropped.items()) or "0"
    yield (
        "text records logged, delivered, dropped and counted",
        (f"{outage.told['texts']:,}, {outage.texts_delivered:,}, {lost}"),
    )


def _mb(size: int) -> str:
    return f"{size / MEGABYTE:.1f}"


if __name__ == "__main__":
    raise SystemExit(main())
