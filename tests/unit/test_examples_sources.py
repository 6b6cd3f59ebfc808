"""The example's messages: the generator, and recorded files of every format."""

from __future__ import annotations

import base64
import gzip
import itertools
import json
from pathlib import Path

import pytest

from examples.trading_system.errors import SourceError
from examples.trading_system.generator import MessageGenerator, WireMessage
from examples.trading_system.messages import ExchangeEnum
from examples.trading_system.replay import Recording, open_source
from tests.unit.test_examples_support import MARKET_DATA, needs_recordings, recordings


def take(source: MessageGenerator | Recording, count: int) -> list[WireMessage]:
    return list(itertools.islice(source.messages(), count))


def written(path: Path, rows: list[object]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_generator_repeats_itself_for_the_same_seed_and_not_for_another() -> None:
    assert take(MessageGenerator(seed=1), 500) == take(MessageGenerator(seed=1), 500)
    assert take(MessageGenerator(seed=1), 500) != take(MessageGenerator(seed=2), 500)


def test_one_generator_starts_anew_each_time() -> None:
    generator = MessageGenerator(seed=1)
    assert take(generator, 50) == take(generator, 50)


def test_about_one_generated_frame_in_a_hundred_is_malformed() -> None:
    sound = set(take(MessageGenerator(malformed_share=0.0), 1))
    assert sound
    extra = MessageGenerator(seed=4, malformed_share=0.01)
    broken = sum(1 for message in take(extra, 8_000) if not _reads(message.frame))
    assert 40 < broken < 120


def _reads(frame: str | bytes) -> bool:
    if isinstance(frame, bytes):
        return not frame.startswith(b"\xff\xfe")
    try:
        return isinstance(json.loads(frame), dict)
    except (ValueError, RecursionError):
        return False


def test_text_and_binary_frames_come_back_as_they_were_recorded(tmp_path: Path) -> None:
    rows = [
        {"t": "config", "data": "{}"},
        {"t": "send", "data": '{"op": "subscribe"}'},
        {"t": "http", "url": "https://x", "data": "[]"},
        {"t": "recv", "data": "text"},
        {"t": "recv", "b64": base64.b64encode(b"\x00\xff").decode()},
        {"src": "a.json", "error": True, "status": 400, "data": "body"},
    ]
    assert [m.frame for m in Recording(written(tmp_path / "x.jsonl", rows)).recorded] == [
        "text",
        b"\x00\xff",
        "body",
    ]


@pytest.mark.parametrize(
    ("name", "row", "exchange"),
    [
        ("GATEIO.jsonl", {}, ExchangeEnum.GATEIO),
        ("x.jsonl", {"exchange": "mexc"}, ExchangeEnum.MEXC),
        ("x.jsonl", {"file": "GATEIO_FUTURES.ws.1.0"}, ExchangeEnum.GATEIO),
        ("KRAKEN.jsonl", {}, ExchangeEnum.GENERIC),
        ("mexc/fixtures.jsonl", {}, ExchangeEnum.MEXC),
    ],
)
def test_exchange_is_told_by_the_row_or_by_the_name_of_the_file(
    tmp_path: Path, name: str, row: dict[str, str], exchange: ExchangeEnum
) -> None:
    path = tmp_path / "data" / name
    path.parent.mkdir(parents=True)
    recording = Recording(written(path, [{**row, "data": "{}"}]))
    assert recording.exchanges == (exchange, ExchangeEnum.DELAYED)


def test_recording_is_looped_and_comes_a_second_time_later(tmp_path: Path) -> None:
    path = written(tmp_path / "x.jsonl", [{"data": str(number)} for number in range(3)])
    stream = take(Recording(path, malformed_share=0.0), 1_000)
    own = [message.frame for message in stream if message.exchange is ExchangeEnum.GENERIC]
    late = [message.frame for message in stream if message.exchange is ExchangeEnum.DELAYED]
    assert own[:7] == ["0", "1", "2", "0", "1", "2", "0"]
    assert late[:4] == ["0", "1", "2", "0"]
    assert len(own) - len(late) == 200


def test_compressed_and_plain_files_are_the_same(tmp_path: Path) -> None:
    plain = written(tmp_path / "x.jsonl", [{"data": "a"}, {"data": "b"}])
    packed = tmp_path / "x.jsonl.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    assert Recording(plain).recorded == Recording(packed).recorded


@pytest.mark.parametrize(
    ("name", "content", "cause"),
    [
        ("empty.jsonl", b"", "no received message"),
        ("only_sent.jsonl", b'{"t": "send", "data": "x"}\n', "no received message"),
        ("text.jsonl", b'{"data": "a"}\nhello\n', "line 2: not JSON"),
        ("binary.jsonl", bytes(range(256)), "line 1: not JSON"),
        ("list.jsonl", b"[1]\n", "a list instead of an object"),
        ("other.jsonl", b'{"price": 1}\n', "neither `data` nor `b64`"),
        ("base64.jsonl", b'{"b64": "?"}\n', "not base64"),
        ("plain.jsonl.gz", b'{"data": "a"}\n', "not a whole gzip file"),
        ("cut.jsonl.gz", gzip.compress(b'{"data": "a"}\n' * 1000)[:-20], "not a whole gzip file"),
    ],
    ids=lambda value: (
        value if isinstance(value, str) else ""
    ),  # gzip has the time in it, and workers compare ids
)
def test_broken_file_gives_the_cause_and_the_cure(
    tmp_path: Path, name: str, content: bytes, cause: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(SourceError) as caught:
        open_source(path)
    assert cause in str(caught.value)
    assert str(path) in str(caught.value)
    assert "leave --messages out" in str(caught.value)


def test_missing_file_and_folder_give_the_cause_and_the_cure(tmp_path: Path) -> None:
    for path in (tmp_path / "nowhere.jsonl", tmp_path):
        with pytest.raises(SourceError, match=r"(No such file|Is a directory).*leave --messages out"):
            open_source(path)


def test_without_a_file_messages_are_generated() -> None:
    assert isinstance(open_source(), MessageGenerator)


@needs_recordings
@pytest.mark.parametrize("path", recordings, ids=lambda path: str(path.relative_to(MARKET_DATA)))
def test_every_recording_can_be_replayed(path: Path) -> None:
    recording = Recording(path)
    assert recording.recorded
    assert len(take(recording, 2 * len(recording.recorded))) == 2 * len(recording.recorded)
