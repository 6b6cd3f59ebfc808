"""Kill what logs, and what it logs to, again and again, and count what was lost: `make torture`.

    python -m tools.torture [--rounds 1000] [--seed N] [--jobs N] [--kind agent] [--keep FOLDER] [--out FILE]

Prints the seed, lines of progress, and tables; exit status 1 where anything was lost. Ctrl-C ends it with what there is
so far.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tests.real.collector_process import best, has
from tests.real.kills import ROUNDS
from tools import parts
from tools.torture_pool import WHOLE_PATH, Played, Task, run_all, tasks_of
from tools.torture_report import facts, is_good, page, tables

KINDS = (*ROUNDS, WHOLE_PATH)
EVERY = 50
"""Rounds of a kind between two lines of progress."""


def options_of(arguments: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="torture", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=_positive, default=1000, help="of each kind")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--jobs", type=_positive, default=os.cpu_count() or 1, help="rounds at the same time")
    parser.add_argument("--kind", choices=KINDS, action="append", help="who is killed; all by default")
    parser.add_argument("--keep", type=Path, help="keep the folders of rounds that went wrong here")
    parser.add_argument("--out", type=Path, help="write the result, as a page in Markdown, to this file")
    return parser.parse_args(arguments)


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError
    return number


def main(arguments: Sequence[str] = ()) -> int:
    """Play the rounds and print the tables, also of a run that SIGINT or SIGTERM ends."""
    options = options_of(arguments)
    for number in (signal.SIGINT, signal.SIGTERM):  # a shell has its background jobs ignore the first
        signal.signal(number, signal.default_int_handler)
    kinds: list[str] = options.kind or list(KINDS)
    if WHOLE_PATH in kinds and not has(best(), "exporters", "elasticsearch"):
        print(f"no Collector here has Elasticsearch's exporter: {parts.cure('otelcol-hft-es')}")
        return 2
    known = facts(options.rounds, options.seed, options.jobs)
    print("; ".join(known), flush=True)
    begun = time.monotonic()
    progress = Progress()
    finished = run_all(
        tasks_of(kinds, options.rounds), options.seed, options.jobs, options.keep, progress.note
    )
    known.append(f"{(time.monotonic() - begun) / 60:.0f} minutes")
    print(f"\n{tables(progress.played)}", flush=True)
    if not finished:
        known.append("interrupted: the tables say how many rounds were finished")
        print(known[-1])
    if options.out is not None:
        options.out.write_text(page(progress.played, known), encoding="utf-8")
        print(f"wrote {options.out}")
    if not finished:
        return 130
    return 0 if all(map(is_good, progress.played)) else 1


class Progress:
    """What was played so far; says how far that is, and what went wrong."""

    def __init__(self) -> None:
        self.played: list[Played] = []
        self._rounds: dict[str, int] = {}

    def note(self, task: Task, number: int, played: Played) -> None:
        """Take in what became of a round, or of a batch of them."""
        self.played.append(played)
        before = self._rounds.get(task.kind, 0)
        after = self._rounds[task.kind] = before + played.rounds
        if not is_good(played):
            print(f"{task.kind}, {number}: {played.outcome}", flush=True)
        if before // EVERY != after // EVERY:
            print(f"{time.strftime('%H:%M')} {task.kind}: {after} rounds", flush=True)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
