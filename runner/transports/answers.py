"""Contract: the answers that a session waits for."""

from __future__ import annotations

import asyncio

from runner.errors import NoAnswer
from runner.message import Envelope


class PendingAnswers:
    """Futures of answers, by the correlation ids of their questions. Each id is used once."""

    def __init__(self) -> None:
        self._waiting: dict[str | None, asyncio.Future[Envelope]] = {}

    def expect(self, question: Envelope) -> asyncio.Future[Envelope]:
        """Return the future of the answer to a question. Cancel it to expect the answer no more."""
        answer: asyncio.Future[Envelope] = asyncio.get_running_loop().create_future()
        self._waiting[question.correlation_id] = answer
        answer.add_done_callback(lambda _: self._waiting.pop(question.correlation_id, None))
        return answer

    def take(self, answer: Envelope) -> None:
        """Pass an answer on. A second one, and one that is late, is dropped."""
        waiting = self._waiting.get(answer.correlation_id)
        if waiting is not None and not waiting.done():
            waiting.set_result(answer)

    def lose_all(self) -> None:
        """End the waiting for all answers: the session is closed."""
        for waiting in tuple(self._waiting.values()):
            lose(waiting)


def lose(waiting: asyncio.Future[Envelope]) -> None:
    """End the waiting for an answer that cannot come any more."""
    if not waiting.done():
        text = "the connection to the broker was lost before the answer came"
        waiting.set_exception(NoAnswer(text, reason="lost", hint="the message may be handled all the same"))
        waiting.exception()  # asyncio would log one that nothing awaits
