"""Where in a configuration something stands, and how an error about it reads."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

from ..config import ConfigError
from ..redaction import SECRET, Redactor

__all__ = ["Place", "quoted"]

MAX_SHOWN = 60


@dataclass(frozen=True)
class Place:
    """A path into a configuration; `place / key` is the place below it."""

    file: str | None = None
    path: tuple[str | int, ...] = ("logging",)
    line_of: Callable[[tuple[str | int, ...]], int | None] = lambda path: None
    redactor: Redactor = field(default_factory=Redactor)

    def __truediv__(self, key: object) -> Place:
        return replace(self, path=(*self.path, key if isinstance(key, (str, int)) else repr(key)))

    def __str__(self) -> str:
        text = ""
        for key in self.path:
            text += f"[{key}]" if isinstance(key, int) else f".{key}" if text else str(key)
        return text

    def error(self, cause: str, cure: str) -> ConfigError:
        """Return an error about this place."""
        line = self.line_of(self.path)
        return ConfigError(cause, file=self.file, path=str(self), cure=cure, line=line)

    def wrong(self, expected: str, value: object, cure: str) -> ConfigError:
        """Return the error that something else was expected here."""
        return self.error(f"expected {expected}, found {self.found(value)}", cure)

    def unknown(self, what: str, name: object, valid: Iterable[str], more: str = "") -> ConfigError:
        """Return the error that a name is none of the valid ones, which it lists."""
        names = {choice.lower(): choice for choice in valid}
        cure = f"valid are {', '.join(names.values())}" if names else "there are none to choose from"
        if close := difflib.get_close_matches(str(name).lower(), names, n=1, cutoff=0.6):
            cure = f"did you mean {names[close[0]]}? {cure}"
        return self.error(f"unknown {what} {quoted(name)}", f"{cure}{more}")

    def found(self, value: object) -> str:
        """Say what was found, without giving away a secret."""
        if value is None:
            return "nothing (null)"
        if isinstance(value, bool):
            return "true" if value else "false"
        if not isinstance(value, (str, int, float)):
            names: dict[type, str] = {dict: "a mapping", list: "a list", tuple: "a list"}
            return names.get(type(value), f"a value of type {type(value).__name__}")
        kind = "text" if isinstance(value, str) else "a number"
        if any(key in ("headers", "url") or self.redactor.is_secret(key) for key in self.path):
            return f"{SECRET} ({kind})"
        return (
            f"{quoted(self.redactor.redact_text(value))} (text)"
            if isinstance(value, str)
            else f"{value!r:.60}"
        )


def quoted(value: object) -> str:
    """Return a name or value in quotes, on one line, cut."""
    text = str(value) if isinstance(value, (str, int)) else repr(value)
    text = text if text.isprintable() else ascii(text)[1:-1]
    return f'"{text if len(text) <= MAX_SHOWN else text[:MAX_SHOWN] + "..."}"'
