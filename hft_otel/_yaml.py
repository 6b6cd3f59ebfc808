"""From a YAML file, a mapping or the environment to a configuration, and back to what can be shown."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import replace
from enum import Enum
from os import PathLike
from pathlib import Path
from typing import Any

import yaml

from ._environment import Unquoted, substitute, with_environment
from ._guarded import masked
from ._validation import (
    Place,
    Substituted,
    build_config,
    check,
    config_mapping,
    mapping_at,
    with_component,
)
from .config import (
    DEVELOPMENT_ENVIRONMENTS,
    DEVELOPMENT_ROUTING_RULES,
    PRODUCTION_ROUTING_RULES,
    BackendConfig,
    ConfigError,
    ConsoleConfig,
    DatadogConfig,
    FileConfig,
    LogConfig,
    OtlpConfig,
    PrometheusConfig,
)
from .redaction import Redactor

__all__ = ["effective", "load_default", "load_file", "load_mapping", "with_component", "with_environment"]


def load_file(path: str | PathLike[str], environ: Mapping[str, str] | None = None) -> LogConfig:
    """Load a YAML file; see LogConfig.from_yaml. `environ` is os.environ unless given."""
    file = os.fspath(path)
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise ConfigError("there is no such file", file=file, cure=_missing_cure(file)) from None
    except UnicodeDecodeError:
        raise ConfigError("is not text in UTF-8", file=file, cure="save it as UTF-8") from None
    except (OSError, ValueError) as error:
        cause = getattr(error, "strerror", None) or str(error)
        raise ConfigError(
            f"cannot be read: {cause}", file=file, cure="name a file that this user may read"
        ) from None
    document, root = _parse(text, file)
    return _load(document, file, _Lines(root), os.environ if environ is None else environ)


def load_mapping(mapping: Any, source: str, environ: Mapping[str, str] | None = None) -> LogConfig:
    """Load what a YAML file would hold, with or without its `logging:` key; see LogConfig.from_dict."""
    if isinstance(mapping, Mapping) and "logging" not in mapping:
        mapping = {"logging": mapping}
    return _load(mapping, source, _Lines(None), os.environ if environ is None else environ)


def load_default(environ: Mapping[str, str] | None = None) -> LogConfig:
    """Return the configuration of create_logger without one; see LogConfig.default."""
    environ = os.environ if environ is None else environ
    if file := environ.get("HFT_OTEL_CONFIG"):
        return load_file(file, environ)
    environment = environ.get("ENVIRONMENT") or "dev"
    if (
        environment in DEVELOPMENT_ENVIRONMENTS
    ):  # nothing here needs anything to run, or reaches for the network
        backends: dict[str, BackendConfig] = {
            "console": ConsoleConfig(),
            "file": FileConfig(file_path="logs/dev.log"),
            "prometheus": PrometheusConfig(enabled=False),
        }
        rules = deepcopy(DEVELOPMENT_ROUTING_RULES)
    else:
        # Datadog needs a key, and is reached through the Collector: without the key both stay off.
        datadog = DatadogConfig(api_key=environ.get("DATADOG_API_KEY") or None)
        datadog.enabled = datadog.api_key is not None
        backends = {
            "file": FileConfig(file_path="logs/prod.log"),
            "prometheus": PrometheusConfig(push_gateway="prometheus-gateway:9091"),
            "datadog": datadog,
            "otlp": OtlpConfig(enabled=datadog.enabled),
        }
        rules = deepcopy(PRODUCTION_ROUTING_RULES)
    if environ.get("OTEL_EXPORTER_OTLP_ENDPOINT"):  # who sets it expects to find everything there
        backends["otlp"] = OtlpConfig()
        rules.append({"name": "all_to_otlp", "backends": ["otlp"]})
    config = LogConfig(environment=environment, backends=backends, routing_rules=rules)
    return with_environment(config, environ)


def effective(config: LogConfig) -> dict[str, Any]:
    """Return what stands below `logging:`, complete, its secrets hidden, fit for yaml.safe_dump."""
    data = _printable({**config_mapping(config), "isolation": config.effective_isolation})
    return dict(Redactor(config.redact).redact(masked(data)))


def _printable(value: Any) -> Any:
    """Return plain data of the types that YAML has; what Python put in beside them shows as text."""
    if isinstance(value, Mapping):
        return {str(key): _printable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_printable(item) for item in value]
    if isinstance(value, Enum):  # a LogLevel in a rule made in Python
        return value.name
    return value if value is None or type(value) in (str, int, float, bool) else str(value)


def _missing_cure(file: str) -> str:
    if file == os.environ.get("HFT_OTEL_CONFIG"):
        return "correct the environment variable HFT_OTEL_CONFIG, which names it, or unset it"
    if Path(file).is_absolute():
        return "create it, or correct the path"
    return f"looked for it in {Path.cwd()}; create it, or give its full path"


def _load(document: Any, source: str, lines: _Lines, environ: Mapping[str, str]) -> LogConfig:
    top = Place(source, (), lines)
    if not isinstance(document, Mapping):
        raise top.error(
            "has no `logging:` key" if document is None else "is no mapping", "begin with `logging:`"
        )
    if "logging" not in document:
        raise top.error(
            "has no `logging:` key", f"put {_what_is_there(document)} below a key `logging:`, indented"
        )
    extra = document["logging"].get("redact") if isinstance(document["logging"], Mapping) else None
    place = Place(source, ("logging",), lines, Redactor(extra if isinstance(extra, list) else ()))
    data = _substituted(mapping_at(document["logging"], place), environ, place)
    if data.get("environment") is None:
        data["environment"] = environ.get("ENVIRONMENT") or "dev"
    config = replace(build_config(data, place), source=source)
    check(config, place)  # before OTEL_*, so that an error names what stands in the file
    config = with_environment(config, environ)
    check(config, place)
    return config


def _what_is_there(document: Mapping[Any, Any]) -> str:
    """Name the first keys, if they look like keys: in a file that is no configuration they may be anything."""
    keys = [key for key in list(document)[:4] if isinstance(key, str) and re.fullmatch(r"[\w-]{1,40}", key)]
    return ", ".join(keys) or "everything"


def _substituted(data: Mapping[str, Any], environ: Mapping[str, str], place: Place) -> dict[str, Any]:
    """Replace variables; those of a backend that nobody enables may be unset."""
    done: dict[str, Any] = {}
    for key, value in data.items():
        if key != "backends" or not isinstance(value, Mapping):
            done |= substitute({key: value}, environ, place)
    components = done.get("components")
    overrides = [
        backends
        for component in (components.values() if isinstance(components, Mapping) else ())
        if isinstance(component, Mapping) and isinstance(backends := component.get("backends"), Mapping)
    ]
    if isinstance(data.get("backends"), Mapping):
        done["backends"] = {}
        for name, value in data["backends"].items():
            here = place / "backends" / name
            overridden = [backends[name] for backends in overrides if name in backends]
            used = _enables(value, environ, here, unless_said=True)
            used = used or any(_enables(entry, environ, here, unless_said=False) for entry in overridden)
            done["backends"] |= substitute({name: value}, environ, place / "backends", leave_out=not used)
    return done


def _enables(entry: Any, environ: Mapping[str, str], place: Place, *, unless_said: bool) -> bool:
    if not isinstance(entry, Mapping) or entry.get("enabled") is None:
        return unless_said
    enabled = substitute({"enabled": entry["enabled"]}, environ, place)["enabled"]
    return (enabled.scalar if isinstance(enabled, Substituted) else enabled) not in (False, 0)


class _Loader(yaml.SafeLoader):
    """YAML's safe loader; a key given twice is an error, text without quotes is remembered as such where it matters."""


def _construct_text(loader: _Loader, node: yaml.ScalarNode) -> str:
    text = str(loader.construct_scalar(node))
    return Unquoted(text) if "$" in text and node.style is None else text


def _construct_mapping(loader: _Loader, node: yaml.MappingNode) -> Any:
    seen: set[str] = set()
    for key, _ in node.value:
        if isinstance(key, yaml.ScalarNode) and not key.tag.endswith(":merge"):
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key.value!r} is given twice", key.start_mark
                )
            seen.add(key.value)
    return loader.construct_yaml_map(node)


_Loader.add_constructor("tag:yaml.org,2002:str", _construct_text)
_Loader.add_constructor("tag:yaml.org,2002:map", _construct_mapping)


def _parse(text: str, file: str) -> tuple[Any, yaml.Node | None]:
    """Return the document and its nodes, which know their lines."""
    try:
        loader = _Loader(text)
        try:
            root = loader.get_single_node()
            return (None if root is None else loader.construct_document(root)), root
        finally:
            loader.dispose()
    except (
        yaml.MarkedYAMLError
    ) as error:  # not as the cause: it would show the lines around, and secrets in them
        mark = error.problem_mark or error.context_mark
        cause, cure = _explained(error)
        line, column = (mark.line + 1, mark.column + 1) if mark else (None, None)
        raise ConfigError(cause, file=file, line=line, column=column, cure=cure) from None
    except yaml.YAMLError as error:
        raise ConfigError(
            "is no YAML: " + str(error).splitlines()[0], file=file, cure="save it as plain text"
        ) from None
    except (ValueError, RecursionError, TypeError) as error:  # such as the date 2024-99-99
        cause = f"is no YAML that can be read: {type(error).__name__}"
        raise ConfigError(cause, file=file, cure="put dates and numbers that are none in quotes") from None


def _explained(error: yaml.MarkedYAMLError) -> tuple[str, str]:
    problem = error.problem or "broken YAML"
    if "given twice" in problem:
        return problem, "remove one of them"
    if "alias" in problem:  # what it quotes may be a password that begins with *
        return (
            "a value that begins with * is an alias in YAML, and this one has no anchor",
            "put the value in quotes",
        )
    if "tag" in problem:
        return (
            "a value that begins with ! is a tag in YAML, and this one is unknown",
            "put the value in quotes",
        )
    if "'{'" in problem:
        return "broken YAML: a { where none can be", "put ${VAR} in quotes inside [ ] and { }"
    cure = (
        "indent with spaces"
        if "\\t" in problem
        else "check the indentation, colons and quotes here and just above"
    )
    return f"broken YAML: {' '.join(filter(None, (error.context, problem)))}", cure


class _Lines:
    """Finds the line of a path, or of the nearest part above it that is there."""

    def __init__(self, root: yaml.Node | None) -> None:
        self._root = root

    def __call__(self, path: tuple[str | int, ...]) -> int | None:
        node, line = self._root, None
        for key in path:
            if isinstance(node, yaml.MappingNode):
                pairs = [(name, value) for name, value in node.value if getattr(name, "value", None) == key]
            elif isinstance(node, yaml.SequenceNode) and isinstance(key, int) and key < len(node.value):
                pairs = [(node.value[key], node.value[key])]
            else:
                pairs = []
            if not pairs:
                if key == "config":  # options may stand without it
                    continue
                break
            line, node = pairs[0][0].start_mark.line + 1, pairs[0][1]
        return line


class _FilesAndEnvironment:
    """The ConfigLoader of LogConfig."""

    def load_file(self, path: str | PathLike[str]) -> LogConfig:
        return load_file(path)

    def load_mapping(self, mapping: Mapping[str, Any], source: str) -> LogConfig:
        return load_mapping(mapping, source)

    def load_default(self) -> LogConfig:
        return load_default()

    def load_component(self, name: str) -> LogConfig:
        return with_component(load_default(), name)


LogConfig.loader = _FilesAndEnvironment()
