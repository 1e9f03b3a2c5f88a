"""Contract: the answers that a session waits for."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from runner.errors import NoAnswer
from runner.message import Envelope

T = TypeVar("T")


class PendingAnswers:
    """Futures of answers, by the correlation ids of their questions. Each id is used once."""

    def __init__(self) -> None:
        self._waiting: dict[str | None, asyncio.Future[Envelope]] = {}

    async def ask(self, question: Envelope, publishing: Awaitable[T]) -> tuple[asyncio.Future[Envelope], T]:
        """Await the publication of a question; return the future of its answer, and the result of the publication."""
        answer: asyncio.Future[Envelope] = asyncio.get_running_loop().create_future()
        self._waiting[question.correlation_id] = answer
        answer.add_done_callback(lambda _: self._waiting.pop(question.correlation_id, None))
        try:
            return answer, await publishing
        except BaseException:
            answer.cancel()
            raise

    def take(self, answer: Envelope) -> None:
        """Pass an answer on. A second one, and one that is late, is dropped."""
        waiting = self._waiting.get(answer.correlation_id)
        if waiting is not None and not waiting.done():
            waiting.set_result(answer)

    def lose_all(self) -> None:
        """End the waiting for all answers: the session is closed."""
        for waiting in tuple(self._waiting.values()):
            lose(waiting)


def lose(waiting: asyncio.Future[Envelope], *_: object) -> None:
    """End the waiting for an answer that cannot come any more. `_` is the future that says so."""
    if not waiting.done():
        waiting.set_exception(NoAnswer("the connection to the broker was lost before the answer came", reason="lost"))
        waiting.exception()  # asyncio would log one that nothing awaits
