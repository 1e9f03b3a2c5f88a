"""Renders log lines as JSON or as text for people, with all values cleaned and bounded."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator, Mapping, MutableMapping
from json.encoder import encode_basestring
from typing import Any

from runner.redaction import escape_controls, mask_head, mask_passwords, mask_tail
from runner.text_width import pad

MAX_VALUE_CHARACTERS = 2048
MAX_NAME_CHARACTERS = 128
MAX_TEXT_CHARACTERS = 32_768
MAX_DEPTH = 5
MAX_ITEMS = 100
"""The most items of a nested value that are shown, on each of at most `MAX_DEPTH` levels."""

MAX_LINE_ITEMS = 1000
"""The most items that all nested values of a line have together."""

MAX_INTEGER_BITS = 1024
"""Larger integers are shown in hexadecimal: Python refuses to convert them to decimal, or takes long."""

LONG_TEXT_FIELDS = ("exception", "stack", "text")
"""Fields that hold one long text each: tracebacks and printed text."""

CONTEXT_FIELDS = (
    "worker",
    "pipeline",
    "subscriber",
    "producer",
    "queue",
    "message_id",
    "correlation_id",
    "attempt",
    "trace_id",
    "span_id",
)
"""Fields that say what a line is about, in their order. Applications cannot set them."""

_ATOMS = frozenset({bool, type(None)})
_MAX_NUMBER = 2**63


def clean_fields(event: MutableMapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a line, fixed ones first: control characters escaped, long values cut, passwords masked.

    It never fails, whatever a value does.
    """
    items = _ValueCleaner()
    ordered: dict[str, Any] = {
        "timestamp": event.pop("timestamp", ""),
        "level": items.clean(event.pop("level", "info")),
        "event": items.clean(event.pop("event", "")),
    }
    for name in CONTEXT_FIELDS:
        if name in event:
            ordered[name] = items.clean(event.pop(name))
    for name, value in event.items():
        if name in LONG_TEXT_FIELDS:
            ordered[name] = _clean_text(name, value)
        else:
            ordered[items.clean_name(name)] = items.clean(value)
    return ordered


class _ValueCleaner:
    """Cleans the values of one line, and counts their items."""

    def __init__(self) -> None:
        self._left = MAX_LINE_ITEMS

    def clean(self, value: Any, depth: int = 0) -> Any:
        """Return a value that is safe to show.

        Anything but text, numbers and containers of those becomes its `repr`.
        """
        kind = type(value)
        if kind is str:
            if len(value) <= MAX_VALUE_CHARACTERS and value.isprintable() and ":/" not in value:
                return value  # the common case
            return _clean_string(value)
        if kind in _ATOMS or (kind is int and value.bit_length() <= MAX_INTEGER_BITS):
            return value
        if kind is float:
            return value if math.isfinite(value) else str(value)
        try:
            return self._clean_other(value, depth)
        except Exception:  # an application's object may raise anything
            return f"<{kind.__qualname__}>"

    def clean_name(self, name: Any) -> str:
        """Return the name of a field."""
        return _clean_string(name if type(name) is str else _safe_repr(name), MAX_NAME_CHARACTERS)

    def _clean_other(self, value: Any, depth: int) -> Any:
        match value:
            case str():
                return _clean_string(str.__str__(value))
            case int() if value.bit_length() > MAX_INTEGER_BITS:
                return _clean_string(hex(value))
            case int():
                return int(value)
            case float():
                return self.clean(float(value))
            case bytes() | bytearray():
                return _clean_string(repr(bytes(value[: MAX_VALUE_CHARACTERS + 1])))
            case _ if depth >= MAX_DEPTH or self._left <= 0:
                return "…"
            case Mapping():
                pairs = self._bounded(value.items())
                return {self.clean_name(name): self.clean(item, depth + 1) for name, item in pairs}
            case list() | tuple() | set() | frozenset():
                return [self.clean(item, depth + 1) for item in self._bounded(value)]
        return _clean_string(_safe_repr(value))

    def _bounded(self, items: Any) -> Iterator[Any]:
        for item in itertools.islice(items, MAX_ITEMS):
            if self._left <= 0:
                return
            self._left -= 1
            yield item


def _clean_string(value: str, limit: int = MAX_VALUE_CHARACTERS) -> str:
    if len(value) <= limit:
        return mask_passwords(escape_controls(value))
    return mask_passwords(f"{escape_controls(mask_head(value, limit))}…")


def _clean_text(name: str, value: Any) -> str:
    """Return a long text with its newlines. A traceback that is too long keeps its end."""
    text = value if type(value) is str else _safe_repr(value)
    if name == "text":
        return _clean_string(text, MAX_TEXT_CHARACTERS)
    lines = mask_tail(text, MAX_TEXT_CHARACTERS).split("\n")
    return "\n".join(escape_controls(line) for line in lines)


def _safe_repr(value: object) -> str:
    try:
        return repr(value)
    except Exception:  # an application's __repr__ may raise anything
        return f"<{type(value).__qualname__}>"


_encode = json.JSONEncoder(ensure_ascii=False).encode


def render_json(_: object, __: str, event: MutableMapping[str, Any]) -> str:
    """Render a line as JSON."""
    return _encode(clean_fields(event))


class JsonLine:
    """Renders the lines of one level and event, as `render_json` does. What all of them share is encoded once."""

    def __init__(self, level: str, event: str, shared: Mapping[str, Any]) -> None:
        self._shared = shared.keys()
        line = render_json(None, "", {"level": level, "event": event, **shared})
        self._begin = line.removeprefix('{"timestamp": ""')[:-1]

    def render(self, timestamp: str, *parts: Mapping[str, Any]) -> str | None:
        """Return the line with the fields of all parts. None if they need `render_json`.

        Those of CONTEXT_FIELDS come first and in that order, and all names are plain text.
        """
        line = f'{{"timestamp": "{timestamp}"{self._begin}'
        shared, last, quoted = self._shared, None, ""
        for part in parts:
            for name, value in part.items():
                if name in shared:
                    continue
                kind = type(value)
                if kind is str:
                    if value is not last:  # message id and correlation id are mostly the same text
                        is_clean = len(value) <= MAX_VALUE_CHARACTERS and value.isprintable() and ":/" not in value
                        last, quoted = value, encode_basestring(value if is_clean else _clean_string(value))
                    line += f', "{name}": {quoted}'
                elif kind is float or kind is int:
                    if not -_MAX_NUMBER < value < _MAX_NUMBER:
                        return None
                    line += f', "{name}": {value!r}'
                elif value is None:
                    line += f', "{name}": null'
                else:
                    return None
        return line + "}"


_RESET, _DIM = "\x1b[0m", "\x1b[2m"
_LEVEL_COLORS = {
    "debug": "\x1b[2m",
    "info": "\x1b[32m",
    "warning": "\x1b[33m",
    "error": "\x1b[31m",
    "critical": "\x1b[31;1m",
}
_NAME_COLORS = ("\x1b[36m", "\x1b[35m", "\x1b[34m", "\x1b[33m", "\x1b[32m", "\x1b[96m", "\x1b[95m", "\x1b[94m")
MAX_COLORED_NAMES = 256
"""The most names that keep their colour: there is no limit to the names of an application's loggers."""

_BLOCK_FIELDS = ("exception", "stack")
"""Fields that are shown below their line."""

_UNLISTED_FIELDS = frozenset({"timestamp", "level", "event", "duration_ms", *_BLOCK_FIELDS, *CONTEXT_FIELDS})
_LEVEL_WIDTH = len("warning")


class ConsoleRenderer:
    """Renders a line for people: time, level, source (in a colour of its own), event, and the other fields."""

    def __init__(self, is_colored: bool, width: int = 0) -> None:
        self._is_colored = is_colored
        self._width = width
        self._colors: dict[str, str] = {}

    def __call__(self, _: object, __: str, event: MutableMapping[str, Any]) -> str:
        """Return the line, followed by its traceback if there is one."""
        event = clean_fields(event)
        source = str(
            event.get("subscriber") or event.get("producer") or event.get("pipeline") or event.get("logger") or ""
        )
        color = self._color_of(source)
        level = str(event["level"])
        level_color = _LEVEL_COLORS.get(level, "")
        parts = (
            self._paint(_DIM, str(event["timestamp"])[11:19]),
            self._paint(level_color, f"{level:<{_LEVEL_WIDTH}}"),
            self._paint(_DIM, f"#{event['worker']}" if isinstance(event.get("worker"), int) else ""),
            self._paint(color, f"{pad(source, self._width)} │"),
            self._paint(level_color, pad(str(event["event"]), 21)),
            *self._fields(event),
        )
        line = " ".join(part for part in parts if part).rstrip()
        return "\n".join([line, *(str(event[name]) for name in _BLOCK_FIELDS if name in event)])

    def _fields(self, event: MutableMapping[str, Any]) -> Iterator[str]:
        """Yield the fields: those that every delivery has in a short form, or not at all if they hold nothing new."""
        yield self._paint(_DIM, str(event.get("message_id") or "")[:8])
        if event.get("attempt", 1) != 1:
            yield f"attempt {event['attempt']}"
        if "duration_ms" in event:
            yield f"{event['duration_ms']} ms"
        for name, value in event.items():
            if name not in _UNLISTED_FIELDS and value is not None and not (name == "published" and value == 0):
                yield f"{self._paint(_DIM, f'{name}=')}{_field(value)}"

    def _color_of(self, source: str) -> str:
        color = self._colors.get(source) or _NAME_COLORS[len(self._colors) % len(_NAME_COLORS)]
        if len(self._colors) < MAX_COLORED_NAMES:
            self._colors[source] = color
        return color

    def _paint(self, color: str, text: str) -> str:
        return f"{color}{text}{_RESET}" if self._is_colored and color and text else text


def _field(value: Any) -> str:
    text = value if isinstance(value, str) else repr(value)
    return f'"{text}"' if " " in text else text
