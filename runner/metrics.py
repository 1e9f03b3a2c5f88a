"""Vocabulary: what is counted while pipelines run."""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(slots=True)
class Totals:
    """Counts of one pipeline in one process: ended deliveries, and confirmed publications by producers."""

    handled: int = 0
    retried: int = 0
    dead_lettered: int = 0
    released: int = 0
    published: int = 0

    def __add__(self, other: Totals) -> Totals:
        return Totals(*(getattr(self, item.name) + getattr(other, item.name) for item in fields(self)))

    def as_fields(self) -> dict[str, int]:
        """Return the counts by name, for a log line."""
        return {item.name: getattr(self, item.name) for item in fields(self)}
