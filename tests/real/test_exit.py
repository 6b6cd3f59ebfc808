"""Collectors that are absent, late or restarted, and processes that end or are killed meanwhile."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.real.processes import NOT_MEASURED, hear, otlp, python, run_script, say, started, write_config
from tests.real.running import Collector, free_ports, wait_until

EXIT_TIMEOUT = 1.0
TEXTS, AUDITS = 300, 50

# Logs, and then ends, or waits to be told what to do.
PROGRAM = """
import json, sys, time
from hft_otel import LogConfig, LoggerFactory

first, texts, audits, then = int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
logger = LoggerFactory.create_logger("engine", LogConfig.from_yaml("logging.yaml"))
for number in range(first, first + texts):
    logger.info("order", number=number)
for number in range(first, first + audits):
    logger.audit("order_sent", number=number)
print("logged", flush=True)
if then == "wait":
    sys.stdin.readline()
    report = logger.force_flush(30)
    print(json.dumps({"flushed": bool(report), "report": str(report)}), flush=True)
elif then == "flush":
    report = logger.force_flush(30)
    assert report, str(report)
elif then == "hang":
    time.sleep(60)
print(json.dumps({"at": time.time()}), flush=True)
"""


def texts(collector: Collector) -> Counter[int]:
    """How often each text record arrived, by its number."""
    return Counter(r["attributes"]["number"] for r in collector.logs() if not r["event_name"])


def audits(collector: Collector) -> dict[str, Counter[int]]:
    """How often each audit event arrived by its number, as a log record and as a span."""
    records = [record for record in collector.logs() if record["event_name"]]
    return {
        "logs": Counter(record["attributes"]["number"] for record in records),
        "spans": Counter(span["events"][0]["attributes"]["number"] for span in collector.spans()),
    }


def audit_ids(collector: Collector) -> set[tuple[int, str]]:
    """The pairs of number and audit id that arrived."""
    found = {
        (r["attributes"]["number"], r["attributes"]["audit.id"]) for r in collector.logs() if r["event_name"]
    }
    return found | {
        (s["events"][0]["attributes"]["number"], s["attributes"]["audit.id"]) for s in collector.spans()
    }


def absent(tmp_path: Path, **options: object) -> None:
    """Configure a Collector that is not there."""
    (port,) = free_ports(1)
    write_config(tmp_path, {"otlp": otlp(f"http://127.0.0.1:{port}", **options)}, exit_timeout=EXIT_TIMEOUT)


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_process_without_its_collector_exits_in_time_and_says_what_was_not_delivered(
    tmp_path: Path, protocol: str
) -> None:
    absent(tmp_path, protocol=protocol)
    ended = run_script(PROGRAM, "0", str(TEXTS), str(AUDITS), "end", cwd=tmp_path)
    assert ended.at - ended.told["at"] < EXIT_TIMEOUT + 1.0
    last = ended.stderr.splitlines()[-1]
    assert last.startswith("hft-otel: exit after at most 1 s with records not delivered: "), ended.stderr
    assert f"otlp.logs TEXT {TEXTS}" in last
    assert f"otlp.traces AUDIT {AUDITS}" in last
    assert "Traceback" not in ended.stderr


def test_collector_that_accepts_and_never_answers_holds_up_no_exit(tmp_path: Path) -> None:
    """The worst of the absent ones: every export waits for its timeout."""
    silent = """
    import socket
    server = socket.create_server(("127.0.0.1", 0), backlog=64)
    print(server.getsockname()[1], flush=True)
    input()
    """
    with started(python(silent), tmp_path) as server:
        endpoint = f"http://127.0.0.1:{hear(server)}"
        write_config(tmp_path, {"otlp": otlp(endpoint)}, exit_timeout=EXIT_TIMEOUT)
        ended = run_script(PROGRAM, "0", str(TEXTS), str(AUDITS), "end", cwd=tmp_path)
        say(server)
    assert ended.at - ended.told["at"] < EXIT_TIMEOUT + 1.0
    assert f"otlp.logs TEXT {TEXTS}" in ended.stderr


def test_audits_that_were_not_delivered_at_exit_are_delivered_at_the_next_start(
    collector: Callable[..., Collector], tmp_path: Path
) -> None:
    absent(tmp_path)
    ended = run_script(PROGRAM, "0", "0", str(AUDITS), "end", cwd=tmp_path)
    assert "stay in the journal for the next start" in ended.stderr
    otel = collector()
    write_config(tmp_path, {"otlp": otlp(otel.endpoint)})
    run_script(PROGRAM, str(AUDITS), "0", "1", "flush", cwd=tmp_path)
    otel.stop()
    once = Counter(range(AUDITS + 1))
    assert audits(otel) == {"logs": once, "spans": once}
    assert len(audit_ids(otel)) == AUDITS + 1


def test_collector_that_comes_up_later_gets_what_was_retried(
    collector: Callable[..., Collector], tmp_path: Path
) -> None:
    otel = collector()
    otel.stop()  # its port is known now
    write_config(tmp_path, {"otlp": otlp(otel.endpoint)})
    with started(python(PROGRAM, "0", str(TEXTS), str(AUDITS), "wait"), tmp_path) as process:
        assert hear(process) == "logged"
        assert process.stderr is not None
        assert "otlp.logs has a problem" in process.stderr.readline()
        otel.start()
        say(process)
        assert '"flushed": true' in hear(process)
        assert process.wait(10) == 0
    otel.stop()
    assert texts(otel) == Counter(range(TEXTS))
    assert audits(otel) == {"logs": Counter(range(AUDITS)), "spans": Counter(range(AUDITS))}


SPEAKING_ON = """
import json, sys, threading, time
from hft_otel import LogConfig, LoggerFactory

logger = LoggerFactory.create_logger("engine", LogConfig.from_yaml("logging.yaml"))
stop = threading.Event()
threading.Thread(target=lambda: (sys.stdin.readline(), stop.set()), daemon=True).start()
number = 0
while not stop.wait(0.005):
    logger.info("order", number=number)
    logger.audit("order_sent", number=number)
    logger.counter("orders")
    number += 1
    if number % 20 == 0:
        print(number, flush=True)
end = time.monotonic() + 30
while not (report := logger.force_flush(5)) and time.monotonic() < end:
    time.sleep(0.1)  # an export that failed a moment ago is told so at once: its connection is not tried again yet
print(json.dumps({"records": number, "flushed": bool(report), "report": str(report)}), flush=True)
"""


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
@pytest.mark.parametrize("how", ["stop", "kill"])
def test_collector_restarted_in_the_middle_loses_nothing(
    collector: Callable[..., Collector], tmp_path: Path, protocol: str, how: str
) -> None:
    otel = collector()
    endpoint = otel.grpc_endpoint if protocol == "grpc" else otel.endpoint
    write_config(tmp_path, {"otlp": otlp(endpoint, protocol=protocol)})
    with started(python(SPEAKING_ON), tmp_path) as process:
        wait_until(lambda: (hear(process), texts(otel))[1], what="a first record at the Collector")
        getattr(otel, how)()
        down = int(hear(process))
        while int(hear(process)) < down + 60:
            pass
        otel.start()
        up = int(hear(process))
        while int(hear(process)) < up + 60:
            pass
        say(process)
        while not (line := hear(process)).startswith("{"):
            pass
        assert process.wait(10) == 0
        assert process.stderr is not None
        said = process.stderr.read()
    otel.stop()
    assert '"flushed": true' in line, line
    records = int(re.findall(r'"records": (\d+)', line)[0])

    # An answer that was lost on the way makes the sender repeat that one request: more than once, but nothing else.
    arrived = [texts(otel), *audits(otel).values()]
    for numbers in arrived:
        assert set(numbers) == set(range(records))
        assert max(numbers.values()) <= 2
    assert len(audit_ids(otel)) == records
    newest = [point for point in otel.metrics() if point["name"] == "hft.orders"][-1]
    assert newest["value"] == records
    assert "losing records" not in said


def test_audits_of_a_killed_process_are_delivered_at_the_next_start(
    collector: Callable[..., Collector], tmp_path: Path
) -> None:
    absent(tmp_path)
    with started(python(PROGRAM, "0", str(TEXTS), str(AUDITS), "hang"), tmp_path) as process:
        assert hear(process) == "logged"
        process.kill()
    otel = collector()
    write_config(tmp_path, {"otlp": otlp(otel.endpoint)})
    run_script(PROGRAM, "1000", "0", "7", "flush", cwd=tmp_path)
    otel.stop()
    once = Counter([*range(AUDITS), *range(1000, 1007)])
    assert audits(otel) == {"logs": once, "spans": once}
    ids = audit_ids(otel)
    assert len({audit_id for _, audit_id in ids}) == len(ids) == AUDITS + 7
    assert list((tmp_path / "journal").iterdir()) == []


def test_audits_survive_process_after_process_that_is_killed(
    collector: Callable[..., Collector], tmp_path: Path
) -> None:
    absent(tmp_path)
    for first in range(0, 300, 100):
        with started(python(PROGRAM, str(first), "0", "100", "hang"), tmp_path) as process:
            assert hear(process) == "logged"
            process.kill()
    otel = collector()
    write_config(tmp_path, {"otlp": otlp(otel.endpoint)})
    run_script(PROGRAM, "300", "0", "1", "flush", cwd=tmp_path)
    otel.stop()
    assert audits(otel) == {"logs": Counter(range(301)), "spans": Counter(range(301))}
    assert len({audit_id for _, audit_id in audit_ids(otel)}) == 301


def test_sigterm_drains_and_ends_the_process_as_a_signal_does(
    collector: Callable[..., Collector], tmp_path: Path
) -> None:
    otel = collector()
    write_config(tmp_path, {"otlp": otlp(otel.endpoint)})
    with started(python(PROGRAM, "0", str(TEXTS), str(AUDITS), "hang"), tmp_path) as process:
        assert hear(process) == "logged"
        process.terminate()
        assert process.wait(10) == -15
    otel.stop()
    assert texts(otel) == Counter(range(TEXTS))
    assert audits(otel) == {"logs": Counter(range(AUDITS)), "spans": Counter(range(AUDITS))}


FORKED = """
import os, sys
from hft_otel import LogConfig, LoggerFactory

class Broken:
    def __repr__(self): raise RuntimeError("repr")

logger = LoggerFactory.create_logger("engine", LogConfig.from_yaml("logging.yaml"))
logger.info("parent", number=0)
logger.audit("parent", number=0)
assert logger.force_flush(30)
children = []
for number in (1, 2):
    child = os.fork()
    if not child:
        logger.info("child", number=number, value=Broken())
        logger.audit("child", number=number, value=Broken())
        report = logger.force_flush(30)
        os._exit(0 if report else 1)
    children.append(child)
logger.info("parent again", number=3)
logger.audit("parent again", number=3)
assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0, 0]
assert logger.force_flush(30)
"""


def test_forked_children_deliver_what_is_theirs_and_only_that(
    collector: Callable[..., Collector], tmp_path: Path
) -> None:
    otel = collector()
    write_config(tmp_path, {"otlp": otlp(otel.endpoint)})
    run_script(FORKED, cwd=tmp_path, **NOT_MEASURED)
    otel.stop()
    once = Counter(range(4))
    assert texts(otel) == once
    assert audits(otel) == {"logs": once, "spans": once}
    assert len(audit_ids(otel)) == 4


def test_program_without_a_configuration_logs_below_its_folder(tmp_path: Path) -> None:
    """The default of `dev`: a console, a file and a journal below the current folder."""
    script = """
    from hft_otel import LoggerFactory
    logger = LoggerFactory.create_logger("websocket")
    logger.warning("reconnect", attempt=1)
    logger.audit("connected")
    """
    ended = run_script(script, cwd=tmp_path)
    assert "reconnect | {'attempt': 1}" in ended.stderr
    lines = (tmp_path / "logs" / "dev.log").read_text().splitlines()
    assert sorted(re.findall(r"websocket: (\w+) \|", "\n".join(lines))) == ["connected", "reconnect"]
    assert [path.suffix for path in (tmp_path / "logs" / "journal").iterdir()] == [".trail"]
    assert [path.name for path in tmp_path.iterdir()] == ["logs"]
