"""The router: rules compiled once, answers cached.

A record goes to the union of the backends of all matching rules; `final: true` stops. A rule that states a level and
no log_types speaks of TEXT; one that states neither speaks of all types; levels apply to TEXT only. After the rule
come the backend's min_level, what it can take, and its `should_handle`. AUDIT that no rule names goes to every backend
that keeps audit by default.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from .interfaces import LogBackend
from .record import LogRecord, LogType

__all__ = ["BackendInfo", "Decision", "LogRouter", "RouteTable", "Rule"]

_CACHE_LIMIT = 4096
_LOWEST, _HIGHEST = 0, 1 << 30


class BackendInfo(NamedTuple):
    """What the route table knows of a backend; `keeps_audit` says that unnamed AUDIT goes to it."""

    name: str
    accepts: frozenset[LogType] = frozenset(LogType)
    min_level: int = _LOWEST
    keeps_audit: bool = False


class Decision(NamedTuple):
    """Why a backend gets a record, or why not."""

    backend: str
    wanted: bool
    why: str


@dataclass(frozen=True, slots=True)
class Rule:
    """One routing rule, compiled."""

    name: str
    log_types: frozenset[LogType]
    min_level: int
    max_level: int
    environments: frozenset[str]
    loggers: tuple[str, ...]
    context: tuple[tuple[str, frozenset[str]], ...]
    backends: tuple[str, ...]
    final: bool

    @classmethod
    def compile(cls, rule: Mapping[str, Any], number: int) -> Rule:
        """Return the rule of a validated mapping (see config.py for its keys)."""
        states_level = "min_level" in rule or "max_level" in rule
        types = [LogType(str(name).upper()) for name in _listed(rule.get("log_types"))]
        if not types:
            types = [LogType.TEXT] if states_level else list(LogType)
        context = rule.get("context") or {}
        return cls(
            name=str(rule.get("name") or f"rule {number}"),
            log_types=frozenset(types),
            min_level=level_number(rule.get("min_level"), _LOWEST),
            max_level=level_number(rule.get("max_level"), _HIGHEST),
            environments=frozenset(map(str, _listed(rule.get("environments")))),
            loggers=tuple(map(str, _listed(rule.get("loggers")))),
            context=tuple((str(key), frozenset(map(str, _listed(value)))) for key, value in context.items()),
            backends=tuple(map(str, _listed(rule.get("backends")))),
            final=bool(rule.get("final", False)),
        )

    def objection(self, record: LogRecord, environment: str) -> str | None:
        """Say why the rule does not match the record; None when it does."""
        if self.environments and environment not in self.environments:
            return f"applies only in {', '.join(sorted(self.environments))}, this is {environment}"
        if record.log_type not in self.log_types:
            return f"takes only {', '.join(sorted(kind.value for kind in self.log_types))}"
        if record.log_type is LogType.TEXT and not self.min_level <= record.level <= self.max_level:
            return f"takes only {self.level_range}"
        if not self.covers(record.logger_name):
            return f"takes only loggers {', '.join(self.loggers)}"
        for key, values in self.context:
            if _text_of(record, key) not in values:
                return f"takes only where {key} is {' or '.join(sorted(values))}"
        return None

    def covers(self, logger_name: str) -> bool:
        """Say whether the rule speaks of this logger; a name that is no text counts as what it prints."""
        return not self.loggers or any(fnmatchcase(str(logger_name), pattern) for pattern in self.loggers)

    @property
    def level_range(self) -> str:
        """The levels it takes, for a person."""
        parts = []
        if self.min_level > _LOWEST:
            parts.append(f"{logging.getLevelName(self.min_level)} and above")
        if self.max_level < _HIGHEST:
            parts.append(f"up to {logging.getLevelName(self.max_level)}")
        return ", ".join(parts) or "all levels"


class RouteTable:
    """Rules and what is known of the backends: from a record to the names of the backends that want it."""

    def __init__(
        self, rules: Iterable[Mapping[str, Any]], backends: Iterable[BackendInfo], environment: str = "dev"
    ) -> None:
        self.environment = environment
        self.rules = tuple(Rule.compile(rule, number) for number, rule in enumerate(rules, 1))
        self.backends = {info.name: info for info in backends}
        self.active = tuple(
            rule for rule in self.rules if not rule.environments or environment in rule.environments
        )
        self._context_keys = tuple(sorted({key for rule in self.active for key, _ in rule.context}))
        self._cache: dict[tuple[Any, ...], tuple[str, ...]] = {}

    def key(self, record: LogRecord) -> tuple[Any, ...]:
        """Return what the answer for a record depends on."""
        if not self._context_keys:
            return (record.log_type, record.level, record.logger_name)
        values = (_text_of(record, key) for key in self._context_keys)
        return (record.log_type, record.level, record.logger_name, *values)

    def names(self, record: LogRecord) -> tuple[str, ...]:
        """Return the names of the backends that want the record, before their `should_handle`."""
        key = self.key(record)
        names = self._cache.get(key)
        if names is None:
            if len(self._cache) >= _CACHE_LIMIT:  # context values that never repeat must not fill the memory
                self._cache.clear()
            names = self._cache[key] = tuple(d.backend for d in self.explain(record) if d.wanted)
        return names

    def explain(self, record: LogRecord) -> list[Decision]:
        """Return for each backend whether it gets the record, and why or why not."""
        named: dict[str, str] = {}
        objections: dict[str, list[str]] = {}
        stopped_by = ""
        for rule in self.rules:
            if stopped_by:
                objection: str | None = f"comes after the final rule '{stopped_by}'"
            else:
                objection = rule.objection(record, self.environment)
            for name in rule.backends:
                if objection is None:
                    named.setdefault(name, f"rule '{rule.name}'")
                else:
                    objections.setdefault(name, []).append(f"rule '{rule.name}' {objection}")
            if objection is None and rule.final:
                stopped_by = rule.name
        if record.log_type is LogType.AUDIT and not any(
            named.get(info.name) and LogType.AUDIT in info.accepts for info in self.backends.values()
        ):
            for info in self.backends.values():
                if info.keeps_audit:
                    named[info.name] = "audit that no rule names is kept here"
        return [self._decide(info, record, named, objections) for info in self.backends.values()]

    def _decide(
        self,
        info: BackendInfo,
        record: LogRecord,
        named: Mapping[str, str],
        objections: Mapping[str, list[str]],
    ) -> Decision:
        why = named.get(info.name)
        if why is None:
            return Decision(info.name, False, "; ".join(objections.get(info.name, ["no rule names it"])))
        if record.log_type not in info.accepts:
            takes = ", ".join(sorted(kind.value for kind in info.accepts))
            return Decision(info.name, False, f"{why}, but it takes only {takes}")
        if record.log_type is LogType.TEXT and record.level < info.min_level:
            return Decision(
                info.name, False, f"{why}, but its min_level is {logging.getLevelName(info.min_level)}"
            )
        return Decision(info.name, True, why)

    def threshold(self, logger_name: str) -> int:
        """Return the lowest level of TEXT that some backend may want from this logger; above all levels if none."""
        wanted = [_HIGHEST]
        for rule in self.active:
            if LogType.TEXT in rule.log_types and rule.covers(logger_name):
                for name in rule.backends:
                    info = self.backends.get(name)
                    if info is not None and LogType.TEXT in info.accepts:
                        level = max(rule.min_level, info.min_level)
                        if level <= rule.max_level:
                            wanted.append(level)
        return min(wanted)

    def wants(self, log_type: LogType, logger_name: str) -> bool:
        """Say whether some backend may want this type from this logger."""
        if log_type is LogType.AUDIT and any(info.keeps_audit for info in self.backends.values()):
            return True
        return any(
            log_type in rule.log_types and rule.covers(logger_name) and self._some_takes(rule, log_type)
            for rule in self.active
        )

    def _some_takes(self, rule: Rule, log_type: LogType) -> bool:
        return any(
            name in self.backends and log_type in self.backends[name].accepts for name in rule.backends
        )


class LogRouter:
    """A route table with its live backends, as the plan's `get_backends(record)`."""

    def __init__(
        self,
        rules: Iterable[Mapping[str, Any]],
        backends: Mapping[str, LogBackend],
        environment: str = "dev",
        infos: Iterable[BackendInfo] | None = None,
    ) -> None:
        self.backends = dict(backends)
        self.table = RouteTable(
            rules, infos if infos is not None else map(_info, self.backends.items()), environment
        )

    def get_backends(self, record: LogRecord) -> list[LogBackend]:
        """Return the backends that want the record."""
        candidates = (self.backends[name] for name in self.table.names(record))
        return [backend for backend in candidates if backend.should_handle(record)]

    def threshold(self, logger_name: str) -> int:
        """Return the lowest level of TEXT that some backend may want from this logger."""
        return self.table.threshold(logger_name)

    def wants(self, log_type: LogType, logger_name: str) -> bool:
        """Say whether some backend may want this type from this logger."""
        return self.table.wants(log_type, logger_name)


def level_number(level: object, default: int) -> int:
    """Return a level, given by name in any case or by number, as a number."""
    if level is None:
        return default
    if isinstance(level, int):
        return int(level)
    number = logging.getLevelNamesMapping().get(str(level).upper())
    if number is None:
        raise ValueError(f"unknown level {level!r}; valid are {', '.join(logging.getLevelNamesMapping())}")
    return number


def _text_of(record: LogRecord, key: str) -> str | None:
    """Return what a rule's `context` looks at: the tag of a measurement, else the context value; None for neither."""
    if key in record.metric_tags:
        return str(record.metric_tags[key])
    return str(record.context[key]) if key in record.context else None


def _info(item: tuple[str, LogBackend]) -> BackendInfo:
    name, backend = item
    accepts = getattr(backend, "accepts", frozenset(LogType))
    return BackendInfo(name, accepts, int(getattr(backend, "min_level", _LOWEST)))


def _listed(value: object) -> Sequence[object]:
    if value is None:
        return ()
    return value if isinstance(value, (list, tuple, set, frozenset)) else (value,)  # type: ignore[return-value]  # order is the user's
