"""A healthy trail always passes; a changed one never does."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hft_otel.audit.chain import ANCHORS, ENTRIES, Anchor, Entry, Head, kept_name, read_lines, to_line
from hft_otel.audit.exported import note_exported
from hft_otel.audit.reading import bodies
from hft_otel.audit.verify import Verdict, verify
from tests.unit.audit_support import Desk, make_trail


@pytest.fixture(scope="module")
def healthy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("healthy")
    make_trail(folder)
    return folder


@pytest.fixture
def copy(healthy: Path, tmp_path: Path) -> Iterator[Path]:
    """A copy that may be written to; its only trail's folder."""
    yield copied(healthy, tmp_path / "journal")


@pytest.fixture(scope="module")
def shared_copy(healthy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy for those who leave it as it was."""
    return copied(healthy, tmp_path_factory.mktemp("shared") / "journal")


def copied(healthy: Path, to: Path) -> Path:
    shutil.rmtree(to, ignore_errors=True)
    shutil.copytree(healthy, to)
    (trail,) = to.glob("*.trail")
    for path in trail.iterdir():
        path.chmod(0o600)
    return trail


def one(folder: Path, outside: list[Anchor] | None = None) -> Verdict:
    (verdict,) = verify(folder, outside)
    return verdict


def anchors(trail: Path) -> list[Anchor]:
    return [line for line in read_lines(trail / ANCHORS, Anchor) if isinstance(line, Anchor)]


def files(trail: Path) -> list[Path]:
    return sorted(trail.iterdir())


def segments(trail: Path) -> list[Path]:
    return sorted(trail.glob("*.seg"))


def test_a_healthy_trail_passes_and_says_what_it_proves(copy: Path) -> None:
    verdict = one(copy.parent, anchors(copy))
    assert len(segments(copy)) > 2
    assert (verdict.events, verdict.last, verdict.anchored, verdict.outside) == (150, 149, 149, 149)
    assert (verdict.problems, verdict.notes) == ([], [])


def judged(path: Path, content: bytes) -> Verdict:
    """Judge the trail with other content in one of its files, which then is as it was."""
    before = path.read_bytes()
    path.write_bytes(content)
    try:
        return one(path.parent.parent)
    finally:
        path.write_bytes(before)


@given(data=st.data())
def test_any_flipped_byte_is_found(shared_copy: Path, data: st.DataObject) -> None:
    path = data.draw(st.sampled_from(files(shared_copy)))
    content = bytearray(path.read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] ^= data.draw(st.integers(1, 255))
    assert not judged(path, content).healthy


@given(data=st.data())
def test_any_cut_before_the_last_anchor_is_found(shared_copy: Path, data: st.DataObject) -> None:
    path = data.draw(st.sampled_from([*segments(shared_copy), shared_copy / ENTRIES]))
    content = path.read_bytes()
    assert not judged(path, content[: data.draw(st.integers(0, len(content) - 1))]).healthy


@given(data=st.data())
def test_any_inserted_byte_is_found(shared_copy: Path, data: st.DataObject) -> None:
    path = data.draw(st.sampled_from(files(shared_copy)))
    content = path.read_bytes()
    place = data.draw(st.integers(0, len(content)))
    changed = content[:place] + bytes([data.draw(st.integers(0, 255))]) + content[place:]
    assert not judged(path, changed).healthy


@pytest.mark.parametrize("number", range(3))
def test_a_deleted_segment_is_found_and_named(copy: Path, number: int) -> None:
    path = segments(copy)[number]
    path.unlink()
    assert any(path.name in problem for problem in one(copy.parent).problems)


def test_all_segments_from_one_on_deleted_with_their_entries_are_found(copy: Path) -> None:
    last = segments(copy)[-1]
    last.unlink()
    lines = (copy / ENTRIES).read_bytes().splitlines(keepends=True)
    (copy / ENTRIES).write_bytes(b"".join(lines[:-1]))
    (problem,) = one(copy.parent).problems
    assert "cut off" in problem
    assert "149" in problem


def test_two_segments_swapped_are_found(copy: Path) -> None:
    a, b, *_ = segments(copy)
    content = a.read_bytes()
    a.write_bytes(b.read_bytes())
    b.write_bytes(content)
    assert not one(copy.parent).healthy


def test_two_equally_long_events_swapped_are_found(copy: Path) -> None:
    path = segments(copy)[0]
    content = path.read_bytes()
    places = [end for _, end in bodies(content)]
    first, second = content[64 : places[0]], content[places[0] : places[1]]
    assert len(first) == len(second)
    path.write_bytes(content[:64] + second + first + content[places[1] :])
    assert any(path.name in problem for problem in one(copy.parent).problems)


def test_what_is_changed_is_narrowed_down_to_the_event(copy: Path) -> None:
    path = segments(copy)[1]
    seq = int(path.stem) + 1
    content = bytearray(path.read_bytes())
    content[content.index(b"%04d" % seq)] = ord("9")
    path.write_bytes(content)
    problems = one(copy.parent).problems
    assert any(f"checksums fail at {seq})" in problem for problem in problems)


def forge(trail: Path) -> None:
    """Do what one can who may write everything in the folder: drop the last event and fit all that is said of it."""
    path = segments(trail)[-1]
    content = path.read_bytes()
    (*_, (_, end), _) = bodies(content)
    entries = [line for line in read_lines(trail / ENTRIES, Entry) if isinstance(line, Entry)]
    last = entries[-1]
    head = Head("", entries[-2].head)
    for seq, (body, _) in enumerate(bodies(content[:end]), last.first_seq):
        head.add(seq, body)
    entries[-1] = msgspec.structs.replace(last, count=last.count - 1, size=end, head=head.text)
    (trail / ENTRIES).write_bytes(b"".join(map(to_line, entries)))
    forged = anchors(trail)
    forged[-1] = msgspec.structs.replace(forged[-1], seq=forged[-1].seq - 1, head=head.text)
    (trail / ANCHORS).write_bytes(b"".join(map(to_line, forged)))
    note_exported(trail.parent, forged[-1])
    from hft_otel.lanes.segment import Header, pack_header

    header = pack_header(Header(last.number, last.first_seq + 1, end), end)
    path.write_bytes(header + content[64:end])


def test_a_consistent_forgery_needs_an_anchor_from_outside_to_be_found(copy: Path) -> None:
    outside = anchors(copy)
    forge(copy)
    assert one(copy.parent).healthy  # what docs/audit.md says that local files cannot prove
    (problem,) = one(copy.parent, outside).problems
    assert "the anchors from outside know of event 149" in problem


def test_a_stream_that_only_outside_anchors_know_is_missing(copy: Path) -> None:
    outside = anchors(copy)
    folder = copy.parent
    shutil.rmtree(copy)
    (problem,) = one(folder, outside).problems
    assert "nothing is there of it" in problem


def test_a_removed_segment_passes_where_an_anchor_says_that_retention_did_it(copy: Path) -> None:
    outside = anchors(copy)
    path = segments(copy)[0]
    entry = next(line for line in read_lines(copy / ENTRIES, Entry) if isinstance(line, Entry))
    gone = Anchor(
        stream=copy.name.removesuffix(".trail"),
        seq=entry.end_seq - 1,
        head=entry.head,
        kept_from=entry.end_seq,
        time_ns=1,
    )
    path.unlink()
    assert not one(copy.parent).healthy
    with (copy / ANCHORS).open("ab") as file:
        file.write(to_line(gone))
    verdict = one(copy.parent)
    assert (verdict.healthy, verdict.removed, verdict.events) == (True, entry.count, 150 - entry.count)
    assert not one(copy.parent, outside).healthy  # anybody could have written that line
    assert one(copy.parent, [*outside, gone]).healthy


@given(steps=st.lists(st.sampled_from(["write", "anchor", "stall", "turn"]), max_size=30))
@settings(max_examples=settings.default.max_examples // 4)
def test_a_healthy_trail_passes_at_any_moment(
    tmp_path_factory: pytest.TempPathFactory, steps: list[str]
) -> None:
    desk = Desk(tmp_path_factory.mktemp("any"))
    for step in steps:
        if step == "write":
            desk.write(20)
        elif step == "stall":
            for _ in range(20):
                desk.journal.replenish()
                assert desk.room.put(b"\xc4\x01x")
            desk.turn(settle=False)
        elif step == "anchor":
            desk.anchor()
        else:
            desk.turn()
        assert [verdict.problems for verdict in verify(desk.folder)] in ([], [[]])
    desk.close()
    assert [each.problems for each in verify(desk.folder)] in ([], [[]])


def test_a_stream_left_by_a_killed_process_is_proven_up_to_its_last_anchor(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.write(100)
    desk.anchor()
    desk.write(10)
    desk.leave()
    verdict = one(tmp_path)
    assert (verdict.healthy, verdict.anchored, verdict.last) == (True, 99, 109)


def test_events_cut_off_a_live_segment_before_the_anchor_are_found(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.write(10)
    desk.anchor()
    desk.leave()
    path = tmp_path / desk.stream / "00000000.seg"
    content = path.read_bytes()
    (*_, (_, keep), _) = bodies(content)
    path.write_bytes(content[:keep] + bytes(len(content) - keep))
    (problem,) = one(tmp_path).problems
    assert "cut off" in problem


def test_a_stream_without_a_chain_is_counted_only(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.write(10)
    desk.leave()
    verdict = one(tmp_path)
    assert (verdict.healthy, verdict.events, verdict.anchored) == (True, 10, -1)
    assert verdict.notes


def test_a_segment_of_another_name_is_no_segment_of_ours(copy: Path) -> None:
    first = segments(copy)[0]
    shutil.copy(first, copy / "extra.seg")
    assert not one(copy.parent).healthy
    assert kept_name(0) == first.name
