"""What a failed connection comes down to, in the few words that its reader needs."""

from __future__ import annotations

__all__ = ["connection_failure"]


def connection_failure(error: BaseException) -> str:
    """Return what the system said that is behind the exceptions of HTTP libraries: `connection refused`.

    Where it said nothing, the name of the innermost exception. Never a URL, which may hold a secret.
    """
    innermost: BaseException | None = error
    while innermost is not None:
        error = innermost
        said = error.strerror if isinstance(error, OSError) else None
        if said:
            return f"{said[0].lower()}{said[1:]}"
        innermost = error.__cause__ or error.__context__
    return type(error).__name__
