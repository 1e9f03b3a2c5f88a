"""Turns dead letters into rows and pages. Everything in them is foreign: it is escaped, and it is cut."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from runner.cli.tables import format_age, format_size
from runner.message import TRACEBACK
from runner.operations.dead_letter_json import MAX_TEXT, body_lines, first_items, properties, to_plain
from runner.operations.dead_letters import DeadLetterMessage
from runner.redaction import escape_line

HEADINGS = ("AGE", "REASON", "ATTEMPTS", "FROM", "ID", "SIZE", "ERROR")
RIGHT = (0, 2, 5)


def table_row(letter: DeadLetterMessage, now: datetime) -> tuple[str, ...]:
    """Return the columns of a dead letter, under HEADINGS."""
    return (
        format_age(letter.age_s(now)),
        escape_line(letter.reason, 24),
        "–" if letter.attempts is None else str(letter.attempts),
        escape_line(letter.claimed, 40) or "–",
        escape_line(letter.id, 64),
        format_size(letter.size),
        error_text(letter, 200),
    )


def error_text(letter: DeadLetterMessage, at_most: int) -> str:
    """Return the error as Python would write it."""
    parts = [part for part in (letter.error_type, letter.error) if part]
    return escape_line(": ".join(parts), at_most)


def details(letter: DeadLetterMessage, now: datetime) -> list[str]:
    """Return everything about a dead letter as lines of text."""
    failed = f"{letter.since.isoformat()} ({format_age(letter.age_s(now))} ago)" if letter.since is not None else "–"
    facts = {
        "id": letter.id if letter.envelope.message_id is not None else f"{letter.id} (it has none of its own)",
        "in": letter.queue,
        "failed in": _origin(letter),
        "reason": f"{letter.reason}{f' ({letter.by})' if letter.by else ''}",
        "error": ": ".join(part for part in (letter.error_type, letter.error) if part) or "–",
        "attempts": "–" if letter.attempts is None else str(letter.attempts),
        "since": failed,
        "subscriber": letter.subscriber or "–",
        "replays": str(letter.replays),
        "published to": f"{letter.exchange or '(default exchange)'} : {letter.routing_key}"
        if letter.routing_key
        else "–",
    }
    facts |= {name.replace("_", " "): str(value) for name, value in properties(letter.envelope).items() if value}
    width = max(map(len, facts))
    lines = [f"{name:<{width}}  {escape_line(value, MAX_TEXT)}" for name, value in facts.items()]
    headers = [
        f"  {escape_line(name, 128)}: {escape_line(_compact(value), MAX_TEXT)}"
        for name, value in first_items(letter.envelope.headers)
        if name != TRACEBACK
    ]
    traceback = [escape_line(line) for line in letter.traceback.split("\n")]
    return [
        *lines,
        "headers",
        *headers,
        *(["traceback", *_indented(traceback)] if letter.traceback else []),
        f"body  {format_size(letter.size)}",
        *_indented(body_lines(letter.envelope, letter.size)),
    ]


def _origin(letter: DeadLetterMessage) -> str:
    if letter.origin is not None or not letter.claimed:
        return letter.claimed or "–"
    return f"{letter.claimed} (so it says; that queue's dead letters do not come here)"


def _compact(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(to_plain(value), ensure_ascii=False)


def _indented(lines: list[str]) -> list[str]:
    return [f"  {line}" for line in lines]
