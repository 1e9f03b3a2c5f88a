"""Closes a quorum queue to publishers, moves the messages that are left in it, and deletes it.

RabbitMQ confirms a message that reaches a queue while it is being deleted, and loses it with the queue (measured with
3.10 and 4.3). So publishers are shut out first: with a policy of `max-length: 0` and `reject-publish`, the broker
answers them with a nack. A quorum queue refuses only while it has a message, so a message of this module, the guard,
stays in it until the end. All others are taken out without ever leaving the queue empty: each time, another guard is
put behind them first.

Classic queues cannot be closed like this: the policy drops the messages that are in them, and a message that they
refuse while they are being deleted is confirmed too (measured with 3.10).
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping
from typing import Any

from pamqp import commands
from pamqp.base import Frame
from pamqp.commands import Basic
from pamqp.header import ContentHeader

from runner.errors import RunnerError
from runner.operations.rabbitmq.message_mover import (
    GUARD,
    MAX_IN_FLIGHT,
    MOVE_CONSUMER_TAG,
    POLL_S,
    MessageMover,
    QueueInUse,
    QueueNotEmpty,
    is_guard,
)
from runner.operations.rabbitmq.raw_connection import RawConnection, RawMessage
from runner.pipeline.model import BrokerSettings
from runner.transports.rabbitmq.management_api import ManagementApi

POLICY_EFFECT_S = 15.0
"""How long the broker may take to apply a policy to a queue."""

SETTLE_S = 1.0
"""How long earlier publications may take to arrive, and publishers to get their nacks."""

MIN_TTL_MS = 120_000
"""Minimum TTL of the queue's messages in milliseconds: the guard must not expire."""

MAX_DELETE_ATTEMPTS = 20

POLICY = {"max-length": 0, "overflow": "reject-publish"}


class CannotClose(RunnerError):
    """Publishers cannot be shut out of this queue, or not by this user."""


class QueueCloser:
    """Shuts publishers out of one queue by a policy. `reopen` also removes the policy of a run that was killed."""

    def __init__(self, management: ManagementApi, queue: str) -> None:
        self._management = management
        self._queue = queue
        self._policy = f"runner recreates {queue}"
        self._described: Mapping[str, Any] = {}

    async def check(self) -> None:
        """Raise CannotClose where a policy would not close the queue."""
        if not await self._management.may_set_policies():
            text = f'the user "{self._management.user}" may not set policies, which shut publishers out meanwhile'
            raise CannotClose(f'queue "{self._queue}" cannot be recreated: {text}', "give it the tag `policymaker`")
        self._described = await self._management.queue(self._queue) or {}
        limits = [self._arguments.get("x-message-ttl"), self._effective.get("message-ttl")]
        if min((each for each in limits if isinstance(each, int)), default=MIN_TTL_MS) < MIN_TTL_MS:
            raise CannotClose(
                f'queue "{self._queue}" cannot be recreated: what keeps it closed would expire too',
                "stop every publisher, wait until its messages have expired, delete it, and run `runner apply`",
            )
        overflow = self._arguments.get("x-overflow") or "reject-publish"
        if self._described.get("operator_policy"):
            overflow = self._effective.get("overflow", overflow)
        if overflow != "reject-publish":
            text = f'queue "{self._queue}" drops messages when it is full (x-overflow {overflow}): publishers cannot be'
            raise CannotClose(
                f"{text} shut out of it while it is recreated",
                "stop every publisher, let the consumers empty it, delete it, and run `runner apply`",
            )

    async def close(self) -> None:
        """Refuse publications from now on. What another policy sets for the queue stays in force."""
        policies = await self._management.policies()
        matching = [each for each in policies if _matches(each, self._queue)]
        before = max(matching, key=lambda each: each.get("priority") or 0, default={})
        policy = {
            "pattern": rf"^{re.escape(self._queue)}\z",
            "definition": {**(before.get("definition") or {}), **POLICY},
            "priority": 1 + max((each.get("priority") or 0 for each in policies), default=0),
            "apply-to": "queues",
        }
        await self._management.set_policy(self._policy, policy)

    async def reopen(self) -> None:
        """Remove the policy, if there is one."""
        await self._management.delete_policy(self._policy)

    @property
    def _arguments(self) -> Mapping[str, Any]:
        return self._described.get("arguments") or {}

    @property
    def _effective(self) -> Mapping[str, Any]:
        effective = self._described.get("effective_policy_definition")
        return effective if isinstance(effective, Mapping) else {}


class ClosedQueueMover(MessageMover):
    """Moves the messages of a queue that is being closed, without leaving it empty."""

    _taken: list[int]
    """For each delivery that was taken: the delivery tag of a guard, 0 for a message."""
    _last = b""
    _answers: list[bool] | None = None

    async def run(self, closer: QueueCloser) -> int:
        """Close the queue, move its messages until only a guard is left, and return how many were moved."""
        self._connection.on_message, self._connection.on_event = self._take, self._note
        await self._connection.call(commands.Confirm.Select())
        behind = await self._way_behind()
        await self._offer(self._queue)
        await closer.close()
        await self._until_refused()
        for number in range(MAX_DELETE_ATTEMPTS):
            waiting = await self._count()
            self._last = GUARD + b" (%d)" % number
            await self._offer(behind, self._last)
            if await self._until_counted(waiting + 1):
                await self._take_out(waiting)
            await asyncio.sleep(SETTLE_S)
            if self._last and not await self._offer(self._queue) and await self._count() == 1:
                return self.moved
        raise QueueNotEmpty

    async def _way_behind(self) -> str:
        """Return a queue whose messages the broker puts at the end of the closed queue.

        Messages that a queue dead-letters at most once are never refused (measured with 3.10 and 4.3).
        """
        arguments: dict[str, Any] = {
            "x-message-ttl": 0,
            "x-dead-letter-exchange": "",
            "x-dead-letter-routing-key": self._queue,
        }
        declared: Any = await self._connection.call(commands.Queue.Declare(0, "", exclusive=True, arguments=arguments))
        return str(declared.queue)

    async def _until_refused(self) -> None:
        deadline = asyncio.get_running_loop().time() + POLICY_EFFECT_S
        while await self._offer(self._queue):
            if asyncio.get_running_loop().time() > deadline:
                raise CannotClose(
                    f'queue "{self._queue}" still takes messages, though a policy forbids it',
                    "look at its policies and operator policies, then run it again",
                )
            await asyncio.sleep(SETTLE_S / 10)
        await asyncio.sleep(SETTLE_S)

    async def _until_counted(self, count: int) -> bool:
        """Return whether the queue soon has exactly this many messages."""
        waiting = 0
        for _ in range(round(SETTLE_S / POLL_S)):
            waiting = await self._count()
            if waiting >= count:
                break
            await asyncio.sleep(POLL_S)
        return waiting == count

    async def _take_out(self, count: int) -> None:
        """Move exactly this many messages: the prefetch bounds them, and they are acknowledged at the end."""
        while count > 0:
            wanted = min(count, MAX_IN_FLIGHT)
            self._taken = []
            await self._connection.call(commands.Basic.Qos(0, wanted, False))
            await self._connection.consume(self._queue, MOVE_CONSUMER_TAG)
            while len(self._taken) < wanted and (await self._connection.counts(self._queue)).messages > 1:
                pass  # messages arrive with each answer, and some may have expired
            await self.stop()
            for tag in filter(None, self._taken):
                await self._connection.send(commands.Basic.Ack(tag))
            count -= wanted

    async def _take(self, message: RawMessage) -> None:
        if is_guard(message):
            self._taken.append(message.tag)
            self._last = b"" if message.body == self._last else self._last
        else:
            self._taken.append(0)
            await super()._take(message)

    async def _offer(self, queue: str, body: bytes = GUARD) -> bool:
        """Publish a guard to a queue; return whether it was taken."""
        properties = Basic.Properties(content_type="text/plain", delivery_mode=2)
        header: bytes = ContentHeader(0, len(body), properties).marshal()
        self._published += 1
        answers: list[bool] = []
        self._answers = answers
        await self._connection.publish("", RawMessage(0, False, queue, header, body), header)
        while not answers:
            await self._connection.step()
        self._answers = None
        return answers[0]

    def _note(self, event: Frame) -> None:
        if isinstance(event, commands.Basic.Ack | commands.Basic.Nack) and self._answers is not None:
            self._answers.append(isinstance(event, commands.Basic.Ack))
        else:
            super()._note(event)

    async def _count(self) -> int:
        messages, consumers = await self._connection.counts(self._queue)
        if consumers:
            raise QueueInUse(self._queue)
        return messages


async def close_and_delete(
    settings: BrokerSettings, closer: QueueCloser, queue: str, exchange: str, change: Callable[[bytes], bytes]
) -> int:
    """Close a quorum queue, move its messages and delete it. Raises QueueInUse, QueueNotEmpty, CannotClose."""
    async with RawConnection(settings, queue) as connection:
        moved = await ClosedQueueMover(connection, queue, exchange, change).run(closer)
    async with RawConnection(settings, queue) as connection:  # RabbitMQ 3.10 may close one that has published to it
        await connection.delete(queue)
    return moved


def _matches(policy: Mapping[str, Any], queue: str) -> bool:
    if policy.get("apply-to") not in ("all", "queues", "quorum_queues"):
        return False
    try:
        return re.search(str(policy.get("pattern", "")), queue) is not None
    except re.error:  # Erlang's expressions are not all of Python's
        return False
