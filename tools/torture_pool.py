"""Plays rounds of torture in processes of their own, several at a time; each round has its own seed, whoever plays it."""

from __future__ import annotations

import os
import random
import shutil
import signal
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import NamedTuple

from tests.real import kills, path_kills

__all__ = ["WHOLE_PATH", "Played", "Task", "run_all", "tasks_of"]

WHOLE_PATH = "whole path"
BATCH = 25
"""Rounds that one process plays; those of the whole path in one scene, which is judged at their end."""
IN_A_THREAD = 4
"""Each so-manieth scene of the whole path has no agent, but a thread."""
SECONDS_TO_END = 60.0


class Task(NamedTuple):
    """Some rounds of a kind, of which the first has this number."""

    kind: str
    first: int
    rounds: int


class Played(NamedTuple):
    """What became of so many rounds of a kind."""

    kind: str
    rounds: int
    outcome: kills.Outcome | path_kills.PathOutcome


def tasks_of(kinds: Sequence[str], rounds: int) -> list[Task]:
    """Return what is to be played, kind after kind."""
    return [
        Task(kind, first, min(BATCH, rounds - first)) for kind in kinds for first in range(0, rounds, BATCH)
    ]


def run_all(
    tasks: Sequence[Task],
    seed: int,
    jobs: int,
    keep: Path | None,
    note: Callable[[Task, int, Played], None],
) -> bool:
    """Play the tasks, so many at a time; false where Ctrl-C ended it. No process of it is left then.

    `note` is told of each round, or of each batch of the whole path, by the number of its first round.
    """
    left = list(tasks)
    running: dict[Connection, tuple[Task, BaseProcess]] = {}
    try:
        while left or running:
            while left and len(running) < jobs:
                task = left.pop(0)
                receiving, process = _start(task, seed, keep)
                running[receiving] = task, process
            for ready in wait(list(running)):
                assert isinstance(ready, Connection)
                task, process = running[ready]
                try:
                    number, played = ready.recv()
                except EOFError:
                    process.join()
                    ready.close()
                    del running[ready]
                    continue
                note(task, number, played)
    except KeyboardInterrupt:
        return False
    finally:
        _end([process for _, process in running.values()])
    return True


def _start(task: Task, seed: int, keep: Path | None) -> tuple[Connection, BaseProcess]:
    context = get_context("spawn")
    receiving, sending = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(task, seed, keep, sending))
    process.start()
    sending.close()
    return receiving, process


def _end(processes: Sequence[BaseProcess]) -> None:
    for process in processes:
        process.terminate()
    end = time.monotonic() + SECONDS_TO_END
    for process in processes:
        process.join(max(0.0, end - time.monotonic()))
        if process.is_alive():
            process.kill()
            process.join()


def _work(task: Task, seed: int, keep: Path | None, sending: Connection) -> None:
    os.setsid()  # Ctrl-C is for the first process only, which then ends the others in good order
    signal.signal(signal.SIGTERM, _leave)
    with tempfile.TemporaryDirectory(prefix="hft-otel-torture-", ignore_cleanup_errors=True) as folder:
        for number, played in _play(task, seed, Path(folder), keep):
            sending.send((number, played))


def _leave(*_: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise SystemExit(1)  # all that was started is ended on the way out


def _play(task: Task, seed: int, folder: Path, keep: Path | None) -> Iterator[tuple[int, Played]]:
    whole = task.kind == WHOLE_PATH
    for number in range(task.first, task.first + task.rounds, task.rounds if whole else 1):
        where = folder / f"round-{number}"
        try:
            played = _whole_path(task, seed, where) if whole else _round(task.kind, number, seed, where)
        except Exception:  # noqa: BLE001  (what goes wrong in a round is a result)
            played = _failed(task, traceback.format_exc())
        if keep is not None and not played.outcome.is_good:
            shutil.copytree(where, keep / f"{task.kind.replace(' ', '-')}-{number}", dirs_exist_ok=True)
        shutil.rmtree(where, ignore_errors=True)
        yield number, played


def _round(kind: str, number: int, seed: int, folder: Path) -> Played:
    return Played(kind, 1, next(kills.rounds(kind, 1, seed, folder, first=number)))


def _whole_path(task: Task, seed: int, folder: Path) -> Played:
    batch = task.first // BATCH
    isolation = "thread" if batch % IN_A_THREAD == IN_A_THREAD - 1 else "process"
    rng = random.Random(f"{task.kind}-{seed}-{batch}")
    return Played(task.kind, task.rounds, path_kills.play(isolation, task.rounds, rng, folder))


def _failed(task: Task, why: str) -> Played:
    if task.kind == WHOLE_PATH:
        return Played(task.kind, task.rounds, path_kills.PathOutcome("process", task.rounds, problems=[why]))
    return Played(task.kind, 1, kills.Outcome(0, 0, 0, 0, 0, notes=[why]))
