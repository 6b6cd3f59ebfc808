"""The variables of the dashboards, and the label matchers that they stand for."""

from __future__ import annotations

from typing import NamedTuple

from . import names as n
from .grafana import Variable

__all__ = ["EXCHANGE", "OPERATION", "SERVICE", "VIA", "Who"]

SERVICE = Variable(
    "service", "Service", "service.name of the trading process.", f"label_values({n.EMITTED}, job)"
)
VIA = Variable(
    "via",
    "Metrics via",
    "The Collector's Prometheus exporter, or the trading process's own scrape endpoint (for when the Collector is down).",
    choices=("collector", "process"),
)
EXCHANGE = Variable(
    "exchange",
    "Exchange",
    "All also shows what has no exchange.",
    f'label_values({n.LATENCY_COUNT}{{job=~"$service"}}, {n.EXCHANGE})',
)
OPERATION = Variable(
    "operation",
    "Operation",
    "What was timed.",
    f'label_values({n.LATENCY_COUNT}{{job=~"$service"}}, operation)',
)


class Who(NamedTuple):
    """Which of the variables narrow a query down; calling it with further labels gives the matchers."""

    service: bool = False
    exchange: bool = False
    operation: bool = False

    def __call__(self, **labels: str) -> str:
        """Return `{...}`; a label given here takes the place of its variable, and `!=x` and `=~x` say how to match."""
        matchers: dict[str, str] = {}
        if self.service:
            matchers |= {"job": f"=~${SERVICE.name}", n.VIA: f"=~${VIA.name}"}
        if self.exchange:
            matchers[n.EXCHANGE] = f"=~${EXCHANGE.name}"
        if self.operation:
            matchers["operation"] = f"=~${OPERATION.name}"
        matchers |= labels
        return (
            "{" + ",".join(_matcher(label, value) for label, value in matchers.items()) + "}"
            if matchers
            else ""
        )


def _matcher(label: str, value: str) -> str:
    for operator in ("=~", "!~", "!="):
        if value.startswith(operator):
            return f'{label}{operator}"{value.removeprefix(operator)}"'
    return f'{label}="{value}"'
