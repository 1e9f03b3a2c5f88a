"""One consumer of a leadership queue: finds out whether it is the active one, and what the state is.

Of the consumers of a queue with a single active consumer, only one gets messages. So a message that arrives proves that
its receiver was the active consumer when the broker sent it. Three kinds of message pass through the queue:

- A call is empty. Its arrival is the proof.
- A token has the state. The newest one stays unacknowledged: when the channel closes, it goes back to the queue, and
  from there to the next active consumer.
- A greeting asks the leader for its start and its state. The answer comes by direct reply-to, a pseudo-queue that needs
  no permission and no declaration.

Sources: https://www.rabbitmq.com/docs/consumers#single-active-consumer
https://www.rabbitmq.com/docs/direct-reply-to
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
from collections.abc import Callable, Coroutine
from dataclasses import asdict
from typing import Any, NamedTuple, Self, TypeVar

from aio_pika.abc import AbstractConnection
from aiormq.abc import AbstractChannel, DeliveredMessage
from pamqp.commands import Basic

from runner.message import Envelope
from runner.tasks import cancel_and_wait
from runner.transports.leadership import Candidate, LeaderState
from runner.transports.rabbitmq.aiormq_workarounds import CHANNEL_ERRORS, ShortString, loss_as_error
from runner.transports.rabbitmq.channels import REPLY_TO, RPC_S, open_channel
from runner.transports.rabbitmq.message_decoder import decode_aiormq_message

PREFETCH = 10
"""More than are ever unsettled: one token, and messages that have not been looked at."""

CLOSE_S = 5.0

CALL = "leadership.call"
TOKEN = "leadership.token"
GREETING = "leadership.greeting"

MAX_UNANSWERED_GREETINGS = 1000
"""How many greetings, the newest, are kept until this session leads and answers them."""

OnOtherCandidate = Callable[[Candidate, LeaderState | None], None]

T = TypeVar("T")


class CandidacyLost(Exception):
    """The candidacy has ended; the text says why."""


class Token(NamedTuple):
    """The state as a leader wrote it. `term` counts leaders, `version` the writes of the leader of this term.

    `start` is the start in which the leader led.
    """

    term: int
    version: int
    state: dict[str, Any]
    start: str = ""

    def is_newer_than(self, other: Token) -> bool:
        """Return whether this token replaces the other. Of two claims to one term, the first counts."""
        return (self.term, self.version) > (other.term, other.version)


NO_TOKEN = Token(0, 0, {})
"""The token before the first leader."""


def write_token(token: Token) -> bytes:
    """Return the body of a token's message."""
    return json.dumps(token._asdict(), allow_nan=False).encode()


def read_token(body: bytes) -> Token | None:
    """Return the token in a message's body; None for anything else."""
    try:
        found = json.loads(body)
        term, version, state, start = found["term"], found["version"], found["state"], found.get("start", "")
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    is_token = type(term) is int and type(version) is int and isinstance(state, dict) and isinstance(start, str)
    return Token(term, version, state, start) if is_token else None


def write_greeting(member: Candidate, led: LeaderState | None = None) -> bytes:
    """Return the body of a greeting, or of the answer to one."""
    return json.dumps({**asdict(member), **({"led": led} if led else {})}, allow_nan=False).encode()


def read_greeting(body: bytes) -> tuple[Candidate, LeaderState | None] | None:
    """Return who greets or answers, and the content of an answer; None for anything else."""
    try:
        found = json.loads(body)
        member = Candidate(*(str(found[key]) for key in ("start", "fingerprint", "where")))
        start, state = found.get("led", ("", {}))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    if not isinstance(start, str) or not isinstance(state, dict):
        return None
    return member, LeaderState(start, state) if "led" in found else None


class Candidacy:
    """A consumer of the leadership queue, until its channel is closed.

    `ended` is done, with the reason, as soon as it cannot lead any more. `expires_at` is the loop time at which it ends
    by itself; `expire_at` moves it. `on_other` is called with each candidate that greets or answers, and with the
    content of an answer.
    """

    def __init__(self, channel: AbstractChannel, member: Candidate, on_other: OnOtherCandidate) -> None:
        self.channel = channel
        self.ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._member = member
        self._on_other = on_other
        self._unanswered: list[str] = []
        self._answer: asyncio.Future[LeaderState] = self.ended.get_loop().create_future()
        self.is_leading = False
        self.start = ""
        """The start in which it leads."""
        self.token = NO_TOKEN
        """The newest token that has arrived."""
        self.term: int | None = None
        """The term that it has claimed. From then on only its own tokens count."""
        self.version = 0
        self.is_first = asyncio.Event()
        self.writing = asyncio.Lock()
        self.expires_at = float("inf")
        self._held: int | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._name = secrets.token_hex(8)
        self._sent = 0
        self._expected: dict[str, asyncio.Future[None]] = {}

    @classmethod
    async def take(
        cls, connection: AbstractConnection, queue: str, member: Candidate, on_other: OnOtherCandidate
    ) -> Self:
        """Consume the leadership queue. Raises what the broker answers."""
        channel = await open_channel(connection)
        candidacy = cls(channel, member, on_other)
        channel.closing.add_done_callback(lambda _: candidacy.end("the channel or its connection was lost"))
        channel.on_consumer_cancel_callbacks.add(lambda _: candidacy.end("cancelled by the broker"))
        try:
            await channel.basic_qos(prefetch_count=PREFETCH, timeout=RPC_S)
            await channel.basic_consume(REPLY_TO, candidacy._on_answer, no_ack=True, timeout=RPC_S)
            await channel.basic_consume(ShortString(queue), candidacy._on_message, timeout=RPC_S)
        except BaseException:
            await candidacy.leave("it was not taken")
            raise
        return candidacy

    @property
    def is_valid(self) -> bool:
        """Whether it has not ended, also by the clock: the loop may have been blocked."""
        return not self.ended.done() and asyncio.get_running_loop().time() < self.expires_at

    def end(self, reason: str) -> None:
        """End the candidacy. The first reason counts."""
        if not self.ended.done():
            self.ended.set_result(reason)

    def expire_at(self, when: float, reason: str) -> None:
        """End by itself at this loop time, for this reason, instead of at an earlier set time."""
        if self._timer is not None:
            self._timer.cancel()
        self.expires_at = when
        self._timer = asyncio.get_running_loop().call_at(when, self.end, reason)

    async def run_while_valid(self, work: Coroutine[Any, Any, T]) -> T:
        """Run `work` while the candidacy lasts. Raises CandidacyLost where it ends first."""
        task = asyncio.create_task(work)
        try:
            await asyncio.wait((task, self.ended), return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return task.result()
            raise CandidacyLost(self.ended.result())
        finally:
            await cancel_and_wait(task)

    async def leave(self, reason: str) -> None:
        """Close the channel: the token goes back to the queue, and the next consumer leads. Idempotent, bounded.

        Never by `basic.cancel`: the next consumer would become active while this one still holds the token.
        """
        self.end(reason)
        if self._timer is not None:
            self._timer.cancel()
        with contextlib.suppress(*CHANNEL_ERRORS), loss_as_error:
            async with asyncio.timeout(CLOSE_S):
                await self.channel.close()

    def call(self) -> Envelope:
        """Return a message whose arrival proves which consumer is active."""
        return Envelope(b"", message_id=self._next_id(), type=CALL)

    def next_token(self, state: dict[str, Any]) -> Envelope:
        """Return a message with the next version of the state in the claimed term."""
        assert self.term is not None
        self.version += 1
        body = write_token(Token(self.term, self.version, state, self.start))
        return Envelope(body, message_id=self._next_id(), type=TOKEN, content_type="application/json")

    async def greet(self, queue: str) -> None:
        """Ask the leader, if there is one, for an answer."""
        properties = Basic.Properties(message_id=self._next_id(), message_type=GREETING, reply_to=REPLY_TO)
        await self._send(queue, write_greeting(self._member), properties)

    async def ask_leader(self, queue: str) -> LeaderState:
        """Greet, and return the next answer."""
        self._answer = self.ended.get_loop().create_future()
        await self.greet(queue)
        return await self._answer

    async def start_leading(self) -> None:
        """Answer the greetings that have arrived, and those that will."""
        self.is_leading = True
        while self._unanswered:
            await self._answer_to(self._unanswered.pop())

    def expect(self, envelope: Envelope) -> asyncio.Future[None]:
        """Return a future that is done when this message has arrived here. Cancel it to expect the message no more."""
        arrived: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        message_id = envelope.message_id or ""
        self._expected[message_id] = arrived
        arrived.add_done_callback(lambda _: self._expected.pop(message_id, None))
        return arrived

    def _next_id(self) -> str:
        self._sent += 1
        return f"{self._name}.{self._sent}"

    async def _on_message(self, message: DeliveredMessage) -> None:
        if self.ended.done():
            return  # it goes back with the channel
        frame: Any = message.delivery
        tag: int = frame.delivery_tag
        envelope, _ = decode_aiormq_message(message)
        message_id = envelope.message_id or ""
        token = read_token(envelope.body) if envelope.type == TOKEN else None
        is_ours = message_id.startswith(self._name)
        if envelope.type == GREETING and not is_ours:
            await self._on_greeting(envelope)
        if token is not None and not is_ours and self.term is not None and token.term >= self.term:
            self.end("another session has claimed the leadership")
            return
        done_with: int | None = tag
        if token is not None and token.is_newer_than(self.token) and (is_ours or self.term is None):
            self.token, self._held, done_with = token, tag, self._held
        self.is_first.set()
        arrived = self._expected.get(message_id)
        if arrived is not None and not arrived.done():
            arrived.set_result(None)
        if done_with is not None:
            await self._drop(done_with)

    async def _on_greeting(self, greeting: Envelope) -> None:
        parsed, reply_to = read_greeting(greeting.body), greeting.reply_to
        if parsed is None or not reply_to:
            return
        self._on_other(*parsed)
        if self.is_leading:
            await self._answer_to(reply_to)
        else:
            self._unanswered = [*self._unanswered, reply_to][-MAX_UNANSWERED_GREETINGS:]

    async def _on_answer(self, message: DeliveredMessage) -> None:
        parsed = read_greeting(message.body)
        if parsed is not None and (led := parsed[1]) is not None and not self.ended.done():
            self._on_other(*parsed)
            if not self._answer.done():
                self._answer.set_result(led)

    async def _answer_to(self, reply_to: str) -> None:
        if self.is_valid:
            answer = write_greeting(self._member, LeaderState(self.start, self.token.state))
            await self._send(reply_to, answer, Basic.Properties())

    async def _send(self, queue: str, body: bytes, properties: Basic.Properties) -> None:
        """Publish without a confirm. A session that gets no answer asks again."""
        with contextlib.suppress(*CHANNEL_ERRORS), loss_as_error:
            await self.channel.basic_publish(body, routing_key=ShortString(queue), properties=properties)

    async def _drop(self, tag: int) -> None:
        """Acknowledge a call that has arrived, or a token that a newer one has replaced."""
        # When it fails, the message goes to the next active consumer, where it counts as little.
        with contextlib.suppress(*CHANNEL_ERRORS):
            await self.channel.basic_ack(tag, wait=False)
