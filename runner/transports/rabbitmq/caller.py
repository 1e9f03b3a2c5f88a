"""Questions, and their answers by direct reply-to.

An answer comes by the channel that its question was published on. It is a channel of its own: RabbitMQ closes a channel
over a publication that it does not permit, and no other publication, and no answer, must suffer by that.
Source: https://www.rabbitmq.com/docs/direct-reply-to
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial

import aiormq
from aiormq.abc import DeliveredMessage

from runner.message import Envelope
from runner.transports.answers import PendingAnswers, lose
from runner.transports.base import OnTransportEvent
from runner.transports.rabbitmq.channels import REPLY_TO, RPC_S
from runner.transports.rabbitmq.connection import ReconnectingConnection
from runner.transports.rabbitmq.message_decoder import decode_aiormq_message
from runner.transports.rabbitmq.publish_channel import PublishChannel
from runner.transports.rabbitmq.publisher import RabbitPublisher


class RabbitCaller(RabbitPublisher):
    """Publishes questions, and passes their answers on."""

    def __init__(self, connection: ReconnectingConnection, on_transport_event: OnTransportEvent) -> None:
        super().__init__(connection, on_transport_event, on_open=self._listen)
        self._answers = PendingAnswers()

    async def ask(
        self, question: Envelope, publish: Callable[[Envelope], Awaitable[PublishChannel]]
    ) -> asyncio.Future[Envelope]:
        """Publish a question. See `Transport.ask`."""
        answer, channel = await self._answers.ask(question, publish(question._replace(reply_to=REPLY_TO)))
        closing, on_closed = channel.amqp_channel.closing, partial(lose, answer)
        closing.add_done_callback(on_closed)
        answer.add_done_callback(lambda _: closing.remove_done_callback(on_closed))
        return answer

    async def _listen(self, channel: aiormq.Channel) -> None:
        await channel.basic_consume(REPLY_TO, self._take, no_ack=True, timeout=RPC_S)

    async def _take(self, message: DeliveredMessage) -> None:
        self._answers.take(decode_aiormq_message(message)[0])
