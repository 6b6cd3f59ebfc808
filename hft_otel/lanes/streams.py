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
import stat
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


def make_folder(folder: Path, name: str, *, private: bool = False) -> tuple[Path, int]:
    """Make a stream's folder; return it with a descriptor that holds its lock. Raises OSError.

    Locked before others can see it, or they would take it for a dead process's. What is in a folder that somebody else
    may change is not to be relied on: `folder` must be this user's; unless it is to be `private`, root may have made
    it, as for a volume, and root itself may use anybody's.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    _check_owner(folder, private=private)
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


def _check_owner(folder: Path, *, private: bool) -> None:
    """Refuse a folder that is somebody else's, and take from others the right to write to an own one."""
    user = os.getuid()
    status = folder.stat()
    for owner in (status.st_uid, folder.lstat().st_uid):  # a link's owner says where it leads
        if owner != user and (private or 0 not in (owner, user)):
            raise PermissionError(f"{folder} belongs to user {owner}; name a folder of user {user}")
    for_all = status.st_mode & stat.S_ISVTX  # as /tmp is, where nobody can remove what is another's
    if status.st_uid == user and status.st_mode & 0o022 and not for_all:
        folder.chmod(stat.S_IMODE(status.st_mode) & ~0o022)


def try_lock(folder: Path, name: str = LOCK) -> int | None:
    """Return a descriptor that holds a stream's lock, or None where another process does. Raises OSError."""
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    descriptor = os.open(folder / name, flags, 0o600)
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
