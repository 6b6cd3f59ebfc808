"""The agent where things are not as they should be: it cannot start, its parent is odd, a destination is away."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.real.agents import (
    HEAD,
    agents_in,
    await_quiet,
    configure,
    no_agent_left,
    numbers,
    one_agent,
    records,
    serving,
    streams,
)
from tests.real.processes import (
    NOT_MEASURED,
    Ended,
    hear,
    hft_otel,
    otlp,
    python,
    run,
    run_script,
    say,
    started,
)
from tests.real.running import free_ports, get, wait_until

FILL = """
for number in range(100):
    log.info("text", number=number)
    log.audit("sent", number=number)
"""
WAIT = "\ntell(pid=os.getpid())\nsys.stdin.readline()\n"
ONCE = Counter(range(100))
BACKENDS = """
import os
from pathlib import Path
from hft_otel import LogBackend

class Where(LogBackend):
    def __init__(self, config):
        self.path = Path(config["path"])

    async def write(self, record):
        self.path.write_text(f"{os.getpid()} {os.environ.get('MY_TOKEN')}")

    async def flush(self):
        pass

    def should_handle(self, record):
        return True

class Failing(Where):
    def __init__(self, config):
        raise RuntimeError("no licence here")
"""


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "backends.py").write_text(BACKENDS)
    with no_agent_left(tmp_path):
        yield tmp_path


def script(folder: Path, body: str, succeeds: bool = True, **more: Any) -> Ended:
    """Run a program that logs through an agent, unless a test says otherwise."""
    return run_script(HEAD + body, cwd=folder, succeeds=succeeds, **more)


def delivered(folder: Path) -> bool:
    found = records(folder)
    return numbers(found, "text") == numbers(found, "sent") == ONCE


def the_line(ended: Ended, words: str) -> str:
    """The one line on stderr that has these words."""
    lines = [line for line in ended.stderr.splitlines() if words in line]
    assert len(lines) == 1, ended.stderr
    return lines[0]


# --- no agent can be


@pytest.mark.parametrize("broken", ["msgspec", "opentelemetry"])
def test_an_agent_that_misses_a_module_hands_over_to_a_thread(folder: Path, broken: str) -> None:
    configure(folder, "process")
    (folder / "shadow").mkdir()
    (folder / "shadow" / f"{broken}.py").write_text("raise ImportError('not installed')")
    shadow = (
        f"sys.path.insert(0, {str(folder / 'shadow')!r})"  # found by the agent, too late for this program
    )
    ended = script(folder, f"{shadow}\nlog = make()\n{FILL}\nassert log.force_flush(20)")
    assert delivered(folder)
    assert "it does not start (exit status 1); a thread of this process delivers" in the_line(
        ended, "no agent"
    )
    await_quiet(folder)


def test_a_program_that_is_frozen_starts_itself_not_again(folder: Path) -> None:
    configure(folder, "process")
    ended = script(folder, f"sys.frozen = True\nlog = make()\n{FILL}")
    assert delivered(folder)
    assert "no Python program to run it with" in the_line(ended, "no agent")
    assert agents_in(folder) == []


def test_a_folder_that_cannot_be_made_leaves_a_thread(folder: Path) -> None:
    (folder / "file").write_text("")
    configure(folder, "process", lanes={"folder": str(folder / "file" / "lanes")})
    ended = script(folder, f"log = make()\n{FILL}")
    assert delivered(folder)
    assert "Not a directory" in the_line(ended, "no agent")
    assert list((folder / "journal").iterdir()) == []


def test_a_full_tmpfs_leaves_a_thread(folder: Path) -> None:
    small = folder / "small"
    small.mkdir()
    inside = f"mount -t tmpfs -o size=1m tmpfs {small} && exec {sys.executable} program.py"
    if subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False).returncode:
        pytest.skip("this user may not mount")
    configure(folder, "process", lanes={"folder": str(small / "lanes")})
    (folder / "program.py").write_text(HEAD + f"log = make()\n{FILL}")
    ended = run(["unshare", "-m", "sh", "-c", inside], folder)
    assert ended.status == 0, ended.stderr
    assert delivered(folder)
    assert "No space left" in the_line(ended, "no agent")


def test_a_forked_child_without_space_delivers_by_a_thread(folder: Path) -> None:
    configure(folder, "process")
    ended = script(
        folder,
        """
log = make()
log.info("parent", number=0)
assert log.force_flush(20)
os.rename("lanes", "away")
open("lanes", "w").close()
child = os.fork()
if not child:
"""
        + "\n".join(f"    {line}" for line in FILL.splitlines())
        + """
    os._exit(0 if log.force_flush(20) else 1)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
os.unlink("lanes")
os.rename("away", "lanes")
""",
        **NOT_MEASURED,
    )
    assert delivered(folder)
    assert "no agent" in ended.stderr


# --- what only this process can do


def test_a_class_of_the_program_itself_is_served_by_a_thread_beside_the_agent(folder: Path) -> None:
    here = {"class": "__main__:Mine", "config": {}}
    configure(folder, "process")
    ended = script(
        folder,
        """
import dataclasses
from hft_otel import CustomConfig, LogBackend
got = []
class Mine(LogBackend):
    def should_handle(self, record): return True
    async def write(self, record): got.append((os.getpid(), record.context["number"]))
    async def flush(self): pass
config = LogConfig.from_yaml("logging.yaml")
mine = dataclasses.replace(config, backends={"mine": CustomConfig(class_path="__main__:Mine")},
    routing_rules=[{"backends": ["mine"]}])
log, other = LoggerFactory.create_logger("a", config), LoggerFactory.create_logger("b", mine)
log.info("text", number=1)
other.info("text", number=2)
assert log.force_flush(20) and other.force_flush(20)
tell(got=got, pid=os.getpid())
""",
    )
    assert here["class"] in the_line(ended, "no agent")
    assert ended.told["got"] == [[ended.told["pid"], 2]]
    await_quiet(folder)
    assert numbers(records(folder), "text") == Counter([1])


def test_python_logging_is_reached_in_the_process_that_it_belongs_to(folder: Path) -> None:
    configure(folder, "process", {"console": {"enabled": True, "config": {"through": "stdlib"}}})
    ended = script(
        folder,
        """
import logging
logging.basicConfig(format="by stdlib: %(message)s")
log = make()
log.warning("text", number=1)
assert log.force_flush(20)
""",
    )
    assert "by stdlib: text" in ended.stderr
    assert "through: stdlib" in the_line(ended, "no agent")


def test_an_importable_class_runs_in_the_agent_with_the_programs_environment(folder: Path) -> None:
    where = {"class": "backends:Where", "config": {"path": str(folder / "where")}}
    configure(folder, "process", {"where": where})
    ended = script(
        folder,
        "sys.path.insert(0, '')\nlog = make()\nlog.info('text')\nassert log.force_flush(20)\ntell(pid=os.getpid())",
        MY_TOKEN="hunter2",
    )
    pid, token = (folder / "where").read_text().split()
    assert int(pid) != ended.told["pid"]
    assert token == "hunter2"
    await_quiet(folder)


def test_a_class_that_cannot_be_built_hurts_only_itself(folder: Path) -> None:
    configure(
        folder,
        "process",
        {"failing": {"class": "backends:Failing", "config": {}}},
        exit_timeout=1,
        agent={"linger": 0},
        routing_rules=[
            {"name": "a", "backends": ["file"], "log_types": ["AUDIT"]},
            {"backends": ["file", "failing"], "min_level": "DEBUG"},
        ],
    )
    ended = script(
        folder,
        f"sys.path.insert(0, '')\nlog = make()\n{FILL}\nassert not log.force_flush(2)\ntime.sleep(1.5)",
    )
    assert delivered(folder)
    assert "no licence here" in the_line(ended, "failing has a problem")


def test_a_class_that_is_not_there_is_an_error_at_the_start(folder: Path) -> None:
    configure(folder, "process", {"missing": {"class": "backends:Missing", "config": {}}})
    ended = script(folder, "sys.path.insert(0, '')\nlog = make()", succeeds=False)
    assert "ConfigError" in ended.stderr and "has no 'Missing'" in ended.stderr
    assert agents_in(folder) == []


# --- the two processes


def test_no_secret_shows_in_the_agents_command_line_or_environment(folder: Path) -> None:
    (port,) = free_ports(1)
    secret = {"otlp": otlp(f"http://127.0.0.1:{port}", headers={"api-key": "hunter2"})}
    configure(folder, "process", secret, exit_timeout=0.2, agent={"linger": 0})
    with started(python(HEAD + "log = make()" + WAIT), folder, DATADOG_API_KEY="hunter2") as process:
        hear(process)
        proc = Path(f"/proc/{serving(folder)}")
        assert (
            b"hunter2" in Path(f"/proc/{process.pid}/environ").read_bytes()
        )  # the test looks in the right place
        for name in ("environ", "cmdline"):
            assert b"hunter2" not in (proc / name).read_bytes()
        for path in (folder / "lanes").rglob("*"):
            assert path.stat().st_mode & 0o077 == 0, path
            if path.is_file():
                assert b"hunter2" not in path.read_bytes()
        say(process)


def test_the_agent_yields_and_hears_no_ctrl_c(folder: Path) -> None:
    configure(folder, "process", agent={"nice": 7})
    with started(python(HEAD + "log = make()" + FILL + WAIT), folder) as process:
        hear(process)
        agent = serving(folder)
        assert os.getpriority(os.PRIO_PROCESS, agent) == os.getpriority(os.PRIO_PROCESS, process.pid) + 7
        assert os.getsid(agent) == agent != os.getsid(process.pid)
        autogroup = Path(f"/proc/{agent}/autogroup")  # where a nice level counts only within a session
        assert not autogroup.exists() or autogroup.read_text().endswith("nice 7\n")
        os.kill(agent, signal.SIGINT)
        os.kill(agent, signal.SIGTERM)  # as a service manager sends to both
        say(process)
        assert process.wait(30) == 0
    await_quiet(folder)
    assert delivered(folder)


def test_the_agent_runs_on_the_cpus_that_it_is_given(folder: Path) -> None:
    cpus = sorted(os.sched_getaffinity(0))
    configure(folder, "process", agent={"cpus": [cpus[-1]]})
    with started(python(HEAD + "log = make()" + WAIT), folder) as process:
        hear(process)
        assert os.sched_getaffinity(serving(folder)) == {cpus[-1]}
        assert os.sched_getaffinity(process.pid) == set(cpus)
        say(process)
    await_quiet(folder)


def test_a_child_that_lives_on_does_not_keep_the_parents_agent(folder: Path) -> None:
    configure(folder, "process")
    body = (
        "log = make()"
        + FILL
        + "if not os.fork():\n    time.sleep(60)\n    os._exit(0)\ntell(x=1)\nos._exit(0)\n"
    )
    with started(python(HEAD + body), folder, **NOT_MEASURED) as process:
        hear(process)
        process.wait(30)
        await_quiet(folder)
        assert delivered(folder)
        children = [
            int(entry.name)
            for entry in Path("/proc").iterdir()
            if entry.name.isdigit() and _is_left_of(entry, folder)
        ]
        assert len(children) == 1
        os.kill(children[0], signal.SIGKILL)


def _is_left_of(entry: Path, folder: Path) -> bool:
    try:
        return (entry / "cwd").resolve() == folder and b"tell(x=1)" in (entry / "cmdline").read_bytes()
    except OSError:
        return False


@pytest.mark.parametrize("ending", ["", "os._exit(0)"])
def test_a_parent_that_is_process_1_delivers_before_it_ends(folder: Path, ending: str) -> None:
    unshare = ["unshare", "--pid", "--fork", "--mount-proc"]
    if (
        shutil.which("unshare") is None
        or subprocess.run([*unshare, "true"], capture_output=True, check=False).returncode
    ):
        pytest.skip("this user may not make a pid namespace")
    configure(folder, "process")
    flush = "assert log.force_flush(20)" if ending else ""
    (folder / "program.py").write_text(
        HEAD + f"assert os.getpid() == 1\nlog = make()\n{FILL}\n{flush}\n{ending}"
    )
    ended = run([*unshare, sys.executable, "program.py"], folder)
    assert ended.status == 0, ended.stderr
    assert delivered(folder)


def test_process_1_has_no_zombie_of_an_agent(folder: Path) -> None:
    unshare = ["unshare", "--pid", "--fork", "--mount-proc"]
    if (
        shutil.which("unshare") is None
        or subprocess.run([*unshare, "true"], capture_output=True, check=False).returncode
    ):
        pytest.skip("this user may not make a pid namespace")
    configure(folder, "process")
    body = """
log = make()
assert log.force_flush(20)
first = log._intake.drain.pid
os.kill(first, signal.SIGKILL)
end = time.monotonic() + 20
while log._intake.drain.pid in (0, first) and time.monotonic() < end: time.sleep(0.01)
"""
    check = """
assert log.force_flush(20)
states = [line.split()[2] for line in (open(f"/proc/{p}/stat").read() for p in os.listdir("/proc") if p.isdigit())]
assert "Z" not in states, states
"""
    (folder / "program.py").write_text(HEAD + body + FILL + check)
    ended = run([*unshare, sys.executable, "program.py"], folder)
    assert ended.status == 0, ended.stderr
    assert delivered(folder)


def test_the_agent_goes_on_after_the_end_while_nobody_waits_for_its_output(folder: Path) -> None:
    """`program | less` must see the end of the program, however long the agent still tries."""
    (port,) = free_ports(1)
    configure(folder, "process", {"otlp": otlp(f"http://127.0.0.1:{port}")}, exit_timeout=4)
    begun = time.monotonic()
    ended = script(folder, f"log = make()\n{FILL}\ntell(pid=os.getpid())")
    assert time.monotonic() - begun < 12
    last = the_line(ended, "has ended with records not delivered: ")
    (agent,) = re.findall(r"its agent \(pid (\d+)\) tries for at most 300 s", last)
    assert agents_in(folder) == [int(agent)]
    assert "otlp.logs TEXT 100" in last
    assert delivered(folder)  # to the file


def test_an_agent_that_is_still_at_work_at_the_end_is_no_news(folder: Path) -> None:
    """A short program on a busy machine ends before its agent is up, which is no trouble."""
    configure(folder, "process", exit_timeout=0.01)
    assert script(folder, f"log = make()\n{FILL}").stderr == ""
    await_quiet(folder)
    assert delivered(folder)


def test_what_was_not_delivered_in_time_is_left_to_the_next_start(folder: Path) -> None:
    (port,) = free_ports(1)
    away = {"otlp": otlp(f"http://127.0.0.1:{port}")}
    configure(folder, "process", away, exit_timeout=0.2, agent={"linger": 0.5})
    script(folder, f"log = make()\n{FILL}")
    wait_until(lambda: agents_in(folder), lambda found: not found, "the agent's end", 30)
    assert len(streams(folder)) == 2
    shown = run(hft_otel("status", "--folder", folder / "lanes"), folder)
    assert shown.status == 1 and "orphaned" in shown.stdout
    every = configure(folder, "process")
    assert list(every) == ["file"]
    script(folder, "log = make()\nlog.info('again', number=0)")
    await_quiet(folder)
    found = records(folder)
    assert set(numbers(found, "text")) == set(numbers(found, "sent")) == set(ONCE)
    ids = {
        (entry["attributes"]["number"], entry["attributes"]["audit.id"])
        for entry in found
        if entry["body"] == "sent"
    }
    assert len(ids) == 100


def test_the_status_shows_what_is_there(folder: Path) -> None:
    configure(folder, "process")
    with started(python(HEAD + "log = make()" + FILL + WAIT), folder) as process:
        hear(process)
        agent = serving(folder)

        def ask() -> dict[str, Any]:
            shown = run(hft_otel("status", "--json", folder / "logging.yaml"), folder)
            (seen,) = json.loads(shown.stdout)
            return dict(seen)

        def delivered(seen: dict[str, Any]) -> dict[tuple[str, str], int]:
            parts = seen["status"]["destinations"]
            return {(part["destination"], part["type"]): part["delivered"] for part in parts}

        all_of_it = {("file", "TEXT"): 100, ("file", "AUDIT"): 100}
        seen = wait_until(ask, lambda seen: delivered(seen) == all_of_it, "all of it")
        assert seen["verdict"] == "serving"
        assert (seen["status"]["trader"], seen["status"]["agent"]) == (process.pid, agent)
        say(process)
    await_quiet(folder)


def test_metrics_of_an_agent_that_was_killed_begin_anew_at_the_same_port(folder: Path) -> None:
    (port,) = free_ports(1)
    scrape = {"prometheus": {"enabled": True, "config": {"port": port}}}
    configure(
        folder, "process", scrape, routing_rules=[{"backends": ["prometheus"], "log_types": ["METRIC"]}]
    )
    body = """
log = make()
for count in map(int, sys.stdin):
    for _ in range(count):
        log.counter("orders")
    tell(flushed=bool(log.force_flush(30)))
"""

    def counted() -> str:
        found = re.findall(
            r"^hft_orders_total(?:\{.*\})? (\S+)$", get(f"http://127.0.0.1:{port}/metrics"), re.MULTILINE
        )
        return str(found)

    with started(python(HEAD + body), folder) as process:
        say(process, "10")
        assert "true" in hear(process)
        assert counted() == "['10.0']"
        time.sleep(0.3)  # in which the reader notes how far it is
        os.kill(one_agent(folder), signal.SIGKILL)
        say(process, "3")
        assert "true" in hear(process)
        assert counted() == "['3.0']"  # a reset, as Prometheus knows it from any restart
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(30) == 0
    await_quiet(folder)


def test_two_processes_have_an_agent_each(folder: Path) -> None:
    configure(folder, "process")
    body = python(HEAD + "log = make()\nlog.info('text', number=int(sys.argv[1]))" + WAIT, "0")
    other = [*body[:-1], "1"]
    with started(body, folder) as one, started(other, folder) as two:
        hear(one), hear(two)
        wait_until(lambda: agents_in(folder), lambda found: len(found) == 2, "two agents")
        one.kill()
        wait_until(lambda: agents_in(folder), lambda found: len(found) == 1, "the end of one")
        say(two)
        assert two.wait(30) == 0
    await_quiet(folder)
    assert numbers(records(folder), "text") == Counter([0, 1])


def test_production_gets_an_agent_and_development_none(folder: Path) -> None:
    """Without a word about isolation."""
    for environment, agents in (("prod", 1), ("dev", 0)):
        configure(folder, "process")
        text = (
            (folder / "logging.yaml").read_text().replace("isolation: process", f"environment: {environment}")
        )
        (folder / "logging.yaml").write_text(text)
        with started(python(HEAD + "log = make()" + WAIT), folder) as process:
            hear(process)
            assert len(agents_in(folder)) == agents
            say(process)
            assert process.wait(30) == 0
        await_quiet(folder)
