"""Decodes messages into envelopes, whatever their bytes are, and prepares frames for aiormq that pamqp can decode.

pamqp ends the connection over a single header that it cannot decode. So frames for aiormq carry the message's
properties as bytes in one header, which pamqp always decodes, and `decode_aiormq_message` decodes those bytes.
"""

from __future__ import annotations

import struct
from typing import Any

from aiormq.abc import DeliveredMessage
from pamqp.commands import Basic
from pamqp.header import ContentHeader

from runner.message import UNREADABLE, Envelope
from runner.transports.rabbitmq.frames import (
    CHANNEL_CLOSE,
    CONNECTION_CLOSE,
    CONTENT_START,
    FRAME_HEAD,
    HEADER,
    METHOD,
    new_tuple,
    read_properties,
    read_size,
)

_WRAPPED = "runner-header"


def decode_message(header: bytes, body: bytes) -> tuple[Envelope, str]:
    """Return an envelope, and why its properties cannot be decoded. Then a header has them as bytes."""
    try:
        return new_tuple(Envelope, (body, *read_properties(header))), ""
    except (ValueError, IndexError, struct.error) as error:
        return Envelope(body, headers={UNREADABLE: header[CONTENT_START:]}), f"{type(error).__name__}: {error}"


def decode_aiormq_message(message: DeliveredMessage) -> tuple[Envelope, str]:
    """Return a message from aiormq, as `decode_message` does."""
    return decode_message(_header_of(message), message.body)


def _header_of(message: DeliveredMessage) -> bytes:
    header: Any = message.header
    wrapped = bytes(header.properties.headers[_WRAPPED])
    return struct.pack(">HHQ", Basic.frame_id, 0, header.body_size) + wrapped


def visible_id(message_id: str | None) -> str:
    """Return an id by which aiormq recognizes a returned message. aiormq accepts valid Unicode only.

    aiormq takes an empty id for none, and a returned message without an id for one that has arrived.
    """
    if message_id == "":
        return "(empty)"
    return (message_id or "").encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def frame_for_aiormq(kind: int, channel: int, payload: bytes) -> bytes:
    """Return a frame without its last byte, in a form that pamqp can decode."""
    if kind == HEADER:
        payload = _wrapped(payload)
    elif kind == METHOD and payload[:4] in (CHANNEL_CLOSE, CONNECTION_CLOSE):
        payload = _with_readable_reply(payload)
    return FRAME_HEAD.pack(kind, channel, len(payload)) + payload


def _wrapped(header: bytes) -> bytes:
    envelope, _ = decode_message(header, b"")
    properties = Basic.Properties(headers={_WRAPPED: bytearray(header[CONTENT_START:])})
    properties.message_id = visible_id(envelope.message_id)
    wrapped: bytes = ContentHeader(0, read_size(header), properties).marshal()
    return wrapped


def _with_readable_reply(payload: bytes) -> bytes:
    """Return a close frame whose text is UTF-8. RabbitMQ cuts long texts off, even within a character."""
    end = 7 + payload[6]
    text = payload[7:end].decode("utf-8", "ignore").encode()
    return payload[:6] + bytes((len(text),)) + text + payload[end:]
