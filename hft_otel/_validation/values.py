"""Single values and flat groups of them, from plain data to the types that the configuration classes name."""

from __future__ import annotations

import datetime
import logging
from collections.abc import Iterator, Mapping
from dataclasses import fields
from types import NoneType, UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin, get_type_hints

import msgspec

from ..config import LevelName, OneOf
from .place import Place

__all__ = [
    "COMMON",
    "Substituted",
    "as_read",
    "build",
    "check_fields",
    "convert",
    "hints_of",
    "level_at",
    "literal",
    "mapping_at",
]

C = TypeVar("C")
NAMES = {str: "text", bool: "true or false", int: "a whole number", float: "a number"}

COMMON = ("enabled", "min_level")
"""Keys that stand beside a backend's `config:`, never in it."""


class Substituted(str):
    """Text in which a variable was replaced: where a number or a flag is expected, it may be one.

    `scalar` is what YAML would read there; it counts also where any type will do, if the text stood without quotes.
    """

    __slots__ = ("scalar", "unquoted")
    scalar: Any
    unquoted: bool


def literal(value: Any) -> Any:
    """Return plain data in which replaced text is text."""
    return _plain(value, as_read=False)


def as_read(value: Any) -> Any:
    """Return plain data in which replaced text is what YAML would have read there."""
    return _plain(value, as_read=True)


def _plain(value: Any, *, as_read: bool) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item, as_read=as_read) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item, as_read=as_read) for item in value]
    if isinstance(value, Substituted):
        return value.scalar if as_read and value.unquoted else str(value)
    return value


def mapping_at(value: Any, place: Place) -> dict[str, Any]:
    """Return the value as a mapping with text keys; null is an empty one."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise place.wrong("a mapping", value, "write keys with values below it, indented")
    for key in value:
        if not isinstance(key, str):
            raise place.wrong("text as the key", key, "put the key in quotes")
    return dict(value)


def hints_of(kind: type) -> dict[str, Any]:
    """Return the fields of a configuration class with their types and ranges."""
    hints = get_type_hints(kind, include_extras=True)
    return {entry.name: hints[entry.name] for entry in fields(kind)}


def build(kind: type[C], options: Mapping[str, Any], place: Place) -> C:
    """Return an object of a configuration class from a mapping of its fields."""
    hints = hints_of(kind)
    for key in options:
        if key not in hints or key == "source":  # the file itself does not say where it is
            raise (place / key).unknown("key", key, [name for name in hints if name != "source"])
    return kind(**{key: convert(value, hints[key], place / key) for key, value in options.items()})


def check_fields(config: Any, place: Place, skip: tuple[str, ...] = (), inner: Place | None = None) -> None:
    """Raise ConfigError for a field of a configuration object that does not hold what it should.

    `inner` is the place of those fields of a backend that not all backends have.
    """
    for name, hint in hints_of(type(config)).items():
        if name not in skip:
            convert(getattr(config, name), hint, (place if inner is None or name in COMMON else inner) / name)


def convert(value: Any, hint: Any, place: Place) -> Any:
    """Return the value as the type that a field has; raises ConfigError where it is none, or out of range."""
    if hint is Any:
        return as_read(value)
    if get_origin(hint) is dict:
        value = mapping_at(value, place)
        return {key: convert(item, get_args(hint)[1], place / key) for key, item in value.items()}
    if get_origin(hint) is list:
        if not isinstance(value, (list, tuple)):
            raise place.wrong("a list", value, "write it in brackets, such as [a, b]")
        return [convert(item, get_args(hint)[0], place / number) for number, item in enumerate(value)]
    kind, marks, optional = _unwrapped(hint)
    for candidate, strict in _candidates(value, kind, optional):
        try:
            converted = msgspec.convert(candidate, hint, strict=strict)
        except msgspec.ValidationError:  # its message knows the type, and not what to do
            continue
        return _marked(converted, marks, place)
    for mark in marks:
        if isinstance(mark, LevelName):
            level_at(value, place, mark.also)
    expected = _expected(kind, marks)
    raise place.wrong(expected, value, _cure(kind, value) or f"write {expected}")


def _candidates(value: Any, kind: Any, optional: bool) -> Iterator[tuple[Any, bool]]:
    if not isinstance(value, Substituted):
        yield value, True
        return
    if kind is not str or (optional and value.unquoted and value.scalar is None):
        yield value.scalar, True
    yield str(value), False


def _unwrapped(hint: Any) -> tuple[Any, tuple[Any, ...], bool]:
    """Return the type, the marks and whether None is possible, of `Annotated[T, mark] | None`."""
    optional = get_origin(hint) in (Union, UnionType)
    if optional:
        hint = next(part for part in get_args(hint) if part is not NoneType)
    if get_origin(hint) is Annotated:
        kind, *marks = get_args(hint)
        return kind, tuple(marks), optional
    return hint, (), optional


def _marked(value: Any, marks: tuple[Any, ...], place: Place) -> Any:
    if value is None:
        return value
    for mark in marks:
        if isinstance(mark, OneOf) and value not in mark.choices:
            raise place.unknown("value", value, mark.choices)
        if isinstance(mark, LevelName) and value not in mark.also:
            level_at(value, place, mark.also)
    return value


def _expected(kind: Any, marks: tuple[Any, ...]) -> str:
    text = NAMES.get(kind, getattr(kind, "__name__", str(kind)))
    for mark in marks:
        if isinstance(mark, OneOf):
            return f"one of {', '.join(mark.choices)}"
        if mark.gt is not None:
            return f"{text} greater than {mark.gt} and at most {mark.le:,.0f}"
        return f"{text} from {mark.ge} to {mark.le:,.0f}"
    return text


def _cure(kind: Any, value: Any) -> str:
    if kind is str and isinstance(value, (bool, int, float, datetime.date)):
        return "put it in quotes"
    if kind in (int, float, bool) and isinstance(value, str):
        return (
            f"write {NAMES[kind]}, without quotes"
            if kind is not bool
            else "write true or false, without quotes"
        )
    return ""


def level_at(value: object, place: Place, also: tuple[str, ...] = ()) -> int:
    """Return the number of a level's name in any case; raises ConfigError for what is no name of Python's logging.

    `also` are the words that the error names beside the levels.
    """
    names = logging.getLevelNamesMapping()
    if isinstance(value, str) and (number := names.get(value.upper())) is not None:
        return number
    if isinstance(value, str):
        raise place.unknown("level", value, ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL", *also))
    words = ", ".join(("DEBUG", "INFO", "WARNING", "ERROR", *also))
    raise place.wrong("the name of a level", value, f"write {words} or CRITICAL")
