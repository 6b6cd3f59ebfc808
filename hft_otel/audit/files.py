"""Small files written so that a kill or a full disk leaves all of a change or nothing."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

__all__ = ["append", "mend", "store"]


def append(path: Path, line: bytes) -> None:
    """Put a line at the end of a file, on the disk; or none of it. Raises OSError."""
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        before = os.fstat(descriptor).st_size
        try:
            if os.write(descriptor, line) != len(line):
                raise OSError(f"{path} takes no more")
        except OSError:
            os.ftruncate(descriptor, before)
            raise
        os.fdatasync(descriptor)
    finally:
        os.close(descriptor)


def store(path: Path, data: bytes) -> None:
    """Write a read-only file, all of it or none. Raises OSError."""
    unready = path.with_suffix(".new")
    with suppress(FileNotFoundError):
        unready.unlink()
    try:
        with unready.open("xb") as file:
            file.write(data)
            file.flush()
            os.fdatasync(file.fileno())
            os.fchmod(file.fileno(), 0o400)
        unready.rename(path)
    except BaseException:
        unready.unlink(missing_ok=True)
        raise


def mend(path: Path) -> None:
    """Cut off what a killed process has left of a line at the end. Raises OSError."""
    with suppress(FileNotFoundError):
        data = path.read_bytes()
        if data and not data.endswith(b"\n"):
            os.truncate(path, data.rfind(b"\n") + 1)
