"""Reads the answers to questions: a payload, or why the handler gave up."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, NamedTuple

from runner.errors import CallFailed
from runner.message import ERROR, ERROR_TYPE, REASON, Envelope
from runner.outcome import InvalidMessage
from runner.pipeline import codec
from runner.pipeline.body_encoding import BYTES, JSON, TEXT, content_type, uncompressed, utf8
from runner.transports.failure_copies import text_header

_decode = codec.decoder(inspect.Parameter.empty)


class Answer(NamedTuple):
    """An answer: its payload as a handler without an annotation gets it, and the body that this was read from.

    `content_type` is that of JSON, text or bytes. JSON and text are in UTF-8, and nothing is compressed.
    """

    payload: Any
    body: bytes
    content_type: str
    headers: Mapping[str, Any]


def read_answer(envelope: Envelope, name: str) -> Answer:
    """Return the answer of the queue or event `name`. Raises CallFailed if it says that the message is given up."""
    reason, kind, error = (text_header(envelope.headers, each) for each in (REASON, ERROR_TYPE, ERROR))
    if reason:
        text = f'"{name}" gave up ({reason}): {": ".join(each for each in (kind, error) if each)}'
        raise CallFailed(text, reason=reason, error_type=kind, error=error)
    try:
        payload = _decode(envelope)
        if content_type(envelope.content_type).is_json or not isinstance(payload, str | bytes):
            return Answer(payload, utf8(envelope), JSON, envelope.headers)
    except InvalidMessage as problem:
        text = f'the answer of "{name}" cannot be read: {problem}'
        raise CallFailed(text, reason="unreadable", error=str(problem)) from problem
    is_text = isinstance(payload, str)
    return Answer(payload, (utf8 if is_text else uncompressed)(envelope), TEXT if is_text else BYTES, envelope.headers)
