"""The guarded way to pack: any value becomes one that packs, in the form that the fast way would have given it."""

from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
import enum
import gc
import math
import time
import uuid
from collections import OrderedDict, UserDict, deque, namedtuple
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hft_otel.lanes.capture import (
    MAX_ITEMS,
    MAX_REPR,
    cut,
    format_message,
    message_text,
    plain,
    plain_context,
    text,
)
from hft_otel.lanes.frames import encode

decode = msgspec.msgpack.decode


class Side(enum.Enum):
    BUY = "buy"


class Number(enum.IntEnum):
    ONE = 1


class Shouting(str):
    def __str__(self) -> str:
        raise ValueError("no")

    __repr__ = __len__ = __getitem__ = __hash__ = __eq__ = encode = __str__  # type: ignore[assignment]


class Whispering(str):
    def __str__(self) -> str:
        raise ValueError("no")

    __repr__ = __len__ = __getitem__ = encode = __str__  # type: ignore[assignment]


class OddInt(int):
    def __int__(self) -> int:
        raise ValueError("no")

    __repr__ = __str__ = __index__ = __lt__ = bit_length = __int__  # type: ignore[assignment]


class OddFloat(float):
    def __float__(self) -> float:
        raise ValueError("no")

    __repr__ = __str__ = __float__  # type: ignore[assignment]


class OddBytes(bytes):
    def __getitem__(self, key: object) -> bytes:  # type: ignore[override]
        raise ValueError("no")

    __len__ = __bytes__ = __getitem__  # type: ignore[assignment]


@dataclasses.dataclass
class Node:
    name: str = "n"
    next: Any = None


Point = namedtuple("Point", "x y")


class Scalar:
    """Like a scalar of numpy, which the package does not depend on."""

    shape = ()

    def item(self) -> object:
        return 1.5


Scalar.__module__ = "numpy"

UUID = uuid.UUID(int=7)


@pytest.mark.parametrize(
    ("value", "form"),
    [
        ("text", "text"),
        (True, True),
        (None, None),
        (2**63 - 1, 2**63 - 1),
        (-(2**63), -(2**63)),
        (2**63, str(2**63)),
        (2**100, str(2**100)),
        (1.5, 1.5),
        (b"bytes", b"bytes"),
        (bytearray(b"bytes"), b"bytes"),
        (memoryview(b"bytes"), b"bytes"),
        (Side.BUY, "buy"),
        (Number.ONE, 1),
        (Shouting("quiet"), "quiet"),
        (OddInt(7), 7),
        (OddFloat(2.5), 2.5),
        (OddBytes(b"raw"), b"raw"),
        (decimal.Decimal("1.10"), "1.10"),
        (UUID, str(UUID)),
        (dt.date(2026, 1, 2), "2026-01-02"),
        (dt.datetime(2026, 1, 2, 3, 4, 5), "2026-01-02T03:04:05"),
        (dt.time(1, 2, 3), "01:02:03"),
        (dt.timedelta(days=1), "P1D"),
        ([1, (2, 3)], [1, [2, 3]]),
        (Point(1, 2), [1, 2]),
        ({"a": {1: 2}}, {"a": {"1": 2}}),
        (frozenset({1}), [1]),
        (OrderedDict(a=1), {"a": 1}),
        (UserDict(a=1), {"a": 1}),
        (Node("a", Node("b")), {"name": "a", "next": {"name": "b", "next": None}}),
        (Scalar(), 1.5),
        (1 + 2j, "(1+2j)"),
        (range(3), "range(0, 3)"),
        (deque([1]), "deque([1])"),
        (Node, repr(Node)),
        (..., "Ellipsis"),
    ],
    ids=lambda value: type.__repr__(type(value)),
)
def test_each_type_has_its_form(value: object, form: object) -> None:
    found = plain(value, 1000)
    assert found == form
    assert type(found) is type(form)
    assert decode(encode(found)) == form


@pytest.mark.parametrize(
    "value",
    [
        Side.BUY,
        decimal.Decimal("1E+5"),
        UUID,
        dt.date(2026, 1, 2),
        dt.datetime(2026, 1, 2, 3, 4, 5, 6),
        dt.time(1, 2, 3, 4),
        dt.timedelta(seconds=1.5),
        {1, 2},
        Node("a", [Node("b")]),
        {"k": {Side.BUY: 1, dt.date(2026, 1, 2): 2, decimal.Decimal("1.5"): 3}},
    ],
    ids=lambda value: type(value).__name__,
)
def test_the_guarded_and_the_fast_way_give_one_form(value: object) -> None:
    assert plain(value, 1000) == decode(encode(value))


def test_nan_and_infinity_stay() -> None:
    assert math.isnan(plain(math.nan, 10))
    assert plain(-math.inf, 10) == -math.inf


@pytest.mark.parametrize("sign", [1, -1])
def test_an_integer_beyond_what_python_prints_is_told_by_its_size(sign: int) -> None:
    found = plain(sign * 10**5000, 1000)
    assert found.endswith("...[16610 bits]")
    assert found.startswith("-0x" if sign < 0 else "0x")


def test_what_is_cut_is_marked() -> None:
    assert plain("x" * 20, 5) == "xxxxx...[15 characters cut]"
    assert plain(b"x" * 20, 5) == b"xxxxx...[15 bytes cut]"
    assert plain("x" * 5, 5) == "xxxxx"
    assert plain(b"x" * 5, 5) == b"xxxxx"
    assert plain(decimal.Decimal("1" * 50), 5) == "11111...[45 characters cut]"
    many = plain(list(range(MAX_ITEMS + 1)), 65_536)
    assert many == [*range(MAX_ITEMS), "...[cut]"]
    assert plain(list(range(MAX_ITEMS)), 65_536) == list(range(MAX_ITEMS))
    keys = {str(key): key for key in range(MAX_ITEMS + 5)}
    for found in (plain(keys, 65_536), plain_context(keys, 65_536)):
        assert len(found) == MAX_ITEMS + 1
        assert found["...[cut]"] == "5 keys"
    assert len(plain(keys, 100)) < len(plain_context(keys, 100)) < 100


def test_a_large_value_leaves_the_others_their_space() -> None:
    found = plain_context({"large": in_itself(), "small": [1, 2, 3]}, 2048)
    assert found["small"] == [1, 2, 3]
    assert "[cut]" in str(found["large"])
    assert text("x" * 10_000).endswith("characters cut]")


def test_a_dict_may_change_while_it_is_copied() -> None:
    """As another thread would, when the garbage collector, which may run Python, lets it."""
    context: dict[Any, Any] = {str(number): {"k": number} for number in range(200)}

    def change(phase: str, info: dict[str, int]) -> None:
        context[object()] = 1

    kept = [(number, number + 1) for number in range(5000)]  # no more pairs to be had without an allocation
    threshold = gc.get_threshold()
    gc.callbacks.append(change)
    gc.set_threshold(1)
    try:
        found = plain_context(context, 65_536)
    finally:
        gc.set_threshold(*threshold)
        gc.callbacks.remove(change)
    assert len(context) > 200
    assert len(kept) == 5000
    assert found["199"] == {"k": 199}


def test_keys_become_text() -> None:
    keys: dict[Any, int] = {
        "s": 1,
        2: 2,
        None: 3,
        ("a", 1): 4,
        Side.BUY: 5,
        Whispering("t"): 6,
        b"b": 7,
        "\udc80": 8,
    }
    found = plain_context(keys, 100)
    assert found == {"s": 1, "2": 2, "None": 3, "['a', 1]": 4, "buy": 5, "t": 6, "b'b'": 7, "\\udc80": 8}
    assert {type(key) for key in found} == {str}
    [long] = plain_context({"k" * 1000: 1}, 10)
    assert long == "k" * 256 + "...[744 characters cut]"


def in_itself() -> object:
    value: list[object] = []
    value += [value] * 50
    return value


def circular_dict() -> object:
    value: dict[str, object] = {}
    value.update({str(number): value for number in range(50)})
    return value


def circular_nodes() -> object:
    node = Node()
    node.next = [node] * 50
    return node


def deep() -> object:
    value: object = 1
    for _ in range(100_000):
        value = [value]
    return value


class Endless(UserDict):  # type: ignore[type-arg]
    def items(self) -> Iterator[tuple[int, int]]:  # type: ignore[override]
        number = 0
        while True:
            yield number, number
            number += 1


@pytest.mark.parametrize("make", [in_itself, circular_dict, circular_nodes, deep, Endless])
def test_what_holds_itself_or_never_ends_is_cut_at_once(make: Any) -> None:
    value = make()
    start = time.perf_counter()
    found = plain(value, 100)
    assert time.perf_counter() - start < 0.5
    assert "[cut]" in str(found)
    assert len(encode(found)) < 200_000
    while isinstance(value, list) and value:  # let go of the deep one without recursion
        value = value.pop()


class Meta(type):  # noqa: PLW1641  (not to be hashed, either)
    def __eq__(cls, other: object) -> bool:
        raise ValueError("no")

    def __getattribute__(cls, name: str) -> object:
        if name == "__name__":
            raise ValueError("no")
        return super().__getattribute__(name)


def broken(name: str, error: type[BaseException] = ValueError) -> object:
    def raises(self: object, *arguments: object) -> object:
        raise error(name)

    return type(
        f"Broken{name}",
        (),
        {name: raises, "__repr__": raises} if name != "__class__" else {name: property(raises)},
    )()


class Lying:
    def __repr__(self) -> str:
        return 5  # type: ignore[return-value]


class RaisesBrokenError:
    def __repr__(self) -> str:
        class Worse(Exception):
            def __str__(self) -> str:
                raise ValueError

            __repr__ = __str__

        raise Worse


class BadMapping(UserDict):  # type: ignore[type-arg]
    def items(self) -> Any:
        raise ValueError("no")

    __repr__ = items


HOSTILE = [
    broken("__repr__"),
    broken("__repr__", RecursionError),
    broken("__repr__", MemoryError),
    broken("__repr__", StopIteration),
    broken("__class__"),
    broken("__getattribute__"),
    Meta("OfMeta", (), {})(),
    Meta("OfMeta", (), {"__repr__": lambda self: 1 / 0})(),
    Lying(),
    RaisesBrokenError(),
    BadMapping(),
    type("Gone", (Node,), {"__getattribute__": lambda self, name: 1 / 0})(),
    memoryview(bytearray(4))[::2],
    dt.datetime(2026, 1, 1, tzinfo=type("Zone", (dt.tzinfo,), {"utcoffset": lambda self, when: 1 / 0})()),
    type("Money", (decimal.Decimal,), {"__str__": lambda self: 1 / 0})("1"),
    type("Day", (dt.date,), {"isoformat": lambda self: 1 / 0})(2026, 1, 1),
    type("Odd", (), {"shape": (), "item": lambda self: 1 / 0, "__module__": "numpy"})(),
    type("Same", (), {"shape": (), "item": lambda self: self, "__module__": "numpy"})(),
]


@pytest.mark.parametrize("number", range(len(HOSTILE)))  # pytest itself had better not look at them
def test_a_hostile_value_becomes_something_that_packs(number: int) -> None:
    value = HOSTILE[number]
    assert decode(encode(plain(value, 100))) is not None
    assert decode(encode(plain_context({"k": value, "l": [value]}, 100)))
    assert cut(text(value), 1000).encode()
    assert cut(message_text(value), 1000).encode()
    assert format_message("%s", (value,))[0].encode("utf-8", "backslashreplace")
    try:
        key = {value: 1}
    except Exception:
        return
    assert decode(encode(plain(key, 100))) is not None


def test_a_broken_repr_is_named_with_what_it_raised() -> None:
    assert text(broken("__repr__")) == "<Broken__repr__ whose repr raised ValueError>"
    assert message_text(broken("__str__")) == "<Broken__str__ whose str raised ValueError>"


def test_a_signal_to_stop_passes_through() -> None:
    with pytest.raises(KeyboardInterrupt):
        text(broken("__repr__", KeyboardInterrupt))


def test_lone_surrogates_are_written_out() -> None:
    assert cut("a\udc80b", 100) == "a\\udc80b"
    assert cut("\N{MONEY BAG}", 100) == "\N{MONEY BAG}"


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters())
    | st.binary()
    | st.decimals()
    | st.datetimes(timezones=st.none() | st.timezones())
    | st.uuids()
    | st.timedeltas()
    | st.complex_numbers(),
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(st.text() | st.integers() | st.none(), inner)
        | st.tuples(inner, inner)
    ),
    max_leaves=40,
)


@given(values, st.sampled_from([128, 2048, 65_536]))
def test_any_value_packs_and_reads_back(value: object, limit: int) -> None:
    packed = encode(plain(value, limit))
    again = encode(decode(packed))
    assert again == packed


@pytest.mark.parametrize(
    ("template", "args", "message"),
    [
        ("%s %d %.2f", ("a", 1, 2.0), "a 1 2.00"),
        ("%(a)s", ({"a": 1},), "1"),
        ("%s", ({},), "{}"),
        ("%5d|%-4s|%*d", (1, "a", 4, 2), "    1|a   |   2"),
        ("%%", (), "%"),
    ],
)
def test_a_format_works_as_in_python_s_logging(template: str, args: tuple[object, ...], message: str) -> None:
    assert format_message(template, args) == (message, "")


@pytest.mark.parametrize(
    ("template", "args"),
    [
        ("%s %s", ("a",)),
        ("%s", ("a", "b")),
        ("%d", ("a",)),
        ("%", ("a",)),
        ("%(a)s", ({"b": 1},)),
        ("%999999999d", (1,)),
        ("%.999999999f", (1.0,)),
        ("%*d", (10**9, 1)),
        ("%-0*d", (-(10**9), 1)),
        ("%(a)999999999s", ({"a": 1},)),
        ("%s", (broken("__str__"),)),
    ],
    ids=range(11),
)
def test_a_wrong_format_keeps_template_and_arguments(template: str, args: tuple[object, ...]) -> None:
    message, problem = format_message(template, args)
    assert message.startswith(template)
    assert len(message) < 2 * MAX_REPR
    assert problem
