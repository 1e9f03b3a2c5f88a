"""Contract: the copies that a failed message is replaced by, for a retry and for a dead letter, on every transport.

A copy carries an allow-list of properties and headers, not everything: `x-death*`, `CC`, `BCC`, an expiration and a
user id each lost a message, or routed it to another queue, when a copy carried them.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

from runner import message as names
from runner.message import Address, Envelope
from runner.outcome import DeadLetter, Retry
from runner.pipeline.topology import wait_milliseconds, wait_name
from runner.redaction import escape_controls, mask_head, mask_tail
from runner.transports.base import Delivery

MAX_HEADER_BYTES = 32 * 1024
"""Headers of other programs beyond this are dropped: RabbitMQ closes a connection over a table larger than a frame."""

MAX_UNREADABLE_BYTES = 112 * 1024
"""How much of an undecodable message's properties is kept: a frame has room for this and for our own headers."""

MAX_TRACEBACK_BYTES = 4 * 1024

_DROPPED = ("x-death", "x-first-death-", "x-last-death-", "x-delivery-count", "x-acquired-count")
_DROPPED_EXACT = frozenset({"cc", "bcc"})


class MessageCopy(NamedTuple):
    """An envelope, and the address it must be published to before the original may be acknowledged."""

    address: Address
    envelope: Envelope


def retry_copy(delivery: Delivery, outcome: Retry, now: datetime) -> MessageCopy:
    """Return the copy that waits for its delay, and comes back to the same queue as the next attempt."""
    milliseconds = wait_milliseconds(outcome.after_s)
    headers = _failure_headers(delivery, outcome, now)
    headers[names.ATTEMPT] = delivery.attempt + 1
    address = Address(wait_name(delivery.options.wait_prefix, milliseconds), delivery.options.queue)
    return MessageCopy(address, _clean(delivery.envelope, headers))


def dead_letter_copy(delivery: Delivery, outcome: DeadLetter, dead_letter: str, now: datetime) -> MessageCopy:
    """Return the copy for the dead-letter queue, with the reason in its headers."""
    headers = _failure_headers(delivery, outcome, now)
    headers[names.ATTEMPT] = delivery.attempt
    headers[names.REASON] = outcome.reason
    headers[names.HOST] = printable(socket.gethostname())
    if delivery.options.release:
        headers[names.RELEASE] = printable(delivery.options.release)
    if outcome.traceback:
        headers[names.TRACEBACK] = printable_lines(outcome.traceback)
    if delivery.unreadable:
        raw: bytes = delivery.envelope.headers[names.UNREADABLE]
        headers[names.UNREADABLE] = raw[:MAX_UNREADABLE_BYTES]
        if len(raw) > MAX_UNREADABLE_BYTES:
            cut = f" ({MAX_UNREADABLE_BYTES} of {len(raw)} bytes of its properties and headers are kept)"
            headers[names.ERROR] = printable(outcome.error[: 1024 - len(cut)] + cut)
    return MessageCopy(Address("", dead_letter), _clean(delivery.envelope, headers))


def _failure_headers(delivery: Delivery, outcome: Retry | DeadLetter, now: datetime) -> dict[str, Any]:
    headers = foreign_headers(delivery.envelope.headers)
    old = delivery.envelope.headers
    headers[names.ERROR_TYPE] = printable(outcome.error_type)
    headers[names.ERROR] = printable(outcome.error)
    headers[names.FIRST_FAILED_AT] = text_header(old, names.FIRST_FAILED_AT) or now.astimezone(UTC).isoformat(
        timespec="seconds"
    )
    headers[names.ORIGIN] = delivery.options.queue
    headers[names.SUBSCRIBER] = delivery.options.subscriber
    headers[names.ORIGIN_EXCHANGE], headers[names.ORIGIN_KEY] = original_address(delivery)
    if replays := names.replays_of(old):
        headers |= {names.REPLAYS: replays, names.REPLAYED_AT: text_header(old, names.REPLAYED_AT)}
        if edited_at := text_header(old, names.EDITED_AT):
            headers[names.EDITED_AT] = edited_at
    return headers


def original_address(delivery: Delivery) -> tuple[str, str]:
    """Return the exchange and the routing key that a message was first published with.

    Retries and replays arrive from the default exchange; their headers have the first address.
    """
    headers = delivery.envelope.headers
    if headers and names.ORIGIN_KEY in headers and (delivery.attempt > 1 or names.replays_of(headers) > 0):
        return text_header(headers, names.ORIGIN_EXCHANGE), text_header(headers, names.ORIGIN_KEY)
    return delivery.exchange, delivery.routing_key


def foreign_headers(headers: Mapping[str, Any]) -> dict[str, Any]:
    """Return the headers that neither the runner nor the broker has set, as many as fit."""
    kept: dict[str, Any] = {}
    size = 0
    for name, value in headers.items():
        if name.startswith("x-runner-") or is_broker_header(name):
            continue
        size += len(name.encode("utf-8", "surrogateescape")) + len(repr(value).encode())
        if size > MAX_HEADER_BYTES:
            break
        kept[name] = value
    return kept


def is_broker_header(name: str) -> bool:
    """Return whether a header was set by the broker, or makes it send a message to other queues."""
    return name.startswith(_DROPPED) or name.lower() in _DROPPED_EXACT


def printable(text: str) -> str:
    """Return the first 1 KiB of a text without passwords, control characters and lone surrogates."""
    return escape_controls(mask_head(text, 1024)).encode()[:1024].decode("utf-8", "ignore")


def printable_lines(text: str) -> str:
    """Return the end of a text of several lines, at most 4 KiB of it, with each line as `printable` would have it."""
    lines = mask_tail(text, MAX_TRACEBACK_BYTES).split("\n")
    return "\n".join(map(escape_controls, lines)).encode()[-MAX_TRACEBACK_BYTES:].decode("utf-8", "ignore")


def text_header(headers: Mapping[str, Any], name: str) -> str:
    """Return a header as printable text; empty where it is missing or no text."""
    value = headers.get(name)
    return printable(value) if isinstance(value, str) else ""


def _clean(envelope: Envelope, headers: dict[str, Any]) -> Envelope:
    return envelope._replace(headers=headers, expiration_ms=None)
