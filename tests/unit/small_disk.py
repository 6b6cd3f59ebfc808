"""A file system that is really full, for whoever may mount one."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

__all__ = ["SmallDisk", "small_disk"]


class SmallDisk:
    """A mounted file system of so many KiB; what is taken away can be given back."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._ballast = path / "ballast"

    def fill(self) -> None:
        """Leave no byte."""
        with self._ballast.open("ab", buffering=0) as file:
            try:
                while file.write(b"x" * 1024):
                    pass
            except OSError:
                return

    def free(self) -> None:
        """Take back what `fill` took."""
        self._ballast.unlink(missing_ok=True)

    def grow(self, kib: int) -> None:
        """Have it be of another size."""
        options = f"remount,size={kib}k"
        subprocess.run(["mount", "-o", options, str(self.path)], check=True, capture_output=True)


@contextmanager
def small_disk(path: Path, kib: int, access: str = "rw") -> Iterator[SmallDisk]:
    """Mount one there, that may be written or not (`ro`); skips the test where that may not be done."""
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"{access},size={kib}k", "tmpfs", str(path)]
    try:
        mounted = subprocess.run(command, check=False, capture_output=True).returncode == 0
    except FileNotFoundError:
        mounted = False
    if not mounted:
        pytest.skip("no file system can be mounted here")
    try:
        yield SmallDisk(path)
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)
