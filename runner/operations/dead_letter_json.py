"""Converts dead letters to plain data for JSON, and to text for a terminal or the page.

The content of a message may be hostile, so it is cut to a maximum size, and escaped in text.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from runner.message import Envelope, Timestamp
from runner.operations.dead_letters import DeadLetterMessage
from runner.pipeline.body_encoding import readable
from runner.redaction import escape_line

MAX_BODY = 16 * 1024
"""Maximum number of bytes of a body that is shown."""

MAX_PRETTY = 256 * 1024
"""Larger JSON documents are not indented."""

MAX_DUMP = 1024
"""Maximum number of bytes of a hexadecimal dump."""

MAX_TEXT = 1024
MAX_ITEMS = 100
MAX_DEPTH = 6

_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\],:]|[^\s{}\[\],:"]+')
_EMPTY = re.compile(r"([{\[])\s+([}\]])(?=,?$)", re.MULTILINE)


def to_json(letter: DeadLetterMessage, now: datetime) -> dict[str, Any]:
    """Return the object that `dead list --json` prints. Its keys are public: keys may be added, never removed."""
    age_s = letter.age_s(now)
    return {
        "id": letter.id,
        "dead_letter": letter.queue,
        "queue": letter.origin,
        "reason": letter.reason,
        "by": letter.by,
        "error_type": letter.error_type or None,
        "error": letter.error or None,
        "attempts": letter.attempts,
        "since": letter.since.isoformat() if letter.since is not None else None,
        "age_s": round(age_s, 3) if age_s is not None else None,
        "subscriber": letter.subscriber or None,
        "message_id": letter.envelope.message_id,
        "event": letter.envelope.type,
        "size": letter.size,
        "replays": letter.replays,
    }


def details_to_json(letter: DeadLetterMessage, now: datetime) -> dict[str, Any]:
    """Return the object that `dead show --json` prints: that of the list, plus properties, headers and the body."""
    envelope, body = letter.envelope, readable(letter.envelope).body
    return {
        **to_json(letter, now),
        "claimed_queue": letter.claimed or None,
        "exchange": letter.exchange,
        "routing_key": letter.routing_key,
        "host": letter.host or None,
        "release": letter.release or None,
        **properties(envelope),
        "headers": to_plain(envelope.headers),
        **body_to_json(body, len(body)),
    }


def body_to_json(body: bytes, whole: int, at_most: int = MAX_BODY) -> dict[str, Any]:
    """Return a body as text if it is UTF-8, otherwise as base64, and whether it was cut."""
    cut = body[:at_most]
    is_cut = len(cut) < whole
    try:
        return {"body": cut.decode("utf-8", "ignore" if is_cut and _is_text(body) else "strict"), "body_is_cut": is_cut}
    except UnicodeDecodeError:
        return {"body_base64": base64.b64encode(cut).decode(), "body_is_cut": is_cut}


def body_lines(envelope: Envelope, at_most: int = MAX_BODY) -> list[str]:
    """Return the lines of an uncompressed body: JSON indented, other text unchanged, bytes as a hexadecimal dump.

    At most `at_most` bytes are shown.
    """
    plain = readable(envelope).body
    whole = len(plain)
    pretty = indented_json(plain) if whole <= MAX_PRETTY else None
    body = pretty if pretty is not None else plain
    cut = body[:at_most]
    is_cut = len(cut) < len(body)
    if _is_text(body):
        lines = [escape_line(line) for line in cut.decode("utf-8", "ignore").splitlines()]
    else:
        lines = _dump(cut[:MAX_DUMP])
        is_cut = is_cut or len(cut) > MAX_DUMP
    return [*lines, f"… cut: the whole body has {whole:,} bytes"] if is_cut else lines


def to_plain(value: Any, depth: int = 0) -> Any:
    """Return a header's value as plain JSON data: bytes and times as text, deep or long values cut."""
    match value:
        case None | bool() | int() | float():
            return value
        case str():
            return value[:MAX_TEXT]
        case bytes() | bytearray():
            return value[:MAX_TEXT].decode("utf-8", "backslashreplace")
        case Mapping() | list() if depth >= MAX_DEPTH:
            return "…"
        case Mapping():
            return {str(name): to_plain(item, depth + 1) for name, item in first_items(value)}
        case list():
            return [to_plain(item, depth + 1) for item in value[:MAX_ITEMS]]
        case datetime():
            return value.isoformat()
    return str(value)[:MAX_TEXT]


def time_to_json(moment: datetime | Timestamp | None) -> str | int | None:
    """Return a time as ISO 8601, or in seconds since 1970 if it is outside the range of `datetime`."""
    return moment.isoformat() if isinstance(moment, datetime) else moment


def properties(envelope: Envelope) -> dict[str, Any]:
    """Return the AMQP properties as plain JSON data."""
    names = ("correlation_id", "app_id", "timestamp", "content_type", "content_encoding", "reply_to", "priority")
    return {name: getattr(envelope, name) for name in names} | {"timestamp": time_to_json(envelope.timestamp)}


def first_items(items: Mapping[Any, Any]) -> list[tuple[str, Any]]:
    """Return the first items of a map, at most MAX_ITEMS, with their names as text."""
    return [(str(name), value) for name, value in list(items.items())[:MAX_ITEMS]]


def indented_json(body: bytes) -> bytes | None:
    """Return JSON indented, with names and numbers as written; None if it is not an object or an array."""
    try:
        text = body.decode()
        if not isinstance(json.loads(text), dict | list):
            return None
    except (ValueError, RecursionError):
        return None
    lines, depth = [""], 0
    for token in _TOKEN.findall(text):
        if token in "}]":
            depth -= 1
            lines.append("  " * depth)
        lines[-1] += f"{token} " if token == ":" else token
        if token in "{[,":
            depth += token != ","
            lines.append("  " * depth)
    return _EMPTY.sub(r"\1\2", "\n".join(lines)).encode()


def _is_text(body: bytes) -> bool:
    """Return whether a body is UTF-8 text without NUL. A character that the sample cuts at its end is ignored."""
    sample = body[:MAX_BODY]
    try:
        text = sample.decode()
    except UnicodeDecodeError as error:
        if len(body) == len(sample) or error.start < len(sample) - 3:
            return False
        text = sample[: error.start].decode()
    return "\0" not in text


def _dump(data: bytes) -> list[str]:
    """Return bytes as hexadecimal numbers, 16 on each line, followed by the printable ones as text."""
    lines = []
    for start in range(0, len(data), 16):
        part = data[start : start + 16]
        letters = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in part)
        lines.append(f"{start:08x}  {part.hex(' '):<47}  {letters}")
    return lines
