"""What waits in the journal takes no descriptors: neither while it waits nor when it is sent, nor at the next start."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.unit.core_support import poll, python

WAITING = """
import os, resource, sys, threading, time
from pathlib import Path

folder, isolation, limit, number = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
resource.setrlimit(resource.RLIMIT_NOFILE, (limit, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
from hft_otel import LogConfig, LoggerFactory

os.chdir(folder)
Path("out").touch()  # in the way of the folder that the destination needs
log = LoggerFactory.create_logger("desk", LogConfig.from_dict({"logging": {
    "environment": "prod",
    "isolation": isolation,
    "exit_timeout": 0.2,
    "lanes": {"folder": "lanes"},
    "agent": {"linger": 20},
    "journal": {"folder": "journal", "segment_kb": 64},
    "backends": {"file": {"enabled": True, "config": {"file_path": "out/a.log", "format": "json"}}},
    "routing_rules": [{"name": "all", "log_types": ["AUDIT"], "backends": ["file"]}],
}}))

def held():
    agents = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    return max(len(os.listdir(f"/proc/{pid}/fd")) for pid in [os.getpid(), *agents])

most, done = 0, threading.Event()

def watch():
    global most
    while not done.wait(0.01):
        most = max(most, held())

def waiting():
    return sum(1 for _ in Path("journal").glob("*/*.seg"))

before = held()
thread = threading.Thread(target=watch, daemon=True)
thread.start()
for n in range(number):
    log.audit("e", n=n, pad="x" * 30_000)
    if n % 20 == 0:
        time.sleep(0.004)
assert waiting() >= number // 2
if len(sys.argv) > 5:
    print("written", flush=True)
    threading.Event().wait()
Path("out").unlink()
report = log.force_flush(40)
done.set()
thread.join()
print(bool(report), report.dropped, most - before, waiting())
print(report)
"""


NEXT = """
import os, resource, sys
from pathlib import Path

folder, isolation, limit = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
resource.setrlimit(resource.RLIMIT_NOFILE, (limit, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
from hft_otel import LogConfig, LoggerFactory

os.chdir(folder)
log = LoggerFactory.create_logger("desk", LogConfig.from_dict({"logging": {
    "environment": "prod",
    "isolation": isolation,
    "exit_timeout": 30,
    "lanes": {"folder": "lanes"},
    "agent": {"linger": 30},
    "journal": {"folder": "journal", "segment_kb": 64},
    "backends": {"file": {"enabled": True, "config": {"file_path": "out/a.log", "format": "json"}}},
    "routing_rules": [{"name": "all", "log_types": ["AUDIT"], "backends": ["file"]}],
}}))
log.audit("own")
log.force_flush(10)
"""
LIMITS = pytest.mark.parametrize(("isolation", "limit"), [("thread", 64), ("process", 150)])
NUMBER = 400


def arrived(folder: Path) -> list[str]:
    """Return the filled events in the file, without the padding."""
    file = folder / "out" / "a.log"
    lines = file.read_text().splitlines() if file.is_file() else []
    return [line.replace("x" * 30_000, "") for line in lines if "x" * 30_000 in line]


@LIMITS
def test_far_more_segments_wait_than_there_are_descriptors(
    tmp_path: Path, isolation: str, limit: int
) -> None:
    with python(WAITING, tmp_path, isolation, limit, NUMBER) as run:
        said, _ = run.communicate(timeout=60)
    delivered, dropped, held, _ = said.splitlines()[0].split()
    assert (delivered, dropped) == ("True", "0"), said
    assert int(held) < 25, said
    assert len(arrived(tmp_path)) == NUMBER


@LIMITS
def test_the_next_start_finds_far_more_segments_than_it_may_have_descriptors(
    tmp_path: Path, isolation: str, limit: int
) -> None:
    with python(WAITING, tmp_path, "thread", 1024, NUMBER, "dies") as run:
        assert run.stdout is not None
        assert run.stdout.readline() == "written\n"
        run.send_signal(signal.SIGKILL)
        run.communicate()
    (tmp_path / "out").unlink()
    with python(NEXT, tmp_path, isolation, limit) as run:
        _, errors = run.communicate(timeout=60)
        poll(lambda: len(arrived(tmp_path)) >= NUMBER)
    assert len(set(arrived(tmp_path))) == NUMBER
    assert "damaged" not in errors
