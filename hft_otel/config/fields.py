"""What single fields may hold: ranges, choices, names of levels."""

from __future__ import annotations

from typing import Annotated, NamedTuple

from msgspec import Meta

__all__ = [
    "LATENCY",
    "CallSites",
    "Count",
    "Level",
    "LevelName",
    "Megabytes",
    "OneOf",
    "Port",
    "Seconds",
    "Via",
]


class OneOf(NamedTuple):
    """What a text field may say."""

    choices: tuple[str, ...]


class LevelName(NamedTuple):
    """Marks a field that holds the name of a level of Python's logging, or one of some further words."""

    also: tuple[str, ...] = ()


# The ranges stand at the fields, so that the YAML file, Python callers and documentation meet the same ones. Upper
# bounds keep out infinity and what a clock or a socket would refuse.
Level = Annotated[str, LevelName()]
CallSites = Annotated[str, LevelName(("always", "never"))]
Seconds = Annotated[float, Meta(gt=0, le=86_400)]
Megabytes = Annotated[float, Meta(ge=0.25, le=1024)]
Count = Annotated[int, Meta(ge=1, le=1_000_000_000)]
Port = Annotated[int, Meta(ge=0, le=65_535)]
Via = Annotated[str, OneOf(("sdk", "collector"))]


LATENCY = "latency"
"""The one name among `instruments` that speaks of `latency()`; patterns do not."""
