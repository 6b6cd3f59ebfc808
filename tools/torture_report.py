"""What became of the rounds of torture, as tables and as a page in Markdown."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Iterable, Sequence
from importlib.metadata import version

from tests.real.kills import Outcome
from tests.real.path_kills import PLACES, PathOutcome
from tests.real.path_scene import VICTIMS
from tools.torture_pool import Played

__all__ = ["facts", "is_good", "page", "tables"]

_INTRODUCTION = """\
# Torture

Written by `make torture ARGS="--out docs/torture.md"`; what is played is described in [audit.md](audit.md#torture).

"""
_SINGLE = ("rounds", "confirmed", "texts lost", "audits lost", "repeats", "unrecognised", "went wrong")
_PATH = (
    "rounds",
    *(f"kills: {victim}" for victim in VICTIMS),
    "confirmed",
    "events",
    "not in the trail",
    *(f"missing: {place}" for place in PLACES),
    *(f"repeats: {place}" for place in PLACES[:2]),
    "unrecognised",
    "went wrong",
)


def is_good(played: Played) -> bool:
    """Say whether nothing was lost, every repeat was recognised, and nothing else went wrong."""
    return played.outcome.is_good


def facts(rounds: int, seed: int, jobs: int) -> list[str]:
    """Return what is to be known of a run beside its result."""
    return [
        time.strftime("%Y-%m-%d"),
        f"seed {seed}",
        f"{rounds:,} rounds of each kind",
        f"{jobs} at a time",
        f"Python {platform.python_version()}",
        f"opentelemetry-sdk {version('opentelemetry-sdk')}",
        f"{platform.system()} {platform.release()}",
        f"{os.cpu_count()} cores",
    ]


def tables(played: Iterable[Played]) -> str:
    """Return a table of the kinds that kill around one file, and one of the whole path, each where there is any."""
    single: dict[str, list[Outcome]] = {}
    path: dict[str, list[PathOutcome]] = {}
    for each in played:
        if isinstance(each.outcome, PathOutcome):
            path.setdefault(each.outcome.isolation, []).append(each.outcome)
        else:
            single.setdefault(each.kind, []).append(each.outcome)
    found = []
    if single:
        found.append(_table("killed", _SINGLE, {kind: _sums(done) for kind, done in single.items()}))
    if path:
        found.append(_table("isolation", _PATH, {kind: _path_sums(done) for kind, done in path.items()}))
    return "\n".join(found)


def page(played: Sequence[Played], known: Sequence[str]) -> str:
    """Return the page of a run."""
    return f"{_INTRODUCTION}{'; '.join(known)}.\n\n{tables(played)}"


def _table(first: str, columns: Sequence[str], rows: dict[str, list[int]]) -> str:
    lines = [f"| {first} | {' | '.join(columns)} |", f"|---|{'---:|' * len(columns)}"]
    lines += [f"| {name} | {' | '.join(f'{value:,}' for value in row)} |" for name, row in rows.items()]
    return "".join(f"{line}\n" for line in lines)


def _sums(done: Sequence[Outcome]) -> list[int]:
    return [
        len(done),
        sum(outcome.confirmed for outcome in done),
        sum(outcome.lost_texts for outcome in done),
        sum(outcome.lost_audits for outcome in done),
        sum(outcome.repeats for outcome in done),
        sum(outcome.unrecognised for outcome in done),
        sum(bool(outcome.notes) for outcome in done),
    ]


def _path_sums(done: Sequence[PathOutcome]) -> list[int]:
    return [
        sum(outcome.rounds for outcome in done),
        *(sum(outcome.kills[victim] for outcome in done) for victim in VICTIMS),
        sum(outcome.confirmed for outcome in done),
        sum(outcome.events for outcome in done),
        sum(outcome.unwritten for outcome in done),
        *(sum(outcome.missing[place] for outcome in done) for place in PLACES),
        *(sum(outcome.repeats[place] for outcome in done) for place in PLACES[:2]),
        sum(outcome.unrecognised for outcome in done),
        sum(len(outcome.problems) for outcome in done),
    ]
