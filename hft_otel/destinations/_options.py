"""What a destination's constructor is handed, made into its typed configuration."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any, TypeVar

import msgspec

from ..config import BackendConfig, ConfigError
from ..record import LogLevel

__all__ = ["choice", "level_named", "typed_options"]

C = TypeVar("C", bound=BackendConfig)


def typed_options(kind: type[C], given: BackendConfig | Mapping[str, Any] | None, where: str) -> C:
    """Return the options as `kind`: from one, from a plain BackendConfig, from a mapping, flat or with `config:`.

    `where` names the destination in errors. Unknown keys and wrong types raise ConfigError.
    """
    if given is None:
        return kind()
    if isinstance(given, kind) and not given.config:
        return given
    options = asdict(given) if isinstance(given, BackendConfig) else dict(given)
    nested = options.pop("config", None) or {}
    if not isinstance(nested, Mapping):
        raise ConfigError(f"expected a mapping, got {type(nested).__name__}", path=f"{where}.config")
    options.update(nested)
    valid = sorted(field.name for field in fields(kind) if field.name != "config")
    for key in options:
        if key not in valid:
            raise ConfigError("unknown option", path=f"{where}.{key}", cure=f"valid are {', '.join(valid)}")
    try:
        return msgspec.convert(options, kind, strict=False)
    except msgspec.ValidationError as error:
        raise ConfigError(
            str(error), path=where
        ) from None  # the cause would show the values, secrets among them


def level_named(name: str | int, where: str) -> LogLevel:
    """Return the level of that name (any case; NOTSET takes everything) or number."""
    number = name if isinstance(name, int) else logging.getLevelNamesMapping().get(name.strip().upper())
    if number is None:
        valid = ", ".join(level.name for level in LogLevel)
        raise ConfigError(f"{name!r} is no level", path=f"{where}.min_level", cure=f"valid are {valid}")
    return LogLevel(number)


def choice(value: str, valid: tuple[str, ...], where: str) -> str:
    """Return the value if it is one of the valid ones."""
    if value not in valid:
        raise ConfigError(f"{value!r} is not possible", path=where, cure=f"valid are {', '.join(valid)}")
    return value
