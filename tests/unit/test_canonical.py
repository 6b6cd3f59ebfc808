"""The form of configurations: the same for equal ones and for copies, another for any that differ."""

from __future__ import annotations

import copy
import enum
import functools
import re
import threading
from collections import OrderedDict, deque
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hft_otel._canonical import canonical
from hft_otel.config import CustomConfig, LogConfig, OtlpConfig


class Plain:
    """An object with the repr that shows an address."""

    def __init__(self, **state: Any) -> None:
        self.__dict__.update(state)

    def method(self) -> None:
        return None


class Other(Plain):
    """Another class."""


class Slotted:
    __slots__ = ("held",)

    def __init__(self, held: Any) -> None:
        self.held = held


@dataclass
class Data:
    held: Any = field(default_factory=list)


class Listed(list[Any]):
    """A list with something of its own."""


class Colour(enum.Enum):
    RED = 1
    BLUE = 2


class Text(enum.StrEnum):
    RED = "red"


def function() -> None:
    return None


def listed(*items: Any, **state: Any) -> Listed:
    made = Listed(items)
    made.__dict__.update(state)
    return made


DIFFERENT: list[Any] = [
    None, True, False, 1, 1.0, "1", b"1", "", [], {}, set(), [1], ["1"], [[1]], {"a": 1}, {1: "a"}, {"1": "a"},
    {(1, 2): 3}, {None: 1}, {1, 2}, "[1]", "None", "\ud800", float("nan"), 10**5000,
    Decimal(1), Path("x"), datetime(2026, 1, 1, tzinfo=UTC), timedelta(1), re.compile("x"), re.compile("y"),
    Plain(), Other(), Plain(a=1), Plain(a=Plain()), Plain(a=Other()), Slotted(1), Slotted(Plain()), Data(), Data([1]),
    listed(1), listed(1, a=1), listed(2), OrderedDict(a=1), deque([1]), Colour.RED, Colour.BLUE,
    Plain, Other, function, print, len, Plain(a=1).method, functools.partial(function, 1), functools.partial(function, 2),
]  # fmt: skip


def test_values_that_differ_have_different_forms() -> None:
    forms = [canonical(value) for value in DIFFERENT]
    assert [DIFFERENT[n] for n, form in enumerate(forms) if forms.index(form) != n] == []


@pytest.mark.parametrize("value", DIFFERENT, ids=lambda value: type(value).__name__)
def test_a_copy_has_the_form_of_its_original(value: Any) -> None:
    assert canonical(copy.deepcopy({"held": [value]})) == canonical({"held": (value,)})


def test_the_order_of_keys_makes_no_difference() -> None:
    assert canonical({"a": {1, 2}, "b": {"c": 1, "d": 2}}) == canonical({"b": {"d": 2, "c": 1}, "a": {2, 1}})
    assert canonical([1, 2]) != canonical([2, 1])


def test_text_is_the_same_in_whatever_class_it_comes() -> None:
    assert canonical(Text.RED) == canonical("red")


def test_an_object_that_holds_itself_has_a_form_of_its_own() -> None:
    def loop(**more: Any) -> Plain:
        made = Plain(**more)
        made.me = [made]  # type: ignore[attr-defined]
        return made

    assert canonical(loop()) == canonical(copy.deepcopy(loop()))
    assert canonical(loop()) != canonical(loop(a=1))
    endless: list[Any] = []
    endless.append(endless)
    assert canonical(endless) == canonical(copy.deepcopy(endless))


def test_what_stands_twice_is_the_same_as_two_that_are_equal() -> None:
    held = {"a": [1]}
    assert canonical([held, held]) == canonical([{"a": [1]}, {"a": [1]}])


def test_what_cannot_be_copied_is_the_same_as_itself_only() -> None:
    class Hostile:
        def __reduce_ex__(self, protocol: Any) -> Any:
            raise RuntimeError("no state")

        def __repr__(self) -> str:
            raise RuntimeError("no text")

    for make in (threading.Lock, Hostile, lambda: lambda: None):
        one, two = make(), make()
        assert canonical([one]) == canonical([one]) != canonical([two])


def test_what_nests_without_end_is_no_error() -> None:
    deep: Any = Plain()
    for _ in range(5000):
        deep = Plain(inner=deep)
    assert canonical(deep)


def test_configurations_are_told_apart_by_their_secrets_and_objects() -> None:
    one, two = (LogConfig(backends={"o": OtlpConfig(headers={"key": key})}) for key in "ab")
    assert canonical(one) != canonical(two)
    mine = CustomConfig(class_path="a:B", config={"session": Plain(pool=Slotted(3)), 1: {2.5: None}})
    assert canonical(mine) == canonical(copy.deepcopy(mine))


@given(
    value=st.recursive(
        st.none() | st.booleans() | st.integers() | st.text() | st.binary(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner),
    )
)
def test_plain_data_is_its_own_form(value: Any) -> None:
    assert eval(canonical(value).decode(errors="surrogatepass")) == value
