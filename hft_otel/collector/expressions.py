"""Conditions of the Collector's transformation language (OTTL), put together from parts."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import NamedTuple

__all__ = [
    "FALSE",
    "TRUE",
    "Expr",
    "all_of",
    "any_of",
    "call",
    "compare",
    "equals_text",
    "glob_pattern",
    "negate",
    "quote",
]

_INT64 = 2**63


class Expr(NamedTuple):
    """One condition; `kind` is what holds its parts together: `and`, `or`, or `atom` where it has none."""

    text: str
    kind: str = "atom"
    opposite: str = ""
    """The text of the opposite, where there is a shorter one than `not`."""


TRUE = Expr("true", "atom", "false")
FALSE = Expr("false", "atom", "true")
_OPPOSITES = {"==": "!=", "!=": "==", ">=": "<", "<=": ">"}


def call(text: str) -> Expr:
    """Return the condition that a function states."""
    return Expr(text, "atom", f"not {text}")


def compare(path: str, operator: str, literal: str) -> Expr:
    """Return a comparison; those by size are for what is always a number."""
    return Expr(f"{path} {operator} {literal}", "atom", f"{path} {_OPPOSITES[operator]} {literal}")


def all_of(parts: Iterable[Expr]) -> Expr:
    """Return the condition that holds where all of the parts hold; of none, that is always."""
    return _joined("and", parts, neutral=TRUE, decisive=FALSE)


def any_of(parts: Iterable[Expr]) -> Expr:
    """Return the condition that holds where one of the parts holds; of none, that is never."""
    return _joined("or", parts, neutral=FALSE, decisive=TRUE)


def negate(part: Expr) -> Expr:
    """Return the condition that holds where the part does not."""
    return Expr(
        part.opposite or f"not ({part.text})", "atom", part.text if part.kind == "atom" else f"({part.text})"
    )


def _joined(word: str, parts: Iterable[Expr], *, neutral: Expr, decisive: Expr) -> Expr:
    kept = list(dict.fromkeys(part for part in parts if part != neutral))
    if decisive in kept:
        return decisive
    if len(kept) <= 1:
        return kept[0] if kept else neutral
    texts = (part.text if part.kind in ("atom", word) else f"({part.text})" for part in kept)
    return Expr(f" {word} ".join(texts), word)


def quote(text: str) -> str:
    """Return text as a string of OTTL, fit for a Collector's file, which reads $$ as one dollar sign."""
    return json.dumps(text, ensure_ascii=False).replace("$", "$$")


def equals_text(path: str, text: str) -> Expr:
    """Return the condition that Python's `str()` of the attribute at a path is the text.

    A number or a flag is not the text that it prints as, so each type that can print like this is asked for.
    """
    found = [compare(path, "==", quote(text))]
    if text in ("True", "False"):
        found.append(compare(path, "==", text.lower()))
    elif re.fullmatch(r"-?(0|[1-9][0-9]*)", text) and text != "-0" and -_INT64 <= int(text) < _INT64:
        found.append(Expr(f"IsInt({path}) and {path} == {text}", "and"))
    elif re.fullmatch(r"-?[0-9][0-9.e+-]*", text) and (number := _float_literal(text)):
        found.append(Expr(f"IsDouble({path}) and {path} == {number}", "and"))
    return any_of(found)


def _float_literal(text: str) -> str | None:
    """Return a float as OTTL writes it, which wants a point; None where Python would print it otherwise."""
    try:
        if str(float(text)) != text:
            return None
    except ValueError:
        return None
    mantissa, mark, exponent = text.partition("e")
    return (mantissa if "." in mantissa else f"{mantissa}.0") + mark + exponent


def glob_pattern(pattern: str) -> str:
    """Return the regular expression (RE2) that matches what Python's `fnmatchcase` matches."""
    out, place = "", 0
    while place < len(pattern):
        char = pattern[place]
        place += 1
        if char == "*":
            out += "" if out.endswith(".*") else ".*"
        elif char == "?":
            out += "."
        elif char == "[" and (end := _end_of_set(pattern, place)) is not None:
            out += _set(pattern[place:end])
            place = end + 1
        else:
            out += re.escape(char)
    return f"^(?s:{out})$" if "." in out else f"^{out}$"


def _end_of_set(pattern: str, start: int) -> int | None:
    """Return where the `]` stands that closes a set; one at its very beginning belongs to it."""
    first = start + 1 if pattern[start : start + 1] == "!" else start
    end = pattern.find("]", first + 1 if pattern[first : first + 1] == "]" else first)
    return None if end < 0 else end


def _set(content: str) -> str:
    """Return a set of characters; a range whose ends are swapped holds nothing, as in Python."""
    negated, content = content.startswith("!"), content.removeprefix("!")
    members, place = "", 0
    while place < len(content):
        first = content[place]
        if content[place + 1 : place + 2] == "-" and place + 2 < len(content):
            last = content[place + 2]
            members += f"{re.escape(first)}-{re.escape(last)}" if first <= last else ""
            place += 3
        else:
            members += re.escape(first)
            place += 1
    if not members:
        return "." if negated else r"[^\x00-\x{10FFFF}]"
    return f"[{'^' if negated else ''}{members}]"
