"""Turns what the AMQP client delivers into an envelope."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from aiormq.abc import DeliveredMessage

from runner.message import NO_HEADERS, Envelope
from runner.transports.rabbitmq.frames import milliseconds, plain


def envelope_of(message: DeliveredMessage) -> Envelope:
    """Return a delivered message as it travelled."""
    properties: Any = message.header.properties
    return Envelope(
        message.body,
        properties.message_id,
        properties.correlation_id,
        properties.message_type,
        properties.app_id,
        _utc(properties.timestamp),
        properties.content_type,
        properties.content_encoding,
        properties.reply_to,
        properties.priority,
        milliseconds(properties.expiration),
        plain(properties.headers) if properties.headers else NO_HEADERS,
    )


def _utc(timestamp: datetime | None) -> datetime | None:
    if timestamp is None or timestamp.tzinfo is not None:
        return timestamp
    return timestamp.replace(tzinfo=UTC)
