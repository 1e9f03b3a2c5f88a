"""How far a verb of `runner dead` has come, and what it has done."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from runner.cli.endings import say
from runner.cli.tables import json_line, safe

if TYPE_CHECKING:
    from runner.operations.dead_letters import DeadLetter
    from runner.operations.graveyard import Tally


def say_missing(tally: Tally) -> None:
    """Say which queues do not exist, and what was not looked at."""
    for name in tally.missing:
        say(f'queue "{name}" does not exist: nothing has been dead-lettered there')
    if tally.unseen:
        say(f"not looked at: {tally.unseen}, behind so many that stay")


class Progress:
    """A bar on a terminal, and the sum at the end, whatever the end is. A context manager."""

    def __init__(self, label: str, done: str, limit: int | None, *, is_json: bool) -> None:
        self._label = label
        self._done = done
        self._is_json = is_json
        self.tally: Tally | None = None
        self._limit = limit
        self._bar: Any = None
        self._shown = 0
        self._by_queue: dict[str, int] = {}

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.render_finish()
        if self.tally is not None:
            self._sum_up(self.tally)

    def note(self, letter: DeadLetter) -> None:
        """Count a message that was moved."""
        queue = letter.origin or letter.queue
        self._by_queue[queue] = self._by_queue.get(queue, 0) + 1

    def show(self, tally: Tally) -> None:
        """Draw how far it has come."""
        self.tally = tally
        if not sys.stderr.isatty():
            return
        if self._bar is None:
            length = min(tally.total, self._limit or tally.total)
            self._bar = click.progressbar(length=length, label=self._label, file=sys.stderr)
            self._bar.render_progress()
        come_to = min(tally.looked, self._bar.length or 0)
        self._bar.update(come_to - self._shown)
        self._shown = come_to

    def _sum_up(self, tally: Tally) -> None:
        """Say what was done, and what had to stay and why."""
        say_missing(tally)
        queues = ", ".join(f"{count} {safe(name, 60)}" for name, count in self._by_queue.items())
        say(f"{self._done}: {tally.moved} of {tally.total}{f' ({queues})' if queues else ''}")
        for reason, count in tally.stayed.items():
            say(f"stayed: {count}, {safe(reason, 300)}")
        if tally.is_interrupted:
            say("interrupted: what was not reached stays where it was")
        if self._is_json:
            sums = {"moved": tally.moved, "stayed": dict(tally.stayed), "total": tally.total}
            click.echo(json_line({**sums, "queues": self._by_queue, "is_interrupted": tally.is_interrupted}))
