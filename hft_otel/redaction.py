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

__all__ = ["SECRET", "Redactor"]

SECRET = "***"
MAX_DEPTH = 16
MAX_VALUES = 100_000
"""Containers and their items looked at in one call; what lies beyond is replaced, so that no input keeps a thread busy."""
MAX_NAMES = 4096
"""Names remembered; names made at run time (an order id as a key) must not fill the memory."""
MAX_NAME = 64
"""Characters looked at for the name before a value in text, and length of a name that is remembered."""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# The last word of a name says what the value is: `token_price` is a price, `access_token` a token.
_ALWAYS = _words(
    "secret secrets signature passphrase passphrases password passwords passwd pwd authorization cookie cookies "
    "credential credentials creds mnemonic mnemonics auth jwt hmac otp totp passcode sig"
)
# Secret unless the word before says otherwise: in trading a token is often a coin, and a sign +1 or -1.
_UNLESS = {
    "token": _words(
        "base quote input output in out sell buy from to gas fee lp native wrapped reward governance stable margin "
        "collateral underlying settle settlement traded next stop eos pad"
    ),
    "sign": _words("plus minus dollar call price position side direction profit pnl delta order percent"),
}
# Secret only after one of these: a key may be a dictionary's, a phrase a sentence's, a seed a random generator's.
_HOLDERS = _words(
    "api app secret private access auth security signing encryption master client session service user bearer "
    "refresh id oauth hmac rsa ssh wallet consumer account exchange bot csrf"
)
_KEYS = _words("api secret private access listen signing encryption master hmac rsa ssh wallet consumer")
_SEEDS = _words("wallet master mnemonic recovery private secret account bip39")
_ONLY_AFTER = {
    "key": _KEYS,
    "keys": _KEYS,
    "tokens": _HOLDERS,
    "seed": _SEEDS,
    "seeds": _SEEDS,
    "phrase": _words("seed secret recovery backup mnemonic pass wallet"),
    "words": _words("mnemonic seed"),
    "string": _words("connection"),
    "url": _words("webhook"),
}
# The same written as one word, `apikey` or `MEXC-APIKEY`.
_FUSED = frozenset(
    {before + head for head, befores in _ONLY_AFTER.items() for before in befores}
    | {before + head for head in ("token", "secret", "sign", "signature", "password") for before in _HOLDERS}
    | {"setcookie", "dbpassword"}
)
_FORMS = _words("raw plain plaintext b64 base64 hex header hash str")
"""Last words that say how a value is written, not what it is."""

_HINTS = (
    *(
        "@",
        "earer ",
        "auth",
        "cookie",
        "cred",
        "hmac",
        "jwt",
        "key",
        "mnemonic",
        "otp",
        "pass",
        "phrase",
        "pwd",
    ),
    *("secret", "seed", "sig", "string", "token", "url", "words"),
)
"""One of these stands in every text that names a secret in our words, and in few others; a test holds it to that."""

_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")
_SEPARATOR = re.compile(r"[\W_]+")

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
_MANY_WORDS = re.compile(r"(?:authorization|cookies?|mnemonics?|phrases?|words|seeds?)\Z", re.IGNORECASE)
"""Names whose value may hold spaces: unquoted, it is taken to reach to the end of the line."""
_NO_VALUE = frozenset({"None", "null", "True", "False", "true", "false", SECRET})

_ATOMS: frozenset[type] = frozenset({int, float, bool, type(None), Decimal, datetime, UUID})


class Redactor:
    """Replaces the values of keys that name a secret, in mappings at any depth and in text.

    `extra_keys` are further names, compared without case and separators. Nothing here raises; what cannot be looked
    into (too deep, too much, broken) is replaced as a whole. One object may be shared between threads.
    """

    __slots__ = ("_clean_names", "_extra", "_secret_names")

    def __init__(self, extra_keys: Iterable[object] = ()) -> None:
        self._extra = frozenset(_joined(key) for key in extra_keys if isinstance(key, str))
        self._clean_names: set[str] = set()
        self._secret_names: set[str] = set()

    def redact(self, mapping: Mapping[Any, Any]) -> Mapping[Any, Any]:
        """Return the mapping without secrets: the same object where there are none, else a copy as a dict.

        Strings inside are treated as `redact_text` does.
        """
        try:
            if self._clean_names.issuperset(mapping):
                for value in mapping.values():
                    if type(value) is str:
                        if ":" in value or "=" in value or "earer " in value:
                            break
                    elif type(value) not in _ATOMS:
                        break
                else:
                    return mapping
            return self._copy(mapping, MAX_DEPTH, [MAX_VALUES])
        except Exception:  # noqa: BLE001  (never raises: the caller may be a trading thread)
            try:  # another thread may have changed the mapping meanwhile
                return self._copy(dict(mapping), MAX_DEPTH, [MAX_VALUES])
            except Exception:  # noqa: BLE001  (a broken mapping)
                return {"redaction_failed": SECRET}

    def redact_text(self, text: str) -> str:
        """Return the text with what follows a secret's name, and passwords in URLs, replaced.

        Seen are `api_key=abc`, `signature: abc`, `"secret": "abc"` (JSON, Python's repr, escaped quotes),
        `api key: abc`, `Authorization: Bearer abc`, `?signature=abc`, `('X-API-KEY', 'abc')`, `Bearer abc`, `scheme://user:abc@host`.
        Not seen are secrets without a name; names and values apart by words or spaces alone (`the secret is abc`);
        the rest of an unquoted value after a space, a bracket or one of `,;&"'` (phrases, cookies and authorization
        go to the end of the line); a URL's password that holds `/`; percent-encoded separators.
        """
        try:
            paired = "=" in text or ":" in text or "earer " in text or "', " in text or '", ' in text
            return self._clean(text) if paired and (self._extra or _may_name_a_secret(text)) else text
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
        return _joined(key) in self._extra or _names_a_secret(key)

    def _copy(self, mapping: Mapping[Any, Any], depth: int, left: list[int]) -> Mapping[Any, Any]:
        left[0] -= len(mapping)
        copy = {}
        changed = False
        for key, value in mapping.items():
            copy[key] = new = _hidden(value) if self.is_secret(key) else self._value(value, depth, left)
            changed = changed or new is not value
        return copy if changed else mapping

    def _value(self, value: Any, depth: int, left: list[int]) -> Any:
        kind = type(value)
        if kind is str:
            return self.redact_text(value)
        if kind in _ATOMS:
            return value
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
            return self.redact_text(str.__str__(value))
        if isinstance(value, (bytes, bytearray)):
            text = value.decode("latin-1")
            clean = self.redact_text(text)
            return value if clean is text else clean.encode("latin-1")
        if isinstance(value, (list, tuple, Set)):
            left[0] -= len(value)
            items = [self._value(item, depth, left) for item in value]
            same = all(new is old for new, old in zip(items, value, strict=True))
            return value if same else tuple(items) if isinstance(value, tuple) else items
        fields = value if isinstance(value, Mapping) else _fields_of(value)
        copy = fields and self._copy(fields, depth, left)
        return value if copy is fields else copy

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
        if not self.is_secret(name) and name.lower() in _ONLY_AFTER:
            name = found["name"][::-1]  # such as `api key: abc`
        return name if self.is_secret(name) else ""


def _may_name_a_secret(text: str) -> bool:
    """Say quickly whether a closer look is worth it: it costs two microseconds for every separator."""
    lowered = text.lower()
    for hint in _HINTS:  # noqa: SIM110  (any() would make a generator, on a path that counts its calls)
        if hint in lowered:
            return True
    return False


def _names_a_secret(name: str) -> bool:
    """Decide by the words of a name, whatever their case and separators."""
    words = [word.lower() for part in _SEPARATOR.split(name) for word in _WORD.findall(part)]
    numbered = False
    while len(words) > 1 and (words[-1].isdigit() or words[-1] in _FORMS):
        numbered = words.pop().isdigit() or numbered
    if not words:
        return False
    head, before = words[-1], words[-2] if len(words) > 1 else ""
    if head in _ALWAYS or head in _FUSED or before in _ONLY_AFTER.get(head, ()):
        return True
    if head in _UNLESS:  # token0 and token1 are the two coins of a pool
        return before not in _UNLESS[head] and not (numbered and not before)
    return head == "seed" and not before and not numbered


def _joined(name: str) -> str:
    return _SEPARATOR.sub("", name).lower()


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
