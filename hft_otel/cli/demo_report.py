"""What the demo prints at its end: the calls, where each went, both sums, and whether they add up."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from ..ledger import FlushReport

__all__ = ["findings", "print_tables"]

_LANES = {
    "low": ("DEBUG", "INFO"),
    "high": ("WARNING", "ERROR", "CRITICAL"),
    "metric": ("METRIC", "LATENCY", "COUNTER"),
    "audit": ("AUDIT",),
}
"""Which calls each lane takes."""


def print_tables(out: Console, result: Any, report: FlushReport, collector: Mapping[str, int] | None) -> None:
    """Print the session, the cost of its calls, and both sums."""
    out.print(
        f"\n{result.message_count} messages ({result.malformed} malformed, {result.late} left out), "
        f"{result.reconnects} reconnects, {result.opportunities} opportunities: {result.executed} executed, "
        f"{result.failed} failed, {result.rejected} orders rejected\n"
    )
    out.print(_calls(result))
    out.print(_sums(
        "Lanes: emitted = routed + unrouted + dropped + pending",
        ("lane", "type", "emitted", "routed", "unrouted", "dropped", "pending"),
        ((s.lane, s.type, s.emitted, s.routed, s.unrouted, _reasons(s.dropped), s.pending) for s in report.lanes),
    ))  # fmt: skip
    out.print(_sums(
        "Destinations: accepted = delivered + dropped + pending",
        ("destination", "type", "accepted", "delivered", "dropped", "pending"),
        ((s.destination, s.type, s.accepted, s.delivered, _reasons(s.dropped), s.pending) for s in report.destinations),
    ))  # fmt: skip
    if collector is not None:
        found = ", ".join(f"{number} {what}" for what, number in collector.items())
        out.print(f"In the Collector's files: {found}\n")


def findings(result: Any, report: FlushReport, collector: Mapping[str, int] | None) -> list[str]:
    """Return what does not add up; an empty list is what everyone hopes for."""
    return [
        *_lost(report),
        *_calls_against_lanes(result.calls, report),
        *_collector_against_sums(report, collector),
    ]


def _lost(report: FlushReport) -> Iterator[str]:
    for lane in report.lanes:
        if lane.dropped or lane.pending:
            yield f"lane {lane.lane}: dropped {_reasons(lane.dropped)}, pending {lane.pending}"
    for sums in report.destinations:
        if sums.dropped or sums.pending:
            yield f"{sums.destination} {sums.type}: dropped {_reasons(sums.dropped)}, pending {sums.pending}"
    if not report.complete:
        yield "the final flush did not end in time"


def _calls_against_lanes(calls: Mapping[str, int], report: FlushReport) -> Iterator[str]:
    """Every call must stand in its lane; DEBUG and INFO only as far as some route wants them."""
    emitted = {lane.lane: lane.emitted for lane in report.lanes}
    for lane, kinds in _LANES.items():
        called, taken = sum(calls.get(kind, 0) for kind in kinds), emitted.get(lane, 0)
        if (
            taken != called
            and not (lane == "low" and taken < called)
            and not (lane == "metric" and taken == 0)
        ):
            yield f"{called} calls of {', '.join(kinds)}, but {taken} records in lane {lane}"


def _collector_against_sums(report: FlushReport, collector: Mapping[str, int] | None) -> Iterator[str]:
    if collector is None:
        return
    for destination, what in (("otlp.logs", "log records"), ("otlp.traces", "audit spans")):
        sent = sum(sums.delivered for sums in report.destinations if sums.destination == destination)
        # an anchor of the audit trail leaves now and then, and one after the sums were taken
        spare = collector.get("anchors", 0) if what == "log records" else 0
        if not collector[what] <= sent <= collector[what] + spare:
            yield f"{destination} delivered {sent}, but the Collector's files hold {collector[what]} {what}"


def _calls(result: Any) -> Table:
    table = Table(
        title="Log calls, and what one cost the caller in us", title_justify="left", header_style="bold"
    )
    for heading in ("call", "number", "p50", "p99"):
        table.add_column(heading, justify="left" if heading == "call" else "right")
    kinds = [kind for kind, number in result.calls.items() if number]
    for title, members in (*((kind, (kind,)) for kind in kinds), ("all", tuple(kinds))):
        number = sum(result.calls[kind] for kind in members)
        cost = [
            f"{max(result.cost(share, *members) - result.clock_ns, 0) / 1000:.1f}" for share in (0.5, 0.99)
        ]
        table.add_row(title, str(number), *cost, style="bold" if title == "all" else None)
    return table


def _sums(title: str, headings: tuple[str, ...], rows: Iterable[tuple[object, ...]]) -> Table:
    table = Table(title=title, title_justify="left", header_style="bold")
    for number, heading in enumerate(headings):
        table.add_column(heading, justify="left" if number < 2 else "right")
    for row in rows:
        table.add_row(*map(str, row))
    return table


def _reasons(dropped: Mapping[str, int]) -> str:
    return ", ".join(f"{number} {reason}" for reason, number in sorted(dropped.items())) or "0"
