"""Backends and whole configurations, from plain data, as YAML gives it, to the configuration classes and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from ..config import (
    BACKEND_KINDS,
    AgentConfig,
    BackendConfig,
    ComponentConfig,
    CustomConfig,
    JournalConfig,
    LanesConfig,
    LogConfig,
    StdlibConfig,
)
from .instruments import build_instruments
from .place import Place
from .rules import build_rules
from .values import COMMON, as_read, build, convert, hints_of, literal, mapping_at

__all__ = ["GROUPS", "backend_mapping", "build_backend", "build_config", "config_mapping", "typed_backend"]

GROUPS: dict[str, type[Any]] = {
    "journal": JournalConfig,
    "lanes": LanesConfig,
    "agent": AgentConfig,
    "stdlib": StdlibConfig,
}
"""The keys of a configuration that have keys of their own below them, always the same ones."""


def build_backend(
    name: str, value: Any, place: Place, kind: type[BackendConfig] | None = None
) -> BackendConfig:
    """Return the configuration of a backend from its mapping; options stand in it or below `config:`."""
    options = mapping_at(value, place)
    class_path, type_name = options.pop("class", None), options.pop("type", None)
    if class_path is not None and type_name is not None:
        raise place.error("has both class: and type:", "keep the one that is meant")
    inner = mapping_at(options.pop("config", None), place / "config")
    if class_path is not None:
        for key in options:
            if key not in COMMON:
                raise (place / key).unknown(
                    "key", key, (*COMMON, "class", "config"), "; the class's own stand in config:"
                )
        custom = build(CustomConfig, options, place)
        custom.class_path = convert(class_path, str, place / "class")
        custom.config = as_read(inner)
        return custom
    kind = kind or _kind_named(name, type_name, place)
    own = [key for key in hints_of(kind) if key not in (*COMMON, "config", "class_path")]
    for key in options:
        if key in inner:
            raise (place / key).error("is given twice, here and in config:", "remove one of them")
        if key not in (*COMMON, *own):
            raise (place / key).unknown("key", key, (*COMMON, "config", *own))
    for key in inner:
        if key in COMMON:
            raise (place / "config" / key).error(
                "stands one level too deep", f"move it up, beside config: of {name}"
            )
        if key not in own:
            raise (place / "config" / key).unknown("key", key, own)
    built = build(kind, options, place)
    for key, item in inner.items():
        setattr(built, key, convert(item, hints_of(kind)[key], place / "config" / key))
    return built


def _kind_named(name: str, type_name: Any, place: Place) -> type[BackendConfig]:
    known = literal(type_name) if type_name is not None else name
    if isinstance(known, str) and known in BACKEND_KINDS:
        return BACKEND_KINDS[known]
    if type_name is not None:
        raise (place / "type").unknown("type", known, BACKEND_KINDS)
    more = '; a class of your own needs class: "package.module:Name", a second backend of a kind needs type:'
    raise place.unknown("backend", name, BACKEND_KINDS, more)


def typed_backend(name: str, backend: BackendConfig, place: Place) -> BackendConfig:
    """Return the backend as the class of its kind: for a plain BackendConfig, or one with options left in `config`."""
    if isinstance(backend, CustomConfig) or not isinstance(backend, BackendConfig):
        return backend
    kind = type(backend)
    if kind is not BackendConfig and (kind not in BACKEND_KINDS.values() or not backend.config):
        return backend
    mapping = backend_mapping(name, backend)
    mapping["config"] |= backend.config
    if kind is BackendConfig and backend.min_level == BackendConfig.min_level:
        del mapping["min_level"]  # nothing was said: the kind has a default of its own
    return build_backend(name, mapping, place, None if kind is BackendConfig else kind)


def backend_mapping(name: str, backend: BackendConfig) -> dict[str, Any]:
    """Return a backend's configuration as the YAML file would have it."""
    mapping: dict[str, Any] = {"enabled": backend.enabled, "min_level": backend.min_level}
    if isinstance(backend, CustomConfig):
        return {"class": backend.class_path, **mapping, "config": dict(backend.config)}
    kind = next((key for key, kind in BACKEND_KINDS.items() if type(backend) is kind), None)
    own = {entry.name: getattr(backend, entry.name) for entry in fields(backend)}
    for key in (*COMMON, "config"):
        del own[key]
    return {**({"type": kind} if kind and kind != name else {}), **mapping, "config": own}


def config_mapping(config: LogConfig) -> dict[str, Any]:
    """Return a configuration as what stands below `logging:` in the YAML file, secrets included."""
    mapping = {entry.name: getattr(config, entry.name) for entry in fields(config)}
    del mapping["source"]
    mapping["backends"] = {name: backend_mapping(name, backend) for name, backend in config.backends.items()}
    for name in GROUPS:
        mapping[name] = vars(mapping[name]).copy()
    mapping["instruments"] = {
        name: {key: value for key, value in vars(instrument).items() if value}
        for name, instrument in config.instruments.items()
    }
    mapping["components"] = {
        name: {key: value for key, value in vars(component).items() if value}
        for name, component in config.components.items()
    }
    return mapping


def build_config(data: Mapping[str, Any], place: Place) -> LogConfig:
    """Return the configuration that stands below `logging:`, variables replaced already; OTEL_* are not looked at."""
    options = dict(data)
    backends = mapping_at(options.pop("backends", None), place / "backends")
    rules = options.pop("routing_rules", None)
    components = mapping_at(options.pop("components", None), place / "components")
    groups = {name: mapping_at(options.pop(name, None), place / name) for name in GROUPS}
    instruments = options.pop("instruments", None)
    for key in hints_of(LogConfig):
        if options.get(key, key) is None:  # a key without a value leaves the default
            del options[key]
    config = build(LogConfig, options, place)
    config.backends = {
        name: build_backend(name, value, place / "backends" / name) for name, value in backends.items()
    }
    config.routing_rules = build_rules(rules, place / "routing_rules")
    for name, kind in GROUPS.items():
        setattr(config, name, build(kind, groups[name], place / name))
    config.instruments = build_instruments(instruments, place / "instruments")
    config.components = {
        name: _build_component(value, place / "components" / name) for name, value in components.items()
    }
    return config


def _build_component(value: Any, place: Place) -> ComponentConfig:
    options = mapping_at(value, place)
    rules = options.pop("routing_rules", None)
    backends = mapping_at(options.pop("backends", None), place / "backends")
    component = build(ComponentConfig, options, place)
    # Kept as they came: what type their values have is known once they are merged with the backend that they change.
    component.backends = {
        name: mapping_at(value, place / "backends" / name) for name, value in backends.items()
    }
    if rules is not None:
        component.routing_rules = build_rules(rules, place / "routing_rules")
    return component
