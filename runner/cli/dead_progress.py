"""How far a verb of `runner dead` has come, and what it has done."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from runner.cli.output import echo_err
from runner.cli.tables import json_line
from runner.redaction import escape_line

if TYPE_CHECKING:
    from runner.operations.dead_letter_ops import Summary
    from runner.operations.dead_letters import DeadLetterMessage


def echo_unseen(summary: Summary) -> None:
    """Say which queues do not exist, and what was not looked at."""
    for name in summary.missing:
        echo_err(f'queue "{name}" does not exist: nothing has been dead-lettered there')
    if summary.unseen:
        echo_err(f"not looked at: {summary.unseen}, behind so many that stay")


class Progress:
    """A bar on a terminal, and the sum at the end, whatever the end is. A context manager."""

    def __init__(self, label: str, done: str, limit: int | None, *, is_json: bool) -> None:
        self._label = label
        self._done = done
        self._is_json = is_json
        self.summary: Summary | None = None
        self._limit = limit
        self._bar: Any = None
        self._shown = 0
        self._by_queue: dict[str, int] = {}

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.render_finish()
        if self.summary is not None:
            self._sum_up(self.summary)

    def note(self, letter: DeadLetterMessage) -> None:
        """Count a message that was moved."""
        queue = letter.origin or letter.queue
        self._by_queue[queue] = self._by_queue.get(queue, 0) + 1

    def show(self, summary: Summary) -> None:
        """Draw how far it has come."""
        self.summary = summary
        if not sys.stderr.isatty():
            return
        if self._bar is None:
            length = min(summary.total, self._limit or summary.total)
            self._bar = click.progressbar(length=length, label=self._label, file=sys.stderr)
            self._bar.render_progress()
        come_to = min(summary.looked, self._bar.length or 0)
        self._bar.update(come_to - self._shown)
        self._shown = come_to

    def _sum_up(self, summary: Summary) -> None:
        """Say what was done, and what had to stay and why."""
        echo_unseen(summary)
        queues = ", ".join(f"{count} {escape_line(name, 60)}" for name, count in self._by_queue.items())
        echo_err(f"{self._done}: {summary.moved} of {summary.total}{f' ({queues})' if queues else ''}")
        for reason, count in summary.stayed.items():
            echo_err(f"stayed: {count}, {escape_line(reason, 300)}")
        if summary.is_interrupted:
            echo_err("interrupted: what was not reached stays where it was")
        if self._is_json:
            sums = {"moved": summary.moved, "stayed": dict(summary.stayed), "total": summary.total}
            click.echo(json_line({**sums, "queues": self._by_queue, "is_interrupted": summary.is_interrupted}))
