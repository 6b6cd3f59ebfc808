"""The dashboard "Trading overview": how fast, how much, how well."""

from __future__ import annotations

from . import names as n
from .grafana import GREEN, RED, YELLOW, Dashboard, Panel, Query, Row, limits
from .rules import WINDOWS, burn, promised
from .variables import EXCHANGE, OPERATION, SERVICE, VIA, Who

__all__ = ["TRADING"]

RATE = "[$__rate_interval]"
OF = Who(service=True)
AT = Who(service=True, exchange=True)
LATENCY = Who(service=True, exchange=True, operation=True)

SERVICE_ONLY = f'{{job=~"${SERVICE.name}"}}'

QUIET = "Empty until it first happens: a counter that was never raised is not exported."


def rate(metric: str, who: Who, by: str = "", **labels: str) -> str:
    """Per second, summed."""
    return f"sum{f' by ({by})' if by else ''} (rate({metric}{who(**labels)}{RATE}))"


def quantile(share: float, by: str, who: Who = LATENCY, **labels: str) -> str:
    """A quantile of the latency."""
    buckets = (
        f"sum by ({', '.join(filter(None, ['le', by]))}) (rate({n.LATENCY_BUCKET}{who(**labels)}{RATE}))"
    )
    return f"histogram_quantile({share}, {buckets})"


def _now() -> Row:
    done = rate(n.EXECUTIONS, OF, outcome="success")
    tries = rate(n.EXECUTIONS, OF)
    return Row(
        "Now",
        [
            Panel(
                "Messages", "Messages parsed per second, of the exchanges chosen.", "stat",
                [Query(rate(n.MESSAGES, AT))], unit="mps", width=4, height=4,
            ),
            Panel(
                "Parse p99", "99 % of messages are parsed within this time.", "stat",
                [Query(quantile(0.99, "", AT, operation=n.PARSE_MESSAGE))],
                unit="s", width=4, height=4, defaults=limits((0.001, YELLOW), (0.01, RED)),
            ),
            Panel(
                "Order round trip p99", "99 % of orders are answered within this time.", "stat",
                [Query(quantile(0.99, "", AT, operation=n.ORDER_ROUND_TRIP))],
                unit="s", width=4, height=4, defaults=limits((0.1, YELLOW), (1.0, RED)),
            ),
            Panel(
                "Arbitrage success", "Share of the arbitrage executions of which both legs were filled.", "stat",
                [Query(f"{done} / {tries}")],
                unit="percentunit", width=4, height=4,
                defaults={"min": 0, "max": 1} | limits((0.5, YELLOW), (0.7, GREEN), below=RED),
            ),
            Panel(
                "Warnings and errors", "Log records of WARNING and above per second, all components together.",
                "stat", [Query(rate(n.EMITTED, OF, lane="high"))],
                unit="recps", width=4, height=4, defaults=limits((50, YELLOW), (500, RED)),
            ),
            Panel(
                "Audit events", "Audit events per second.", "stat",
                [Query(rate(n.EMITTED, OF, lane="audit"))], unit="recps", width=4, height=4,
            ),
        ],
    )  # fmt: skip


def _latency() -> Row:
    shares = (("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999))
    scale = {"custom": {"scaleDistribution": {"type": "log", "log": 10}, "showPoints": "never"}, "min": None}
    heat = f"sum by (le) (increase({n.LATENCY_BUCKET}{LATENCY()}{RATE}))"
    return Row(
        "Latency",
        [
            *(
                Panel(
                    f"{name} by operation",
                    f"{share:.1%} of the operations took no longer; estimated within buckets, logarithmic scale.",
                    "timeseries", [Query(quantile(share, "operation"), "{{operation}}")],
                    unit="s", defaults=scale,
                )
                for name, share in shares
            ),
            Panel(
                "Quantiles by exchange",
                "p50, p99 and p99.9 of the operations chosen, by exchange; logarithmic scale.", "timeseries",
                [Query(quantile(share, n.EXCHANGE), f"{name} {{{{{n.EXCHANGE}}}}}") for name, share in shares],
                unit="s", width=16, defaults=scale,
            ),
            Panel(
                "Objectives missed",
                f"Share of operations that took longer than their objective, by all ways and exchanges: {promised()}.",
                "timeseries",
                [
                    Query(f"max by (operation) ({burn(window)}{SERVICE_ONLY})", f"{{{{operation}}}}, over {window}")
                    for window in (WINDOWS[0], WINDOWS[2])
                ],
                unit="percentunit",
            ),
            Panel(
                "Heat map: $operation", "How many took how long: one heat map per operation, of the exchanges chosen.",
                "heatmap", [Query(heat, "{{le}}")], unit="short", width=24, repeat=OPERATION.name,
            ),
            Panel(
                "Heat map: $exchange", "How many took how long: one heat map per exchange, of the operations chosen.",
                "heatmap", [Query(heat, "{{le}}")], unit="short", width=24, repeat=EXCHANGE.name,
            ),
        ],
    )  # fmt: skip


def _market() -> Row:
    e = n.EXCHANGE
    return Row(
        "Market data",
        [
            Panel(
                "Messages by exchange", "Messages parsed per second.", "timeseries",
                [Query(rate(n.MESSAGES, AT, e), f"{{{{{e}}}}}")], unit="mps",
            ),
            Panel(
                "Messages by type", "Messages parsed per second, by what they are.", "timeseries",
                [Query(rate(n.MESSAGES, AT, "type"), "{{type}}")], unit="mps",
            ),
            Panel(
                "Order book depth", "Levels in the last book update, by exchange and symbol.", "timeseries",
                [Query(f"max by ({e}, {n.SYMBOL}) ({n.DEPTH}{AT()})", f"{{{{{e}}}}} {{{{{n.SYMBOL}}}}}")],
            ),
            Panel(
                "Errors in the feed",
                "Messages that could not be parsed, gaps in the sequence of a book, and lost connections, per second.",
                "timeseries",
                [
                    Query(rate(n.PARSE_FAILURES, AT, e), f"not parsed: {{{{{e}}}}}", empty=QUIET),
                    Query(rate(n.SEQUENCE_GAPS, AT, e), f"gap in a book: {{{{{e}}}}}", empty=QUIET),
                    Query(rate(n.DISCONNECTS, AT, e), f"disconnected: {{{{{e}}}}}", empty=QUIET),
                ],
                unit="ops", width=24,
            ),
        ],
    )  # fmt: skip


def _arbitrage() -> Row:
    symbol = f"{{{{{n.SYMBOL}}}}}"
    return Row(
        "Arbitrage",
        [
            Panel(
                "Executions", "Arbitrage executions per second: both legs filled, and failed, by error.",
                "timeseries",
                [
                    Query(rate(n.EXECUTIONS, OF, outcome="success"), "success"),
                    Query(rate(n.FAILURES, OF, "error_type"), "{{error_type}}", empty=QUIET),
                ],
                unit="ops",
            ),
            Panel(
                "Profit", "In USD, before fees, by symbol, since each process began; one that ended stays for an hour.", "timeseries",
                [Query(f"sum by ({n.SYMBOL}) ({n.PROFIT}{OF()})", symbol)],
                unit="currencyUSD", defaults={"min": None},
            ),
            Panel(
                "Edge of the last opportunity", "In basis points of the price, by symbol.", "timeseries",
                [Query(f"max by ({n.SYMBOL}) ({n.EDGE}{OF()})", symbol)], unit="none", defaults={"min": None},
            ),
            Panel(
                "Orders rejected", "Per second, by exchange and the exchange's own reason.", "timeseries",
                [Query(rate(n.REJECTIONS, AT, f"{n.EXCHANGE}, reason"), f"{{{{{n.EXCHANGE}}}}} {{{{reason}}}}",
                       empty=QUIET)],
                unit="ops", width=12,
            ),
            Panel(
                "Order round trip", "p50 and p99 of the time from sending an order to its answer, by exchange.",
                "timeseries",
                [
                    Query(quantile(share, n.EXCHANGE, AT, operation=n.ORDER_ROUND_TRIP), f"{name} {{{{{n.EXCHANGE}}}}}")
                    for name, share in (("p50", 0.5), ("p99", 0.99))
                ],
                unit="s", width=12,
            ),
        ],
    )  # fmt: skip


def _records() -> Row:
    return Row(
        "What is logged",
        [
            Panel(
                "Records by lane",
                "What loggers took per second: low is DEBUG and INFO, high is WARNING and above; recovered are audit "
                "events that an earlier process left in its journal.",
                "timeseries", [Query(rate(n.EMITTED, OF, "lane"), "{{lane}}")], unit="recps", width=12,
            ),
            Panel(
                "Audits taken and delivered", "Audit events per second, delivered by destination.", "timeseries",
                [
                    Query(rate(n.EMITTED, OF, type=n.AUDIT), "taken"),
                    Query(rate(n.DELIVERED, OF, "destination", type=n.AUDIT), "delivered: {{destination}}"),
                ],
                unit="recps", width=12,
            ),
        ],
    )  # fmt: skip


TRADING = Dashboard(
    uid="hft-trading",
    title="Trading overview",
    description="Latency, messages, arbitrage and errors of a trading system that logs through hft-otel.",
    variables=[SERVICE, VIA, EXCHANGE, OPERATION],
    rows=[_now(), _latency(), _market(), _arbitrage(), _records()],
    links=[("Telemetry health", "hft-telemetry")],
)
