"""The two sums: what was emitted and what became of it, per lane and per destination.

Per lane and type: emitted = routed + unrouted + dropped + pending. Per destination and type: accepted = delivered +
dropped + pending. A measurement is delivered when it is aggregated; exports of metrics are counted beside it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from .record import LogType

__all__ = [
    "SELF_METRICS",
    "DestinationSums",
    "FlushReport",
    "LaneSums",
    "SelfMetric",
    "Tallies",
    "observations",
]


class SelfMetric(NamedTuple):
    """A metric about the telemetry itself; `name` gets the destination's prefix."""

    name: str
    kind: str
    unit: str
    description: str


SELF_METRICS = (
    SelfMetric("telemetry.emitted", "counter", "{record}", "Records that loggers took, by lane and type"),
    SelfMetric("telemetry.routed", "counter", "{record}", "Records that at least one backend wanted"),
    SelfMetric("telemetry.unrouted", "counter", "{record}", "Records that no rule sent anywhere"),
    SelfMetric("telemetry.dropped", "counter", "{record}", "Records lost, by place, type and reason"),
    # No counter: a record that the destination's should_handle declines was accepted until then.
    SelfMetric("telemetry.accepted", "up_down_counter", "{record}", "Records that a destination accepted"),
    SelfMetric("telemetry.delivered", "counter", "{record}", "Records that a destination delivered"),
    SelfMetric("telemetry.exports", "counter", "{export}", "Exports of aggregated metrics, by outcome"),
    SelfMetric(
        "telemetry.pending", "up_down_counter", "{record}", "Records that wait, by lane or destination"
    ),
    SelfMetric(
        "telemetry.displaced",
        "counter",
        "{segment}",
        "Audit segments that the journal's folder refused, by place",
    ),
)


@dataclass(slots=True)
class LaneSums:
    """What one lane (room) took and what became of it."""

    lane: str
    type: str
    routed: int = 0
    unrouted: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    pending: int = 0

    @property
    def emitted(self) -> int:
        """All that was handed to the lane."""
        return self.routed + self.unrouted + sum(self.dropped.values()) + self.pending


@dataclass(slots=True)
class DestinationSums:
    """What one destination accepted and what became of it."""

    destination: str
    type: str
    accepted: int = 0
    delivered: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    exports_succeeded: int = 0
    exports_failed: int = 0

    @property
    def pending(self) -> int:
        """Accepted and neither delivered nor dropped yet."""
        return self.accepted - self.delivered - sum(self.dropped.values())


class Tallies:
    """One destination's counts; the worker writes `accepted` and `refused`, the destination's thread the others."""

    def __init__(self) -> None:
        self.accepted: Counter[LogType] = Counter()
        self.refused: Counter[tuple[LogType, str]] = Counter()
        """Dropped before the queue."""
        self.delivered: Counter[LogType] = Counter()
        self.dropped: Counter[tuple[LogType, str]] = Counter()
        """Dropped behind the queue."""
        self.declined: Counter[LogType] = Counter()
        """Not wanted by the destination's own `should_handle`; no longer counted as accepted."""
        self.settled: Counter[LogType] = Counter()
        """Delivered, dropped or declined behind the queue. Records of a type settle in the order in which they were
        queued, so this number says which of them are done."""

    def deliver(self, log_type: LogType, number: int = 1) -> None:
        """Count queued records as delivered."""
        self.delivered[log_type] += number
        self.settled[log_type] += number

    def drop(self, log_type: LogType, reason: str) -> None:
        """Count a queued record as dropped."""
        self.dropped[log_type, reason] += 1
        self.settled[log_type] += 1

    def decline(self, log_type: LogType) -> None:
        """Count a queued record as one that the destination does not want."""
        self.declined[log_type] += 1
        self.settled[log_type] += 1

    def expected(self) -> dict[LogType, int]:
        """Return what `settled` comes to once all that is accepted by now is settled; the worker's side."""
        counts = dict(self.accepted)
        for (log_type, _), number in self.refused.items():
            counts[log_type] -= number
        return counts

    def sums(self, destination: str) -> Iterator[DestinationSums]:
        """Yield the sums per type, read in an order that never makes pending negative."""
        dropped, refused, delivered = self.dropped.copy(), self.refused.copy(), self.delivered.copy()
        declined = self.declined.copy()
        accepted = self.accepted.copy()
        for log_type in LogType:
            if accepted[log_type]:
                accepted[log_type] -= declined[log_type]
                reasons: Counter[str] = Counter()
                for (kind, reason), number in [*dropped.items(), *refused.items()]:
                    if kind is log_type:
                        reasons[reason] += number
                yield DestinationSums(
                    destination, log_type.value, accepted[log_type], delivered[log_type], dict(reasons)
                )


@dataclass(slots=True)
class FlushReport:
    """What became of everything so far; true only when all of it that anyone wanted is delivered.

    `complete` says that all that was emitted before the flush was settled, and pushed out, in time; `newly_dropped`
    counts what was lost since the previous report. `restarts` says how often an agent that worked was followed by
    another: the sums are those of the last one, which counts anew what it reads, also what its predecessor had read.
    """

    lanes: list[LaneSums]
    destinations: list[DestinationSums]
    complete: bool
    newly_dropped: int = 0
    restarts: int = 0

    @classmethod
    def nothing(cls) -> FlushReport:
        """Return the report of a process that has emitted nothing."""
        return cls([], [], complete=True)

    def __bool__(self) -> bool:
        return self.complete and not self.newly_dropped

    @property
    def emitted(self) -> int:
        """Records handed to all lanes."""
        return sum(lane.emitted for lane in self.lanes)

    @property
    def delivered(self) -> int:
        """Deliveries, counted once per destination."""
        return sum(sums.delivered for sums in self.destinations)

    @property
    def dropped(self) -> int:
        """Records lost in lanes and at destinations."""
        places: list[LaneSums | DestinationSums] = [*self.lanes, *self.destinations]
        return sum(sum(place.dropped.values()) for place in places)

    @property
    def pending(self) -> int:
        """Records that wait in lanes and at destinations."""
        places: list[LaneSums | DestinationSums] = [*self.lanes, *self.destinations]
        return sum(place.pending for place in places)

    def __str__(self) -> str:
        lines = [
            f"{lane.lane} {lane.type}: emitted {lane.emitted} = routed {lane.routed} + unrouted {lane.unrouted} + "
            f"dropped {_reasons(lane.dropped)} + pending {lane.pending}"
            for lane in self.lanes
        ]
        lines += [
            f"{sums.destination} {sums.type}: accepted {sums.accepted} = delivered {sums.delivered} + "
            f"dropped {_reasons(sums.dropped)} + pending {sums.pending}"
            for sums in self.destinations
        ]
        starts = f" (sums since the last of the agent's {self.restarts + 1} starts)" if self.restarts else ""
        return "\n".join([f"{'delivered' if self else 'NOT ALL DELIVERED'}{starts}", *lines])


def observations(
    report: FlushReport, displaced: Mapping[str, int] | None = None
) -> Iterator[tuple[str, float, Mapping[str, str]]]:
    """Yield the report, and the number of displaced audit segments by place, as SELF_METRICS: name, value, attributes."""
    for place in ("fallback", "memory") if displaced is not None else ():
        yield "telemetry.displaced", (displaced or {}).get(place, 0), {"place": place}
    for lane in report.lanes:
        where = {"lane": lane.lane, "type": lane.type}
        yield "telemetry.emitted", lane.emitted, where
        yield "telemetry.routed", lane.routed, where
        yield "telemetry.unrouted", lane.unrouted, where
        yield "telemetry.pending", lane.pending, {"place": lane.lane, "type": lane.type}
        for reason, number in lane.dropped.items():
            yield "telemetry.dropped", number, {"place": lane.lane, "type": lane.type, "reason": reason}
    for sums in report.destinations:
        where = {"destination": sums.destination, "type": sums.type}
        yield "telemetry.accepted", sums.accepted, where
        yield "telemetry.delivered", sums.delivered, where
        yield "telemetry.pending", sums.pending, {"place": sums.destination, "type": sums.type}
        for reason, number in sums.dropped.items():
            yield (
                "telemetry.dropped",
                number,
                {"place": sums.destination, "type": sums.type, "reason": reason},
            )
        if sums.exports_succeeded or sums.exports_failed:
            for outcome, number in (("succeeded", sums.exports_succeeded), ("failed", sums.exports_failed)):
                yield "telemetry.exports", number, {"destination": sums.destination, "outcome": outcome}


def _reasons(dropped: Mapping[str, int]) -> str:
    if not dropped:
        return "0"
    return f"{sum(dropped.values())} ({', '.join(f'{reason} {number}' for reason, number in sorted(dropped.items()))})"
