"""A configuration as MessagePack and back, with its classes; plain data only, so that nothing in it can run."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from decimal import Decimal
from typing import Any

import msgspec

from .. import config as _config
from ..config import LogConfig
from ..record import InstrumentKind, LogLevel, LogType

__all__ = ["CannotPack", "pack_config", "unpack_config"]

_ATOMS = frozenset({str, int, float, bool, type(None), bytes})
_CLASSES = {
    name: kind for name, kind in vars(_config).items() if isinstance(kind, type) and is_dataclass(kind)
}
"""Every configuration class there is, by its name."""
_OTHERS: dict[str, tuple[type, Callable[[Any], Any], Callable[[Any], Any]]] = {
    "tuple": (tuple, list, tuple),
    "set": (set, list, set),
    "frozenset": (frozenset, list, frozenset),
    "date": (datetime.date, datetime.date.isoformat, datetime.date.fromisoformat),
    "datetime": (datetime.datetime, datetime.datetime.isoformat, datetime.datetime.fromisoformat),
    "decimal": (Decimal, str, Decimal),
    "level": (LogLevel, int, LogLevel),
    "type": (LogType, str, LogType),
    "kind": (InstrumentKind, str, InstrumentKind),
}
"""What YAML and Python callers put into options beside plain data: its type, and the ways to plain data and back."""
_NAMES = {kind: name for name, (kind, _, _) in _OTHERS.items()}
_EXTENSION = 1


class CannotPack(ValueError):
    """A configuration holds what cannot be sent to another process; says where and what."""


def pack_config(config: LogConfig) -> bytes:
    """Return the configuration packed, secrets included; raises CannotPack."""
    return _encode(_plain(config, "logging"), "logging")


def unpack_config(data: bytes) -> LogConfig:
    """Return what was packed; raises msgspec.DecodeError for what is no configuration."""
    config = _decode(data)
    if not isinstance(config, LogConfig):
        raise msgspec.DecodeError(f"expected a LogConfig, found {type(config).__name__}")
    return config


def _plain(value: Any, path: str) -> Any:
    kind = type(value)
    if kind in _ATOMS:
        return value
    if kind is list:
        return [_plain(item, f"{path}[{number}]") for number, item in enumerate(value)]
    if isinstance(value, Mapping):
        return {_plain(key, path): _plain(item, f"{path}.{key}") for key, item in value.items()}
    if _CLASSES.get(kind.__name__) is kind:
        own = {
            entry.name: _plain(getattr(value, entry.name), f"{path}.{entry.name}") for entry in fields(value)
        }
        return msgspec.msgpack.Ext(_EXTENSION, _encode((kind.__name__, own), path))
    if kind in _NAMES:
        simple = _OTHERS[_NAMES[kind]][1](value)
        return msgspec.msgpack.Ext(_EXTENSION, _encode((_NAMES[kind], _plain(simple, path)), path))
    if isinstance(value, str):  # what is left of a replaced variable
        return str(value)
    raise CannotPack(f"{path} holds a {kind.__name__}")


def _encode(value: Any, path: str) -> bytes:
    try:
        return msgspec.msgpack.encode(value)
    except Exception as error:  # a number beyond 64 bits, half of a surrogate pair, a mapping as a key
        raise CannotPack(f"{path} cannot be packed: {error}") from error


def _revive(code: int, data: memoryview) -> Any:
    name, simple = _decode(bytes(data))
    if name in _CLASSES:
        return _CLASSES[name](**simple)
    return _OTHERS[name][2](simple)


_decode = msgspec.msgpack.Decoder(ext_hook=_revive).decode
