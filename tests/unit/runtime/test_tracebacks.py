"""The place of an error is in the user's code, and its traceback begins at the handler."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from runner.errors import Reject
from runner.message import Message, Publish
from runner.outcome import flatten_errors
from runner.runtime.invocation import HandlerFailed, await_handler
from runner.runtime.tracebacks import RemoteHandlerError, capture_traceback, error_hint, error_location, traceback_text

HERE = Path(__file__).name


async def raised_by(text: str) -> BaseException:
    """Return the error that a handler raised, after it went through our code."""

    async def handle() -> None:
        if text == "group":
            raise ExceptionGroup("both", [ValueError("one"), TypeError("two")])
        json.loads(text)

    try:
        await await_handler(handle())
    except HandlerFailed as failure:
        return failure.error
    raise AssertionError("it does not fail")


async def test_the_place_is_the_innermost_line_of_the_users_code() -> None:
    """Not that in the standard library, which the user called."""
    location = error_location(await raised_by("no json"))
    assert location is not None
    file, line = location.rsplit(":", 1)
    assert Path(file).name == HERE
    assert "json.loads(text)" in Path(__file__).read_text().splitlines()[int(line) - 1]


async def test_the_traceback_has_none_of_our_frames() -> None:
    text = traceback_text(await raised_by("no json"))
    assert "in handle" in text
    assert "await_handler" not in text
    assert text.endswith("json.decoder.JSONDecodeError: Expecting value: line 1 column 1 (char 0)")


ORDER: Any = {"id": 1, "text": "9.5"}
PUBLISH: Any = Publish


@pytest.mark.parametrize(
    ("work", "hint"),
    [
        (lambda: ORDER.id, 'a dict has keys: write ["id"] in place of .id, or annotate the payload with a model'),
        (lambda: cast("Any", Message(ORDER))["id"], 'Message has attributes: write .name in place of ["name"]'),
        (lambda: json.loads(ORDER), "the payload is parsed already: remove json.loads"),
        (
            lambda: cast("Any", "text")["id"],
            "this is a text, not an object: parse it with json.loads, or publish it as JSON",
        ),
        (lambda: PUBLISH(1, queue="a"), "write Publish(value, to=…, headers=…, delay=…, expires=…, priority=…, id=…)"),
        (
            lambda: ORDER["text"] * 1.19,
            "this number is a text: convert it with float(…), or annotate the payload with a model",
        ),
        (lambda: cast("Any", None)["id"], ""),
    ],
)
def test_common_errors_of_handlers_say_what_to_write(work: Callable[[], Any], hint: str) -> None:
    with pytest.raises((AttributeError, TypeError)) as caught:
        work()
    assert error_hint(caught.value) == ({"hint": hint} if hint else {})


async def test_a_group_is_followed_by_its_members() -> None:
    text = traceback_text(await raised_by("group"))
    assert [part.splitlines()[-1] for part in text.split("\n\n")] == [
        "ExceptionGroup: both (2 sub-exceptions)",
        "ValueError: one",
        "TypeError: two",
    ]


async def test_an_error_of_another_process_keeps_its_place_and_text() -> None:
    error = await raised_by("no json")
    sent = pickle.loads(pickle.dumps((flatten_errors(error), capture_traceback(error))))
    remote = RemoteHandlerError(*sent)
    assert error_location(remote) == error_location(error)
    assert traceback_text(remote) == traceback_text(error)
    assert [item.name for item in flatten_errors(remote)] == ["JSONDecodeError"]


def test_what_was_never_raised_has_no_place() -> None:
    assert error_location(Reject("no")) is None
    assert error_location(None) is None
    assert traceback_text(None) == ""
