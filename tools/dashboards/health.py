"""The dashboard "Telemetry health": is anything lost, late or about to be, in the processes and in the Collector."""

from __future__ import annotations

from collections.abc import Callable

from . import names as n
from .grafana import GREEN, RED, YELLOW, Dashboard, Panel, Query, Row, limits
from .rules import AUDIT_WAIT, COLLECTOR_LOST, QUEUE_FILL, SDK_LOST
from .variables import SERVICE, VIA, Who

__all__ = ["HEALTH"]

RATE = "[$__rate_interval]"
OF = Who(service=True)
COLLECTOR = f'{{job="{n.COLLECTOR_JOB}"}}'

WORDS = {
    "accepted": "",
    "sent": "",
    "refused": "refused",
    "failed": "failed",
    "send_failed": "not sent",
    "enqueue_failed": "not queued",
}
NO_AUDIT = "Empty while no audit event was ever routed."
LOSS = "Empty until something is lost."
QUEUES = "Empty where no exporter of the Collector has a sending queue."


def rate(metric: str, by: str, **labels: str) -> str:
    """Per second, summed, of trading processes."""
    return f"sum by ({by}) (rate({metric}{OF(**labels)}{RATE}))"


def own(metric: str, by: str) -> str:
    """Per second, summed, of the Collector."""
    return f"sum by ({by}) (rate({metric}{COLLECTOR}{RATE}))"


def per_signal(naming: Callable[[str, str], str], outcome: str, by: str, empty: str = "") -> list[Query]:
    """One query per signal, for metrics that the Collector names apart by signal."""
    return [
        Query(
            own(naming(signal, outcome), by), f"{{{{{by}}}}}: {signal} {WORDS[outcome]}".rstrip(), empty=empty
        )
        for signal in n.SIGNALS
    ]


def _verdict() -> Row:
    bad = limits((1, RED))
    nothing = {"noValue": "0"}
    return Row(
        "Verdict",
        [
            Panel(
                "Lost in processes", "Records that loggers or their destinations dropped, in the last five minutes.",
                "stat", [Query(f"sum({SDK_LOST}{OF()})", empty=LOSS)], width=5, height=4, defaults=bad | nothing,
            ),
            Panel(
                "Lost in the Collector", "Items that its exporters gave up, in the last five minutes.", "stat",
                [Query(f"sum({COLLECTOR_LOST})", empty=LOSS)], width=5, height=4, defaults=bad | nothing,
            ),
            Panel(
                "Audit wait", "Seconds that an audit event waits at the slowest destination: pending over delivered.",
                "stat",
                [Query(f"max({AUDIT_WAIT}{OF()})", empty=NO_AUDIT)],
                unit="s", width=5, height=4, defaults=limits((10, YELLOW), (60, RED)) | nothing,
            ),
            Panel(
                "Collector", "Whether its own metrics can be scraped.", "stat", [Query(f"min(up{COLLECTOR})")],
                width=4, height=4,
                defaults=limits((1, GREEN), below=RED)
                | {"mappings": [{"type": "value", "options": {"0": {"text": "DOWN"}, "1": {"text": "up"}}}]},
            ),
            Panel(
                "Alerts", "Firing and pending alerts.", "table",
                [Query("sum by (alertname, alertstate, severity) (ALERTS)", empty="Empty while all is well.",
                       instant=True)],
                width=5, height=4,
            ),
        ],
    )  # fmt: skip


def _processes() -> Row:
    return Row(
        "Trading processes",
        [
            Panel(
                "Dropped by place and reason",
                "Records lost per second: place is a lane or a destination. Each kind of loss is also said once on the "
                "process's standard error.",
                "timeseries",
                [Query(rate(n.DROPPED, "place, type, reason"), "{{place}} {{type}}: {{reason}}", empty=LOSS)],
                unit="recps", width=16,
            ),
            Panel(
                "Dropped since the start", "All records lost, by place, type and reason.", "table",
                [Query(f"sum by (place, type, reason) ({n.DROPPED}{OF()})", empty=LOSS, instant=True)],
            ),
            Panel(
                "Emitted by lane", "Records that loggers took, per second.", "timeseries",
                [Query(rate(n.EMITTED, "lane, type"), "{{lane}} {{type}}")], unit="recps",
            ),
            Panel(
                "Routed and unrouted", "Records that some backend wanted, and those that no rule sent anywhere.",
                "timeseries",
                [Query(rate(n.ROUTED, "type"), "routed {{type}}"), Query(rate(n.UNROUTED, "type"), "unrouted {{type}}")],
                unit="recps",
            ),
            Panel(
                "Waiting", "Records in lanes and at destinations: the fill of both. It should return to near nothing; what a process "
                "had when it ended stays for an hour.",
                "timeseries", [Query(f"sum by (place, type) ({n.PENDING}{OF()})", "{{place}} {{type}}")],
            ),
            Panel(
                "Accepted against delivered", "Per second, by destination; the two run together while all is well.",
                "timeseries",
                [
                    # a change and no rate: what a destination declines leaves `accepted`, so it is no counter
                    Query(f"sum by (destination) (deriv({n.ACCEPTED}{OF()}{RATE}))", "accepted: {{destination}}"),
                    Query(rate(n.DELIVERED, "destination"), "delivered: {{destination}}"),
                ],
                unit="recps",
            ),
            Panel(
                "Audit wait by place", "Seconds that an audit event waits: those pending over those done per second.",
                "timeseries",
                [Query(f"max by (place) ({AUDIT_WAIT}{OF()})", "{{place}}", empty=NO_AUDIT)], unit="s",
            ),
            Panel(
                "Exports of metrics", "Per second, by outcome. A failed one is made good by the next: sums go on.",
                "timeseries", [Query(rate(n.EXPORTS, "destination, outcome"), "{{destination}} {{outcome}}")],
                unit="ops",
            ),
        ],
    )  # fmt: skip


def _collector() -> Row:
    return Row(
        "Collector: what goes through",
        [
            Panel(
                "Received", "Items that it took per second, by receiver and signal.", "timeseries",
                per_signal(n.received, "accepted", "receiver"), unit="ops",
            ),
            Panel(
                "Refused", "Items that it would not take, by receiver: the sender keeps them and comes again.",
                "timeseries",
                [*per_signal(n.received, "refused", "receiver"), *per_signal(n.received, "failed", "receiver")],
                unit="ops",
            ),
            Panel(
                "Sent", "Items that its exporters delivered per second, by exporter and signal.", "timeseries",
                per_signal(n.exported, "sent", "exporter"), unit="ops",
            ),
            Panel(
                "Given up", "Items that exporters could not send, or not even queue: lost, per second.",
                "timeseries",
                [
                    *per_signal(n.exported, "send_failed", "exporter", LOSS),
                    *per_signal(n.exported, "enqueue_failed", "exporter", LOSS),
                ],
                unit="ops",
            ),
            Panel(
                "Elasticsearch", "Documents per second by outcome: only success counts.",
                "timeseries",
                [Query(own(n.ELASTICSEARCH_DOCS, "outcome"), "{{outcome}}", empty="Empty without an exporter to Elasticsearch.")],
                unit="ops",
            ),
        ],
    )  # fmt: skip


def _queues() -> Row:
    return Row(
        "Collector: queues and resources",
        [
            Panel(
                "Queue fill", "Share of each exporter's sending queue that is in use.", "timeseries",
                [Query(QUEUE_FILL, "{{exporter}} {{data_type}}", empty=QUEUES)],
                unit="percentunit", defaults=limits((0.8, RED)) | {"max": 1},
            ),
            Panel(
                "Queued and in flight", "Items (or what its sizer says) that wait in sending queues, and requests that are under way.",
                "timeseries",
                [
                    Query(f"sum by (exporter, data_type) ({n.QUEUE_SIZE}{COLLECTOR})",
                          "queued: {{exporter}} {{data_type}}", empty=QUEUES),
                    Query(f"sum by (exporter, data_type) ({n.IN_FLIGHT}{COLLECTOR})",
                          "in flight: {{exporter}} {{data_type}}"),
                ],
            ),
            Panel(
                "Memory", "Resident memory of the Collector.", "timeseries",
                [Query(f"sum by (instance) ({n.MEMORY}{COLLECTOR})", "{{instance}}")], unit="bytes", width=4,
            ),
            Panel(
                "CPU", "CPU seconds per second of the Collector.", "timeseries",
                [Query(own(n.CPU, "instance"), "{{instance}}")], unit="percentunit", width=4,
            ),
        ],
    )  # fmt: skip


HEALTH = Dashboard(
    uid="hft-telemetry",
    title="Telemetry health",
    description="Where telemetry is lost, late or waiting: in the lanes and destinations of the trading processes, and "
    "in the Collector.",
    variables=[SERVICE, VIA],
    rows=[_verdict(), _processes(), _collector(), _queues()],
    links=[("Trading overview", "hft-trading")],
)
