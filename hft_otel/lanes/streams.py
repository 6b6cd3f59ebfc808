"""The folder of one process's stream: found by others, locked while somebody works on it, removed at the end.

A process is known to be alive by the lock that it holds on a file in there, never by its number, which another may get.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
import shutil
import socket
import time
from collections.abc import Iterator
from pathlib import Path

__all__ = [
    "AGENT_LOCK",
    "DAMAGED",
    "LOCK",
    "TRAIL",
    "locked",
    "make_folder",
    "new_name",
    "others",
    "remove",
    "try_lock",
]

LOCK = "lock"
"""Held by the process that writes, for as long as it lives."""
AGENT_LOCK = "agent.lock"
"""Held by whoever reads for it."""
DAMAGED = ".damaged"
TRAIL = ".trail"
"""How the names of folders end that hold what is kept of a stream (see audit/trail.py), beside the stream's own folder."""


def new_name() -> str:
    """Return a name for a stream that no other process has or will have."""
    return f"{socket.gethostname()}-{os.getpid()}-{time.time_ns():x}"


def make_folder(folder: Path, name: str) -> tuple[Path, int]:
    """Make a stream's folder; return it with a descriptor that holds its lock. Raises OSError.

    Locked before others can see it, or they would take it for a dead process's.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    unseen = folder / f".{name}"
    unseen.mkdir(mode=0o700, exist_ok=True)
    lock = try_lock(unseen)
    if lock is None:
        raise OSError(f"{unseen} is locked by another process")
    try:
        unseen.rename(folder / name)
    except OSError:
        os.close(lock)
        raise
    return folder / name, lock


def try_lock(folder: Path, name: str = LOCK) -> int | None:
    """Return a descriptor that holds a stream's lock, or None where another process does. Raises OSError."""
    descriptor = os.open(folder / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        if isinstance(error, BlockingIOError):
            return None
        raise  # a file system without locks
    return descriptor


def others(folder: Path, own: str = "") -> Iterator[Path]:
    """Yield the folders of all streams in there but the own one, in order of their names."""
    try:
        found = sorted(path for path in folder.iterdir() if path.is_dir())
    except OSError:
        return
    for path in found:
        if path.name != own and not path.name.startswith(".") and path.suffix not in (DAMAGED, TRAIL):
            yield path


def locked(*folders: Path) -> tuple[int, ...] | None:
    """Take both locks in each folder of a stream whose process is gone.

    None where it, or an agent, is alive, or one cannot be opened.
    """
    taken: list[int] = []
    for folder, name in itertools.product(folders, (LOCK, AGENT_LOCK)):
        try:
            lock = try_lock(folder, name)
        except OSError:
            lock = None
        if lock is None:
            for descriptor in taken:
                os.close(descriptor)
            return None
        taken.append(lock)
    return tuple(taken)


def remove(folder: Path) -> None:
    """Remove a stream: its locks last, so that a start elsewhere does not take the rest for a dead process's."""
    for path in folder.glob("*.seg"):
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)
