"""A configuration as a whole: parts that do not fit together, and parts that do nothing."""

from __future__ import annotations

import os.path
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from urllib.parse import urlsplit

from ..config import (
    BackendConfig,
    ConsoleConfig,
    CustomConfig,
    DatadogConfig,
    ElasticsearchConfig,
    FileConfig,
    LogConfig,
    OtlpConfig,
    PrometheusConfig,
    SlackConfig,
    WebhookConfig,
)
from ..record import LogType
from ..router import Rule
from .components import with_component
from .folders import check_folders
from .instruments import check_instruments, idle_instruments
from .place import Place, quoted
from .rules import check_rules, targets
from .typed import GROUPS, typed_backend
from .values import check_fields, mapping_at

__all__ = ["OF_SIGNAL", "check", "keeps_audit", "takes", "validate"]

ALL = frozenset(LogType)
TAKES: dict[type[BackendConfig], frozenset[LogType]] = {
    ConsoleConfig: frozenset({LogType.TEXT}),
    FileConfig: frozenset({LogType.TEXT, LogType.AUDIT}),
    PrometheusConfig: frozenset({LogType.METRIC}),
    ElasticsearchConfig: frozenset({LogType.TEXT, LogType.AUDIT}),
    SlackConfig: frozenset({LogType.TEXT, LogType.AUDIT}),
    WebhookConfig: ALL,
}
"""What a backend can take; those that are not here take all types."""

KEEPS_AUDIT = (FileConfig, ElasticsearchConfig, OtlpConfig)
"""Backends that get the AUDIT records that no rule names."""

OF_SIGNAL = {"logs": {LogType.TEXT, LogType.AUDIT}, "metrics": {LogType.METRIC}, "traces": {LogType.AUDIT}}
"""What of the log types travels as which signal."""


def takes(backend: BackendConfig) -> frozenset[LogType]:
    """Return the types that a backend can take."""
    if isinstance(backend, OtlpConfig):
        kinds = frozenset[LogType]().union(*(OF_SIGNAL[signal] for signal in backend.signals))
        return kinds if backend.audit_signals else kinds - {LogType.AUDIT}
    return TAKES.get(type(backend), ALL)


def keeps_audit(backend: BackendConfig) -> bool:
    """Say whether a backend gets the AUDIT records that no rule names."""
    return isinstance(backend, KEEPS_AUDIT) and LogType.AUDIT in takes(backend)


def validate(config: LogConfig) -> list[str]:
    """Raise ConfigError for a configuration that cannot work; return warnings about what works and does nothing."""
    return check(config, Place(config.source))


def check(config: LogConfig, place: Place) -> list[str]:
    """Do `validate`, with the places of a file that was just read."""
    check_fields(config, place, skip=("backends", "components", "instruments", "routing_rules", *GROUPS))
    if not config.environment.strip():
        raise (place / "environment").error("is empty", "name the environment, such as dev or prod")
    for name in GROUPS:
        check_fields(getattr(config, name), place / name)
    check_folders(config, place)
    check_instruments(config.instruments, place / "instruments")
    config = replace(config, backends=_check_backends(config, place / "backends"))
    check_rules(config.routing_rules, config.backends, place / "routing_rules")
    for name, component in config.components.items():
        here = place / "components" / name
        check_fields(component, here, skip=("backends", "routing_rules"))
        view = replace(with_component(config, name, here), components={})
        view = replace(view, backends=_check_backends(view, here / "backends"))
        rules = here if component.routing_rules is not None else place
        check_rules(view.routing_rules, view.backends, rules / "routing_rules")
    idle = (*_idle_rules(config), *_idle_backends(config), *idle_instruments(config))
    return [*idle, *_lost_audit(config), *_half_audit(config)]


def _check_backends(config: LogConfig, place: Place) -> dict[str, BackendConfig]:
    typed: dict[str, BackendConfig] = {}
    files: dict[str, str] = {}
    for name, given in mapping_at(config.backends, place).items():
        here = place / name
        if not isinstance(given, BackendConfig):
            raise here.wrong(
                "a BackendConfig", given, "hand in FileConfig(...), OtlpConfig(...) or CustomConfig(...)"
            )
        typed[name] = backend = typed_backend(name, given, here)
        _check_via(backend, here / "config" / "via")
        check_fields(backend, here, skip=("config",), inner=here / "config")
        if not backend.enabled:
            continue
        if (needs := _NEEDS.get(type(backend))) is not None:
            needs(backend, here)
        if isinstance(backend, FileConfig):
            path = os.path.normpath(backend.file_path)
            if path in files:
                cause = f"backends {files[path]} and {name} write to the same file {quoted(path)}"
                raise (here / "config" / "file_path").error(cause, "give each a file of its own")
            files[path] = name
    collected = [name for name, backend in typed.items() if backend.enabled and _via(backend) == "collector"]
    otlp = any(
        isinstance(backend, OtlpConfig) and backend.enabled and backend.via == "sdk"
        for backend in typed.values()
    )
    if collected and not otlp:
        cause = "leaves through the Collector (via: collector), and no otlp backend is enabled to send there"
        raise (place / collected[0]).error(cause, "enable one: otlp: {enabled: true}, below backends:")
    for name in collected:
        if "," in name:  # the names travel in one attribute
            raise (place / name).error("has a comma in its name", "take it out: the Collector routes by name")
    return typed


def _via(backend: BackendConfig) -> str:
    return str(getattr(backend, "via", "sdk"))


def _check_via(backend: BackendConfig, place: Place) -> None:
    via = _via(backend)
    if via == "sdk" and isinstance(backend, (DatadogConfig, ElasticsearchConfig)):
        raise place.error(
            "this version reaches it through the Collector only", "write via: collector, or leave it out"
        )
    if via == "collector" and isinstance(backend, (SlackConfig, WebhookConfig)):
        raise place.error(
            "it is served by this process only",
            "leave via out; console, file, prometheus, otlp, datadog and elasticsearch know it",
        )


def _need_url(backend: BackendConfig, key: str, place: Place, *, scheme: str = "") -> None:
    """Raise ConfigError where an option is no URL; one that has no scheme gets that one."""
    value = getattr(backend, key)
    here = place / "config" / key
    if not value:
        raise here.error("is missing, and the backend is enabled", f"set {key}, or enabled: false")
    try:
        url = urlsplit(value if "://" in value else scheme + value)
        host = url.hostname or ""
        valid = url.scheme in ("http", "https") and bool(host) and (url.port is None or url.port >= 0)
        valid = valid and not any(map(str.isspace, host))
    except ValueError:  # a port that is none
        valid = False
    if not valid and "@" in value:  # where a password ends cannot be told of what is no URL
        raise here.error(
            "expected a URL, found text that may hold a password",
            "write http:// or https://, user:password@ with %2F for a /, a host, and what follows it",
        )
    if not valid:
        raise here.wrong("a URL", value, "write http:// or https://, a host, and what follows it")


def _need_otlp(backend: BackendConfig, place: Place) -> None:
    if not isinstance(backend, OtlpConfig):
        return
    _check_audits(backend, place / "config" / "audits")
    collected = backend.via == "collector"
    for key in ("endpoint", "audit_endpoint"):
        value = getattr(backend, key)
        if value is None and not (collected and key == "endpoint"):
            continue
        if collected and key == "audit_endpoint":
            raise (place / "config" / key).error(
                "is for the way to the Collector only", "leave it out here; endpoint takes audits too"
            )
        _need_url(backend, key, place, scheme="http://" if backend.protocol == "grpc" else "")


def _check_audits(backend: OtlpConfig, place: Place) -> None:
    """Raise ConfigError where the forms of audit events are none, or none that leaves here."""
    everything = set(backend.audits) == {"logs", "traces"}
    if not backend.audits:
        raise place.error("is empty", "name logs, traces or both; routing_rules say who gets no AUDIT at all")
    if backend.via == "collector" and not everything:
        raise place.error("is for the way to the Collector only", "leave it out here, and use signals")
    left_out = [signal for signal in backend.audits if signal not in backend.signals]
    if left_out and not everything:
        raise place.error(f"names {left_out[0]}, which signals leaves out", f"add {left_out[0]} to signals")


def _need_file(backend: BackendConfig, place: Place) -> None:
    if isinstance(backend, FileConfig) and not backend.file_path.strip():
        raise (place / "config" / "file_path").error("is empty", "name the file to write")


def _need_elasticsearch(backend: BackendConfig, place: Place) -> None:
    if isinstance(backend, ElasticsearchConfig) and backend.endpoint is not None:
        _need_url(backend, "endpoint", place)


def _need_prometheus(backend: BackendConfig, place: Place) -> None:
    if not isinstance(backend, PrometheusConfig) or not backend.push_gateway:
        return
    _need_url(backend, "push_gateway", place, scheme="http://")
    if not backend.job_name.strip():
        raise (place / "config" / "job_name").error(
            "is empty", "name the job: a Pushgateway takes none without"
        )


def _need_class(backend: BackendConfig, place: Place) -> None:
    path = backend.class_path if isinstance(backend, CustomConfig) else ""
    if not re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*", path):
        raise (place / "class").wrong("a class", path, 'write class: "package.module:Name"')


_NEEDS: dict[type[BackendConfig], Callable[[BackendConfig, Place], None]] = {
    CustomConfig: _need_class,
    ElasticsearchConfig: _need_elasticsearch,
    FileConfig: _need_file,
    OtlpConfig: _need_otlp,
    PrometheusConfig: _need_prometheus,
    SlackConfig: lambda backend, place: _need_url(backend, "webhook_url", place),
    WebhookConfig: lambda backend, place: _need_url(backend, "url", place),
}


def _active(config: LogConfig) -> Iterator[tuple[str, Rule]]:
    for number, rule in enumerate(config.routing_rules, 1):
        compiled = Rule.compile(rule, number)
        if not compiled.environments or config.environment in compiled.environments:
            yield compiled.name, compiled


def _idle_rules(config: LogConfig) -> Iterator[str]:
    """Say where a rule hands types to backends that cannot take them, or states a level that has no effect."""
    for number, rule in enumerate(config.routing_rules, 1):
        compiled = Rule.compile(rule, number)
        label = f"routing rule '{compiled.name}'"
        if "log_types" not in rule:
            compiled_types: frozenset[LogType] = (
                frozenset({LogType.TEXT}) if compiled.log_types != ALL else frozenset()
            )
        else:
            compiled_types = compiled.log_types
            if ("min_level" in rule or "max_level" in rule) and LogType.TEXT not in compiled_types:
                yield f"{label} states a level, which has no effect: levels apply to TEXT only"
        for name in targets(rule):
            if compiled_types and not compiled_types & takes(config.backends[name]):
                wants = ", ".join(sorted(kind.value for kind in compiled_types))
                those = ", ".join(sorted(kind.value for kind in takes(config.backends[name])))
                yield f"{label} hands {wants} to backend {name}, which takes only {those}"


def _idle_backends(config: LogConfig) -> Iterator[str]:
    named = {name for _, rule in _active(config) for name in rule.backends}
    collected = any(each.enabled and _via(each) == "collector" for each in config.backends.values())
    for name, backend in config.backends.items():
        if not backend.enabled:
            continue
        is_way = collected and isinstance(backend, OtlpConfig) and backend.via == "sdk"
        if name not in named and not is_way:
            rest = "gets only AUDIT that no rule names" if keeps_audit(backend) else "gets nothing"
            yield f"backend {name} is enabled, and no rule for environment {config.environment} names it: it {rest}"
        if isinstance(backend, PrometheusConfig) and not backend.scrape and not backend.push_gateway:
            yield f"backend {name} is neither scraped nor pushed: set scrape: true or push_gateway"


def _lost_audit(config: LogConfig) -> Iterator[str]:
    enabled = {name: backend for name, backend in config.backends.items() if backend.enabled}
    if any(keeps_audit(backend) for backend in enabled.values()):
        return
    for _, rule in _active(config):
        if LogType.AUDIT in rule.log_types:
            for name in rule.backends:
                if name in enabled and LogType.AUDIT in takes(enabled[name]):
                    return
    yield "AUDIT goes nowhere: enable a file, elasticsearch or otlp backend"


def _half_audit(config: LogConfig) -> Iterator[str]:
    """Say which backends behind the Collector get no AUDIT, as it does not leave in the form that they take."""
    ways = (each for each in config.backends.values() if isinstance(each, OtlpConfig))
    way = next((each for each in ways if each.enabled and each.via == "sdk"), None)
    for name, backend in config.backends.items() if way is not None else ():
        if not backend.enabled or _via(backend) != "collector" or LogType.AUDIT not in takes(backend):
            continue
        forms = backend.audit_signals if isinstance(backend, OtlpConfig) else ("logs",)
        if way is not None and not set(forms) & set(way.audit_signals):
            leaves = " and ".join(way.audit_signals) or "nothing"
            yield f"backend {name} gets no AUDIT: it takes {' and '.join(forms)}, and audits leave as {leaves}"
