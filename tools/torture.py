"""Kill the trading process and its agent again and again, and count what was lost: `make torture`.

    python -m tools.torture [--rounds 1000] [--seed N] [--kind agent] [--keep FOLDER]

Prints the seed, a line of progress per kind, and a table; exit status 1 where anything was lost.
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path

from tests.real.kills import ROUNDS, Outcome, rounds

COLUMNS = (
    "rounds",
    "confirmed",
    "texts lost",
    "audits lost",
    "repeats",
    "unrecognised",
    "flushes false",
    "minutes",
)


def main() -> int:
    """Play the rounds and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=1000, help="of each kind")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--kind", choices=list(ROUNDS), action="append", help="who is killed; all by default")
    parser.add_argument("--keep", type=Path, help="keep the folders of rounds that lost something here")
    options = parser.parse_args()
    print(f"seed {options.seed}, Python {sys.version.split()[0]}, {time.strftime('%Y-%m-%d')}", flush=True)
    rows = {
        kind: _play(kind, options.rounds, options.seed, options.keep) for kind in options.kind or list(ROUNDS)
    }
    print(f"\n| killed | {' | '.join(COLUMNS)} |\n|---|{'---|' * len(COLUMNS)}")
    for kind, row in rows.items():
        print(f"| {kind} | {' | '.join(row)} |")
    return (
        1
        if any(any(value != "0" for value in (row[2], row[3], row[5], row[6])) for row in rows.values())
        else 0
    )


def _play(kind: str, count: int, seed: int, keep: Path | None) -> list[str]:
    begun = time.monotonic()
    done: list[Outcome] = []
    with tempfile.TemporaryDirectory(prefix="hft-otel-torture-") as folder:
        for number, outcome in enumerate(rounds(kind, count, seed, Path(folder))):
            done.append(outcome)
            where = Path(folder) / f"round-{number}"
            if outcome.lost_texts or outcome.lost_audits or outcome.unrecognised or outcome.notes:
                print(f"{kind}, round {number}: {outcome}", flush=True)
                if keep is not None:
                    shutil.copytree(where, keep / f"{kind.replace(' ', '-')}-{number}")
            shutil.rmtree(where)
            if (number + 1) % 50 == 0:
                print(f"{kind}: {number + 1} rounds", flush=True)
    minutes = (time.monotonic() - begun) / 60
    sums = (
        len(done),
        sum(outcome.confirmed for outcome in done),
        sum(outcome.lost_texts for outcome in done),
        sum(outcome.lost_audits for outcome in done),
        sum(outcome.repeats for outcome in done),
        sum(outcome.unrecognised for outcome in done),
        sum(bool(outcome.notes) for outcome in done),
    )
    return [*map(str, sums), f"{minutes:.0f}"]


if __name__ == "__main__":
    raise SystemExit(main())
