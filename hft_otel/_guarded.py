"""Configuration that shows itself without its secrets."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from .redaction import SECRET, Redactor

__all__ = ["Guarded", "masked"]


_ADDRESSES = frozenset({"push_gateway", "endpoint", "audit_endpoint"})
_LOGIN = re.compile(r"[^/]*@")
_URL = re.compile(
    r"""(?P<scheme>[\w.+-]+://)(?P<user>[^/?\#@\s]*@)?(?P<host>(?:[\w.-]+|\[[\w.:]+])(?::\d+)?)
        (?:[/?\#](?P<rest>.*))?""",
    re.DOTALL | re.VERBOSE,
)


def masked(value: Any) -> Any:
    """Return plain data without what only its place shows to be secret.

    That is all values of `headers`, since which of them carries a secret is anyone's guess; what stands before the @
    of an address without a scheme; and of a `url`, which is a webhook's, all but scheme, host and port.
    """
    if isinstance(value, Mapping):
        return {key: _masked_at(key, item) for key, item in value.items()}
    return [masked(item) for item in value] if isinstance(value, list) else value


def _masked_at(key: object, item: Any) -> Any:
    if key == "headers" and isinstance(item, Mapping):
        return dict.fromkeys(item, SECRET)
    if key == "url" and isinstance(item, str):
        return _only_host(item)
    if key in _ADDRESSES and isinstance(item, str) and "://" not in item:
        return _LOGIN.sub(f"{SECRET}@", item, count=1)
    return masked(item)


def _only_host(url: str) -> str:
    """Return a URL without what may carry a token; what is no URL is a secret as a whole."""
    found = _URL.fullmatch(url)
    if found is None:
        return SECRET if url else url
    user = f"{SECRET}@" if found["user"] else ""
    return f"{found['scheme']}{user}{found['host']}" + (f"/{SECRET}" if found["rest"] else "")


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
