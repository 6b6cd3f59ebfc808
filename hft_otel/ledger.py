"""The two sums: what was emitted and what became of it, per lane and per destination."""

from __future__ import annotations

from typing import NamedTuple


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
    SelfMetric("telemetry.accepted", "counter", "{record}", "Records that a destination accepted"),
    SelfMetric("telemetry.delivered", "counter", "{record}", "Records that a destination delivered"),
    SelfMetric("telemetry.exports", "counter", "{export}", "Exports of aggregated metrics, by outcome"),
    SelfMetric("telemetry.pending", "up_down_counter", "{record}", "Records that wait, by lane or destination"),
)
