"""A Collector's configuration as the text of a YAML file, with comments."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import yaml

__all__ = ["Path", "to_text"]

Path = tuple[str, ...]
"""Keys from the top of the document to a key."""

_WIDTH = 110
_FLOW = 88
"""A mapping of plain values stays on one line up to this many characters."""


class _Dumper(yaml.SafeDumper):
    """Lists indented below their key, short groups of plain values on one line, and no anchors."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _group(dumper: yaml.SafeDumper, value: Any) -> yaml.Node:
    items: list[Any] = list(value.values()) if isinstance(value, Mapping) else value
    plain = not any(isinstance(item, (Mapping, list)) for item in items)
    flow = plain and len(str(value)) <= _FLOW and not any(" " in str(item) for item in items)
    if isinstance(value, Mapping):
        return dumper.represent_mapping("tag:yaml.org,2002:map", value.items(), flow_style=flow)
    return dumper.represent_sequence("tag:yaml.org,2002:seq", value, flow_style=flow)


_Dumper.add_representer(dict, _group)
_Dumper.add_representer(list, _group)


def to_text(document: Mapping[str, Any], head: str, comments: Mapping[Path, str]) -> str:
    """Return the file: `head` at its top, and each comment above the key that it belongs to.

    KeyError for a comment whose key has no line of its own.
    """
    text = yaml.dump(dict(document), Dumper=_Dumper, sort_keys=False, width=10_000, allow_unicode=True)
    places = dict(_places(yaml.compose(text), ()))
    above: dict[int, list[str]] = {}
    for path, comment in comments.items():
        number, column = places[path]
        above.setdefault(number, []).extend(_wrapped(comment, column))
    lines: list[str] = _wrapped(head, 0)
    for number, line in enumerate(text.splitlines()):
        if line[:1] not in (" ", ""):
            lines.append("")
        lines += [*above.get(number, ()), line]
    return "\n".join(lines) + "\n"


def _places(node: yaml.Node | None, path: Path) -> Iterator[tuple[Path, tuple[int, int]]]:
    if isinstance(node, yaml.MappingNode) and not node.flow_style:
        for key, value in node.value:
            here = (*path, str(key.value))
            yield here, (key.start_mark.line, key.start_mark.column)
            yield from _places(value, here)


def _wrapped(comment: str, column: int) -> list[str]:
    """Return a comment as lines that begin with # at a column; a line of the text stays a line."""
    import textwrap

    margin = " " * column + "# "
    lines: list[str] = []
    for line in comment.splitlines():
        lines += textwrap.wrap(line, _WIDTH, initial_indent=margin, subsequent_indent=margin) or ["#"]
    return lines
