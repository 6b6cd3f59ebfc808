"""One component's own view of a configuration."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import replace
from typing import Any

from ..config import BackendConfig, LogConfig
from .place import Place
from .typed import backend_mapping, build_backend, typed_backend
from .values import COMMON, as_read, mapping_at

__all__ = ["with_component"]


def with_component(config: LogConfig, name: str, place: Place | None = None) -> LogConfig:
    """Return the configuration as the component of that name has it; one that is not named has the base.

    Its context is added to `global_context`, its rules take the place of all rules, what it says of backends is merged
    into them, key by key. Raises ConfigError where the result cannot be.
    """
    component = config.components.get(name)
    if component is None:
        return config
    here = place or Place(config.source, ("logging", "components", name))
    backends = dict(config.backends)
    for key, override in component.backends.items():
        backends[key] = _overridden(key, backends.get(key), override, here / "backends" / key)
    return replace(
        config,
        backends=backends,
        global_context={**config.global_context, **as_read(component.context)},
        min_level=config.min_level if component.min_level is None else component.min_level,
        routing_rules=config.routing_rules if component.routing_rules is None else component.routing_rules,
    )


def _overridden(name: str, base: BackendConfig | None, override: Any, place: Place) -> BackendConfig:
    override = mapping_at(override, place)
    if base is None or "class" in override or "type" in override:
        return build_backend(name, override, place)
    inner = mapping_at(override.get("config"), place / "config")
    outer = {key: value for key, value in override.items() if key != "config"}
    for key in [key for key in outer if key not in COMMON]:  # options may stand outside config:
        if key in inner:
            raise (place / key).error("is given twice, here and in config:", "remove one of them")
        inner[key] = outer.pop(key)
    base = typed_backend(name, base, place)
    mapping = backend_mapping(name, base)
    merged = {**mapping, **outer, "config": _merged(mapping["config"], inner)}
    if "class" in mapping:
        return build_backend(name, merged, place)
    merged.pop("type", None)
    return build_backend(name, merged, place, type(base))


def _merged(base: Mapping[str, Any], override: Mapping[str, Any]) -> dict[str, Any]:
    merged = deepcopy(dict(base))
    for key, value in override.items():
        old = merged.get(key)
        merged[key] = (
            _merged(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
        )
    return merged
