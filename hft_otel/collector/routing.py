"""Routing rules -> conditions of the Collector: what of a signal a backend gets.

Records of hft-otel come marked with the backends that want them: the SDK has decided, by the same rules and by all
that only it knows. For any other sender the rules are compiled, by the router's own order of questions (router.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from ..otel.convert import BACKENDS_ATTRIBUTE, severity
from ..record import ANCHOR_EVENT, LogLevel, LogType
from ..router import BackendInfo, RouteTable, Rule
from .expressions import (
    FALSE,
    TRUE,
    Expr,
    all_of,
    any_of,
    call,
    compare,
    equals_text,
    glob_pattern,
    negate,
    quote,
)

__all__ = ["AUDIT_SPAN", "MARK", "SIGNALS", "Kind", "drop_conditions", "wants"]

MARK = f'scope.attributes["{BACKENDS_ATTRIBUTE}"]'
AUDIT_SPAN = 'span.attributes["hft.audit"]'
"""Set by the Collector itself on spans with an audit event, and deleted before they leave."""
OWN = compare('resource.attributes["telemetry.distro.name"]', "==", '"hft-otel"')
"""What hft-otel sends without a mark is wanted by nothing behind the Collector."""

_LOWEST, _HIGHEST = 0, 1 << 30


class Kind(NamedTuple):
    """What flows through one kind of pipeline."""

    signal: str
    log_type: LogType | None
    """None: spans that are no audit, of which no rule speaks."""
    path: str
    """Of what is looked at in OTTL."""

    @property
    def is_audit(self) -> bool:
        """Whether nothing of it may be lost."""
        return self.log_type is LogType.AUDIT

    @property
    def others(self) -> Expr:
        """The condition for what shares the signal and is not of this kind."""
        if self.signal == "metrics":
            return FALSE
        if self.signal == "logs":
            anchor = compare("log.event_name", "==", quote(ANCHOR_EVENT))  # goes where the audits go
            audit = any_of([call('HasPrefix(log.event_name, "audit.")'), anchor])
        else:
            audit = compare(AUDIT_SPAN, "!=", "nil")
        return negate(audit) if self.is_audit else audit


SIGNALS = (
    Kind("logs", LogType.TEXT, "log"),
    Kind("logs", LogType.AUDIT, "log"),
    Kind("metrics", LogType.METRIC, "datapoint"),
    Kind("traces", None, "span"),
    Kind("traces", LogType.AUDIT, "span"),
)


def drop_conditions(kind: Kind, names: Sequence[str], table: RouteTable, self_metrics: str) -> list[str]:
    """Return the conditions of a filter that keeps what one of the backends of these names gets.

    `self_metrics` is what the names of the telemetry's own metrics begin with; every backend of metrics gets them.
    """
    conditions = [kind.others]
    if kind.log_type is not None:
        marked = call(f"IsMatch({MARK}, {quote(_mark_pattern(names))})")
        own = [call(f"HasPrefix(metric.name, {quote(self_metrics)})")] if kind.signal == "metrics" else []
        wanted = any_of(wants(kind, table.backends[name], table) for name in names if name in table.backends)
        conditions += [
            all_of([compare(MARK, "!=", "nil"), negate(marked)]),
            all_of([compare(MARK, "==", "nil"), *map(negate, own), any_of([OWN, negate(wanted)])]),
        ]
    return [condition.text for condition in conditions if condition != FALSE]


def wants(kind: Kind, info: BackendInfo, table: RouteTable) -> Expr:
    """Return the condition that the rules give an unmarked record of this kind to the backend."""
    assert kind.log_type is not None
    if kind.log_type not in info.accepts:
        return FALSE
    wanted = _named(kind, info.name, table)
    if kind.is_audit and info.keeps_audit:
        takers = [each.name for each in table.backends.values() if LogType.AUDIT in each.accepts]
        wanted = any_of([wanted, negate(any_of(_named(kind, name, table) for name in takers))])
    if kind.log_type is LogType.TEXT:
        # DEBUG is where every backend begins: it keeps out nothing, also not what comes without a severity.
        wanted = all_of([wanted, _at_least(info.min_level if info.min_level > LogLevel.DEBUG else _LOWEST)])
    return wanted


def _named(kind: Kind, name: str, table: RouteTable) -> Expr:
    """Return the condition that some rule names the backend and no final rule before it matches."""
    found: list[Expr] = []
    finals: list[Expr] = []
    for rule in table.active:
        matches = _matches(rule, kind)
        if name in rule.backends:
            found.append(all_of([matches, *map(negate, finals)]))
        if rule.final:
            finals.append(matches)
    return any_of(found)


def _matches(rule: Rule, kind: Kind) -> Expr:
    if kind.log_type not in rule.log_types:
        return FALSE
    levels = [_at_least(rule.min_level), _at_most(rule.max_level)] if kind.log_type is LogType.TEXT else []
    return all_of([*levels, _covers(rule.loggers), *_holds(rule, f"{kind.path}.attributes")])


def _at_least(level: int) -> Expr:
    return compare("log.severity_number", ">=", f"{severity(level).value}") if level > _LOWEST else TRUE


def _at_most(level: int) -> Expr:
    return compare("log.severity_number", "<=", f"{severity(level).value}") if level < _HIGHEST else TRUE


def _covers(loggers: Sequence[str]) -> Expr:
    if not loggers or "*" in loggers:
        return TRUE
    return any_of(_named_like(pattern) for pattern in loggers)


def _named_like(pattern: str) -> Expr:
    if not set(pattern) & set("*?["):
        return compare("scope.name", "==", quote(pattern))
    return call(f"IsMatch(scope.name, {quote(glob_pattern(pattern))})")


def _holds(rule: Rule, attributes: str) -> Iterable[Expr]:
    for key, values in rule.context:
        yield any_of(equals_text(f"{attributes}[{quote(key)}]", value) for value in sorted(values))


def _mark_pattern(names: Sequence[str]) -> str:
    escaped = "|".join(map(_escaped, names))
    return f"(^|,){escaped if len(names) == 1 else f'({escaped})'}(,|$)"


def _escaped(name: str) -> str:
    return "".join(char if char.isalnum() or char in "_- " else f"\\{char}" for char in name)
