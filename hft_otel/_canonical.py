"""One form for equal configurations, so that what they ask for is built once."""

from __future__ import annotations

from collections.abc import Callable
from copyreg import dispatch_table
from typing import Any

__all__ = ["canonical"]

_PLAIN: tuple[tuple[type, Callable[[Any], str]], ...] = (
    (bool, repr),
    (int, hex),  # which has no limit of digits
    (float, float.__repr__),
    (str, str.__repr__),
    (bytes, bytes.__repr__),
)


def canonical(value: object) -> bytes:
    """Return bytes that are the same for equal plain data in any order of its keys, and for copies of one object.

    Objects count by their class and by what a copy of them would be made of; what cannot be copied, such as a function
    or a class, is the same only as itself. Never raises.
    """
    return _form(value, []).encode(errors="surrogatepass")


def _form(value: Any, inside: list[Any]) -> str:
    """Return the form of a value that stands inside of others, which it may refer to."""
    if value is None:
        return "None"
    for kind, shown in _PLAIN:
        if isinstance(value, kind):  # an Enum, or another class derived from text, is the text
            return shown(value)
    depth = next((depth for depth, outer in enumerate(inside) if outer is value), None)
    if depth is not None:
        return f"<{depth}>"
    inside.append(value)
    try:
        return _composed(value, inside)
    except Exception:  # noqa: BLE001  # whatever a foreign class raises that is asked for its state
        return f"<{type(value).__qualname__} at {id(value):x}>"
    finally:
        inside.pop()


def _composed(value: Any, inside: list[Any]) -> str:
    if type(value) is dict:
        pairs = (f"{_form(key, inside)}: {_form(item, inside)}" for key, item in value.items())
        return f"{{{', '.join(sorted(pairs))}}}"
    if type(value) in (list, tuple):
        return f"[{', '.join(_form(item, inside) for item in value)}]"
    if type(value) in (set, frozenset):
        return f"set({', '.join(sorted(_form(item, inside) for item in value))})"
    reduce = dispatch_table.get(type(value))
    parts = reduce(value) if reduce else value.__reduce_ex__(4)
    if isinstance(value, type) or isinstance(parts, str):  # a class, or one of its kind, known by its name
        raise TypeError
    made, arguments, state, items, pairs = (*parts, *(None,) * 5)[:5]
    contents = [state, list(items or ()), [list(pair) for pair in pairs or ()]]
    return f"{made.__module__}.{made.__qualname__}{_form([arguments, *contents], inside)}"
