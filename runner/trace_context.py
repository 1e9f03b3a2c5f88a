"""The headers that tie a message to a trace, as defined by W3C Trace Context and W3C Baggage.

https://www.w3.org/TR/trace-context/ · https://www.w3.org/TR/baggage/

The headers may come from any program. An invalid `traceparent` counts as missing, and so does its `tracestate`. A
message keeps the headers that it came with, valid or not; its results get only the valid ones.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from runner.message import NO_HEADERS, Envelope

TRACEPARENT = "traceparent"
TRACESTATE = "tracestate"
BAGGAGE = "baggage"
TRACE_HEADERS = (TRACEPARENT, TRACESTATE, BAGGAGE)

MAX_CHARACTERS = 8192
"""Longest value that results get. The standards require at least 8192 bytes for `baggage` and 512 for `tracestate`."""

_TRACEPARENT = re.compile(r"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-.*)?")


def trace_id_of(headers: Mapping[str, Any]) -> str | None:
    """Return the id of a message's trace as 32 hexadecimal digits; None without a valid `traceparent`."""
    value = headers.get(TRACEPARENT)
    match = _TRACEPARENT.fullmatch(value) if isinstance(value, str) else None
    if match is None or (match[1] == "00" and match[3]):  # only versions after 00 may have more fields
        return None
    return match[2]


def trace_fields(headers: Mapping[str, Any]) -> dict[str, str]:
    """Return the log fields of a message's trace."""
    trace_id = trace_id_of(headers) if headers else None
    return {} if trace_id is None else {"trace_id": trace_id}


def trace_headers(headers: Mapping[str, Any]) -> Mapping[str, str]:
    """Return the headers of a message or an HTTP request that its results get."""
    if not headers:
        return NO_HEADERS
    names = TRACE_HEADERS if trace_id_of(headers) is not None else (BAGGAGE,)
    return {name: headers[name] for name in names if _is_valid_value(headers.get(name))} or NO_HEADERS


def shared_trace_headers(messages: Iterable[Envelope]) -> Mapping[str, str]:
    """Return the headers that the results of one or several messages get: those that the messages share.

    If all messages belong to the same trace, the results get the `traceparent` of the first one.
    """
    first, *others = (trace_headers(message.headers) for message in messages)
    if not others:
        return first
    shared = dict(first)
    if any(trace_id_of(other) != trace_id_of(first) for other in others):
        shared.pop(TRACEPARENT, None)
        shared.pop(TRACESTATE, None)
    if any(other.get(BAGGAGE) != first.get(BAGGAGE) for other in others):
        shared.pop(BAGGAGE, None)
    return shared or NO_HEADERS


def with_trace_headers(own: Mapping[str, Any], carried: Mapping[str, str]) -> Mapping[str, Any]:
    """Return a message's own and carried headers. Its own win, and a `tracestate` stays with its `traceparent`."""
    if not carried:
        return own
    if TRACEPARENT in own:
        carried = {name: value for name, value in carried.items() if name != TRACESTATE}
    return {**carried, **own}


def _is_valid_value(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= MAX_CHARACTERS and value.isascii() and value.isprintable()
