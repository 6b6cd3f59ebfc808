"""What environment variables add to a configuration: `${VAR}` in its text, and the standard OTEL_* variables."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any
from urllib.parse import unquote

import yaml

from ._validation import Place, Substituted, typed_backend
from .config import BackendConfig, ConfigError, LogConfig, OtlpConfig

__all__ = ["Unquoted", "substitute", "with_environment"]

MAX_DEPTH = 32
_VARIABLE = re.compile(r"\$\$|\$\{([^}]*)\}|\$\{")
_NAME = re.compile(r"(?:env:)?([A-Za-z_][A-Za-z0-9_]*)(?::-(.*))?", re.DOTALL)
_SCALARS = {f"tag:yaml.org,2002:{name}" for name in ("bool", "int", "float", "null")}


class Unquoted(str):
    """Text that stood without quotes in a YAML file: once its variables are replaced it may be a number or a flag."""

    __slots__ = ()


class _Unset(Exception):
    """A variable has no value; carries its name."""


def substitute(
    value: Any, environ: Mapping[str, str], place: Place, *, leave_out: bool = False, depth: int = 0
) -> Any:
    """Return plain data with `${VAR}` and `${VAR:-default}` replaced (an empty VAR takes the default), `$$` being `$`.

    A variable without value or default raises ConfigError, or with `leave_out` takes the key or item that it stands in
    out of the data. What a variable holds is taken as it is, never looked into again.
    """
    if depth > MAX_DEPTH:
        raise place.error("is nested too deep", "an alias (*name) may contain itself")
    if isinstance(value, str):
        return _replaced(value, environ, place)
    if not isinstance(value, (Mapping, list, tuple)):
        return value
    mapping = isinstance(value, Mapping)
    kept: dict[Any, Any] = {}
    for key, item in value.items() if isinstance(value, Mapping) else enumerate(value):
        try:
            kept[key] = substitute(item, environ, place / key, leave_out=leave_out, depth=depth + 1)
        except _Unset as unset:
            if not leave_out:
                raise (place / key).error(
                    f"the environment variable {unset} is not set",
                    f"set it, or give a default: ${{{unset}:-default}} (not needed where a backend is not enabled)",
                ) from None
    return kept if mapping else list(kept.values())


def _replaced(text: str, environ: Mapping[str, str], place: Place) -> str:
    if "$" not in text:
        return str(text)

    def value_of(found: re.Match[str]) -> str:
        if found[0] == "$$":
            return "$"
        parts = _NAME.fullmatch(found[1] or "")
        if parts is None or "${" in (parts[2] or ""):
            raise place.error(
                "has a ${ that is no variable",
                "write ${NAME} or ${NAME:-default} without a } in the default, or $$ for a dollar sign",
            )
        value = environ.get(parts[1])
        if parts[2] is not None:
            return value or parts[2]
        if value is None:
            raise _Unset(parts[1])
        return value

    replaced = Substituted(_VARIABLE.sub(value_of, text))
    replaced.scalar = _scalar(replaced)
    replaced.unquoted = isinstance(text, Unquoted)
    return replaced


def _scalar(text: str) -> Any:
    """Return the flag, number or None that YAML reads in a text, else the text; never a list or mapping."""
    loader = yaml.SafeLoader("")
    try:
        tag = loader.resolve(yaml.ScalarNode, text, (True, False))  # type: ignore[no-untyped-call]  # types-PyYAML has none
        return loader.construct_object(yaml.ScalarNode(tag, str(text))) if tag in _SCALARS else str(text)
    except ValueError:  # such as 1__ or an octal that is none
        return str(text)
    finally:
        loader.dispose()


def with_environment(config: LogConfig, environ: Mapping[str, str]) -> LogConfig:
    """Return the configuration with what it leaves open filled from the standard OTEL_* variables.

    Otlp fields that are at their default take OTEL_EXPORTER_OTLP_* and OTEL_METRIC_EXPORT_INTERVAL, then the endpoint
    takes its default; global_context takes service and version. A plain BackendConfig becomes the class of its kind. An empty variable counts as not set. Applying it twice
    changes nothing. Raises ConfigError for a variable that an enabled backend cannot use. See the OpenTelemetry
    specification, "Environment Variable Specification" and "OTLP Exporter Configuration".
    """
    backends: dict[str, BackendConfig] = {}
    for name, given in config.backends.items():
        backend = typed_backend(name, given, Place(config.source) / "backends" / name)
        if isinstance(backend, OtlpConfig) and backend.via == "sdk":
            backend = _with_otlp(backend, environ)
        backends[name] = backend
    attributes = _pairs(
        "OTEL_RESOURCE_ATTRIBUTES", environ, strict=False
    )  # OpenTelemetry reads it too, and warns
    service = environ.get("OTEL_SERVICE_NAME") or attributes.get("service.name")
    context = dict(config.global_context)
    for key, value in (("service", service), ("version", attributes.get("service.version"))):
        if value and key not in context and f"service.{key.replace('service', 'name')}" not in context:
            context[key] = value
    return replace(config, backends=backends, global_context=context)


def _with_otlp(backend: OtlpConfig, environ: Mapping[str, str]) -> OtlpConfig:
    given = {name: environ.get(f"OTEL_EXPORTER_OTLP_{name.upper()}") for name in _OTLP_TEXTS}
    values: dict[str, Any] = {name: value for name, value in given.items() if value}
    if backend.enabled:  # what a backend does not use cannot be wrong
        for name, choices in (("protocol", ("http/protobuf", "grpc")), ("compression", ("none", "gzip"))):
            if values.get(name, choices[0]) not in choices:
                variable = f"OTEL_EXPORTER_OTLP_{name.upper()}"
                raise _bad(variable, f"unknown value {values[name]!r}", f"valid are {', '.join(choices)}")
        values["headers"] = _pairs("OTEL_EXPORTER_OTLP_HEADERS", environ)
        values["timeout"] = _seconds(
            "OTEL_EXPORTER_OTLP_TIMEOUT", environ, 1
        )  # seconds in Python, elsewhere ms
        values["metric_interval"] = _seconds("OTEL_METRIC_EXPORT_INTERVAL", environ, 1000)
    fresh = OtlpConfig()
    open_fields = {
        entry.name for entry in fields(fresh) if getattr(backend, entry.name) == getattr(fresh, entry.name)
    }
    filled = replace(
        backend, **{name: value for name, value in values.items() if value and name in open_fields}
    )
    protocol = filled.protocol or "http/protobuf"
    endpoint = filled.endpoint or f"http://127.0.0.1:{4317 if protocol == 'grpc' else 4318}"
    return replace(filled, protocol=protocol, endpoint=endpoint)


_OTLP_TEXTS = ("endpoint", "protocol", "compression", "certificate", "client_certificate", "client_key")


def _pairs(variable: str, environ: Mapping[str, str], *, strict: bool = True) -> dict[str, str]:
    """Read `key=value,key=value`, percent-encoded; the values may be secrets and are not shown."""
    pairs: dict[str, str] = {}
    for item in environ.get(variable, "").split(","):
        key, mark, value = item.partition("=")
        if mark and key.strip():
            pairs[unquote(key.strip())] = unquote(value.strip())
        elif strict and item.strip():
            raise _bad(
                variable,
                "holds an entry without =",
                "write key=value,key=value; percent-encode a comma as %2C",
            )
    return pairs


def _seconds(variable: str, environ: Mapping[str, str], unit: int) -> float | None:
    text = environ.get(variable)
    if not text:
        return None
    try:
        seconds = float(text) / unit
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= 86_400:
        unit_name = "seconds" if unit == 1 else "milliseconds"
        raise _bad(variable, f"expected a positive number of {unit_name}, found {text[:40]!r}", "or unset it")
    return seconds


def _bad(variable: str, cause: str, cure: str) -> ConfigError:
    return ConfigError(cause, file="environment", path=variable, cure=cure)
