"""Random rule sets, the records that they are asked about, and the router's answers."""

from __future__ import annotations

import random
from typing import Any, NamedTuple

from hft_otel import LogConfig, LogLevel, LogRecord, LogType
from hft_otel.collector.profiles import route_table

Json = dict[str, Any]

RECORDS = 60
KEYS = ("exchange", "symbol", "component")  # context that becomes attributes of measurements too
VALUES: tuple[Any, ...] = (
    "mexc",
    "gate",
    "7",
    7,
    0.5,
    "0.5",
    7.0,
    True,
    "True",
    False,
    "a b",
    'q"$x',
    "1e+20",
    1e20,
    -3,
)
LOGGERS = ("app", "parser.mexc", "parser.gateio", "parser.mexc.public", "arb.engine", "Ä[x]", "a-b", "a\\b")
GLOBS = (
    "parser.*",
    "*",
    "parser.mexc",
    "*.mexc",
    "?rb.*",
    "[ap]*",
    "[!p]*",
    "*[[]x]",
    "a[-x]b",
    "a\\*",
    "parser.*.p*",
    "[z-a]*",
)
LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
NUMBERS = (10, 11, 20, 21, 25, 31, 30, 40, 45, 50, 55)


class Case(NamedTuple):
    """One rule set, the records that it is asked about, and the router's answers."""

    number: int
    config: LogConfig
    records: list[LogRecord]
    answers: list[tuple[str, ...]]

    def behind(self, place: int) -> list[str]:
        """The backends behind the Collector that get the record at a place."""
        return [
            n for n in self.answers[place] if getattr(self.config.backends[n], "via", "sdk") == "collector"
        ]


def random_case(number: int, rng: random.Random) -> Case:
    config = LogConfig.from_dict(_mapping(rng))
    table = route_table(config)
    records = [_record(rng) for _ in range(RECORDS)]
    return Case(number, config, records, [table.names(record) for record in records])


def _mapping(rng: random.Random) -> Json:
    kinds: dict[str, Json] = {
        "console": {},
        "local": {"type": "file", "config": {"file_path": "local.log"}},
        "file": {"config": {"via": "collector", "format": "json"}},
        "file-2": {"type": "file", "config": {"via": "collector", "format": "json", "file_path": "2.jsonl"}},
        "prometheus": {"config": {"via": "collector"}},
        "elasticsearch": {},
        "datadog": {"config": {"api_key": "k"}},
        "jaeger": {
            "type": "otlp",
            "config": {"via": "collector", "endpoint": "http://j:1", "signals": ["traces"]},
        },
        "tempo": {"type": "otlp", "config": {"via": "collector", "endpoint": "http://t:1"}},
    }
    chosen = rng.sample(sorted(kinds), rng.randint(3, 5))
    chosen.append("file") if not set(chosen) - {"console", "local"} else None
    backends = {name: {**kinds[name]} for name in dict.fromkeys(chosen)}
    for backend in backends.values():
        if rng.random() < 0.4:
            backend["min_level"] = rng.choice(LEVELS)
    backends["otlp"] = {"enabled": True}
    rules = [_rule(rng, [*backends]) for _ in range(rng.randint(0, 6))]
    return {"environment": "test", "backends": backends, "routing_rules": rules}


def _rule(rng: random.Random, names: list[str]) -> Json:
    rule: Json = {"backends": rng.sample(names, rng.randint(1, min(3, len(names))))}
    if rng.random() < 0.4:
        rule["log_types"] = rng.sample(["TEXT", "METRIC", "AUDIT"], rng.randint(1, 2))
    low, high = sorted(rng.sample(range(len(LEVELS)), 2))
    if rng.random() < 0.25:
        rule["min_level"] = LEVELS[low]
    if rng.random() < 0.2:
        rule["max_level"] = LEVELS[high]
    if rng.random() < 0.15:
        rule["environments"] = rng.choice([["test"], ["prod"], ["prod", "test"]])
    if rng.random() < 0.3:
        rule["loggers"] = rng.sample(GLOBS, rng.randint(1, 2))
    if rng.random() < 0.3:
        rule["context"] = {
            key: rng.choice([rng.choice(VALUES), rng.sample(VALUES, 5)])
            for key in rng.sample(KEYS, rng.randint(1, 2))
        }
    if rng.random() < 0.4:
        rule["final"] = True
        rule["backends"] = rule["backends"] if rng.random() < 0.8 else []  # drops what matches
    return rule


def _record(rng: random.Random) -> LogRecord:
    context = {key: rng.choice(VALUES) for key in KEYS if rng.random() < 0.6}
    log_type = rng.choice(list(LogType))
    level = LogLevel(rng.choice(NUMBERS))
    return LogRecord(1.0, level, log_type, rng.choice(LOGGERS), message="m", context=context)
