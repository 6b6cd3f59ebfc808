"""Which names say that a value is secret, by their words: `access_token` does, `token_price` does not."""

from __future__ import annotations

import re

__all__ = ["ONLY_AFTER", "joined", "may_name_a_secret", "names_a_secret"]


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
ONLY_AFTER = {
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
    {before + head for head, befores in ONLY_AFTER.items() for before in befores}
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


def may_name_a_secret(text: str) -> bool:
    """Say quickly whether a closer look is worth it: it costs two microseconds for every separator."""
    lowered = text.lower()
    for hint in _HINTS:  # noqa: SIM110  (any() would make a generator, on a path that counts its calls)
        if hint in lowered:
            return True
    return False


def names_a_secret(name: str) -> bool:
    """Decide by the words of a name, whatever their case and separators."""
    words = [word.lower() for part in _SEPARATOR.split(name) for word in _WORD.findall(part)]
    numbered = False
    while len(words) > 1 and (words[-1].isdigit() or words[-1] in _FORMS):
        numbered = words.pop().isdigit() or numbered
    if not words:
        return False
    head, before = words[-1], words[-2] if len(words) > 1 else ""
    if head in _ALWAYS or head in _FUSED or before in ONLY_AFTER.get(head, ()):
        return True
    if head in _UNLESS:  # token0 and token1 are the two coins of a pool
        return before not in _UNLESS[head] and not (numbered and not before)
    return head == "seed" and not before and not numbered


def joined(name: str) -> str:
    """Return a name without case and separators."""
    return _SEPARATOR.sub("", name).lower()
