"""Values of `with:` are converted to the types of their parameters, or become problems in the runner's words."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from enum import Enum
from pathlib import Path
from threading import Thread
from typing import Annotated, Any, Literal

import pytest
from pydantic import AfterValidator, BaseModel, Field, SecretStr

from runner.pipeline.annotations import Unresolved
from runner.pipeline.handler_arguments import convert_arguments
from tests.wrong.foreign import foreign_words

EMPTY = inspect.Parameter.empty


class Mode(Enum):
    """How to pay."""

    CARD = "card"
    CASH = "cash"


@dataclass
class Item:
    """One line of an order."""

    count: int
    price: float = 1.0


class Limits(BaseModel):
    """A model in a `with:`."""

    most: int


def _refuse(value: str) -> str:
    raise ValueError(f"{value} is not for us")


def _fail(value: str) -> str:
    raise RuntimeError(f"{value} breaks")


def parameters(**annotations: Any) -> dict[str, inspect.Parameter]:
    return {
        name: inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation)
        for name, annotation in annotations.items()
    }


@pytest.mark.parametrize(
    ("annotation", "written", "value"),
    [
        (bool, "false", False),
        (bool, "True", True),
        (bool, True, True),
        (int, "100", 100),
        (int | None, "100", 100),
        (int | None, None, None),
        (float, 5, 5.0),
        (str, "5", "5"),
        (Decimal, "1.10", Decimal("1.10")),
        (Path, "a/b", Path("a/b")),
        (date, "2026-03-01", date(2026, 3, 1)),
        (timedelta, 90, timedelta(seconds=90)),
        (Mode, "cash", Mode.CASH),
        (Literal["a", "b"], "a", "a"),
        (Annotated[int, Field(ge=1)], "2", 2),
        (list[int], ["1", 2], [1, 2]),
        (Sequence[int], ["1"], [1]),
        (dict[str, bool], {"a": "no"}, {"a": False}),
        (Item, {"count": "2"}, Item(2)),
        (list[Item], [{"count": 2, "price": 3}], [Item(2, 3.0)]),
        (Limits, {"most": "7"}, Limits(most=7)),
        (SecretStr, "x", SecretStr("x")),
        # as written
        (EMPTY, "5", "5"),
        (Any, "5", "5"),
        (object, [1], [1]),
        (Thread, "x", "x"),
        (Unresolved("nowhere"), "x", "x"),
        (Iterable[int], ["1"], ["1"]),  # pydantic's iterator would be empty at the second message
    ],
)
def test_a_value_becomes_what_the_annotation_says(annotation: Any, written: Any, value: Any) -> None:
    """As pydantic converts it; where it cannot, the value stays."""
    values, mismatches = convert_arguments(parameters(x=annotation), {"x": written})
    assert (values, mismatches) == ({"x": value}, [])
    assert type(values["x"]) is type(value)


@pytest.mark.parametrize(
    ("annotation", "written", "value"),
    [(int | None, "", None), (Literal[5], "5", 5), (int | None, "~", None), (str, "", ""), (str, "5", "5")],
)
def test_a_variable_may_also_be_what_it_would_be_without_quotes(annotation: Any, written: str, value: Any) -> None:
    """The text itself comes first."""
    assert convert_arguments(parameters(x=annotation), {"x": written}, variables={"x"}) == ({"x": value}, [])


def test_what_goes_to_two_stars_is_converted_to_their_annotation() -> None:
    """Each value of `**options: int`."""
    options = {"options": inspect.Parameter("options", inspect.Parameter.VAR_KEYWORD, annotation=int)}
    assert convert_arguments(options, {"a": "1"})[0] == {"a": 1}
    assert [mismatch.where for mismatch in convert_arguments(options, {"a": "x"})[1]] == [("a",)]


@pytest.mark.parametrize(
    ("annotation", "written", "where", "message", "help_text"),
    [
        (bool, "maybe", ("x",), 'must be true or false, not the text "maybe"', "write true or false"),
        (float, "5m", ("x",), "must be a number, not the text", "write 300 if it is in seconds"),
        (timedelta, "10s", ("x",), "must fit its annotation", "write 10, in seconds"),
        (list[str], "red, blue", ("x",), "must be a list, not the text", "write [red, blue]"),
        (int, 1.5, ("x",), "must be a whole number, not the number 1.5", "write a number"),
        (int | None, "ten", ("x",), "must be a whole number, not the text", "write 10"),
        (str, 5, ("x",), "must be text, not the number 5", "in quotes"),
        (list[int], {"a": 1}, ("x",), "must be a list, not a map", "write"),
        (list[int], [1, "two"], ("x", 1), 'must be a whole number, not the text "two"', "write 2"),
        (Annotated[int, Field(ge=1)], 0, ("x",), "must be at least 1, not the number 0", "1 or more"),
        (date, "tomorrow", ("x",), 'must fit its annotation, not be the text "tomorrow"', "fits"),
        (Annotated[str, Field(min_length=3)], "a", ("x",), "must fit its annotation", "fits"),
        (Mode, "cheque", ("x",), "must be 'card' or 'cash', not the text", "one of them"),
        (int | bool, "x", ("x",), "must fit its annotation", "fits"),
        (Item, {"price": 1}, ("x", "count"), 'must have "count"', 'add "count"'),
        (dict[str, Item], {"a": {"count": "x"}}, ("x", "a", "count"), "must be a whole number", "write a number"),
        (Annotated[str, AfterValidator(_refuse)], "it", ("x",), "does not fit: it is not for us", "fits"),
        (Annotated[str, AfterValidator(_fail)], "it", ("x",), "does not fit: RuntimeError: it breaks", "fits"),
    ],
)
def test_a_value_that_does_not_fit_is_told_in_our_words(
    annotation: Any, written: Any, where: tuple[Any, ...], message: str, help_text: str
) -> None:
    """With its place inside the value, and what to write."""
    _, mismatches = convert_arguments(parameters(x=annotation), {"x": written})
    assert [mismatch.where for mismatch in mismatches] == [where]
    said, help_ = mismatches[0].words("m:f", ())
    assert message in said
    assert '"m:f" takes x: ' in said
    assert help_text in help_
    assert not foreign_words(said + help_)


@pytest.mark.parametrize("annotation", [int, date, Annotated[str, AfterValidator(_refuse)], list[Item], Literal["a"]])
def test_what_came_from_a_variable_is_not_shown(annotation: Any) -> None:
    """It may be secret."""
    _, mismatches = convert_arguments(parameters(x=annotation), {"x": "hunter2"}, variables={"x"})
    said, help_ = mismatches[0].words("m:f", ["PASSWORD"])
    assert "hunter2" not in said + help_
    assert "${PASSWORD}" in said
