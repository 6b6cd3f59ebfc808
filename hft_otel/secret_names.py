"""Which names say that a value is secret, by their words: `access_token` does, `token_price` does not.

The last word decides, numbers and forms of writing aside; then a word that can mean nothing but a secret, anywhere in
the name (`api_key_mexc`), unless the last word says what is told of that secret (`api_key_age`).
"""

from __future__ import annotations

import re

__all__ = ["ONLY_AFTER", "joined", "may_name_a_secret", "names_a_secret"]


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# The last word of a name says what the value is: `token_price` is a price, `access_token` a token.
_ALWAYS = _words(
    "secret secrets signature passphrase passphrases password passwords passwd pwd authorization cookie cookies "
    "credential credentials creds mnemonic mnemonics auth jwt hmac otp totp passcode sig bearer"
)
# Secret unless the word before says otherwise: in trading a token is often a coin, and a sign +1 or -1.
_UNLESS = {
    "token": _words(
        "base quote input output in out sell buy from to gas fee lp native wrapped reward governance stable margin "
        "collateral underlying settle settlement traded next stop eos pad"
    ),
    "sign": _words("plus minus dollar call price position side direction profit pnl delta order percent"),
}
# A code is an error's, but for these.
_CODES = _words("auth authorization otp totp")
# Secret only after one of these: a key may be a dictionary's, a phrase a sentence's, a seed a random generator's.
_HOLDERS = _words(
    "api app secret private access auth security signing encryption master client session service user bearer "
    "refresh id oauth hmac rsa ssh wallet consumer account exchange bot csrf"
)
_KEYS = _words("api secret private priv access listen signing encryption master hmac rsa ssh wallet consumer")
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
    "pass": _words("user db database login admin root smtp"),
}
# The same written as one word, `apikey` or `MEXC-APIKEY`.
_FUSED = frozenset(
    {before + head for head, befores in ONLY_AFTER.items() for before in befores}
    | {before + head for head in ("token", "secret", "sign", "signature", "password") for before in _HOLDERS}
    | {"setcookie", "dbpassword", "hmacsha"}
)
_FORMS = _words("raw plain plaintext b64 base64 hex header hash str sha sha1 sha256 sha384 sha512 md5")
"""Last words that say how a value is written, not what it is."""

# What is no other thing wherever it stands: not `auth` (a step), `sig` (a signal), `bearer` (a format), `token` (a coin).
_SURE = (_ALWAYS | _FUSED) - _words("auth sig bearer")
_SURE_TOKENS = _words("api app access auth session service client bearer refresh oauth csrf bot login")
_SURE_AFTER = ONLY_AFTER | {
    "token": _SURE_TOKENS,
    "tokens": _SURE_TOKENS,
    "sign": _words("api access"),
}
_TOLD = _words(
    "id ids name names label alias prefix suffix fingerprint type types kind mode version algo algorithm alg scheme "
    "method format encoding policy strength level role scope scopes permission permissions issuer provider source "
    "store manager vault arn env var variable path file filename folder dir py url uri endpoint host port region "
    "count counts counter total sum number num index len length size bits bytes chars limit max min avg mean median "
    "std p pct percent rate ratio score bucket hit hits miss misses "
    "attempt attempts retry retries use uses usage remaining quota weight price prices volume amount balance supply "
    "symbol pair position qty quantity side "
    "time timestamp ts date duration latency delay timeout interval ttl age expiry expires expiration exp lifetime "
    "period at in on by until since s sec secs second seconds ms us ns minutes hours days "
    "status state result reason code error errors exception exceptions warning warnings failure failures failed ok "
    "missing present set given needed required allowed denied enabled disabled cached correct incorrect wrong valid "
    "invalid validity verified unverified match matched matches mismatch changed updated created rotated loaded "
    "used expired revoked rejected exists empty found rotation rotations refresh renewal keepalive reset check checks "
    "validation verification lookup change changes jar rules handler callback hook"
)
"""Last words that say what is told of a secret, none of which gives it away."""

_HINTS = (
    *(
        "@",
        "bearer",
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

_WORD = re.compile(
    r"(?i:base64|b64|sha1|sha256|sha384|sha512|md5|bip39)(?![0-9])|[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+"
)
_SEPARATOR = re.compile(r"[\W_]+")
_LONGEST = 256
"""Characters of a name that are looked at: a longer one is a text, and must keep no thread busy."""


def may_name_a_secret(text: str) -> bool:
    """Say quickly whether a closer look is worth it: it costs two microseconds for every separator."""
    lowered = text.lower()
    for hint in _HINTS:  # noqa: SIM110  (any() would make a generator, on a path that counts its calls)
        if hint in lowered:
            return True
    return False


def names_a_secret(name: str) -> bool:
    """Decide by the words of a name, whatever their case and separators; of a long one by the end of it."""
    words = [word.lower() for part in _SEPARATOR.split(name[-_LONGEST:]) for word in _WORD.findall(part)]
    numbered = False
    while len(words) > 1 and (words[-1].isdigit() or words[-1] in _FORMS):
        numbered = words.pop().isdigit() or numbered
    if not words:
        return False
    head, before = words[-1], words[-2] if len(words) > 1 else ""
    if head in _ALWAYS or head in _FUSED or before in ONLY_AFTER.get(head, ()):
        return True
    if head == "code" and before in _CODES:
        return True
    if head in _UNLESS:  # token0 and token1 are the two coins of a pool
        return before not in _UNLESS[head] and not (numbered and not before)
    if head == "seed" and not before:
        return not numbered
    return head not in _TOLD and _holds_a_secret(words)


def _holds_a_secret(words: list[str]) -> bool:
    """Say whether a word, or two in a row, can mean nothing but a secret."""
    before = ""
    for word in words:
        if word in _SURE or before in _SURE_AFTER.get(word, ()):
            return True
        before = word
    return False


def joined(name: str) -> str:
    """Return a name without case and separators."""
    return _SEPARATOR.sub("", name).lower()
