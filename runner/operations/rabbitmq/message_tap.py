"""Taps a queue: copies of the messages that its bindings route, in a temporary queue that ends with the connection.

The broker delivers without waiting for acknowledgements, and the newest messages are kept until they are read. So a
slow reader blocks nothing, and the number of missed messages is known. The temporary queue has limits too. Messages
that it drops, because this process is too slow, are not counted.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from secrets import token_hex
from typing import Any

import aiormq
from aiormq.abc import DeliveredMessage

from runner.errors import BrokerUnavailable
from runner.operations.tap import TappedMessage
from runner.pipeline.model import BrokerSettings
from runner.pipeline.topology import Binding, Queue
from runner.transports.base import OnTransportEvent
from runner.transports.rabbitmq.aiormq_workarounds import CHANNEL_ERRORS, ShortString, describe_error
from runner.transports.rabbitmq.channels import RPC_S, bind, declare_queue, open_channel, reply_of
from runner.transports.rabbitmq.connection import ConnectionClosedByUs, ReconnectingConnection
from runner.transports.rabbitmq.message_decoder import decode_aiormq_message

MAX_KEPT = 1000
MAX_KEPT_BYTES = 32 * 1024 * 1024
"""How much is kept for a slow reader, in this process, and as much again in the temporary queue."""


MAX_PREFIX_BYTES = 200
"""Maximum length of the pipeline's name in the name of the temporary queue, which must fit into 255 bytes."""


class Tap:
    """A temporary queue with the bindings of another one."""

    def __init__(
        self,
        settings: BrokerSettings,
        *,
        name: str,
        on_transport_event: OnTransportEvent = lambda _: None,
    ) -> None:
        self._connection = ReconnectingConnection(
            settings, role="tap", name=f"{name} tap", on_transport_event=on_transport_event
        )
        self._queue = f"{name.encode()[:MAX_PREFIX_BYTES].decode('utf-8', 'ignore')}.tap.{token_hex(6)}"
        self._kept: deque[TappedMessage] = deque()
        self._kept_bytes = 0
        self._news = asyncio.Event()
        self._end = ""
        self.missed = 0
        """How many messages were dropped because the reader was too slow."""

    async def start(self, bindings: Sequence[Binding]) -> None:
        """Start to tap what is published from now on. Raises BrokerUnavailable."""
        connection = await self._connection.open()
        binding: Binding | None = None
        try:
            channel = await open_channel(connection)
            limits = {"x-max-length": MAX_KEPT, "x-max-length-bytes": MAX_KEPT_BYTES, "x-overflow": "drop-head"}
            queue = Queue(self._queue, durable=False, exclusive=True, auto_delete=True, arguments=limits)
            await declare_queue(channel, queue)
            for binding in bindings:
                await bind(channel, replace(binding, queue=self._queue))
            channel.closing.add_done_callback(self._on_end)
            await channel.basic_consume(
                ShortString(self._queue), self._on_message, no_ack=True, exclusive=True, timeout=RPC_S
            )
        except aiormq.exceptions.ChannelNotFoundEntity as error:
            exchange = binding.exchange if binding is not None else ""
            text = f'exchange "{exchange}" does not exist: nothing can go by'
            raise BrokerUnavailable(text, "`runner up` declares it") from error
        except aiormq.exceptions.ChannelAccessRefused as error:
            hint = f'the user needs the rights to configure, write and read "{self._queue}", and to read the exchange'
            raise BrokerUnavailable(f"the broker does not permit it: {reply_of(error)}", hint) from error
        except (ConnectionClosedByUs, *CHANNEL_ERRORS) as error:
            raise BrokerUnavailable(f"the broker was lost: {describe_error(error)}") from error

    async def next(self) -> TappedMessage:
        """Return the next message. Raises BrokerUnavailable when the connection is lost."""
        while not self._kept:
            if self._end:
                raise BrokerUnavailable(f"the broker was lost: {self._end}")
            self._news.clear()
            await self._news.wait()
        passed = self._kept.popleft()
        self._kept_bytes -= len(passed.envelope.body)
        return passed

    async def close(self) -> None:
        """Stop. The temporary queue goes with the connection. Idempotent."""
        await self._connection.close()

    async def _on_message(self, message: DeliveredMessage) -> None:
        frame: Any = message.delivery
        envelope, _ = decode_aiormq_message(message)
        passed = TappedMessage(envelope, frame.exchange or "", frame.routing_key or "")
        self._kept.append(passed)
        self._kept_bytes += len(passed.envelope.body)
        while len(self._kept) > 1 and (len(self._kept) > MAX_KEPT or self._kept_bytes > MAX_KEPT_BYTES):
            self._kept_bytes -= len(self._kept.popleft().envelope.body)
            self.missed += 1
        self._news.set()

    def _on_end(self, future: asyncio.Future[Any]) -> None:
        error = None if future.cancelled() else future.exception()
        self._end = self._end or describe_error(error)
        self._news.set()
