"""The place of an error is in the user's code, and its traceback begins at the handler."""

from __future__ import annotations

import json
import os
import pickle
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import pytest

from runner.errors import Reject, RetryLater
from runner.message import Message, Publish
from runner.outcome import RetryPolicy, flatten_errors
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
TEXT = "this number is a text: convert it with float(…), or annotate the payload with a model"


def in_a_thread(work: Callable[[], Any]) -> Any:
    """Run something in another thread, as the function of a handler is."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(work).result()


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
        (lambda: ORDER["text"] * 1.19, TEXT),
        (lambda: ORDER["text"] * ORDER["text"], TEXT),
        (lambda: ORDER["id"] + ORDER["text"], TEXT),
        (lambda: ORDER["text"] > 5, TEXT),
        (
            lambda: os.environ["NO_SUCH_TOKEN"],
            "set the variable NO_SUCH_TOKEN: `export NO_SUCH_TOKEN=…`, or in a file that --env-file names",
        ),
        (lambda: ORDER["nothing"], ""),
        (
            lambda: in_a_thread(sqlite3.connect(":memory:").cursor),
            "write sqlite3.connect(…, check_same_thread=False, isolation_level=None), "
            "or connect in the handler, for each message",
        ),
        (lambda: cast("Any", None)["id"], ""),
    ],
)
def test_common_errors_of_handlers_say_what_to_write(work: Callable[[], Any], hint: str) -> None:
    with pytest.raises((AttributeError, KeyError, TypeError, sqlite3.ProgrammingError)) as caught:
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


async def chained(kind: str) -> BaseException:
    """Return an error that a handler raised from another one, while it handled one, or instead of it."""

    async def handle() -> None:
        try:
            raise ConnectionError("carrier down")
        except ConnectionError as error:
            if kind == "from":
                raise KeyError("order") from error
            raise KeyError("order") from (None if kind == "instead" else error.__context__)

    async def handle_while() -> None:
        try:
            raise ConnectionError("carrier down")
        except ConnectionError:
            ORDER["order"]

    try:
        await await_handler(handle_while() if kind == "while" else handle())
    except HandlerFailed as failure:
        return failure.error
    raise AssertionError("it does not fail")


@pytest.mark.parametrize(
    ("kind", "words"), [("from", "The above exception was the direct cause"), ("while", "During handling of the above")]
)
async def test_the_cause_comes_first(kind: str, words: str) -> None:
    """As Python prints it."""
    text = traceback_text(await chained(kind))
    first, middle, last = (
        text.index("ConnectionError: carrier down"),
        text.index(words),
        text.index("KeyError: 'order'"),
    )
    assert first < middle < last
    assert "await_handler" not in text


async def test_a_cause_that_is_hidden_and_a_circle_of_causes() -> None:
    assert "ConnectionError" not in traceback_text(await chained("instead"))
    error = await chained("from")
    assert error.__cause__ is not None
    error.__cause__.__cause__ = error
    assert traceback_text(error).count("KeyError: 'order'") == 1


@pytest.mark.parametrize(
    ("key", "hint"),
    [("email", {"hint": 'did you mean ["mail"]?'}), ("totl", {"hint": 'did you mean ["total"]?'}), ("x", {})],
)
def test_a_key_that_is_nearly_there_is_named(key: str, hint: dict[str, str]) -> None:
    """In a dict of the function, or in one inside of it. The values stay out."""

    def handle(order: dict[str, Any]) -> object:
        return order["customer"][key] if key != "totl" else order[key]

    with pytest.raises(KeyError) as caught:
        handle({"total": "S3CR3T", "customer": {"mail": "S3CR3T"}})
    assert error_hint(caught.value) == hint


def test_a_rejection_that_becomes_a_retry_is_told_so() -> None:
    """`except Exception` in a handler catches it; another error that becomes a retry is as it should be."""

    def handle(error: Exception) -> None:
        try:
            raise error
        except Exception as caught:
            raise RetryLater("1m") from caught

    for error, hint in (
        (Reject("no"), {"hint": "`except Exception` catches Reject, too: write `except Reject: raise` before it"}),
        (ConnectionError("away"), {}),
    ):
        with pytest.raises(RetryLater) as raised:
            handle(error)
        assert error_hint(raised.value) == hint


@pytest.mark.parametrize(
    ("error", "hint"),
    [
        (KeyError("a"), {"hint": "KeyError is not in retry.on: it is not retried"}),
        (BrokenPipeError(), {"hint": "BrokenPipeError is in retry.not_on: it is not retried"}),
        (ConnectionError("a"), {}),
        (Reject("a"), {}),
        (ExceptionGroup("both", [Reject("a"), KeyError("b")]), {}),
        (
            ExceptionGroup("both", [ConnectionError("a"), KeyError("b")]),
            {"hint": "KeyError is not in retry.on: it is not retried"},
        ),
    ],
)
def test_why_an_error_is_not_retried(error: BaseException, hint: dict[str, str]) -> None:
    policy = RetryPolicy(only_on=(ConnectionError,), not_on=(BrokenPipeError,))
    assert error_hint(error, policy) == hint
    assert error_hint(error) == {}
