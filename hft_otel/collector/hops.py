"""The way of a record behind the SDK, and what the Collector cannot do of what a configuration says."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from .._url import split_login
from .._validation import OF_SIGNAL
from ..config import DEVELOPMENT_ENVIRONMENTS, BackendConfig, ConsoleConfig, FileConfig, LogConfig, OtlpConfig
from ..otel.convert import severity
from ..otel.instruments import CONTEXT_ATTRIBUTES
from ..record import LogType
from ..router import Rule
from .profiles import plan, served
from .routing import SIGNALS
from .source import Source

__all__ = ["Hop", "hops", "limits", "profiles_of", "way_out"]

_COMMON = {"enabled", "min_level"}


class Hop(NamedTuple):
    """One Collector's part of the way: the pipeline that a record takes, and the exporters at its end."""

    profile: str
    pipeline: str
    exporters: tuple[str, ...]


def profiles_of(config: LogConfig) -> tuple[str, ...]:
    """Return the profiles that a record passes in the configuration's environment, in order."""
    return ("dev",) if config.environment in DEVELOPMENT_ENVIRONMENTS else ("agent", "gateway")


def way_out(config: LogConfig, backend: str, log_type: LogType) -> str:
    """Return how a record leaves the process for a backend: the destinations, and where they send."""
    name, otlp = next(
        (name, each)
        for name, each in config.backends.items()
        if isinstance(each, OtlpConfig) and each.enabled and each.via == "sdk"
    )
    signals = _signals(config, backend)
    parts = [signal for signal, types in OF_SIGNAL.items() if signal in signals and log_type in types]
    if log_type is LogType.AUDIT:
        parts = [signal for signal in parts if signal in otlp.audit_signals]
    endpoint = otlp.endpoint
    if log_type is LogType.AUDIT and otlp.audit_endpoint:
        parts = ["audit" if signal == "logs" else signal for signal in parts]
        endpoint = otlp.audit_endpoint
    if not parts:
        return "nothing: its form is left out by audits of the otlp backend"
    return f"{' and '.join(f'{name}.{part}' for part in parts)}, {split_login(endpoint or '')[0] or None}"


def hops(config: LogConfig, backend: str, log_type: LogType) -> list[Hop]:
    """Return the pipelines that lead records of a type to a backend, in the profiles of the environment."""
    found: list[Hop] = []
    signals = _signals(config, backend)
    wanted = {(kind.signal, kind.is_audit) for kind in SIGNALS if kind.log_type is log_type}
    for profile in profiles_of(config):
        source = Source(config)
        target = next((each.name for each in served(source, profile) if backend in each.backends), None)
        for pipeline, parts in plan(source, profile).pipelines.items() if target else ():
            signal, _, name = pipeline.partition("/")
            audit = name == f"{target}.audit"
            if (audit or name == target) and (signal, audit) in wanted and signal in signals:
                found.append(Hop(profile, pipeline, tuple(parts["exporters"])))
    return found


def _signals(config: LogConfig, backend: str) -> tuple[str, ...]:
    """Return the signals that a backend behind the Collector takes."""
    return next(each.built.signals for each in served(Source(config), "dev") if each.name == backend)


def limits(config: LogConfig) -> list[str]:
    """Return warnings about what the Collector does otherwise, or not at all; none where it serves no backend."""
    collected = Source(config).backends()
    if not collected:
        return []
    return [*_of_rules(config), *_of_backends(config, collected), *_of_components(config, collected)]


def _of_rules(config: LogConfig) -> Iterator[str]:
    for number, raw in enumerate(config.routing_rules, 1):
        rule = Rule.compile(raw, number)
        label = f"routing rule '{rule.name}'"
        hidden = [key for key, _ in rule.context if key not in CONTEXT_ATTRIBUTES]
        if hidden and LogType.METRIC in rule.log_types:
            yield (
                f"{label} looks at {', '.join(hidden)}, which is no attribute of our measurements: the Collector "
                "applies it to those of other senders only where they have such an attribute"
            )
        for level in (rule.min_level, rule.max_level + 1):
            if 0 < level < 1 << 29 and severity(level) == severity(level - 1):
                yield (
                    f"{label} states a level between two of OpenTelemetry's: the Collector takes all of "
                    f"{severity(level).name} for other senders"
                )


def _of_backends(config: LogConfig, collected: dict[str, BackendConfig]) -> Iterator[str]:
    way = next(
        (each for each in config.backends.values() if isinstance(each, OtlpConfig) and each.via == "sdk"),
        None,
    )
    for name, backend in collected.items():
        if isinstance(backend, FileConfig) and backend.format == "text":
            yield f"backend {name}: the Collector writes OTLP as JSON lines, not format: text"
        if isinstance(backend, ConsoleConfig) and "dev" not in profiles_of(config):
            yield f"backend {name}: the Collector prints in its dev profile only"
        for signal in _signals(config, name):
            if way and signal not in way.signals:
                yield f"backend {name} takes {signal}, which the signals of the otlp backend leave out"


def _of_components(config: LogConfig, collected: dict[str, BackendConfig]) -> Iterator[str]:
    for component, said in config.components.items():
        for name, override in said.backends.items():
            options = {*override, *(override.get("config") or ())} - _COMMON - {"config", "type", "class"}
            if name in collected and name in config.backends and options:
                yield (
                    f"component {component} changes {', '.join(sorted(options))} of backend {name}, which the "
                    "Collector serves: it has the options that stand under backends"
                )
