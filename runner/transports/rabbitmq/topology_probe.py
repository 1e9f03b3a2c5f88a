"""Finds out over AMQP whether exchanges and queues exist, and every key in which they differ. It changes nothing.

A passive declaration tells whether an item exists. A second declaration with our arguments is refused over the first
key that differs, and the reply text has the live value. Declared again with that value, the broker names the next key,
until all differences are known.
Source: https://www.rabbitmq.com/docs/queues#property-equivalence
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any, Self, TypeVar

from aio_pika.abc import AbstractConnection
from aiormq.abc import AbstractChannel
from aiormq.exceptions import (
    ChannelAccessRefused,
    ChannelLockedResource,
    ChannelNotFoundEntity,
    ChannelPreconditionFailed,
)

from runner.pipeline.topology import Exchange, Queue
from runner.transports.amqp_limits import MAX_SHORT_BYTES
from runner.transports.broker_state import LOCKED, Difference, ExistingItem
from runner.transports.rabbitmq.aiormq_workarounds import ShortString
from runner.transports.rabbitmq.channels import (
    RPC_S,
    QueueCounts,
    access_refused,
    declare_exchange,
    declare_queue,
    forbidden,
    open_channel,
    queue_counts,
    reply_of,
)

T = TypeVar("T", Exchange, Queue)

MAX_DIFFERENCES = 32
"""Maximum number of differing keys that are asked for."""

_INEQUIVALENT = re.compile(
    r"inequivalent arg '(?P<key>[^']*)' for (?P<kind>\w+) '(?P<name>.*)' in vhost '.*?': "
    r"received (?P<received>.*?) but current is (?P<current>.*)",
    re.DOTALL,
)
_TYPED = re.compile(r"the value '(?P<value>.*)' of type '(?P<type>\w+)'", re.DOTALL)

_TEXTS = ("longstr", "shortstr", "binary")
_FLAGS = {"durable", "exclusive", "auto_delete", "type"}


class TopologyProbe:
    """Asks on a channel of its own, and opens a new one when a refusal has closed it. An async context manager.

    A missing permission becomes a remark; with `needs_rights` it raises BrokerUnavailable.
    """

    def __init__(self, connection: AbstractConnection, *, needs_rights: bool = False) -> None:
        self._connection = connection
        self._needs_rights = needs_rights
        self._channel: AbstractChannel | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._channel is not None:
            await self._channel.close()

    async def exchange(self, exchange: Exchange, *, compares: bool = True) -> ExistingItem | None:
        """Return what is known of an exchange; None where it does not exist."""
        try:
            await self._ask(
                lambda channel: channel.exchange_declare(ShortString(exchange.name), passive=True, timeout=RPC_S)
            )
            if not compares:
                return ExistingItem()
            return await self._compare("exchange", exchange, declare_exchange, ExistingItem())
        except ChannelNotFoundEntity:
            return None
        except ChannelAccessRefused as refusal:
            return _hidden("exchange", exchange.name, refusal)

    async def queue(self, queue: Queue, *, compares: bool = True) -> ExistingItem | None:
        """Return what is known of a queue; None where it does not exist."""
        try:
            seen = await self.depth(queue.name)
            if not compares:
                return seen
            return await self._compare("queue", queue, declare_queue, seen)
        except ChannelNotFoundEntity:
            return None
        except ChannelLockedResource:
            return ExistingItem(remark=f'queue "{queue.name}" {LOCKED}', is_locked=True)
        except ChannelAccessRefused as refusal:
            return _hidden("queue", queue.name, refusal)

    async def depth(self, name: str) -> ExistingItem:
        """Return a queue with its counts only. Raises what the broker answers."""
        if len(name.encode()) > MAX_SHORT_BYTES:  # with what we put behind it
            raise ChannelNotFoundEntity(f'no queue can be called "{name}"')
        depth: QueueCounts = await self._ask(queue_counts, name)
        return ExistingItem(messages=depth.messages, consumers=depth.consumers)

    async def counts(self, name: str) -> QueueCounts | None:
        """Return the counts of a queue; None where it does not exist, or where the broker does not show them to us."""
        try:
            found = await self.depth(name)
        except (ChannelNotFoundEntity, ChannelLockedResource, ChannelAccessRefused):
            return None
        return QueueCounts(found.messages or 0, found.consumers or 0)

    async def _compare(
        self, kind: str, wanted: T, declare: Callable[[AbstractChannel, T], Awaitable[None]], seen: ExistingItem
    ) -> ExistingItem:
        """Declare with the live value of each key that was named, until the broker refuses no more."""
        differences: dict[str, Difference] = {}
        asked, guard, remark = wanted, _guard(wanted), "more keys may differ: the broker names one at a time"
        for _ in range(MAX_DIFFERENCES):
            try:
                attempt = replace(asked, arguments={**asked.arguments, **guard})
                await self._ask(declare, attempt)
                remark = ""
                break
            except ChannelAccessRefused as refusal:
                remark = _not_compared(kind, wanted, refusal)
                break
            except ChannelLockedResource:
                raise
            except ChannelPreconditionFailed as refusal:
                match = _INEQUIVALENT.search(reply_of(refusal))
                if match is None or match["key"] in differences:
                    remark = reply_of(refusal)
                    break
                if match["key"] in guard:
                    guard = {}
                    continue
                key = match["key"]
                differences[key] = Difference(
                    kind, wanted.name, key, _shown_value(match, "received"), _shown_value(match, "current")
                )
                asked = _with_live_value(asked, key, match["current"])
        return replace(seen, differences=tuple(differences.values()), remark=remark)

    async def _ask(self, question: Callable[..., Awaitable[Any]], *about: Any) -> Any:
        if self._channel is None or self._channel.is_closed:
            self._channel = await open_channel(self._connection)
        try:
            return await question(self._channel, *about)
        except ChannelAccessRefused as error:
            if self._needs_rights:
                raise forbidden(error) from error
            raise


def _guard(wanted: Exchange | Queue) -> dict[str, Any]:
    """Return an argument with which the declaration cannot create the queue, if it was deleted since it was found.

    RabbitMQ compares only arguments that the type of the live queue knows, and creates no queue with others (measured
    with 3.10: 406 "invalid arg"). If a broker does compare it, it is left out.
    """
    if isinstance(wanted, Exchange):
        return {}
    if wanted.arguments.get("x-queue-type") == "stream":
        return {"x-max-priority": 1}
    return {} if "x-max-age" in wanted.arguments else {"x-max-age": "1h"}


def _with_live_value(asked: T, key: str, current: str) -> T:
    """Return the item with the live value of one key."""
    if key in _FLAGS:
        text = _value(current)
        value: Any = text if key == "type" else text == "true"
        return replace(asked, **{key: value})
    arguments = dict(asked.arguments)
    ours = arguments.pop(key, None)
    if current.strip() != "none":
        arguments[key] = _typed(current, ours)
    return replace(asked, arguments=arguments)


def _typed(current: str, ours: Any) -> Any:
    """Return the live value with its type: the one in the reply text, or that of our own value."""
    typed = _TYPED.search(current)
    text = _value(current, empty="")
    if typed is not None:
        kind = "bool" if typed["type"] == "bool" else "text" if typed["type"] in _TEXTS else "number"
    else:
        kind = "bool" if isinstance(ours, bool) else "number" if isinstance(ours, int | float) else "text"
    if kind == "bool":
        return text == "true"
    if kind == "number":
        return int(text) if text.lstrip("-").isdecimal() else text
    return text


def _shown_value(match: re.Match[str], side: str) -> str:
    """Return a value for people. A queue declared without a type is classic; RabbitMQ names the type since 4.0."""
    value = _value(match[side])
    return "classic" if match["key"] == "x-queue-type" and value == "none" else value


def _value(text: str, empty: str = '""') -> str:
    typed = _TYPED.search(text)
    return (typed["value"] if typed else text.strip()).strip("'") or empty


def _hidden(kind: str, name: str, refusal: ChannelAccessRefused) -> ExistingItem:
    """Return an item of which the broker does not even say whether it exists."""
    reason = access_refused(reply_of(refusal)) or reply_of(refusal)
    remark = f'whether {kind} "{name}" exists is not known: {reason}; to see it needs any right to it'
    return ExistingItem(remark=remark, is_hidden=True)


def _not_compared(kind: str, wanted: Exchange | Queue, refusal: ChannelAccessRefused) -> str:
    reason = access_refused(reply_of(refusal)) or reply_of(refusal)
    return f'{kind} "{wanted.name}" exists and was not compared: {reason}; to compare needs the right to configure it'
