"""Configuration that shows itself without its secrets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from .redaction import SECRET, Redactor

__all__ = ["Guarded", "masked"]


def masked(value: Any) -> Any:
    """Return plain data with all values of `headers` hidden: which header carries a secret is anyone's guess."""
    if isinstance(value, Mapping):
        return {
            key: dict.fromkeys(item, SECRET)
            if key == "headers" and isinstance(item, Mapping)
            else masked(item)
            for key, item in value.items()
        }
    return [masked(item) for item in value] if isinstance(value, list) else value


class Guarded:
    """A `repr` without secrets, for dataclasses."""

    def __repr__(self) -> str:
        redactor = Redactor(getattr(self, "redact", ()))
        values = {entry.name: _shown(getattr(self, entry.name)) for entry in fields(self)}  # type: ignore[arg-type]  # always a dataclass
        parts = (f"{name}={value!r}" for name, value in redactor.redact(masked(values)).items())
        return f"{type(self).__name__}({', '.join(parts)})"


class _Text:
    """Text that stands in a `repr` without quotes."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return self.text


def _shown(value: Any) -> Any:
    """Let nested configurations show themselves, as what they are."""
    if isinstance(value, Mapping):
        return {key: _shown(item) for key, item in value.items()}
    return _Text(repr(value)) if isinstance(value, Guarded) else value
