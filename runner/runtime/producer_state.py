"""The state of producers that passes from one leader to the next: ticks, runs, and which producers have ended.

Whether a finite producer has ended does not depend on clocks: its end is saved with the id of the start in which it
happened.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from runner.pipeline.model import Producer


class ProducerState:
    """The state that a leadership stores, as seen from one start of the pipeline. Invalid entries are ignored."""

    def __init__(self, state: Mapping[str, Any], start: str) -> None:
        self.state: dict[str, dict[str, Any]] = {
            kind: dict(items) for kind, items in state.items() if isinstance(items, dict)
        }
        self._start = start

    def last_tick(self, name: str) -> datetime | None:
        """Return the due time of the last run of a producer with a schedule; None if it never ran."""
        value = self._get("ticks", name)
        try:
            return datetime.fromisoformat(value) if value is not None else None
        except ValueError:
            return None

    def note_tick(self, name: str, due: datetime) -> None:
        """Record the due time of a run."""
        self._set("ticks", name, due.isoformat())

    def has_ended(self, producer: Producer) -> bool:
        """Return whether a finite producer has ended in this start, or for this value of `once`."""
        if producer.once is not None:
            return self._get("once", producer.name) == producer.once
        return self._get("done", producer.name) == self._start

    def run(self, producer: Producer, new_id: Callable[[], str]) -> tuple[str, bool]:
        """Return the id of the unfinished run, or of a new one, and whether it is new."""
        found = self._get("runs", producer.name)
        if found is not None:
            return found, False
        run = new_id()
        self._set("runs", producer.name, run)
        return run, True

    def note_end(self, producer: Producer) -> None:
        """Record that a finite producer has ended."""
        if producer.once is not None:
            self._set("once", producer.name, producer.once)
        self._set("done", producer.name, self._start)
        self.state.get("runs", {}).pop(producer.name, None)

    def forget(self, producer: Producer) -> None:
        """Record that a finite producer runs again, with new ids, unless it ran for its value of `once`."""
        for kind in ("runs", "done"):
            self.state.get(kind, {}).pop(producer.name, None)

    def _get(self, kind: str, name: str) -> str | None:
        value = self.state.get(kind, {}).get(name)
        return value if isinstance(value, str) else None

    def _set(self, kind: str, name: str, value: str) -> None:
        self.state.setdefault(kind, {})[name] = value
