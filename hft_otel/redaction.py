"""Secrets never leave: values are replaced by key name, and in text where a name and its value can be told apart.

Runs on the worker for every record, on the caller for audit events and bound context. A mapping without secrets is
handed back as it is, and what a name means is decided once.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Set
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from .secret_names import ONLY_AFTER, joined, may_name_a_secret, names_a_secret

__all__ = ["SECRET", "Redactor"]

SECRET = "***"
MAX_DEPTH = 16
MAX_VALUES = 100_000
"""Containers, their items, and eights of characters looked at in one call; what lies beyond is left out for a
replacement, so that no input keeps a thread busy."""
MAX_TEXT = 1_000_000
"""Characters of a text that are searched; what lies beyond is replaced where there is anything to search for."""
MAX_NAMES = 4096
"""Names remembered; names made at run time (an order id as a key) must not fill the memory."""
MAX_NAME = 64
"""Characters looked at for the name before a value in text, and length of a name that is remembered."""
BEYOND = "hft.redaction_cut"
"""The key that stands for what was left out of a mapping."""


# What shows by itself that it is secret: the inside of a private key in PEM, and JSON web tokens.
_BARE = re.compile(
    r"""(?P<head>-----BEGIN\ [A-Z0-9 ]{0,40}PRIVATE\ KEY(?:\ BLOCK)?-----).*?(?P<tail>-----END|\Z)
      | (?<![\w-])eyJ[\w-]{8,}+\.[\w-]{4,}+(?:\.[\w-]*+){1,3}""",
    re.DOTALL | re.VERBOSE,
)
# Text is searched for what stands between a name and its value; from there the name is read backwards. A message
# without such a place costs nearly nothing, and the time is linear in the text's length.
_SPOT = re.compile(r"[=:,]|[Bb]earer ")
_NAME = re.compile(r"""\s*["']?\\*(?P<name>(?P<word>[\w.-]+)(?:\ [\w.-]+)?)""")
_USER = re.compile(r"[^\s/:@]*//:")
_QUOTED = r"""\s*b?(?P<quote>\\*["'])(?P<text>(?:(?!(?P=quote))(?:\\.|.))*)"""
_PAIRED = re.compile(_QUOTED, re.DOTALL)
_VALUE = re.compile(
    rf"""{_QUOTED} | \s*(?P<bare>
        [\[{{(][^\]}})]*[\]}})]*
      | (?:(?:Bearer|Basic|Token)\s+)?[^\s,;&][^\s,;&"'()\[\]{{}}<>\\]*)""",
    re.DOTALL | re.VERBOSE,
)
_LINE = re.compile(rf"""{_QUOTED}|\s*(?P<bare>[^\r\n"']+)""", re.DOTALL)
_BEARER = re.compile(r"\s*(?P<bare>[\w.~+/=-]{8,})")
_URL_PASSWORD = re.compile(r"(?P<bare>[^\s/]+)(?=@)")
_MANY_WORDS = re.compile(r"(?i:authorization|cookies?|mnemonics?|phrases?|words|seeds?)(?![a-z])")
"""Words of names whose value may hold spaces: unquoted, it is taken to reach to the end of the line."""
_NO_VALUE = frozenset({"None", "null", "True", "False", "true", "false", SECRET})

_ATOMS: frozenset[type] = frozenset({int, float, bool, type(None), Decimal, datetime, UUID})


class Redactor:
    """Replaces the values of keys that name a secret, in mappings at any depth and in text.

    `extra_keys` are further names, compared without case and separators. Nothing here raises; what cannot be looked
    into (too deep, too much, broken) is replaced as a whole. One object may be shared between threads.
    """

    __slots__ = ("_clean_names", "_extra", "_secret_names", "clean_events")

    def __init__(self, extra_keys: Iterable[object] = ()) -> None:
        self._extra = frozenset(joined(key) for key in extra_keys if isinstance(key, str))
        self._clean_names: set[str] = set()
        self._secret_names: set[str] = set()
        self.clean_events: set[str] = set()
        """What `redact_event` need not be asked about again."""

    def redact(self, mapping: Mapping[Any, Any], *, whole: bool = False) -> Mapping[Any, Any]:
        """Return the mapping without secrets: the same object where there are none, else a copy as a dict.

        Strings inside are treated as `redact_text` does, and the second of a pair whose first is a secret's name as
        that name's value. With `whole`, raises ValueError where there is more than is looked at in one call.
        """
        try:
            if self._clean_names.issuperset(mapping):
                for value in mapping.values():
                    if type(value) is str:
                        if ":" in value or "=" in value or ("J" in value and "eyJ" in value):
                            break
                        if " " in value and (
                            "earer " in value or "-----B" in value or "', " in value or '", ' in value
                        ):
                            break
                    elif type(value) not in _ATOMS:
                        break
                else:
                    return mapping
            clean = self._copy(mapping, MAX_DEPTH, left := [MAX_VALUES])
        except Exception:  # noqa: BLE001  (never raises: the caller may be a trading thread)
            try:  # another thread may have changed the mapping meanwhile
                clean = self._copy(dict(mapping), MAX_DEPTH, left := [MAX_VALUES])
            except Exception:  # noqa: BLE001  (a broken mapping)
                return {"redaction_failed": SECRET}
        if whole and left[0] < 0:
            raise ValueError("more than is looked at in one call")
        return clean

    def redact_event(self, event: str) -> str:
        """Return an event's name as `redact_text` does, and remember it if it is short and clean."""
        clean = self.redact_text(event)
        if clean is event and len(event) <= MAX_NAME:
            if len(self.clean_events) >= MAX_NAMES:
                self.clean_events.clear()
            self.clean_events.add(event)
        return clean

    def redact_text(self, text: str) -> str:
        """Return the text with what follows a secret's name, and passwords in URLs, replaced.

        Seen are `api_key=abc`, `signature: abc`, `"secret": "abc"` (JSON, Python's repr, escaped quotes),
        `api key: abc`, `Authorization: Bearer abc`, `?signature=abc`, `('X-API-KEY', 'abc')`, `Bearer abc`, `scheme://user:abc@host`,
        the inside of a private key in PEM, and JSON web tokens (`eyJ...`).
        Not seen are secrets without a name; names and values apart by words or spaces alone (`the secret is abc`);
        the rest of an unquoted value after a space, a bracket or one of `,;&"'` (phrases, cookies and authorization
        go to the end of the line); a URL's password that holds `/`; percent-encoded separators.
        """
        try:
            if "eyJ" in text or "-----B" in text:
                text = _bounded(text)
                text = _BARE.sub(_bare_hidden, text)
            if "=" in text or ":" in text or "earer " in text or "', " in text or '", ' in text:
                text = _bounded(text)
                return self._clean(text) if self._extra or may_name_a_secret(text) else text
            return text
        except Exception:  # noqa: BLE001  (never raises; not a string, for one)
            return SECRET

    def is_secret(self, key: object) -> bool:
        """Say whether a key names a secret; keys that are neither str nor bytes do not."""
        if type(key) is not str:  # only str is remembered: comparing one runs nobody's code
            text = key.decode("latin-1") if isinstance(key, bytes) else key if isinstance(key, str) else ""
            return self._decide(str.__str__(text))
        if key in self._clean_names:
            return False
        if key in self._secret_names:
            return True
        secret = self._decide(key)
        names = self._secret_names if secret else self._clean_names
        if len(names) >= MAX_NAMES:
            names.clear()
        if len(key) <= MAX_NAME:
            names.add(key)
        return secret

    def _decide(self, key: str) -> bool:
        if self._extra and joined(key) in self._extra:
            return True
        return may_name_a_secret(key) and names_a_secret(key)

    def _copy(self, mapping: Mapping[Any, Any], depth: int, left: list[int]) -> Mapping[Any, Any]:
        copy = {}
        changed = False
        for key, value in mapping.items():
            left[0] -= 1
            if left[0] < 0:
                copy[BEYOND] = SECRET
                return copy
            copy[key] = new = _hidden(value) if self.is_secret(key) else self._value(value, depth, left)
            changed = changed or new is not value
        return copy if changed else mapping

    def _value(self, value: Any, depth: int, left: list[int]) -> Any:
        kind = type(value)
        if kind in _ATOMS:
            return value
        if kind is str:
            left[0] -= len(value) >> 3
            return self.redact_text(value) if left[0] >= 0 else SECRET
        left[0] -= 1
        if depth <= 0 or left[0] < 0:
            return SECRET
        try:
            return self._nested(value, depth - 1, left)
        except Exception:  # noqa: BLE001  (an object of the user's that cannot be looked into)
            return SECRET

    def _nested(self, value: Any, depth: int, left: list[int]) -> Any:
        """Look into containers, and into the objects that an encoder would take as mappings of their fields."""
        if isinstance(value, str):
            return self._value(str.__str__(value), depth, left)
        if isinstance(value, (bytes, bytearray)):
            left[0] -= len(value) >> 3
            text = value.decode("latin-1") if left[0] >= 0 else SECRET
            clean = self.redact_text(text)
            return value if clean is text and left[0] >= 0 else clean.encode("latin-1")
        if isinstance(value, (list, tuple, Set)):
            return self._items(value, depth, left)
        fields = value if isinstance(value, Mapping) else _fields_of(value)
        copy = fields and self._copy(fields, depth, left)
        return value if copy is fields else copy

    def _items(self, values: Any, depth: int, left: list[int]) -> Any:
        items = []
        changed = False
        for item in values:
            left[0] -= 1
            if left[0] < 0:
                items.append(SECRET)
                changed = True
                break
            new = (
                _hidden(item)
                if len(items) == 1 and self._names_second(values)
                else self._value(item, depth, left)
            )
            items.append(new)
            changed = changed or new is not item
        return values if not changed else tuple(items) if isinstance(values, tuple) else items

    def _names_second(self, values: Any) -> bool:
        """Say whether it is a pair of a secret's name and its value, as HTTP clients hand out headers."""
        if isinstance(values, Set) or len(values) != 2:
            return False
        name = values[0]
        if isinstance(name, (bytes, bytearray)):
            name = name.decode("latin-1") if len(name) <= MAX_NAME else ""
        # Not `is_secret`: the prices of an order book are no names to remember.
        return isinstance(name, str) and len(name) <= MAX_NAME and self._decide(str.__str__(name))

    def _clean(self, text: str) -> str:
        parts: list[str] = []
        done = at = 0
        may_have_user = "@" in text
        while spot := _SPOT.search(text, at):
            at = spot.end()
            pattern = self._value_after(text, spot.start(), spot[0], may_have_user)
            found = pattern.match(text, at) if pattern else None
            if found is None or found.lastgroup is None:
                continue
            start, at = found.span(found.lastgroup)
            if start < at and text[start:at] not in _NO_VALUE:
                parts += text[done:start], SECRET
                done = at
        return "".join((*parts, text[done:])) if parts else text

    def _value_after(self, text: str, spot: int, mark: str, may_have_user: bool) -> re.Pattern[str] | None:
        """Say how to read the secret after a mark; None where what follows is none."""
        if len(mark) > 1:
            return _BEARER
        if mark == "," and text[spot - 1 : spot] not in ('"', "'"):
            return None
        before = text[max(0, spot - MAX_NAME) : spot][::-1]
        if may_have_user and mark == ":" and _USER.match(before):
            return _URL_PASSWORD
        name = self._secret_name(before)
        if not name:
            return None
        return _PAIRED if mark == "," else _LINE if _MANY_WORDS.search(name) else _VALUE

    def _secret_name(self, before: str) -> str:
        """Return the name that ends where a reversed text begins, if it names a secret; else nothing."""
        found = _NAME.match(before)
        if found is None:
            return ""
        name = found["word"][::-1]
        if not self.is_secret(name) and name.lower() in ONLY_AFTER:
            name = found["name"][::-1]  # such as `api key: abc`
        return name if self.is_secret(name) else ""


def _bounded(text: str) -> str:
    return text if len(text) <= MAX_TEXT else text[:MAX_TEXT] + SECRET


def _bare_hidden(found: re.Match[str]) -> str:
    head = found["head"]
    return SECRET if head is None else head + SECRET + found["tail"]


def _hidden(value: Any) -> Any:
    """Stand in for a secret; where there is none (None, a flag, something empty) the value stays to be seen."""
    if value is None or value is True or value is False:
        return value
    return value if type(value) in (str, bytes, dict, list, tuple) and not value else SECRET


def _fields_of(value: Any) -> dict[str, Any] | None:
    """Return the fields of a dataclass, attrs or msgspec object, as an encoder would see them; None for others."""
    kind = type(value)
    names = getattr(kind, "__struct_fields__", None) or getattr(kind, "__dataclass_fields__", None)
    if names is None and (attributes := getattr(kind, "__attrs_attrs__", None)) is not None:
        names = [attribute.name for attribute in attributes]
    return None if names is None else {name: getattr(value, name) for name in names}
