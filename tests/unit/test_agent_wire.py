"""What crosses from the trading process to its agent: configurations and messages, whole, or not at all."""

from __future__ import annotations

import datetime
import fcntl
import os
import resource
import socket
import time
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hft_otel import config as config_module
from hft_otel.agent.packing import CannotPack, pack_config, unpack_config
from hft_otel.agent.wire import Channel, Flush, Flushed, Gone, Hello, Ready, Serve, readable
from hft_otel.config import (
    BACKEND_KINDS,
    AgentConfig,
    BackendConfig,
    ComponentConfig,
    CustomConfig,
    JournalConfig,
    LanesConfig,
    LogConfig,
)
from hft_otel.ledger import DestinationSums, FlushReport, LaneSums
from hft_otel.record import LogLevel, LogType

FULL = LogConfig(
    environment="prod",
    backends={name: kind() for name, kind in BACKEND_KINDS.items()},
    routing_rules=[{"min_level": LogLevel.ERROR, "log_types": [LogType.TEXT], "backends": ["file"]}],
    global_context={"service": "x", "weight": 1.5, "live": True, "none": None},
    isolation="process",
    components={
        "parser": ComponentConfig("INFO", {"a": 1}, {"file": {"enabled": False}}, [{"backends": []}])
    },
    journal=JournalConfig("/j", 64, 2),
    lanes=LanesConfig("/l"),
    agent=AgentConfig(1.0, 2, [3]),
    redact=["account"],
    source="logging.yaml",
)


@pytest.mark.parametrize("name", [*BACKEND_KINDS, "custom", "plain"])
def test_every_kind_of_backend_arrives_as_it_was(name: str) -> None:
    kind = {"custom": CustomConfig, "plain": BackendConfig, **BACKEND_KINDS}[name]
    backend = kind(enabled=False, min_level="ERROR", config={"a": [1, "b", None], "c": {"d": 2.5}})
    for entry in fields(backend):
        if isinstance(value := getattr(backend, entry.name), str) and entry.name != "min_level":
            setattr(backend, entry.name, f"{value}-changed")
    config = LogConfig(backends={"it": backend})
    back = unpack_config(pack_config(config))
    assert back == config
    assert type(back.backends["it"]) is kind


def test_a_whole_configuration_arrives_as_it_was() -> None:
    back = unpack_config(pack_config(FULL))
    assert back == FULL
    assert type(back.routing_rules[0]["min_level"]) is LogLevel
    assert type(back.components["parser"]) is ComponentConfig


def test_every_class_of_the_configuration_is_known() -> None:
    """A class that is added later must arrive, too; this fails where the table stops being generic."""
    for kind in vars(config_module).values():
        if isinstance(kind, type) and is_dataclass(kind):
            made = LogConfig(global_context={"x": kind()})
            assert unpack_config(pack_config(made)) == made


@pytest.mark.parametrize(
    "value",
    [
        (1, ("a",)),
        {1, 2},
        frozenset({"x"}),
        datetime.date(2026, 1, 2),
        datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC),
        Decimal("1.10"),
        b"\x00\xff",
        {1: {2: "keys that are no text"}},
        float("inf"),
        [[], {}],
    ],
)
def test_options_of_a_class_of_the_users_keep_their_types(value: Any) -> None:
    config = LogConfig(backends={"mine": CustomConfig(class_path="a:B", config={"value": value})})
    back = unpack_config(pack_config(config)).backends["mine"].config["value"]
    assert back == value
    assert type(back) is type(value)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (object(), "logging.backends.mine.config.value[0] holds a object"),
        (len, "holds a builtin_function_or_method"),
        (1 << 70, "cannot be packed"),
        ("\ud800", "cannot be packed"),
    ],
)
def test_what_cannot_cross_is_named(value: Any, said: str) -> None:
    config = LogConfig(backends={"mine": CustomConfig(class_path="a:B", config={"value": [value]})})
    with pytest.raises(CannotPack) as error:
        pack_config(config)
    assert said in str(error.value)


def test_a_backend_class_of_the_users_own_making_cannot_cross() -> None:
    class FileConfig(config_module.FileConfig):
        pass

    with pytest.raises(CannotPack, match="holds a FileConfig"):
        pack_config(LogConfig(backends={"file": FileConfig()}))


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False)
    | st.text(st.characters(exclude_categories=["Cs"]))
    | st.binary()
    | st.dates()
    | st.sampled_from(LogLevel),
    lambda inner: (
        st.lists(inner) | st.dictionaries(st.text("ab", max_size=2), inner) | st.lists(inner).map(tuple)
    ),
    max_leaves=10,
)


@given(st.dictionaries(st.text("abc", max_size=3), plain))
def test_any_plain_options_cross(options: dict[str, Any]) -> None:
    config = LogConfig(backends={"mine": CustomConfig(class_path="a:B", config=options)})
    assert unpack_config(pack_config(config)) == config


@given(st.binary(max_size=60))
def test_bytes_that_are_no_configuration_are_refused(data: bytes) -> None:
    with pytest.raises((msgspec.MsgspecError, KeyError, ValueError, TypeError, RecursionError)):
        unpack_config(data)


@pytest.fixture
def ends() -> Iterator[tuple[Channel, Channel]]:
    one, other = socket.socketpair()
    left, right = Channel(one), Channel(other)
    yield left, right
    left.close()
    right.close()


HELLO = Hello(1, 2, "/s", "/j", 1.0, {"TOKEN": "secret"})


def test_messages_arrive_in_order_and_whole(ends: tuple[Channel, Channel]) -> None:
    left, right = ends
    messages = [HELLO, Serve(0, b"x" * 30_000, {}), Flush(1, ((0, 64), (1, 70)), 2.5)]
    for message in messages:
        left.send(message)
    got: list[object] = []
    while len(got) < 3:
        assert right.wait(5)
        got += right.receive()
    assert got == messages
    assert right.wait(0) is False


def test_a_report_arrives_as_it_was(ends: tuple[Channel, Channel]) -> None:
    left, right = ends
    report = FlushReport(
        [LaneSums("low", "TEXT", 1, 2, {"room_full": 3}, 4)],
        [DestinationSums("file", "TEXT", 5, 4, {"raised": 1}, 2, 3)],
        complete=True,
        newly_dropped=4,
    )
    left.send(Flushed(7, report))
    left.send(Ready(8))
    assert right.first(5) == Flushed(7, report)
    assert right.first(5) == Ready(8)


def test_a_message_in_pieces_is_put_together(ends: tuple[Channel, Channel]) -> None:
    left, right = ends
    body = msgspec.msgpack.encode(Ready(5))
    for byte in len(body).to_bytes(4, "big") + body[:-1]:
        left.connection.send(bytes([byte]))
        assert list(right.receive()) == []
    left.connection.send(body[-1:])
    assert list(right.receive()) == [Ready(5)]


def test_the_end_of_the_other_side_comes_after_what_it_said(ends: tuple[Channel, Channel]) -> None:
    left, right = ends
    left.send(Ready(5))
    left.close()
    got = []
    with pytest.raises(Gone):
        for _ in range(10):
            got += right.receive()  # the loop ends by Gone
    assert right.wait(0)
    with pytest.raises(Gone):
        right.send(HELLO)


def test_what_was_said_last_is_not_lost_with_the_end(ends: tuple[Channel, Channel]) -> None:
    left, right = ends
    left.send(Ready(5))
    left.close()
    assert right.first(5) == Ready(5)
    with pytest.raises(Gone):
        right.first(5)


@pytest.mark.parametrize("junk", [b"\x00\x00\x00\x02\xc1\xc1", b"\xff\xff\xff\xff", b"\x00\x00\x00\x01\x90"])
def test_what_is_no_message_is_an_error(ends: tuple[Channel, Channel], junk: bytes) -> None:
    left, right = ends
    left.connection.send(junk)
    with pytest.raises(msgspec.MsgspecError):
        list(right.receive())


def test_silence_ends_the_wait_for_a_first_message(ends: tuple[Channel, Channel]) -> None:
    with pytest.raises(Gone, match="nothing was said"):
        ends[1].first(0.05)


def test_what_is_closed_counts_as_readable_so_that_reading_finds_out(ends: tuple[Channel, Channel]) -> None:
    left, right = ends
    number = os.dup(left.fileno())
    assert readable(0, number) == set()
    os.close(number)
    assert readable(None, number, right.fileno()) == {number}
    left.close()
    assert readable(None, right.fileno()) == {right.fileno()}


def test_a_wait_is_never_shorter_than_asked_for(ends: tuple[Channel, Channel]) -> None:
    started = time.monotonic()
    assert readable(0.0101, ends[0].fileno()) == set()
    assert time.monotonic() - started >= 0.0101
    assert readable(-1, ends[0].fileno()) == set()  # at once


def test_descriptors_beyond_the_reach_of_select_can_be_talked_over() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= hard < 2048:
        pytest.skip(f"this machine lets a process open {hard} files at most")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard if 0 < hard < 4096 else max(soft, 4096), hard))
    one, other = socket.socketpair()
    with one, other:
        high = fcntl.fcntl(other.fileno(), fcntl.F_DUPFD_CLOEXEC, 1100)
        left, right = Channel(one), Channel(socket.socket(fileno=high))
        left.send(Ready(5))
        assert right.first(5) == Ready(5)
        right.close()
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
