"""`hft-otel audit replay`: sends events of a trail once more, each with the `audit.id` that it has."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import click
import msgspec

from ..audit.parked import read_parked
from ..audit.reading import read_events
from ..building import Builder, make_router
from ..config import BackendConfig, LogConfig, OtlpConfig
from ..lanes.intake import Pipeline
from ..outbox import Outbox
from ..record import LogRecord, LogType
from ..redaction import Redactor
from ..routes import Routes

__all__ = ["Chosen", "run_replay", "target"]

_NAP = 0.002
_CLOSING = 2.0
_EVERY = 2.0
"""Seconds between two lines that say how far it is."""


def target(to: str, names: Sequence[str]) -> LogConfig:
    """Return the configuration that events are sent by: of a file, or of an OTLP endpoint. Raises ConfigError.

    Of a file only OTLP and what is behind the Collector takes part, unless backends are named: a process may be writing
    the others.
    """
    if "://" in to:
        return LogConfig(backends={"otlp": OtlpConfig(endpoint=to, signals=["logs", "traces"])})
    config = LogConfig.from_yaml(to)
    unknown = [name for name in names if name not in config.backends]
    if unknown:
        raise click.UsageError(f"--backend: {to} has no {unknown[0]}; it has {', '.join(config.backends)}")
    chosen = {
        name: _without_metrics(backend)
        for name, backend in config.backends.items()
        if backend.enabled and (name in names if names else _is_remote(backend))
    }
    if not chosen:
        raise click.UsageError(f"--to: {to} has no otlp backend that is enabled; name others with --backend")
    return replace(config, backends=chosen, routing_rules=_for_these(config, chosen))


def _is_remote(backend: BackendConfig) -> bool:
    return isinstance(backend, OtlpConfig) or getattr(backend, "via", "sdk") == "collector"


def _without_metrics(backend: BackendConfig) -> BackendConfig:
    if isinstance(backend, OtlpConfig):
        return replace(backend, signals=[signal for signal in backend.signals if signal != "metrics"])
    return backend


def _for_these(config: LogConfig, backends: dict[str, BackendConfig]) -> list[dict[str, object]]:
    """Return the rules with nothing but these backends in them; what no rule names is as in the file."""
    rules = [
        {**rule, "backends": [name for name in rule.get("backends", ()) if name in backends]}
        for rule in config.routing_rules
    ]
    return [rule for rule in rules if rule["backends"]]


class Chosen(NamedTuple):
    """The events to send: of one stream if it is named, from `first` to `last`, only those that are parked or all."""

    folder: Path
    fallback: Path | None = None
    stream: str = ""
    first: int = 0
    last: int | None = None
    parked: bool = False

    def events(self) -> Iterator[LogRecord]:
        """Yield them; raises OSError."""
        found = read_events(self.folder, self.fallback)
        if self.parked:  # each once, whoever refused it
            found = iter({parked.audit_id: record for parked, record in read_parked(self.folder)}.values())
        return filter(self._has, found)

    def _has(self, record: LogRecord) -> bool:
        name, _, number = (record.audit_id or "").rpartition("-")
        in_range = self.first <= int(number) and (self.last is None or int(number) <= self.last)
        return (not self.stream or name == self.stream) and in_range


def run_replay(chosen: Chosen, config: LogConfig, timeout: float, *, as_json: bool) -> int:
    """Send the chosen events; 0 where every destination has all of them."""
    boxes, number, nowhere = _send(chosen.events(), config, timeout)
    problems = {box.name: problem for box in boxes if (problem := _problem(box))}
    sums = [each for box in boxes for each in box.tallies.sums(box.name) if each.type == LogType.AUDIT]
    if as_json:
        told = {"events": number, "unrouted": nowhere, "destinations": sums, "problems": problems}
        click.echo(msgspec.json.encode(told))
    else:
        click.echo(
            f"{number:,} events read" + (f", {nowhere:,} of them wanted by no backend" if nowhere else "")
        )
        for each in sums:
            lost = "".join(f", {count:,} dropped ({reason})" for reason, count in each.dropped.items())
            left = f", {each.pending:,} not delivered in {timeout:g} s" if each.pending else ""
            why = f": {problems[each.destination]}" if each.destination in problems else ""
            click.echo(
                f"{each.destination}: {each.delivered:,} delivered{lost}{left}{why if lost or left else ''}"
            )
    return 1 if not number or nowhere or any(each.pending or each.dropped for each in sums) else 0


def _problem(box: Outbox) -> str:
    """Return why a destination does not take what it is sent, or did not take something."""
    return box.problem or getattr(box.destination, "last_error", "")


class _Progress:
    """One line on stderr every other second, for as long as it takes."""

    def __init__(self, boxes: list[Outbox]) -> None:
        self._boxes = boxes
        self._next = time.monotonic() + _EVERY

    def look(self, number: int) -> None:
        """Say how far it is after so many events, if it is time to."""
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + _EVERY
        parts = (
            f"{box.name} has {box.tallies.settled[LogType.AUDIT]:,}{f' ({box.problem})' if box.problem else ''}"
            for box in self._boxes
            if box.tallies.accepted[LogType.AUDIT]
        )
        click.echo(f"{number:,} events read so far; {', '.join(parts)}", err=True)


def _send(records: Iterable[LogRecord], config: LogConfig, timeout: float) -> tuple[list[Outbox], int, int]:
    """Deliver the records as the worker would; return who got them, how many were read, and how many nobody wanted."""
    backends = Builder().backends(config)
    routes = Routes(lambda: ())
    routes.add(Pipeline(0, make_router(config, backends), tuple(backends.values()), Redactor(config.redact)))
    boxes = list(routes.outboxes.values())
    deadline = time.monotonic() + timeout
    progress = _Progress(boxes)
    number = nowhere = 0
    for record in records:
        number += 1
        wanted, record.via_collector = routes.find_for_audit(0, record)
        nowhere += not wanted
        for box in wanted:
            box.tallies.accepted[LogType.AUDIT] += 1
            while not box.offer([record]) and time.monotonic() < deadline:
                progress.look(number)
                time.sleep(_NAP)
        progress.look(number)
        if time.monotonic() >= deadline:
            break
    while any(box.waiting and not box.closed.is_set() for box in boxes) and time.monotonic() < deadline:
        progress.look(number)
        time.sleep(_NAP)
    _close(boxes)
    return boxes, number, nowhere


def _close(boxes: list[Outbox]) -> None:
    end = time.monotonic() + _CLOSING
    for box in boxes:
        box.close(end)
    for box in boxes:
        box.closed.wait(max(end - time.monotonic(), 0.05) + 0.5)
