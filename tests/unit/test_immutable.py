"""Classes of `runner.immutable` are what the decorator of the standard library makes."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from dataclasses import FrozenInstanceError, field, replace
from typing import Any

import pytest

from runner.immutable import dataclass


@dataclass(frozen=True, slots=True)
class Point:
    """A class with every kind of field."""

    x: int
    secret: str = field(default="", repr=False)
    note: str = field(default="", compare=False)
    rest: tuple[int, ...] = field(default_factory=tuple)


@dataclass(frozen=True, slots=True)
class OtherPoint:
    """A class with the same values."""

    x: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """A class whose fields are given by name."""

    name: str


@dataclasses.dataclass(frozen=True, slots=True)
class Standard:
    """What the others are compared with."""

    x: int
    secret: str = field(default="", repr=False)
    note: str = field(default="", compare=False)
    rest: tuple[int, ...] = field(default_factory=tuple)


def test_values_are_compared_field_by_field() -> None:
    assert Point(1, rest=(2,)) == Point(1, rest=(2,), note="other")
    assert hash(Point(1)) == hash(Point(1, note="other"))
    assert Point(1) != Point(2)
    other: Any = OtherPoint(1)
    assert Point(1) != other
    assert len({Point(1), Point(1), Point(1, "secret")}) == 2


@pytest.mark.parametrize("name", ["x", "rest", "other", "__doc__"])
def test_no_attribute_can_be_set(name: str) -> None:
    point = Point(1)
    with pytest.raises(FrozenInstanceError, match=f"cannot assign to field '{name}'"):
        setattr(point, name, 2)
    assert point == Point(1)


def test_no_attribute_can_be_deleted() -> None:
    point: Any = Point(1)
    with pytest.raises(FrozenInstanceError, match="cannot delete field 'x'"):
        del point.x
    assert point.x == 1


def test_it_is_shown_without_hidden_fields() -> None:
    assert repr(Point(1, "hidden", rest=(2,))) == "Point(x=1, note='', rest=(2,))"
    assert repr(Point(1)) == repr(Standard(1)).replace("Standard", "Point")


def test_it_is_a_dataclass() -> None:
    assert replace(Point(1), x=2) == Point(2)
    assert dataclasses.asdict(Point(1)) == dataclasses.asdict(Standard(1))
    assert Named(name="a") == Named(name="a")
    named: Any = Named
    with pytest.raises(TypeError):
        named("a")


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))])
def test_it_can_be_copied(copied: Any) -> None:
    assert copied(Point(1, "secret", rest=(2,))) == Point(1, "secret", rest=(2,))
