"""Routing rules: what one may say."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

from ..record import LogLevel, LogType
from .place import Place
from .values import as_read, convert, level_at, literal, mapping_at

__all__ = ["build_rules", "check_rules", "targets"]


def build_rules(value: Any, place: Place) -> list[dict[str, Any]]:
    """Return the routing rules as plain data, each as it was given; null is none."""
    if value is not None and not isinstance(value, (list, tuple)):
        raise place.wrong("a list of rules", value, "begin each rule with a dash")
    return [_plain_rule(rule, place / number) for number, rule in enumerate(value or ())]


def check_rules(rules: Any, backends: Collection[str], place: Place) -> None:
    """Raise ConfigError for a rule that cannot be used with backends of these names."""
    for number, rule in enumerate(build_rules(rules, place)):
        _check_rule(rule, backends, place / number)


def targets(rule: Mapping[str, Any]) -> list[str]:
    """Return the names of the backends that a valid rule names."""
    return _listed(rule["backends"])


def _plain_rule(value: Any, place: Place) -> dict[str, Any]:
    rule = {key: literal(item) for key, item in mapping_at(value, place).items()}
    if "final" in rule:
        rule["final"] = convert(value["final"], bool, place / "final")
    if "context" in rule:
        rule["context"] = as_read(value["context"])
    return rule


def _check_rule(rule: Mapping[str, Any], backends: Collection[str], place: Place) -> None:
    for key, value in rule.items():
        if key not in _KEYS:
            raise (place / key).unknown("key", key, _KEYS)
        _KEYS[key](value, place / key)
    if "backends" not in rule:
        raise place.error("names no backends", f"add backends: [...], of {', '.join(backends)}")
    names = targets(rule)
    if not names and not rule.get("final"):
        raise (place / "backends").error(
            "is empty", "name a backend, or add final: true to drop what matches"
        )
    for number, name in enumerate(names):
        if name not in backends:
            at = (
                place / "backends" / number
                if isinstance(rule["backends"], (list, tuple))
                else place / "backends"
            )
            raise at.unknown("backend", name, backends, "; rules name the keys below backends:")
    if "min_level" in rule and "max_level" in rule:
        lowest, highest = (_level(rule[key], place / key) for key in ("min_level", "max_level"))
        if lowest > highest:
            raise place.error("min_level is above max_level, so that it never matches", "swap the two")


def _level(value: Any, place: Place) -> int:
    return int(value) if isinstance(value, LogLevel) else level_at(value, place)


def _texts(value: Any, place: Place) -> None:
    for number, text in enumerate(_listed(value)):
        if not isinstance(text, str):
            raise (place / number if isinstance(value, (list, tuple)) else place).wrong(
                "text or a list of texts", text, "put it in quotes"
            )


def _log_types(value: Any, place: Place) -> None:
    _texts(value, place)
    if not _listed(value):
        raise place.error("is empty", "name TEXT, METRIC or AUDIT, or leave the key out for all of them")
    for number, name in enumerate(_listed(value)):
        if name.upper() not in LogType.__members__:
            at = place / number if isinstance(value, (list, tuple)) else place
            more = "; latency and counter calls are METRIC" if name.upper() in ("LATENCY", "COUNTER") else ""
            raise at.unknown("log type", name.upper(), LogType.__members__, more)


def _context(value: Any, place: Place) -> None:
    for key, wanted in mapping_at(value, place).items():
        for item in _listed(wanted):
            if not isinstance(item, (str, int, float)):  # bool is an int
                raise (place / key).wrong(
                    "a value or a list of values", item, "write text, a number or a flag"
                )


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else [value]


_KEYS: dict[str, Callable[[Any, Place], Any]] = {
    "name": lambda value, place: convert(value, str, place),
    "log_types": _log_types,
    "min_level": _level,
    "max_level": _level,
    "environments": _texts,
    "loggers": _texts,
    "context": _context,
    "backends": _texts,
    "final": lambda value, place: convert(value, bool, place),
}
