"""A repeated request gets the first answer, in whatever state the first one is."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from runner.pipeline.model import StoreSettings
from runner.runtime.answers import Answer
from runner.runtime.idempotency import Idempotency, Response, read_key
from runner.runtime.store import MemoryStore, open_store
from tests.unit.transports.virtual_time import virtual_time


@pytest.mark.parametrize(
    ("header", "key"),
    [("abc", "abc"), (chr(34) + "abc" + chr(34), "abc"), (r'"a\"b\\c"', r'a"b\c'), (" x ", "x"), (chr(34), chr(34))],
)
def test_a_key_is_a_string_of_the_draft_or_the_same_without_quotes(header: str, key: str) -> None:
    assert read_key(header) == key


@pytest.mark.parametrize("header", ["", '""', "two words", "ü", "a\x00b", "x" * 256, '"a" ; b="c d"'])
def test_what_is_no_key_is_refused(header: str) -> None:
    with pytest.raises(ValueError, match="visible ASCII"):
        read_key(header)


class Requests:
    """Requests whose work answers in turn, and what was worked on."""

    def __init__(self, idempotency: Idempotency, *answers: Response) -> None:
        self._idempotency = idempotency
        self._answers = list(answers)
        self.worked = 0

    async def send(
        self, key: str = "k", body: bytes = b"x", work: Callable[[], Awaitable[Response]] | None = None
    ) -> Response:
        async def answer() -> Response:
            self.worked += 1
            await asyncio.sleep(1)
            return self._answers.pop(0)

        return await self._idempotency.answer(key, body, work or answer)


def in_memory(window_s: float = 60) -> Idempotency:
    return Idempotency(window_s, "shop.web", MemoryStore())


@virtual_time
async def test_only_a_success_is_remembered_for_its_window() -> None:
    requests = Requests(in_memory(), (503, {}), (422, {}), (202, {"ids": ["k"]}), (202, {"ids": ["new"]}))
    assert [(await requests.send())[0] for _ in range(4)] == [503, 422, 202, 202]
    assert await requests.send() == (202, {"ids": ["k"]})
    await asyncio.sleep(61)
    assert await requests.send() == (202, {"ids": ["new"]})
    assert requests.worked == 4


@virtual_time
async def test_the_answer_to_a_call_is_remembered_as_it_was() -> None:
    answer = Answer({"total": 5}, b'{"total":5}\xff', "application/json", {"x": 1})
    requests = Requests(in_memory(), (200, answer))
    assert await requests.send() == (200, answer)
    status, again = await requests.send()
    assert isinstance(again, Answer)
    assert (status, again.body, again.content_type) == (200, answer.body, answer.content_type)


@virtual_time
async def test_while_the_first_is_being_answered_it_is_a_conflict() -> None:
    requests = Requests(in_memory(), (202, {}), (202, {}))
    first = asyncio.create_task(requests.send())
    await asyncio.sleep(0.5)
    assert (await requests.send())[0] == 409
    assert (await requests.send(key="other"))[0] == 202
    assert (await first)[0] == 202


@virtual_time
async def test_another_body_with_the_same_key_is_refused() -> None:
    requests = Requests(in_memory(), (202, {}))
    await requests.send()
    assert (await requests.send(body=b"y"))[0] == 422


@virtual_time
async def test_a_request_that_is_cut_off_is_not_done() -> None:
    requests = Requests(in_memory(), (202, {}))
    first = asyncio.create_task(requests.send())
    await asyncio.sleep(0.5)
    first.cancel()
    await asyncio.wait([first])
    assert (await requests.send())[0] == 202


async def test_without_its_store_nothing_is_begun_and_what_was_done_is_said(tmp_path: Path) -> None:
    store = open_store(StoreSettings("seen", f"sqlite:{tmp_path}/folder/seen.db"))
    requests = Requests(Idempotency(60, "shop.web", store))
    assert (await requests.send())[0] == 503
    assert requests.worked == 0
    (tmp_path / "folder").mkdir()
    while store.unready_reason:
        await asyncio.sleep(0.01)

    async def lose_the_store() -> Response:
        await store.close()
        return 202, {}

    assert await requests.send(work=lose_the_store) == (202, {}), "the message is published"
