"""What a Collector's configuration is compiled from: a logging configuration, and where its texts are variables."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from .._validation import with_component
from .._yaml import load_file
from ..config import BackendConfig, LogConfig

__all__ = ["Source", "from_file", "variable"]

_VARIABLE = re.compile(r"\$\$|\$\{(?:env:)?([A-Za-z_][A-Za-z0-9_]*)(:-[^}]*)?\}")
_UNSET = "http://unset.invalid"
"""Stands for a variable that is not set where the file is rendered: it is the Collector that needs it."""


@dataclass
class Source:
    """A configuration to compile; what a person should hear about it is gathered in `warnings`."""

    config: LogConfig
    file: str = ""
    references: Mapping[tuple[str, str], str] = field(default_factory=dict)
    """By backend and option: what the file says there, where it says a variable."""
    warnings: list[str] = field(default_factory=list)

    def views(self) -> list[LogConfig]:
        """Return the configuration, and what each component makes of it."""
        return [self.config, *(with_component(self.config, name) for name in self.config.components)]

    def backends(self) -> dict[str, BackendConfig]:
        """Return the enabled backends behind the Collector, those that only a component has at the end."""
        found: dict[str, BackendConfig] = {}
        for view in self.views():
            for name, backend in view.backends.items():
                if backend.enabled and getattr(backend, "via", "sdk") == "collector":
                    found.setdefault(name, backend)
        return found

    def is_variable(self, backend: str, option: str) -> bool:
        """Say whether the file leaves an option to the environment."""
        return (backend, option) in self.references

    def text(self, backend: str, option: str, value: object) -> str:
        """Return the text of an option as the Collector reads it: variables stay variables."""
        given = self.references.get((backend, option))
        return str(value).replace("$", "$$") if given is None else _reference(given)

    def endpoint(self, backend: str, option: str, value: object, variable_name: str = "") -> str:
        """Return the text of an option that another machine needs otherwise: a variable with this default.

        A password in a URL is a secret, and no default.
        """
        name = variable_name or variable(backend, option)
        if self.is_variable(backend, option):
            return self.text(backend, option, value)
        if re.search(r"://[^/]*@", str(value)):
            return self._hidden(backend, option, name)
        return f"${{env:{name}:-{str(value).replace('$', '$$')}}}"

    def secret(self, backend: str, option: str, variable_name: str = "") -> str:
        """Return a secret, which is never in the text: a variable."""
        if self.is_variable(backend, option):
            return self.text(backend, option, "")
        return self._hidden(backend, option, variable_name or variable(backend, option))

    def _hidden(self, backend: str, option: str, name: str) -> str:
        self.warnings.append(
            f"backends.{backend}.config.{option} holds a secret, which is not written out: the Collector takes it "
            f"from the environment variable {name}"
        )
        return f"${{env:{name}}}"


def variable(backend: str, option: str) -> str:
    """Return the name of the environment variable for an option of a backend."""
    return re.sub(r"[^A-Z0-9]+", "_", f"HFT_{backend}_{option}".upper())


def from_file(file: Path, environ: Mapping[str, str] | None = None) -> Source:
    """Load a logging.yaml to compile; raises ConfigError. What stays a variable needs no value here."""
    document = _document(file)
    references = dict(_references(document))
    known = dict(os.environ if environ is None else environ)
    for name in _without_default(references.values()) - _without_default(_texts(_rest(document))):
        known.setdefault(name, _UNSET)
    return Source(load_file(file, known), file.name, references)


def _without_default(texts: Iterable[str]) -> set[str]:
    """Return the variables that need a value."""
    return {found[1] for text in texts for found in _VARIABLE.finditer(text) if found[1] and not found[2]}


def _rest(document: Any) -> dict[Any, Any]:
    """Return the part of a file that is compiled: what a variable in there holds must be known."""
    return {
        key: value for key, value in _mapping(_mapping(document).get("logging")).items() if key != "backends"
    }


def _document(file: Path) -> Any:
    """Return the file as plain data, {} where it cannot be read: load_file says what is wrong with it."""
    try:
        return yaml.safe_load(file.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, yaml.YAMLError, RecursionError, TypeError):
        return {}


def _texts(value: Any, depth: int = 0) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, (Mapping, list)) and depth < 32:
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from _texts(item, depth + 1)


def _references(document: Any) -> Iterator[tuple[tuple[str, str], str]]:
    for name, backend in _mapping(_mapping(_mapping(document).get("logging")).get("backends")).items():
        options = {**_mapping(backend), **_mapping(_mapping(backend).get("config"))}
        for option, value in options.items():
            if isinstance(value, str) and any(found[1] for found in _VARIABLE.finditer(value)):
                yield (str(name), str(option)), value
            for key, item in _mapping(value).items():
                if isinstance(item, str) and any(found[1] for found in _VARIABLE.finditer(item)):
                    yield (str(name), f"{option}.{key}"), item


def _mapping(value: Any) -> Mapping[Any, Any]:
    return value if isinstance(value, Mapping) else {}


def _reference(text: str) -> str:
    return _VARIABLE.sub(lambda found: f"${{env:{found[1]}{found[2] or ''}}}" if found[1] else "$$", text)
