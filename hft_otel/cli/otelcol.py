"""Where a Collector's binary is to be found."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

__all__ = ["BUILT", "first_of"]

BUILT = str(Path(__file__).resolve().parents[2] / ".parts" / "bin")
"""The folder that `make collector` and its like build into."""


def first_of(*places: tuple[Sequence[str], str | None]) -> Path | None:
    """Return what HFT_OTELCOL names, else the first program found, by names and search path (None: PATH)."""
    if named := os.environ.get("HFT_OTELCOL"):
        return Path(named)
    found = (shutil.which(name, path=path) for names, path in places for name in names)
    return next((Path(each) for each in found if each), None)
