"""Where the messages come from: the generator, or a file of recorded ones."""

from __future__ import annotations

import base64
import binascii
import gzip
import itertools
import json
import random
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from .errors import SourceError
from .faults import malformed_frame
from .generator import MessageGenerator, WireMessage
from .messages import ExchangeEnum

__all__ = ["MessageSource", "Recording", "open_source"]

MAX_MESSAGES = 200_000
"""As many are kept of a recording; a longer one is replayed up to there."""
DELAY = 200
"""By how many messages the second feed is behind."""
FROM_THE_CLIENT = ("send", "connect", "config")
CURE = (
    "A file of messages has one JSON object a line, with the frame in `data` (text) or `b64` (binary), plain "
    "(.jsonl) or compressed (.jsonl.gz); leave --messages out to use generated ones."
)


class MessageSource(Protocol):
    """An endless supply of frames, and what they are about."""

    @property
    def exchanges(self) -> tuple[ExchangeEnum, ...]:
        """The exchanges that frames come from."""

    @property
    def symbols(self) -> tuple[str, ...]:
        """What to subscribe to."""

    def messages(self) -> Iterator[WireMessage]:
        """Yield frames without end, from the beginning."""


def open_source(path: str | Path | None = None, seed: int = 7) -> MessageSource:
    """Return the recording, or the generator where no file is given; SourceError says what to do."""
    return MessageGenerator(seed) if path is None else Recording(Path(path), seed)


class Recording:
    """A file of recorded messages, repeated without end, with a malformed frame now and then.

    A recording is of one exchange, and one alone offers no arbitrage: everything comes a second time, a little later,
    as from a slower vendor's feed, the exchange DELAYED.
    """

    def __init__(self, path: Path, seed: int = 7, malformed_share: float = 0.01) -> None:
        self.path = path
        self.recorded = list(itertools.islice(_read(path), MAX_MESSAGES))
        if not self.recorded:
            raise SourceError(f"{path}: no received message in it. {CURE}")
        own = dict.fromkeys(message.exchange for message in self.recorded)
        self.exchanges = (*own, ExchangeEnum.DELAYED)
        self.symbols = ("BTC/USDT",)
        self._seed = seed
        self._malformed_share = malformed_share

    def messages(self) -> Iterator[WireMessage]:
        """Yield the recording over and over."""
        dice = random.Random(self._seed)
        late = itertools.cycle(
            [WireMessage(ExchangeEnum.DELAYED, message.frame) for message in self.recorded]
        )
        for number, message in enumerate(itertools.cycle(self.recorded)):
            if dice.random() < self._malformed_share:
                yield WireMessage(message.exchange, malformed_frame(dice, message.frame or "{}"))
            yield message
            if number >= DELAY:
                yield next(late)


def _read(path: Path) -> Iterator[WireMessage]:
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if not line.isspace():
                    yield from _message(path, number, line)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise SourceError(
            f"{path}: not a whole gzip file ({error}): fetch or compress it again. {CURE}"
        ) from error
    except OSError as error:
        raise SourceError(f"{path}: {error.strerror or error}. {CURE}") from error


def _message(path: Path, number: int, line: bytes) -> Iterator[WireMessage]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise SourceError(f"{path}, line {number}: not JSON ({error}). {CURE}") from error
    if not isinstance(row, dict):
        raise SourceError(f"{path}, line {number}: a {type(row).__name__} instead of an object. {CURE}")
    kind = row.get("t")
    if kind in FROM_THE_CLIENT or (kind == "http" and "url" in row):  # what a websocket would not deliver
        return
    yield WireMessage(_exchange(path, row), _frame(path, number, row))


def _frame(path: Path, number: int, row: dict[str, Any]) -> str | bytes:
    data, encoded = row.get("data"), row.get("b64")
    if isinstance(data, str):
        return data
    try:
        if isinstance(encoded, str):
            return base64.b64decode(encoded, validate=True)
    except binascii.Error as error:
        raise SourceError(f"{path}, line {number}: `b64` is not base64 ({error}). {CURE}") from error
    raise SourceError(f"{path}, line {number}: neither `data` nor `b64` with a text in it. {CURE}")


def _exchange(path: Path, row: dict[str, Any]) -> ExchangeEnum:
    """Tell the exchange by the row, else by the names of the file and its folder."""
    name = str(row.get("exchange") or row.get("file") or f"{path.parent.name}/{path.name}").lower()
    if "gate" in name:
        return ExchangeEnum.GATEIO
    return ExchangeEnum.MEXC if "mexc" in name else ExchangeEnum.GENERIC
