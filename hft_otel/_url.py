"""URLs that name a user and a password."""

from __future__ import annotations

from urllib.parse import unquote

__all__ = ["split_login"]


def split_login(url: str) -> tuple[str, tuple[str, str] | None]:
    """Return a URL, or `host:port`, without its user and password, and these two, or None where it names none."""
    scheme, mark, rest = url.rpartition("://")
    host, slash, path = rest.partition("/")
    login, at, host = host.rpartition("@")
    if not at:
        return url, None
    user, _, password = login.partition(":")
    return f"{scheme}{mark}{host}{slash}{path}", (unquote(user), unquote(password))
