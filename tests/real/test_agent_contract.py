"""One contract, whoever delivers: a thread of the trading process, or an agent beside it."""

from __future__ import annotations

import os
import re
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.real.agents import (
    HEAD,
    await_quiet,
    configure,
    no_agent_left,
    numbers,
    records,
    serving,
)
from tests.real.processes import NOT_MEASURED, Ended, hear, otlp, python, run_script, say, started
from tests.real.running import Collector, free_ports, wait_until

ISOLATIONS = ["thread", "process"]


class World:
    """A folder in which programs run with one isolation."""

    def __init__(self, folder: Path, isolation: str) -> None:
        self.folder = folder
        self.isolation = isolation
        configure(folder, isolation)

    def run(self, script: str, *arguments: str, succeeds: bool = True, **more: str) -> Ended:
        """Run a program to its end, and wait until all that it left is delivered."""
        ended = run_script(HEAD + script, *arguments, cwd=self.folder, succeeds=succeeds, **more)
        if self.isolation == "process":  # else os._exit leaves a journal that is settled, and not removed
            await_quiet(self.folder)
        return ended


@pytest.fixture(params=ISOLATIONS)
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    with no_agent_left(tmp_path):
        yield World(tmp_path, request.param)


def test_every_kind_of_call_arrives_at_a_file(world: World) -> None:
    world.run("""
log = make()
log.debug("text", number=0)
log.info("text %s", "b", extra={"number": 1})
log.warning("text", number=2)
log.audit("sent", number=0, api_key="hunter2")
log.metric("depth", 5.0)
log.latency("parse", 0.5)
log.counter("orders")
assert log.force_flush(20), str(log.force_flush(1))
""")
    found = records(world.folder)
    assert Counter(entry["body"] for entry in found) == {"text": 2, "text b": 1, "sent": 1}
    assert [entry["severity_text"] for entry in found if entry["body"].startswith("text")] == [
        "DEBUG",
        "INFO",
        "WARNING",
    ]


def test_every_signal_arrives_at_a_collector(world: World, collector: Callable[..., Collector]) -> None:
    otel = collector()
    configure(world.folder, world.isolation, {"otlp": otlp(otel.endpoint)})
    world.run("""
log = make()
for number in range(200):
    log.info("order", number=number)
    log.audit("order_sent", number=number)
    log.counter("orders")
    log.latency("parse", 0.5)
assert log.force_flush(20), str(log.force_flush(1))
""")
    otel.stop()
    once = Counter(range(200))
    assert Counter(r["attributes"]["number"] for r in otel.logs() if not r["event_name"]) == once
    assert Counter(r["attributes"]["number"] for r in otel.logs() if r["event_name"]) == once
    assert Counter(s["events"][0]["attributes"]["number"] for s in otel.spans()) == once
    newest = {point["name"]: point for point in otel.metrics()}
    assert newest["hft.orders"]["value"] == 200
    assert newest["hft.latency"]["count"] == 200


def test_a_flush_that_is_true_means_delivered(world: World) -> None:
    script = """
log = make()
for number in range(3000):
    log.info("text", number=number)
    log.audit("sent", number=number)
report = log.force_flush(20)
tell(true=bool(report), emitted=report.emitted, delivered=report.delivered, pending=report.pending)
sys.stdin.readline()
"""
    with started(python(HEAD + script), world.folder) as process:
        told = hear(process)
        found = records(world.folder)  # at this moment, not later
        say(process)
        assert process.wait(30) == 0
    assert '"true": true' in told and '"pending": 0' in told
    assert '"emitted": 6000' in told and '"delivered": 6000' in told
    assert numbers(found, "text") == numbers(found, "sent") == Counter(range(3000))


def test_a_flush_that_cannot_deliver_is_false_in_time(world: World) -> None:
    (port,) = free_ports(1)
    configure(
        world.folder,
        world.isolation,
        {"otlp": otlp(f"http://127.0.0.1:{port}")},
        exit_timeout=0.2,
        agent={"linger": 0},
    )
    ended = run_script(
        HEAD
        + """
log = make()
log.info("text", number=0)
started = time.monotonic()
report = log.force_flush(1.5)
tell(true=bool(report), complete=report.complete, took=time.monotonic() - started, pending=report.pending)
""",
        cwd=world.folder,
    )
    assert not ended.told["true"] and not ended.told["complete"]
    assert 1.4 < ended.told["took"] < 3.0
    assert "records not delivered" in ended.stderr
    assert "otlp.logs TEXT 1" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_flushing_in_an_event_loop_does_not_block_it(world: World) -> None:
    ended = world.run("""
async def main():
    log = make()
    ticks = 0
    async def tick():
        nonlocal ticks
        while True:
            ticks += 1
            await asyncio.sleep(0.001)
    task = asyncio.create_task(tick())
    for number in range(2000):
        log.info("text", number=number)
    report = await log.flush(20)
    tell(true=bool(report), ticks=ticks)
    task.cancel()
asyncio.run(main())
""")
    assert ended.told["true"] and ended.told["ticks"] > 1
    assert numbers(records(world.folder), "text") == Counter(range(2000))


def test_order_is_kept_per_thread(world: World) -> None:
    world.run("""
log = make()
def work(thread):
    for number in range(1000):
        log.info("text", thread=thread, number=number)
threads = [threading.Thread(target=work, args=(thread,)) for thread in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
assert log.force_flush(20)
""")
    for thread in range(8):
        mine = [
            e["attributes"]["number"] for e in records(world.folder) if e["attributes"]["thread"] == thread
        ]
        assert mine == list(range(1000))


def test_secrets_are_redacted_and_never_in_a_file(world: World) -> None:
    world.run("""
log = make()
log.set_context(session_token="hunter2")
log.info("login with password=hunter2", api_key="hunter2", number=0)
log.audit("login", api_key="hunter2", number=0)
assert log.force_flush(20)
""")
    text = (world.folder / "out.jsonl").read_text()
    assert "hunter2" not in text and text.count("***") >= 3


def test_exceptions_arrive_with_their_lines(world: World) -> None:
    world.run("""
log = make()
def inner():
    raise ValueError("no price")
try:
    inner()
except ValueError:
    log.exception("failed", number=0)
assert log.force_flush(20)
""")
    text = (world.folder / "out.jsonl").read_text()
    assert "ValueError" in text and "no price" in text and "in inner" in text


def test_a_level_of_the_programs_own_keeps_its_name(world: World) -> None:
    world.run("""
import logging
logging.addLevelName(25, "NOTICE")
log = make()
log.log(25, "text", number=0)
assert log.force_flush(20)
""")
    assert [entry["severity_text"] for entry in records(world.folder)] == ["NOTICE"]


ENDS = {
    "falls off its end": ("pass", 0),
    "sys.exit": ("sys.exit(3)", 3),
    "an unhandled exception": ("raise RuntimeError('boom')", 1),
    "SIGTERM": ("os.kill(os.getpid(), signal.SIGTERM); time.sleep(30)", -signal.SIGTERM),
}


@pytest.mark.parametrize("how", ENDS)
def test_what_was_logged_before_the_end_is_delivered(world: World, how: str) -> None:
    statement, status = ENDS[how]
    script = f"""
log = make()
for number in range(500):
    log.info("text", number=number)
    log.audit("sent", number=number)
{statement}
"""
    ended = world.run(script, succeeds=False)
    assert ended.status == status, ended.stderr
    found = records(world.folder)
    assert numbers(found, "text") == numbers(found, "sent") == Counter(range(500))
    assert "not delivered" not in ended.stderr


def test_children_of_multiprocessing_deliver_theirs(world: World) -> None:
    script = """
def child(number):
    log = make()
    log.info("text", number=number)
    log.audit("sent", number=number)

if __name__ == "__main__":
    log = make()
    log.info("text", number=0)
    for method in ("fork", "spawn", "forkserver"):
        context = multiprocessing.get_context(method)
        process = context.Process(target=child, args=(1 + len(method),))
        process.start()
        process.join(60)
        assert process.exitcode == 0
    log.audit("sent", number=0)
"""
    (world.folder / "program.py").write_text(HEAD + script)
    with started([os.fspath(Path(os.sys.executable)), "program.py"], world.folder, **NOT_MEASURED) as process:
        _, errors = process.communicate(timeout=90)
        assert process.returncode == 0, errors
    await_quiet(world.folder)
    found = records(world.folder)
    once = Counter([0, 5, 6, 11])
    assert (numbers(found, "text"), numbers(found, "sent")) == (once, once), errors


def test_a_forked_child_delivers_its_own_and_only_that(world: World) -> None:
    world.run(
        """
log = make()
log.info("text", number=0)
log.audit("sent", number=0)
assert log.force_flush(20)
children = []
for number in (1, 2, 3):
    child = os.fork()
    if not child:
        log.info("text", number=number)
        log.audit("sent", number=number)
        os._exit(0 if log.force_flush(20) else 1)
    children.append(child)
log.info("text", number=4)
log.audit("sent", number=4)
assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0, 0, 0]
assert log.force_flush(20)
""",
        **NOT_MEASURED,
    )
    found = records(world.folder)
    assert numbers(found, "text") == numbers(found, "sent") == Counter(range(5))


def test_a_closed_logger_takes_nothing_and_counts_it(world: World) -> None:
    ended = world.run("""
log, other = make(), make("other")
log.info("text", number=0)
log.close()
for number in range(7):
    log.info("late", number=number)
    log.audit("late", number=number)
report = other.force_flush(20)
tell(dropped={lane.lane: lane.dropped for lane in report.lanes}, complete=report.complete)
""")
    assert ended.told["dropped"]["low"] == {"logger_closed": 7}
    assert ended.told["dropped"]["audit"] == {"logger_closed": 7}
    assert [entry["body"] for entry in records(world.folder)] == ["text"]


def test_many_configurations_share_one_reader(world: World) -> None:
    world.run("""
import dataclasses
config = LogConfig.from_yaml("logging.yaml")
for number in range(5):
    mine = dataclasses.replace(config, global_context={"service": f"s{number}"})
    log = LoggerFactory.create_logger("engine", mine)
    log.info("text", number=number)
    log.audit("sent", number=number)
assert log.force_flush(20)
""")
    found = records(world.folder)
    assert numbers(found, "text") == numbers(found, "sent") == Counter(range(5))


def test_ctrl_c_ends_the_program_and_nothing_is_lost(world: World) -> None:
    script = """
log = make()
number = 0
tell(ready=True)
try:
    while True:
        log.info("text", number=number)
        number += 1
        time.sleep(0.0005)
except KeyboardInterrupt:
    tell(number=number)
"""
    with started(python(HEAD + script), world.folder) as process:
        hear(process)
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        told = hear(process)
        assert process.wait(30) == 0
    await_quiet(world.folder)
    (count,) = re.findall(r"\d+", told)
    seen = numbers(records(world.folder), "text")
    assert set(seen) >= set(range(int(count)))
    assert max(seen.values()) == 1


def test_records_of_a_destination_that_comes_up_later_arrive(
    world: World, collector: Callable[..., Collector]
) -> None:
    otel = collector()
    otel.stop()
    configure(world.folder, world.isolation, {"otlp": otlp(otel.endpoint)})
    script = """
log = make()
for number in range(300):
    log.info("text", number=number)
    log.audit("sent", number=number)
tell(logged=True)
sys.stdin.readline()
report = log.force_flush(30)
tell(true=bool(report), report=str(report))
"""
    with started(python(HEAD + script), world.folder) as process:
        hear(process)
        assert process.stderr is not None
        assert "otlp" in process.stderr.readline()
        otel.start()
        say(process)
        assert '"true": true' in hear(process)
        assert process.wait(30) == 0
    await_quiet(world.folder)
    otel.stop()
    assert Counter(r["attributes"]["number"] for r in otel.logs() if not r["event_name"]) == Counter(
        range(300)
    )


def test_nothing_is_said_by_an_interpreter_that_warns_of_everything(world: World) -> None:
    ended = world.run(
        "log = make()\nlog.info('text')\nlog.audit('sent')", PYTHONWARNINGS="error", PYTHONDEVMODE="1"
    )
    assert ended.stderr == ""


def test_a_start_leaves_the_caller_free_at_once(world: World) -> None:
    """Neither starting the reader nor loading exporters holds up who creates a logger."""
    ended = world.run("""
started = time.monotonic()
log = make()
created = time.monotonic() - started
log.info("text", number=0)
tell(created=created)
""")
    assert ended.told["created"] < 2.0
    assert numbers(records(world.folder), "text") == Counter([0])


def test_no_agent_without_asking(tmp_path: Path) -> None:
    configure(tmp_path, "thread")
    with started(python(HEAD + "log = make(); tell(x=1); sys.stdin.readline()"), tmp_path) as process:
        hear(process)
        assert not (tmp_path / "lanes").exists()
        say(process)


def test_the_agent_is_there_where_it_was_asked_for(tmp_path: Path) -> None:
    configure(tmp_path, "process")
    with no_agent_left(tmp_path):
        with started(python(HEAD + "log = make(); tell(x=1); sys.stdin.readline()"), tmp_path) as process:
            hear(process)
            assert serving(tmp_path) != process.pid
            say(process)
        await_quiet(tmp_path)
    assert time.monotonic() > 0
    wait_until(lambda: True)
