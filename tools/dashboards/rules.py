"""Prometheus recording and alerting rules: anything lost, late, down or too slow.

A counter whose first value is not zero was never seen to rise: `increase` is 0 for the first loss of a kind. So each
rule about loss also counts a series that was not there before.
"""

from __future__ import annotations

from typing import Any

from . import names as n

__all__ = [
    "AUDIT_WAIT",
    "COLLECTOR_LOST",
    "OBJECTIVES",
    "QUEUE_FILL",
    "RULES",
    "SDK_LOST",
    "WINDOWS",
    "burn",
    "promised",
]

SDK_LOST = "hft:telemetry_lost:increase5m"
COLLECTOR_LOST = "otelcol:lost:increase5m"
AUDIT_WAIT = "hft:audit_wait:seconds"
QUEUE_FILL = "otelcol:queue_fill:ratio"
WINDOWS = ("5m", "30m", "1h", "6h")

OBJECTIVES = {n.PARSE_MESSAGE: (0.001, 0.99), n.ORDER_ROUND_TRIP: (0.1, 0.99)}
"""By operation: a bound of the latency's buckets in seconds, and the share that has to stay within it."""

FAST, SLOW = (14.4, "1h", "5m"), (6, "6h", "30m")
"""How many times faster than allowed the error budget burns, over a long and a short window: 2 % of a month's budget
in one hour, 5 % in six (Google, The Site Reliability Workbook, chapter 5)."""

RUNBOOK = "docs/stack.md#"
PROCESS = f"job, instance, {n.VIA}"
COLLECTOR = f'{{job="{n.COLLECTOR_JOB}"}}'

Rule = dict[str, Any]


def grown(metric: str, by: str, labels: str = "") -> str:
    """By how much a counter grew in five minutes, where it did: also one that began with its first loss.

    One that comes back after an outage of the Collector, or of Prometheus, has not begun: so the look back is longer.
    """
    series = f"{metric}{labels}"
    return (
        f"sum by ({by}) (increase({series}[5m]) > 0) or "
        f"sum by ({by}) ({series} unless last_over_time({series}[1h] offset 5m))"
    )


def burn(window: str) -> str:
    """The record's name: the share of operations that took longer than their objective."""
    return f"hft:latency_slo_missed:ratio_rate{window}"


def promised() -> str:
    """The objectives in words."""
    return "; ".join(
        f"{operation}: {objective * 100:g} % within {bound * 1000:g} ms"
        for operation, (bound, objective) in OBJECTIVES.items()
    )


def record(name: str, expr: str, **labels: str) -> Rule:
    """A recording rule."""
    return {"record": name, "expr": expr} | ({"labels": labels} if labels else {})


def alert(name: str, severity: str, expr: str, wait: str, summary: str, description: str, hint: str) -> Rule:
    """An alerting rule; `hint` is the first thing to do, the rest stands in the runbook."""
    return {
        "alert": name,
        "expr": expr,
        **({"for": wait} if wait else {}),
        "labels": {"severity": severity},
        "annotations": {
            "summary": summary,
            "description": description,
            "hint": hint,
            "runbook": f"{RUNBOOK}{name.lower()}",
        },
    }


def _records() -> list[Rule]:
    place = f"{PROCESS}, place"
    waiting = f'sum by ({place}) ({n.PENDING}{{type="{n.AUDIT}"}})'
    rates = [
        f'label_replace(sum by ({PROCESS}, {label}) (rate({metric}{{type="{n.AUDIT}"}}[2m])), "place", "$1", '
        f'"{label}", "(.*)")'
        for metric, label in ((n.DELIVERED, "destination"), (n.ROUTED, "lane"))
    ]
    # The Collector shows a process's last values for long after its end; what waits then waits in its journal.
    ended = f"sum by ({PROCESS}) (increase({n.EXPORTS}[2m])) == 0"
    done = " or ".join(f"sum by ({place}) ({rate})" for rate in rates)
    return [
        record(SDK_LOST, grown(n.DROPPED, f"{PROCESS}, place, type, reason")),
        # Little's law: what waits, over what is done per second, is how long each waits. Nothing done is for ever.
        record(AUDIT_WAIT, f"(({waiting} > 0) / ({done}) or ({waiting} == 0)) unless on ({PROCESS}) {ended}"),
        *(
            record(
                COLLECTOR_LOST,
                grown(n.exported(signal, outcome), "job, instance, exporter", COLLECTOR),
                signal=signal,
                reason=outcome,
            )
            for signal in n.SIGNALS
            for outcome in ("send_failed", "enqueue_failed")
        ),
        record(QUEUE_FILL, f"{n.QUEUE_SIZE}{COLLECTOR} / {n.QUEUE_CAPACITY}{COLLECTOR}"),
    ]


def _slo_records() -> list[Rule]:
    rules = []
    for operation, (bound, _) in OBJECTIVES.items():
        for window in WINDOWS:
            within = f'sum by (job) (rate({n.LATENCY_BUCKET}{{operation="{operation}",le="{n.bucket(bound)}"}}[{window}]))'
            every = f'sum by (job) (rate({n.LATENCY_COUNT}{{operation="{operation}"}}[{window}]))'
            rules.append(record(burn(window), f"1 - {within} / {every}", operation=operation))
    return rules


def _loss() -> list[Rule]:
    return [
        alert(
            "TelemetryLost", "critical", f"max by (job, place, type, reason) ({SDK_LOST}) > 0", "",
            "{{ $labels.job }} loses {{ $labels.type }} records",
            "{{ $value | humanize }} {{ $labels.type }} records were dropped at {{ $labels.place }} "
            "({{ $labels.reason }}) in five minutes.",
            "The reason says which bound was reached; the process's standard error has the first cause.",
        ),
        alert(
            "AuditUnrouted", "critical",
            f'max by (job) (increase({n.UNROUTED}{{type="{n.AUDIT}"}}[5m])) > 0', "",
            "{{ $labels.job }} has audit events that go nowhere",
            "{{ $value | humanize }} audit events matched no rule, and no file, elasticsearch or otlp backend is "
            "enabled.",
            "Run `hft-otel check` on its logging.yaml: it warns of this.",
        ),
        alert(
            "AuditDisplaced", "critical", f"max by (job, place) (increase({n.DISPLACED}[5m])) > 0", "",
            "The audit journal of {{ $labels.job }} is not where it should be: {{ $labels.place }}",
            "Its folder refused segments in the last five minutes. Those in the second folder (fallback) are as safe as "
            "ever; those in memory are lost if the process is killed, and after four of them events are dropped.",
            "Is its disk full, unmounted or read-only? It is used again as soon as it takes a segment.",
        ),
        alert(
            "MetricExportsFail", "warning",
            f'sum by (job, destination) (increase({n.EXPORTS}{{outcome="failed"}}[2m])) > 0', "5m",
            "{{ $labels.job }} cannot export its metrics to {{ $labels.destination }}",
            "Exports have failed for five minutes. Sums are kept in the process and go out with the next success.",
            "Is the Collector up, and is its address right in logging.yaml?",
        ),
    ]  # fmt: skip


def _collector_loss() -> list[Rule]:
    # What is sent again is there already, by its _id: a conflict, and just as good as a success.
    refused_documents = f'{{outcome!="success",error_type!="{n.CONFLICT}"}}'
    documents = grown(n.ELASTICSEARCH_DOCS, "instance, outcome", refused_documents)
    refused = " or ".join(
        f"label_replace(sum by (instance, receiver) (rate({n.received(signal, outcome)}{COLLECTOR}[1m])) > 0, "
        f'"signal", "{signal}", "", "")'
        for signal in n.SIGNALS
        for outcome in ("refused", "failed")
    )
    return [
        alert(
            "CollectorLosesData", "critical", f"{COLLECTOR_LOST} > 0", "",
            "The Collector gave up {{ $labels.signal }} for {{ $labels.exporter }}",
            "{{ $value | humanize }} items ({{ $labels.reason }}) in five minutes: they did not reach "
            "{{ $labels.exporter }}.",
            "Look at the Collector's log for that exporter: is its backend down, or its queue full?",
        ),
        alert(
            "ElasticsearchRefusesDocuments", "critical",
            f"({documents}) > 0", "",
            "Elasticsearch did not take documents: {{ $labels.outcome }}",
            "{{ $value | humanize }} documents ended as {{ $labels.outcome }} in five minutes, after all retries. "
            "With failure_store they are kept, but not where they are looked for.",
            "Search the failure store: GET logs-audit.otel-default::failures/_search.",
        ),
        alert(
            "CollectorRefusesData", "warning", refused, "2m",
            "The Collector refuses {{ $labels.signal }} at {{ $labels.receiver }}",
            "{{ $value | humanize }} items a second are refused; senders keep them and come again, while they have room.",
            "Its memory limit, or an exporter behind that receiver, is the usual cause.",
        ),
    ]  # fmt: skip


def _lateness() -> list[Rule]:
    telemetry = f"sum by (job) (increase({n.EMITTED}[5m])) == 0"
    gone = f"sum by (job) ({n.EMITTED} offset 15m) unless sum by (job) ({n.EMITTED})"
    return [
        alert(
            "AuditLate", "critical", f"max by (job, place) ({AUDIT_WAIT}) > 60", "1m",
            "Audit events of {{ $labels.job }} wait at {{ $labels.place }}",
            "At the pace of the last two minutes an audit event waits {{ $value | humanizeDuration }} there. None is "
            "lost: they stand in the journal.",
            "See whether that destination takes anything at all; the disk of the journal must not fill meanwhile.",
        ),
        alert(
            "AuditQueueStuck", "critical", f'min_over_time({n.QUEUE_SIZE}{{exporter=~".*audit.*"}}[1m]) > 0', "10m",
            "The Collector's audit queue for {{ $labels.exporter }} does not empty",
            "It has not been empty for ten minutes and holds at least {{ $value | humanize }} items. They are on disk.",
            "Is the backend up? Does the disk of the queue have room?",
        ),
        alert(
            "CollectorDown", "critical", f'up{COLLECTOR} == 0 or absent(up{COLLECTOR})', "1m",
            "The Collector is down",
            "Its own metrics could not be scraped for a minute. Processes keep what they can; audit events stay in "
            "their journals.",
            "Start it again; nothing else has to be restarted.",
        ),
        alert(
            "TelemetryAbsent", "warning", f"({telemetry}) or ({gone})", "2m",
            "{{ $labels.job }} says nothing",
            "It logged in the last quarter of an hour, and has logged nothing for five minutes: it has ended, hangs, or "
            "its metrics do not arrive.",
            "Is the process alive? With CollectorDown beside it, look at that first.",
        ),
        alert(
            "CollectorQueueNearlyFull", "warning", f"{QUEUE_FILL} > 0.8", "2m",
            "The queue of {{ $labels.exporter }} is {{ $value | humanizePercentage }} full",
            "{{ $labels.data_type }} for {{ $labels.exporter }} wait. Full, it blocks its senders where it is an audit "
            "queue, and loses data where it is another.",
            "Is the backend slow or down? Raise queue_size only when it is merely slow.",
        ),
    ]  # fmt: skip


def _slo() -> list[Rule]:
    rules = []
    for name, severity, wait, (factor, long, short) in (
        ("LatencyBurnsFast", "critical", "2m", FAST),
        ("LatencyBurnsSlowly", "warning", "15m", SLOW),
    ):
        terms = [
            f'({burn(long)}{{operation="{operation}"}} > {budget} and {burn(short)}{{operation="{operation}"}} > {budget})'
            for operation, (_, objective) in OBJECTIVES.items()
            for budget in [round(factor * (1 - objective), 6)]
        ]
        rules.append(
            alert(
                name, severity, " or ".join(terms), wait,
                "{{ $labels.operation }} of {{ $labels.job }} is too slow too often",
                f"{{{{ $value | humanizePercentage }}}} miss the objective, over {long} and over {short}: {factor:g} "
                f"times what the objective allows ({promised()}).",
                "The heat maps of the trading overview show since when, and on which exchange.",
            )
        )  # fmt: skip
    return rules


RULES = {
    "groups": [
        {"name": "hft-otel-records", "rules": _records()},
        {"name": "hft-otel-latency-objectives", "rules": _slo_records()},
        {"name": "hft-otel-loss", "rules": [*_loss(), *_collector_loss()]},
        {"name": "hft-otel-lateness", "rules": _lateness()},
        {"name": "hft-otel-latency", "rules": _slo()},
    ]
}
"""The rule file. A recording rule stands before the alerts that read it."""
