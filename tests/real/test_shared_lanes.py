"""File-backed lanes between real processes: many threads at full speed, and kills at random moments."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.real.processes import NOT_MEASURED, run_script

# The writer's half: threads that write numbers, one series per thread and room, each number until it is taken.
WRITE = """
import json, mmap, os, random, signal, struct, sys, threading, time
from pathlib import Path
from hft_otel.lanes.frames import encode, seal_audit, unseal_audit
from hft_otel.lanes.intake import Intake
from hft_otel.lanes.journal import Journal
from hft_otel.lanes.remote import RemoteIntake
from hft_otel.lanes.room import Cursor

ROOMS = ("audit", "high", "low")

def begin(folder):
    from hft_otel.lanes.shared import SharedLanes, Sizes
    sizes = Sizes(segment=16 * 1024, low=6, high=4, metric=2)
    lanes = SharedLanes(folder / "lanes", sizes)
    assert lanes.usable, lanes.problem
    return Intake(Journal(folder / "journal", 64 * 1024, 8, lanes), sizes, lanes)

def write_series(intake, thread, threads, confirmed, until):
    # `confirmed` holds, per thread and room, how many numbers were taken: stored after the call returned
    pads = ["", "x" * 10, "y" * 200, "z" * 700, "\\0" * 40]
    place = 8 * len(ROOMS) * thread
    counts = [0] * len(ROOMS)
    wait = 0.0001 * threads
    while not until():
        for number, name in enumerate(ROOMS):
            room = getattr(intake, name)
            body = encode((time.time_ns(), thread, counts[number], pads[counts[number] % 5], 1.5))
            frame = seal_audit(body) if name == "audit" else encode(body)
            try:
                room.write(frame)
            except ValueError:
                while not room.put(frame):
                    time.sleep(wait)
                    if until():
                        return
            counts[number] += 1
            struct.pack_into("<Q", confirmed, place + 8 * number, counts[number])

class Reader:
    def __init__(self, stream_folder):
        from hft_otel.audit_feed import AuditReader
        from hft_otel.lane_feed import SharedLaneReader
        from hft_otel.record import LogLevel, LogRecord, LogType
        import msgspec
        decode = msgspec.msgpack.Decoder(tuple[int, int, int, str, float]).decode
        self.intake = RemoteIntake(stream_folder)
        self.seen = {}
        self.wrong = []
        self.uids = set()
        def take(room, body):
            _, thread, number, pad, px = decode(body)
            assert px == 1.5 and pad == ["", "x" * 10, "y" * 200, "z" * 700, "\\0" * 40][number % 5]
            expected = self.seen.get((thread, room), 0)
            if number != expected:
                self.wrong.append((thread, room, number, expected))
            self.seen[thread, room] = number + 1
            return LogRecord(1.0, LogLevel.INFO, LogType.TEXT, "x")
        def text(room):
            return lambda body: (0, take(room, body))
        def audit(body, audit_id):
            data = unseal_audit(body)
            if data is None:
                raise ValueError
            take("audit", data)
            return LogRecord(1.0, LogLevel.INFO, LogType.AUDIT, "x"), ()
        self.lanes = [
            SharedLaneReader(room, LogType.TEXT, text(room.name), lambda: True, "s")
            for room in (self.intake.high, self.intake.low)
        ]
        offset, seq = self.intake.audit_start
        self.audits = AuditReader(
            "audit", "s", Cursor(self.intake.audit.first, offset), seq, audit, self.intake.journal.retire)

    def turn(self):
        moved = self.audits.turn()
        for lane in self.lanes:
            moved += len(lane.read())
            lane.settle(())
        return moved

    def drops(self):
        found = {}
        for sums in (lane.total() for lane in self.lanes):
            for reason, number in sums.dropped.items():
                found[reason] = found.get(reason, 0) + number
        for reason, number in self.audits.sums.dropped.items():
            found[reason] = found.get(reason, 0) + number
        found.pop("room_full", None)  # of what was written again
        return found

def mapped(folder):
    total = 0
    for line in Path("/proc/self/maps").read_text().splitlines():
        if str(folder) in line:
            low, high = line.split()[0].split("-")
            total += int(high, 16) - int(low, 16)
    return total
"""

FULL_SPEED = (
    WRITE
    + """
folder, threads, seconds = Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
start, confirmed = mmap.mmap(-1, 4096), mmap.mmap(-1, 8 * 3 * threads)
child = os.fork()
if not child:
    status = 1
    try:
        sys.setswitchinterval(1e-5)
        intake = begin(folder)
        stream = os.fsencode(intake.lanes.stream_folder)
        start[8:8 + len(stream)] = stream
        start[0] = 1
        end = time.monotonic() + seconds
        until = lambda: time.monotonic() > end
        def replenish():
            while not until():
                intake.journal.replenish()
                start[1] = max(start[1], mapped(folder) // (64 * 1024))
                time.sleep(0.0005)
        work = [threading.Thread(target=write_series, args=(intake, n, threads, confirmed, until)) for n in range(threads)]
        work.append(threading.Thread(target=replenish))
        for each in work:
            each.start()
        for each in work:
            each.join()
        intake.publish()
        status = 0
    finally:
        os._exit(status)
while not start[0]:
    time.sleep(0.001)
reader = Reader(Path(os.fsdecode(start[8:].split(b"\\0")[0])))
status = None
while status is None:
    if not reader.turn():
        pid, ended = os.waitpid(child, os.WNOHANG)
        status = ended if pid else None
        time.sleep(0.0005)
reader.intake.writer_gone()
while reader.turn():
    pass
counts = struct.unpack(f"<{3 * threads}Q", confirmed[:])
expected = {(thread, room): counts[3 * thread + n] for thread in range(threads) for n, room in enumerate(ROOMS)}
print(json.dumps({
    "status": status, "wrong": reader.wrong[:5], "missing": [str(k) for k, v in expected.items() if reader.seen.get(k, 0) != v],
    "total": sum(counts), "fewest": min(counts), "drops": reader.drops(), "mapped": start[1] * 64 * 1024,
    "settled": reader.audits.settled and all(lane.settled for lane in reader.lanes),
}))
reader.intake.close(remove=True)
"""
)


@pytest.mark.parametrize("threads", [1, 8, 32])
def test_every_record_is_read_once_and_in_order_per_thread_and_room(tmp_path: Path, threads: int) -> None:
    told = run_script(FULL_SPEED, tmp_path, str(threads), "3", cwd=tmp_path, **NOT_MEASURED).told
    print(told)
    assert told["status"] == 0
    assert told["wrong"] == []
    assert told["missing"] == []
    assert told["fewest"] > 0 and told["total"] > 3000
    assert told["drops"] == {}
    assert told["settled"]
    lanes = (6 + 4 + 2) * 16 * 1024
    journal = (1 + 8 + 8 + 1) * 64 * 1024  # what is written, ready, waits to be unmapped, and is being made
    assert told["mapped"] <= lanes + journal + 64 * 1024
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


KILLS = (
    WRITE
    + """
folder, rounds, threads, seed = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
rng = random.Random(seed)
lost, wrong, total, torn, unsure, drops = [], [], 0, 0, 0, {}
for turn in range(rounds):
    start, confirmed = mmap.mmap(-1, 4096), mmap.mmap(-1, 8 * 3 * threads)
    child = os.fork()
    if not child:
        try:
            sys.setswitchinterval(1e-5)
            intake = begin(folder)
            stream = os.fsencode(intake.lanes.stream_folder)
            start[8:8 + len(stream)] = stream
            work = [threading.Thread(target=write_series, args=(intake, n, threads, confirmed, lambda: False)) for n in range(threads)]
            for each in work:
                each.start()
            start[0] = 1
            while True:
                intake.journal.replenish()
                time.sleep(0.0005)
        finally:
            os._exit(1)
    while not start[0]:
        time.sleep(0.0005)
    reader = Reader(Path(os.fsdecode(start[8:].split(b"\\0")[0])))
    end = time.monotonic() + rng.uniform(0.001, 0.15)
    while time.monotonic() < end:
        if not reader.turn():
            time.sleep(0.0003)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    reader.intake.writer_gone()
    while reader.turn():
        pass
    counts = struct.unpack(f"<{3 * threads}Q", confirmed[:])
    for thread in range(threads):
        for n, room in enumerate(ROOMS):
            count, seen = counts[3 * thread + n], reader.seen.get((thread, room), 0)
            total += count
            if seen < count:
                lost.append((turn, thread, room, seen, count))
            elif seen > count + 1:
                wrong.append((turn, thread, room, seen, count))
            else:
                unsure += seen - count
    wrong += reader.wrong[:5]
    for reason, number in reader.drops().items():
        drops[reason] = drops.get(reason, 0) + number
    assert reader.audits.settled and all(lane.settled for lane in reader.lanes)
    reader.intake.close(remove=True)
print(json.dumps({"lost": lost, "wrong": wrong, "total": total, "in_flight": unsure, "drops": drops}))
"""
)


@pytest.mark.parametrize("threads", [1, 8])
def test_a_killed_writer_loses_nothing_that_it_had_written(tmp_path: Path, threads: int) -> None:
    seed = 20_240_101 + threads
    told = run_script(
        KILLS, tmp_path, "20", str(threads), str(seed), cwd=tmp_path, timeout=110, **NOT_MEASURED
    ).told
    print(f"seed {seed}: {told}")
    assert told["lost"] == []
    assert told["wrong"] == []
    assert told["total"] > 20
    assert set(told["drops"]) <= {"torn"}
    assert sum(told["drops"].values()) + told["in_flight"] <= 20 * threads * 3
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
