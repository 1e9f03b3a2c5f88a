"""Generates docs/reference/logs.md from the table of log events."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib.resources import files

from runner.log_events import COMMON, EVENTS, TOTALS, Event


def log_reference() -> str:
    """Return the text of the document."""
    text = files("runner.operations").joinpath("log_reference.md").read_text("utf-8")
    for place, lines in (("common", _fields(COMMON)), ("totals", _fields(TOTALS)), ("events", _events())):
        text = text.replace(f"<!-- {place} -->", "\n".join(lines))
    return text


def _fields(fields: Mapping[str, str]) -> Iterator[str]:
    yield from ("| field | meaning |", "|---|---|")
    yield from (f"| `{name}` | {meaning} |" for name, meaning in fields.items())


def _events() -> Iterator[str]:
    yield from ("| event | level | meaning | fields |", "|---|---|---|---|")
    yield from map(_row, EVENTS)


def _row(event: Event) -> str:
    fields = "; ".join(f"`{name}`: {meaning}" for name, meaning in event.fields.items())
    return f"| `{event.name}` | {', '.join(event.levels)} | {event.meaning} | {fields} |"


if __name__ == "__main__":
    print(log_reference(), end="")
