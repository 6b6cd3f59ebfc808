"""Any LogBackend of the user's as a destination: a loop of its own, a deadline per record, and no way to do harm."""

from __future__ import annotations

import asyncio
import difflib
import importlib
import inspect
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Mapping, Sequence
from types import ModuleType
from typing import Any

from ..config import ConfigError
from ..interfaces import LogBackend
from ..record import LogLevel, LogRecord
from .base import Destination, Rejected, RetryLater

__all__ = ["ForeignBackend", "as_destination", "build_custom", "load_class"]

GRACE = 0.5
"""Seconds that a cancelled `write` gets to clean up, before it is left to itself."""
MAX_ABANDONED = 8
"""Calls that ignored their cancellation; with so many, nothing is handed over until one of them ends."""


class ForeignBackend(Destination):
    """Awaits the backend's `write` for each record, in order, on an event loop of this destination's thread.

    Rejected are records whose `write` raised (`raised`) or still waited after `deadline` seconds (`timeout`; it is
    cancelled), and all while too many calls ignore their cancellation (`stuck`). `RetryLater` from `write` is honoured.
    A plain `def` will do as well. Code that blocks without awaiting holds up this destination alone. `should_handle` is
    the backend's own, and is asked on this destination's thread before `deliver`.
    """

    max_batch: int = 64

    def __init__(
        self,
        backend: LogBackend,
        name: str = "",
        deadline: float = 10.0,
        *,
        min_level: LogLevel | None = None,
    ) -> None:
        self.backend = backend
        self.name = name or type(backend).__name__
        self.deadline = deadline
        self.min_level = min_level or (
            backend.min_level if isinstance(backend, Destination) else LogLevel.DEBUG
        )
        self.last_error = ""
        """What the backend raised last, type and text, for the notice."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._abandoned: set[asyncio.Task[Any]] = set()

    def should_handle(self, record: LogRecord) -> bool:
        try:
            return super().should_handle(record) and bool(self.backend.should_handle(record))
        except Exception as error:
            self.note(error)
            raise
        except BaseException as error:  # SystemExit from user code must not end the thread
            self.note(error)
            raise RuntimeError(f"should_handle raised {type(error).__name__}") from error

    def open(self) -> None:
        self._ready()
        if isinstance(self.backend, Destination):
            self.backend.open()

    def deliver(self, batch: Sequence[LogRecord]) -> Sequence[Rejected]:
        run = _Run(self, batch)
        while run.position < len(batch) and run.retry is None:
            if len(self._abandoned) >= MAX_ABANDONED:
                self._run(asyncio.sleep(0))  # one of them may have ended meanwhile
            if len(self._abandoned) >= MAX_ABANDONED:
                run.reject("stuck")
            elif not self._run(run.hand_over(), lambda: run.started + self.deadline):
                run.runner = None
                run.reject("timeout")
        if run.retry is not None:
            # A retry has no place for rejections: from the first of them on, the records come again.
            run.retry.delivered = run.position if run.first_rejected is None else run.first_rejected
            raise run.retry
        return run.rejected

    def idle(self) -> None:
        """Give the tasks that the backend has started a turn of the loop."""
        if self._loop is not None and asyncio.all_tasks(self._loop):
            self._run(asyncio.sleep(0.005))
        if isinstance(self.backend, Destination):
            self.backend.idle()

    def force_flush(self, timeout: float) -> bool:
        flushed = False

        async def flush() -> None:
            nonlocal flushed
            try:
                await _ended(self.backend.flush())
                flushed = True
            except asyncio.CancelledError:
                raise
            except BaseException as error:  # noqa: BLE001 (SystemExit from user code must not end the thread)
                self.note(error)

        until = time.monotonic() + timeout
        return self._run(flush(), lambda: until, grace=0.0) and flushed

    def close(self, timeout: float) -> None:
        until = time.monotonic() + timeout
        if self._loop is None:
            return
        self.force_flush(timeout / 2)
        if isinstance(self.backend, Destination):
            self.backend.close(max(0.0, until - time.monotonic()))
        loop = self._loop
        tasks = asyncio.all_tasks(loop)
        for task in tasks:
            task.cancel()
        if tasks:
            self._run(_finished(tasks), lambda: until, grace=0.0)
        self._loop = None
        self._abandoned.clear()
        loop.close()

    async def write(self, record: LogRecord) -> None:
        await _ended(self.backend.write(record))

    async def flush(self) -> None:
        await _ended(self.backend.flush())

    def note(self, error: BaseException) -> None:
        """Remember what the backend raised."""
        try:
            self.last_error = f"{type(error).__name__}: {error}"
        except Exception:  # noqa: BLE001 (a broken __str__)
            self.last_error = type(error).__name__

    def _ready(self) -> asyncio.AbstractEventLoop:
        if self._loop is None or self._loop.is_closed():  # by the backend itself
            self._loop = asyncio.new_event_loop()
            self._loop.set_exception_handler(self._on_loop_error)
        return self._loop

    def _on_loop_error(self, loop: asyncio.AbstractEventLoop, event: Mapping[str, Any]) -> None:
        """A task of the backend's has failed: asyncio would log it, perhaps into this very backend."""
        self.note(event.get("exception") or RuntimeError(event.get("message")))

    def _run(
        self,
        work: Coroutine[Any, Any, Any],
        until: Callable[[], float] = lambda: time.monotonic() + 1.0,
        grace: float | None = None,
    ) -> bool:
        """Run the loop until the work is done; past `until()` (a time.monotonic) and the grace, cancel and leave it."""
        loop = self._ready()
        task = loop.create_task(work)
        watch = loop.create_task(_watch(task, lambda: until() + (GRACE if grace is None else grace)))
        while not watch.done() and not loop.is_closed():
            try:
                loop.run_until_complete(watch)
            except BaseException as error:  # noqa: BLE001 (a task of the backend's raised SystemExit or stopped the loop)
                self.note(error)
        if task.done():
            failure = None if task.cancelled() else task.exception()
            if failure is not None:
                self.note(failure)
            return True
        task.cancel()
        self._abandoned.add(task)
        task.add_done_callback(self._forget)
        return False

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._abandoned.discard(task)
        if not task.cancelled():
            task.exception()  # or asyncio complains that nobody looked


class _Run:
    """One batch on its way to the backend; everything before `position` is settled."""

    def __init__(self, owner: ForeignBackend, batch: Sequence[LogRecord]) -> None:
        self.position = 0
        self.started = 0.0
        self.rejected: list[Rejected] = []
        self.first_rejected: int | None = None
        self.retry: RetryLater | None = None
        self.runner: asyncio.Task[Any] | None = None
        """The task that hands over; one that was given up must change nothing when it comes back."""
        self._owner = owner
        self._batch = batch

    def reject(self, reason: str) -> None:
        """Settle the current record as one that will not be delivered."""
        if self.first_rejected is None:
            self.first_rejected = self.position
        self.rejected.append(Rejected(self._batch[self.position], reason))
        self.position += 1

    async def hand_over(self) -> None:
        """Write record after record; returns early when the backend asks for a retry."""
        self.runner = asyncio.current_task()
        while self.position < len(self._batch) and self.retry is None:
            self.started = time.monotonic()
            if not await self._write(self._batch[self.position]):
                return

    async def _write(self, record: LogRecord) -> bool:
        """Write one record and settle it; False when this task was given up meanwhile."""
        limit = asyncio.timeout(self._owner.deadline)
        failure: BaseException | None = None
        try:
            async with limit:
                await _ended(self._owner.backend.write(record))
        except GeneratorExit:
            raise
        except BaseException as error:  # noqa: BLE001 (SystemExit and CancelledError from user code, too)
            failure = error
        if self.runner is not asyncio.current_task():
            return False
        if limit.expired():
            self._owner.note(TimeoutError(f"write took longer than {self._owner.deadline:g} s"))
            self.reject("timeout")
        elif isinstance(failure, RetryLater):
            self.retry = failure
        elif failure is not None:
            self._owner.note(failure)
            self.reject("raised")
        else:
            self.position += 1
        return True


async def _ended(call: Any) -> None:
    """Wait for what the backend's method returned; a plain `def` has ended by now."""
    if inspect.isawaitable(call):
        await call
    elif isinstance(call, Generator | AsyncGenerator):
        raise TypeError("the method has a `yield` in it, which makes it a generator that nobody runs")


async def _watch(task: asyncio.Task[Any], until: Callable[[], float]) -> None:
    """Wait for the task, at most until a time that may move on while it works."""
    while not task.done() and (left := until() - time.monotonic()) > 0:
        await asyncio.wait({task}, timeout=left)


async def _finished(tasks: set[asyncio.Task[Any]]) -> None:
    await asyncio.wait(tasks)


def as_destination(backend: LogBackend, name: str = "", deadline: float = 10.0) -> Destination:
    """Return the backend if it takes batches by itself; one whose `write` or `flush` is the user's gets an adapter.

    `name` is for those that have none of their own.
    """
    own = type(backend)
    takes_batches = own.write is Destination.write and own.flush is Destination.flush
    if isinstance(backend, ForeignBackend) or (isinstance(backend, Destination) and takes_batches):
        backend.name = backend.name or name
        return backend
    return ForeignBackend(backend, getattr(backend, "name", "") or name, deadline)


def load_class(class_path: str, bases: type | tuple[type, ...] = LogBackend) -> type[Any]:
    """Import the class named `package.module:Name`; ConfigError says what is wrong and what to do."""
    module_name, colon, name = class_path.partition(":")
    if not (module_name and colon and name):
        raise _error(f"{class_path!r} names no class", "write package.module:Name")
    found: Any = _imported(module_name)
    for part in name.split("."):
        if not hasattr(found, part):
            close = difflib.get_close_matches(
                part, [key for key in vars(found) if not key.startswith("_")], n=1
            )
            cure = f"did you mean {close[0]!r}?" if close else "define it there, or name another"
            raise _error(f"{module_name} has no {name!r}", cure)
        found = getattr(found, part)
    if not (isinstance(found, type) and issubclass(found, bases)):
        wanted = " or ".join(base.__name__ for base in (bases if isinstance(bases, tuple) else (bases,)))
        raise _error(f"{class_path} is no subclass of {wanted}", "derive it from one, or name another class")
    if inspect.isabstract(found):
        missing = ", ".join(sorted(getattr(found, "__abstractmethods__", ())))
        raise _error(f"{class_path} leaves methods abstract: {missing}", "write them")
    return found


def _imported(module_name: str) -> ModuleType:
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and f"{module_name}.".startswith(f"{error.name}."):
            cure = "check the spelling, install it, or put its folder on PYTHONPATH"
            raise _error(f"there is no module {error.name!r}", cure) from error
        raise _error(f"{module_name} needs {error.name!r}, which is missing", "install that") from error
    except Exception as error:
        cure = "make `import` of it work"
        raise _error(f"importing {module_name} raised {type(error).__name__}: {error}", cure) from error


def _error(cause: str, cure: str) -> ConfigError:
    return ConfigError(cause, path="class", cure=cure)


def build_custom(class_path: str, config: Mapping[str, Any] | None = None) -> LogBackend:
    """Build the user's backend, with the `config:` mapping where its constructor takes an argument."""
    made = load_class(class_path)
    options = dict(config or {})
    try:
        takes_config = _takes_argument(made)
        if options and not takes_config:
            raise _error(f"{class_path} takes no config, but some is given", "add __init__(self, config)")
        backend: LogBackend = made(options) if takes_config else made()
    except ConfigError:
        raise
    except Exception as error:
        cause = f"building {class_path} raised {type(error).__name__}: {error}"
        raise _error(cause, "correct its `config:`, or its constructor") from error
    return backend


def _takes_argument(made: type[Any]) -> bool:
    try:
        inspect.signature(made).bind({})
    except TypeError:
        return False
    return True
