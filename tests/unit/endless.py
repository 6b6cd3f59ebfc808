"""A value that has no end, for whoever looks at values."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping

__all__ = ["Endless"]


class Endless(Mapping[str, int]):
    """A mapping whose items never end."""

    def __getitem__(self, key: str) -> int:
        return 1

    def __iter__(self) -> Iterator[str]:
        return (f"k{number}" for number in itertools.count())

    def __len__(self) -> int:
        return 1
