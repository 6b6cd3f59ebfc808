"""A backend of the user's behind the adapter: what it does wrong stays with it, and every record is accounted for."""

import asyncio
import contextlib
import sys
import textwrap
import threading
import time

import pytest

from hft_otel.config import ConfigError
from hft_otel.destinations import foreign
from hft_otel.destinations.base import Destination, RetryLater
from hft_otel.destinations.console import ConsoleBackend
from hft_otel.destinations.file import FileBackend
from hft_otel.destinations.foreign import ForeignBackend, as_destination, build_custom, load_class
from hft_otel.interfaces import LogBackend
from hft_otel.record import LogLevel, LogRecord, LogType


def text(message="m", level=LogLevel.INFO, log_type=LogType.TEXT):
    return LogRecord(1.0, level, log_type, "app", message)


def records(*messages):
    return [text(message) for message in messages]


class Keeper(LogBackend):
    """Keeps messages; one that names a method of this class is given to it."""

    def __init__(self, config=None):
        self.config = config
        self.kept = []
        self.flushed = 0

    async def write(self, record):
        action = getattr(self, f"do_{record.message}", None)
        if action is not None:
            await action()
        self.kept.append(record.message)

    async def flush(self):
        self.flushed += 1

    async def do_fail(self):
        raise ValueError("broken")

    async def do_yield(self):
        await asyncio.sleep(0.001)

    async def do_hang(self):
        await asyncio.sleep(3600)

    async def do_exit(self):
        sys.exit(3)

    async def do_interrupt(self):
        raise KeyboardInterrupt

    async def do_cancel(self):
        raise asyncio.CancelledError

    async def do_ignore(self):
        await ignore_cancellation()

    async def do_convert(self):
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            raise ValueError("cancelled") from None

    async def do_swallow(self):
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(3600)

    async def do_block(self):
        time.sleep(0.2)

    async def do_timeout(self):
        raise TimeoutError("the other side")

    async def do_stop(self):
        asyncio.get_running_loop().stop()

    async def do_background(self):
        self.task = asyncio.get_running_loop().create_task(self.in_background())

    async def in_background(self):
        for _ in range(3):
            await asyncio.sleep(0)
        self.kept.append("done in background")

    async def do_crash_in_background(self):
        self.task = asyncio.get_running_loop().create_task(self.do_exit())
        await asyncio.sleep(0.001)

    async def do_later(self):
        raise RetryLater("busy", after=2.5)

    async def do_unshowable(self):
        raise Unshowable


class Unshowable(Exception):
    def __str__(self):
        raise RuntimeError("no")


async def ignore_cancellation():
    while True:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            if finish.is_set():
                return


finish = threading.Event()


@pytest.fixture(autouse=True)
def short_grace(monkeypatch):
    finish.clear()
    monkeypatch.setattr(foreign, "GRACE", 0.02)


@pytest.fixture
def keeper():
    return Keeper()


@pytest.fixture
def adapter(keeper):
    made = ForeignBackend(keeper, "mine", deadline=0.05)
    made.open()
    yield made
    finish.set()
    made.close(1.0)


def reasons(rejected):
    return [(item.record.message, item.reason) for item in rejected]


# -- writing --


def test_records_are_written_in_order_and_awaited(adapter, keeper):
    assert not adapter.deliver(records("a", "yield", "b"))
    assert keeper.kept == ["a", "yield", "b"]


class Plain(LogBackend):
    """Whose methods are no coroutine functions."""

    def __init__(self):
        self.kept = []
        self.flushed = 0

    def write(self, record):
        self.kept.append(record.message)
        if record.message == "fail":
            raise ValueError("broken")
        return len(self.kept)

    def flush(self):
        self.flushed += 1


def test_methods_that_are_plain_functions_are_taken_at_their_word():
    backend = Plain()
    adapter = as_destination(backend, "plain")
    adapter.open()
    assert reasons(adapter.deliver(records("a", "fail", "b"))) == [("fail", "raised")]
    assert backend.kept == ["a", "fail", "b"]
    assert adapter.force_flush(1.0)
    asyncio.run(adapter.write(text("c")))
    asyncio.run(adapter.flush())
    assert (backend.kept[3:], backend.flushed) == (["c"], 2)
    adapter.close(1.0)


def yielding(self, record):
    yield record


async def yielding_async(self, record):
    yield record


@pytest.mark.parametrize("write", [yielding, yielding_async])
def test_method_that_yields_delivers_nothing_and_is_not_believed(write):
    backend = type("Yielding", (Plain,), {"write": write})()
    adapter = as_destination(backend, "yielding")
    assert reasons(adapter.deliver(records("a"))) == [("a", "raised")]
    assert "yield" in adapter.last_error
    adapter.close(1.0)


def test_everything_is_accepted(adapter):
    assert adapter.accepts == frozenset(LogType)


@pytest.mark.parametrize(
    ("message", "reason", "noted"),
    [
        ("fail", "raised", "ValueError: broken"),
        ("exit", "raised", "SystemExit: 3"),
        ("interrupt", "raised", "KeyboardInterrupt"),
        ("cancel", "raised", "CancelledError"),
        ("timeout", "raised", "TimeoutError: the other side"),
        ("unshowable", "raised", "Unshowable"),
        ("hang", "timeout", "TimeoutError: write took longer than 0.05 s"),
        ("convert", "timeout", "TimeoutError"),
        ("swallow", "timeout", "TimeoutError"),
        ("ignore", "timeout", ""),
    ],
)
def test_record_that_goes_wrong_is_rejected_and_the_rest_delivered(adapter, keeper, message, reason, noted):
    assert reasons(adapter.deliver(records("a", message, "b"))) == [(message, reason)]
    assert keeper.kept[:1] == ["a"]
    assert keeper.kept[-1:] == ["b"]
    assert adapter.last_error.startswith(noted)
    assert not adapter.deliver(records("c"))


def test_deadline_is_per_record_and_not_per_batch(keeper):
    adapter = ForeignBackend(keeper, deadline=0.2)
    assert not adapter.deliver(records(*["yield"] * 300))
    adapter.close(1.0)


def test_code_that_blocks_is_waited_for_and_delivered(adapter, keeper):
    assert not adapter.deliver(records("block", "b"))
    assert keeper.kept == ["block", "b"]


def test_call_that_was_given_up_settles_nothing_when_it_comes_back(adapter, keeper):
    rejected = adapter.deliver(records("ignore", "a"))
    finish.set()
    [abandoned] = adapter._abandoned
    abandoned.cancel()
    assert not adapter.deliver(records("yield", "b"))
    assert reasons(rejected) == [("ignore", "timeout")]
    assert keeper.kept == ["a", "ignore", "yield", "b"] or keeper.kept == ["a", "yield", "ignore", "b"]


def test_calls_that_ignore_cancellation_are_bounded_and_waited_out(adapter, keeper, monkeypatch):
    monkeypatch.setattr(foreign, "MAX_ABANDONED", 2)
    rejected = adapter.deliver(records("ignore", "ignore", "x", "y"))
    assert reasons(rejected) == [("ignore", "timeout"), ("ignore", "timeout"), ("x", "stuck"), ("y", "stuck")]
    finish.set()
    for task in list(adapter._abandoned):
        task.cancel()
    deadline = time.monotonic() + 5
    while reasons(adapter.deliver(records("z"))) and time.monotonic() < deadline:
        pass
    assert keeper.kept[-1] == "z"


def test_loop_that_is_stopped_by_the_backend_runs_on(adapter, keeper):
    assert not adapter.deliver(records("stop", "yield", "b"))
    assert keeper.kept == ["stop", "yield", "b"]


def test_exit_in_a_background_task_does_not_end_the_thread(adapter, keeper):
    assert not adapter.deliver(records("crash_in_background", "b"))
    assert keeper.kept == ["crash_in_background", "b"]
    assert adapter.last_error == "SystemExit: 3"
    keeper.task.exception()


def test_background_tasks_go_on_when_idle(adapter, keeper):
    adapter.deliver(records("background"))
    deadline = time.monotonic() + 5
    while "done in background" not in keeper.kept and time.monotonic() < deadline:
        adapter.idle()
    assert "done in background" in keeper.kept


def test_works_without_open_and_on_whatever_thread(keeper):
    adapter = ForeignBackend(keeper)
    adapter.idle()
    results = []
    thread = threading.Thread(
        target=lambda: results.append(adapter.deliver(records("yield"))) or adapter.close(1.0)
    )
    thread.start()
    thread.join(10)
    assert results == [[]]
    assert keeper.kept == ["yield"]


def test_loop_that_the_backend_closes_is_replaced(adapter, keeper):
    adapter.deliver(records("a"))
    adapter._loop.close()
    assert not adapter.deliver(records("yield"))
    assert keeper.kept == ["a", "yield"]


def test_adapter_can_be_used_as_a_plain_backend(adapter, keeper):
    async def use():
        await adapter.write(text("yield"))
        await adapter.flush()

    asyncio.run(use())
    assert (keeper.kept, keeper.flushed) == (["yield"], 1)


# -- retries --


def test_retry_that_the_backend_asks_for_is_passed_on(adapter, keeper):
    with pytest.raises(RetryLater) as later:
        adapter.deliver(records("a", "later", "b"))
    assert (later.value.reason, later.value.after, later.value.delivered) == ("busy", 2.5, 1)
    assert keeper.kept == ["a"]


def test_retry_after_a_rejection_gives_back_all_from_the_rejected_on(adapter, keeper):
    batch = records("a", "fail", "b", "later", "c")
    with pytest.raises(RetryLater) as later:
        adapter.deliver(batch)
    assert later.value.delivered == 1
    assert reasons(adapter.deliver([*batch[1:3], batch[4]])) == [("fail", "raised")]
    assert keeper.kept == ["a", "b", "b", "c"]


# -- should_handle --


def test_should_handle_is_the_backends_own_after_type_and_level():
    class Alerts(Keeper):
        def should_handle(self, record):
            return "alert" in record.message

    adapter = ForeignBackend(Alerts(), min_level=LogLevel.WARNING)
    taken = [
        adapter.should_handle(text("alert", LogLevel.ERROR)),
        adapter.should_handle(text("alert", LogLevel.INFO)),
        adapter.should_handle(text("other", LogLevel.ERROR)),
        adapter.should_handle(text("alert", LogLevel.INFO, LogType.AUDIT)),
    ]
    assert taken == [True, False, False, True]


@pytest.mark.parametrize(("error", "raised"), [(ValueError("x"), ValueError), (SystemExit(1), RuntimeError)])
def test_should_handle_that_raises_is_an_ordinary_exception(error, raised):
    class Bad(Keeper):
        def should_handle(self, record):
            raise error

    adapter = ForeignBackend(Bad())
    with pytest.raises(raised):
        adapter.should_handle(text())
    assert adapter.last_error.startswith(type(error).__name__)


# -- flush and close --


def test_flush_reaches_the_backend(adapter, keeper):
    assert adapter.force_flush(1.0)
    assert keeper.flushed == 1


@pytest.mark.parametrize("way", ["hang", "ignore", "fail", "exit", "cancel"])
def test_flush_that_fails_or_hangs_is_said_in_time(way):
    class Bad(Keeper):
        async def flush(self):
            await getattr(self, f"do_{way}")()

    adapter = ForeignBackend(Bad())
    started = time.monotonic()
    assert not adapter.force_flush(0.1)
    assert time.monotonic() - started < 2
    finish.set()
    adapter.close(0.2)


def test_close_flushes_cancels_what_runs_and_keeps_its_time():
    class Busy(Keeper):
        cancelled = False

        async def do_background(self):
            self.task = asyncio.get_running_loop().create_task(self.forever())
            await asyncio.sleep(0)

        async def forever(self):
            try:
                await asyncio.sleep(3600)
            finally:
                self.cancelled = True

    keeper = Busy()
    adapter = ForeignBackend(keeper)
    adapter.deliver(records("background"))
    adapter.close(1.0)
    adapter.close(1.0)
    assert (keeper.flushed, keeper.cancelled) == (1, True)


def test_close_does_not_wait_for_what_ignores_it(adapter):
    adapter.deliver(records("ignore"))
    started = time.monotonic()
    adapter.close(0.2)
    assert time.monotonic() - started < 1


# -- destinations whose write is the user's --


def test_destination_of_ours_is_taken_as_it_is_and_named():
    console = ConsoleBackend()
    assert as_destination(console, "console") is console
    assert console.name == "console"


def test_adapter_is_not_wrapped_again(adapter):
    assert as_destination(adapter, "other") is adapter
    assert adapter.name == "mine"


@pytest.mark.parametrize("method", ["write", "flush"])
def test_destination_with_a_method_of_the_users_is_wrapped(method):
    async def own(self, *given):
        return None

    mine = type("Mine", (ConsoleBackend,), {method: own})({"min_level": "ERROR"})
    adapter = as_destination(mine, "mine")
    assert isinstance(adapter, ForeignBackend)
    assert (adapter.name, adapter.min_level, adapter.backend) == ("mine", LogLevel.ERROR, mine)


def test_wrapped_destination_is_opened_and_closed_and_its_retries_count(tmp_path):
    class Shouting(FileBackend):
        async def write(self, record):
            record.message = record.message.upper()
            await super().write(record)

    adapter = as_destination(Shouting({"file_path": str(tmp_path / "a.log")}))
    adapter.open()
    assert (tmp_path / "a.log").exists()
    assert not adapter.deliver(records("loud"))
    adapter.idle()
    assert "LOUD" in (tmp_path / "a.log").read_text()
    adapter.close(1.0)
    assert adapter.backend._handler is None

    full = as_destination(Shouting({"file_path": "/dev/full"}))
    with pytest.raises(RetryLater) as later:
        full.deliver(records("a"))
    assert later.value.reason == "disk_full"
    full.close(1.0)


# -- classes by name --


@pytest.fixture
def module(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "their_module.py").write_text(
        textwrap.dedent(
            """
            from hft_otel.interfaces import LogBackend

            class Good(LogBackend):
                def __init__(self, config):
                    self.config = config
                async def write(self, record): pass

            class Bare(LogBackend):
                async def write(self, record): pass

            class Outer:
                class Inner(Bare): pass

            class Broken(LogBackend):
                def __init__(self, config):
                    raise KeyError("endpoint")
                async def write(self, record): pass

            class Two(LogBackend):
                def __init__(self, config, other): pass
                async def write(self, record): pass

            class Abstract(LogBackend): pass

            class Unrelated: pass

            value = 1
            """
        )
    )
    (tmp_path / "their_broken.py").write_text("1/0")
    (tmp_path / "their_needy.py").write_text("import no_such_dependency")
    yield
    for name in ("their_module", "their_broken", "their_needy"):
        sys.modules.pop(name, None)


def test_class_is_built_with_its_config(module):
    backend = build_custom("their_module:Good", {"a": 1})
    assert backend.config == {"a": 1}
    assert build_custom("their_module:Good").config == {}


def test_class_without_a_constructor_is_built_too(module):
    assert type(build_custom("their_module:Bare")).__name__ == "Bare"
    assert type(build_custom("their_module:Outer.Inner", {})).__name__ == "Inner"


def test_class_can_be_asked_for_by_other_bases(module):
    import their_module

    assert (
        load_class("their_module:Unrelated", (LogBackend, their_module.Unrelated)) is their_module.Unrelated
    )


@pytest.mark.parametrize(
    ("class_path", "cause"),
    [
        ("their_module.Good", r"write package\.module:Name"),
        (":Good", r"write package\.module:Name"),
        ("their_module:", r"write package\.module:Name"),
        ("no_such_module_at_all:Good", r"no module 'no_such_module_at_all'[\s\S]*PYTHONPATH"),
        ("their_module.deeper:Good", r"no module 'their_module.deeper'"),
        ("their_needy:Good", r"needs 'no_such_dependency'"),
        ("their_broken:Good", r"ZeroDivisionError"),
        ("..relative:Good", r"importing \.\.relative raised"),
        ("their_module:Godo", r"did you mean 'Good'"),
        ("their_module:Zzzzzz", r"define it there"),
        ("their_module:Unrelated", r"no subclass of LogBackend"),
        ("their_module:value", r"no subclass of LogBackend"),
        ("their_module:Abstract", r"abstract: write"),
    ],
)
def test_class_that_cannot_be_had_says_why_and_what_to_do(module, class_path, cause):
    with pytest.raises(ConfigError, match=cause):
        load_class(class_path)


def test_error_names_all_bases_that_would_do(module):
    with pytest.raises(ConfigError, match="LogBackend or Destination"):
        load_class("their_module:Unrelated", (LogBackend, Destination))


@pytest.mark.parametrize(
    ("class_path", "config", "cause"),
    [
        ("their_module:Broken", {"a": 1}, "KeyError: 'endpoint'"),
        ("their_module:Two", {}, "TypeError"),
        ("their_module:Bare", {"a": 1}, "takes no config"),
    ],
)
def test_class_that_cannot_be_built_says_why(module, class_path, config, cause):
    with pytest.raises(ConfigError, match=cause):
        build_custom(class_path, config)
