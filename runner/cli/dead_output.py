"""Turns dead letters into tables, pages and JSON, and shows the progress of `runner dead`.

Whatever a message contains may be hostile: it is escaped and cut before it is printed.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from runner.cli.output import echo_err
from runner.cli.tables import format_age, format_columns, format_size, json_line
from runner.message import TRACEBACK
from runner.operations.dead_letter_json import MAX_TEXT, body_lines, first_items, indented_json, properties, to_plain
from runner.operations.dead_letters import DeadLetterMessage
from runner.pipeline.body_encoding import readable
from runner.redaction import escape_line

if TYPE_CHECKING:
    from runner.operations.dead_letter_ops import Summary
    from runner.operations.local_replay import ReplayResult


HEADINGS = ("AGE", "REASON", "ATTEMPTS", "FROM", "ID", "SIZE", "ERROR")
RIGHT = (0, 2, 5)
"""The columns that are flush right."""


# Rows and pages


def echo_tables(letters: Mapping[str, Sequence[DeadLetterMessage]], now: datetime) -> None:
    """Print a table for each dead-letter queue; on a terminal, no wider than it is."""
    is_terminal = sys.stdout.isatty()
    width = max(40, shutil.get_terminal_size().columns - 2) if is_terminal else None
    for queue, found in letters.items():
        rows = [HEADINGS, *(table_row(letter, now) for letter in found)]
        click.echo(click.style(queue, bold=True) if is_terminal else queue)
        for line in format_columns(rows, right=RIGHT, width=width):
            click.echo(f"  {line}")


def table_row(letter: DeadLetterMessage, now: datetime) -> tuple[str, ...]:
    """Return the cells of a dead letter, in the order of HEADINGS."""
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
    """Return the error as Python writes it, as in `KeyError: 'price'`."""
    parts = [part for part in (letter.error_type, letter.error) if part]
    return escape_line(": ".join(parts), at_most)


def details(letter: DeadLetterMessage, now: datetime) -> list[str]:
    """Return everything about a dead letter as lines of text."""
    failed = f"{letter.since.isoformat()} ({format_age(letter.age_s(now))} ago)" if letter.since is not None else "–"
    facts = {
        "id": letter.id
        if letter.envelope.message_id is not None
        else f"{letter.id} (made of its content: it has no id)",
        "in": letter.queue,
        "failed in": _origin(letter),
        "reason": f"{letter.reason}{f' ({letter.by})' if letter.by else ''}",
        "error": ": ".join(part for part in (letter.error_type, letter.error) if part) or "–",
        "attempts": "–" if letter.attempts is None else str(letter.attempts),
        "since": failed,
        "subscriber": letter.subscriber or "–",
        **({"host": letter.host} if letter.host else {}),
        **({"release": letter.release} if letter.release else {}),
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
        *_indented(body_lines(letter.envelope)),
    ]


def _origin(letter: DeadLetterMessage) -> str:
    if letter.origin is not None or not letter.claimed:
        return letter.claimed or "–"
    return f"{letter.claimed} (claimed, but that queue's dead letters do not come here)"


def _compact(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(to_plain(value), ensure_ascii=False)


def _indented(lines: list[str]) -> list[str]:
    return [f"  {line}" for line in lines]


def edit_body(letter: DeadLetterMessage) -> bytes | str:
    """Open the body in the user's editor. Return the new body, or a sentence why there is none."""
    body = readable(letter.envelope).body
    pretty = indented_json(body)
    try:
        text = (pretty or body).decode()
    except UnicodeDecodeError:
        return "its body is not text"
    try:
        edited = click.edit(text, extension=".txt" if pretty is None else ".json")
    except click.ClickException as error:
        return f"the editor failed: {error.format_message()}"
    if edited is None or edited.rstrip("\n") == text.rstrip("\n"):
        return "it was not changed in the editor"
    body = edited.removesuffix("\n").encode()
    return "what the editor saved is not JSON" if pretty is not None and indented_json(body) is None else body


# Progress and results


def echo_unseen(summary: Summary) -> None:
    """Say which dead-letter queues do not exist, and how many messages were not looked at."""
    for name in summary.missing:
        echo_err(f'queue "{name}" does not exist: nothing has been dead-lettered there')
    if summary.unseen:
        echo_err(f"not looked at: {summary.unseen}, because too many in front of them stay in the queue")


class Progress:
    """A progress bar on a terminal, and totals at the end. A context manager: the totals also follow an error."""

    def __init__(self, label: str, done: str, limit: int | None, *, is_json: bool) -> None:
        self._label = label
        self._done = done
        self._limit = limit
        self._is_json = is_json
        self.summary: Summary | None = None
        self._bar: Any = None
        self._shown = 0
        self._by_queue: dict[str, int] = {}

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.render_finish()
        if self.summary is not None:
            self._echo_totals(self.summary)

    def note(self, letter: DeadLetterMessage) -> None:
        """Count a message that left the dead-letter queue."""
        queue = letter.origin or letter.queue
        self._by_queue[queue] = self._by_queue.get(queue, 0) + 1

    def show(self, summary: Summary) -> None:
        """Redraw the bar."""
        self.summary = summary
        if not sys.stderr.isatty():
            return
        if self._bar is None:
            length = min(summary.total, self._limit or summary.total)
            self._bar = click.progressbar(length=length, label=self._label, file=sys.stderr)
            self._bar.render_progress()
        position = min(summary.looked, self._bar.length or 0)
        self._bar.update(position - self._shown)
        self._shown = position

    def _echo_totals(self, summary: Summary) -> None:
        """Say what was done, and which messages stayed and why."""
        echo_unseen(summary)
        queues = ", ".join(f"{count} {escape_line(name, 60)}" for name, count in self._by_queue.items())
        echo_err(f"{self._done}: {summary.moved} of {summary.total}{f' ({queues})' if queues else ''}")
        for reason, count in summary.stayed.items():
            echo_err(f"stayed: {count}, {escape_line(reason, 300)}")
        if summary.is_interrupted:
            echo_err("interrupted: the other messages stay where they were")
        if self._is_json:
            totals = {"moved": summary.moved, "stayed": dict(summary.stayed), "total": summary.total}
            click.echo(json_line({**totals, "queues": self._by_queue, "is_interrupted": summary.is_interrupted}))


def echo_replay_result(
    letter: DeadLetterMessage, result: ReplayResult | None, text: str = "", *, is_json: bool
) -> None:
    """Print how `replay --local` ended for one message. Without a `result`, `text` says why it was not tried."""
    if not is_json:
        click.echo(f"{escape_line(letter.id, 64)}  {escape_line(text if result is None else result.sentence, 2000)}")
        return
    outcome = result.outcome if result is not None else None
    click.echo(
        json_line(
            {
                "id": letter.id,
                "queue": letter.origin,
                "subscriber": result.subscriber if result is not None else None,
                "outcome": result.name if result is not None else "not-tried",
                "error_type": getattr(outcome, "error_type", None) or None,
                "error": getattr(outcome, "error", None) or None,
                "at": result.at if result is not None else None,
                "published": result.published if result is not None else 0,
            }
        )
    )
