"""Holds a trail against what arrived: which events are missing there, and which came more than once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from ..lanes.frames import unseal_audit
from .reading import StreamFiles, bodies, find_streams, segments_of

__all__ = ["Reconciled", "reconcile"]


class _Written(NamedTuple):
    """An event of the trail, and whether every destination has it already."""

    seq: int
    is_settled: bool


@dataclass
class Reconciled:
    """One stream held against a destination."""

    stream: str
    events: int = 0
    """Events that are there and can be read."""
    delivered: int = 0
    waiting: int = 0
    """Events that have not arrived, and that not every destination has acknowledged."""
    missing: list[str] = field(default_factory=list)
    """The identities of acknowledged events that have not arrived."""
    duplicates: dict[str, int] = field(default_factory=dict)
    """How often events arrived that did so more than once."""
    beyond: int = 0
    """Identities that arrived and are not here (any more): removed by retention, or none of ours."""


def reconcile(folder: Path, arrived: Iterable[str], fallback: Path | None = None) -> list[Reconciled]:
    """Return per stream what became of its events; `arrived` are the identities that the destination has.

    Raises OSError, and what `arrived` raises. Identities of streams that are not in the folder are left out.
    """
    # The trail first: what is written after this look is not looked for.
    written = {stream.name: list(_written(stream)) for stream in find_streams(folder, fallback)}
    counts: dict[str, Counter[int]] = {name: Counter() for name in written}
    for identity in arrived:
        name, _, seq = identity.rpartition("-")
        if name in counts and seq.isdecimal():
            counts[name][int(seq)] += 1
    return [_held(name, events, counts[name]) for name, events in written.items()]


def _written(stream: StreamFiles) -> Iterator[_Written]:
    for segment in segments_of(stream):
        if segment.problem:
            continue
        settled = len(segment.data) if segment.is_kept else segment.header.settled
        for seq, (body, end) in enumerate(bodies(segment.data), segment.first_seq):
            if unseal_audit(body) is not None:
                yield _Written(seq, end <= settled)


def _held(name: str, written: list[_Written], arrived: Counter[int]) -> Reconciled:
    found = Reconciled(name, len(written))
    for seq, is_settled in written:
        number = arrived.pop(seq, 0)
        if number:
            found.delivered += 1
        elif is_settled:
            found.missing.append(f"{name}-{seq}")
        else:
            found.waiting += 1
        if number > 1:
            found.duplicates[f"{name}-{seq}"] = number
    found.beyond = len(arrived)
    return found
