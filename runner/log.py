"""Vocabulary: log lines. One shape for ours, for handlers' structlog and stdlib lines and for the AMQP client's.

The place of the current delivery is a context variable that is read only when a line is really written, so that a
delivery without log lines costs one `set`.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Literal, TextIO

import structlog
from structlog.typing import EventDict, FilteringBoundLogger, WrappedLogger

from runner.redaction import escape_controls, mask_passwords

Format = Literal["auto", "console", "json"]

CLIENT_LOGGERS = ("aio_pika", "aiormq", "pamqp")
MAX_VALUE_CHARACTERS = 2048

_PLACE = ("pipeline", "subscriber", "producer", "queue", "message_id", "correlation_id", "attempt")

context: ContextVar[Mapping[str, Any]] = ContextVar("runner_log_context")
"""What every log line of the current delivery or producer carries."""


_settings: dict[str, Any] = {}


def configure(
    *,
    format: Format = "auto",
    level: str = "info",
    levels: Mapping[str, str] | None = None,
    stream: TextIO | None = None,
    is_colored: bool | None = None,
    width: int = 0,
) -> None:
    """Send all log lines of this process to `stream` (stdout), as JSON lines, or coloured text on a terminal.

    The same settings are given to the processes of handlers with `run_in: process`.

    `width` is how many columns the text has for the name of a subscriber or a producer.
    """
    _settings.update(format=format, level=level, levels=levels, is_colored=is_colored, width=width)
    out = stream or sys.stdout
    if hasattr(out, "reconfigure"):
        out.reconfigure(errors="backslashreplace")
    is_console = format == "console" or (format == "auto" and out.isatty())
    colors = out.isatty() if is_colored is None else is_colored
    render = ConsoleRenderer(colors, width) if is_console else render_json
    shared: list[Callable[[WrappedLogger, str, EventDict], Any]] = [
        structlog.contextvars.merge_contextvars,
        _add_context,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    last: list[Callable[[WrappedLogger, str, EventDict], Any]] = [structlog.processors.format_exc_info, _clean, render]
    structlog.configure(
        processors=[*shared, *last],
        wrapper_class=structlog.make_filtering_bound_logger(_number(level)),
        logger_factory=structlog.WriteLoggerFactory(file=out),
        cache_logger_on_first_use=True,
    )
    _configure_stdlib(out, level, levels or {}, shared, last)


@contextmanager
def bound(fields: Mapping[str, Any]) -> Iterator[None]:
    """Give all log lines of this task, inside the block, these fields."""
    token = context.set(fields)
    try:
        yield
    finally:
        context.reset(token)


def settings() -> dict[str, Any]:
    """Return what `configure` was called with, for another process."""
    return dict(_settings)


def get_logger() -> FilteringBoundLogger:
    """Return a logger of ours; configure first."""
    logger: FilteringBoundLogger = structlog.get_logger()
    return logger


def _configure_stdlib(out: TextIO, level: str, levels: Mapping[str, str], shared: list[Any], last: list[Any]) -> None:
    handler = logging.StreamHandler(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, structlog.stdlib.ExtraAdder(), *shared],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, _strip_client_traceback, *last],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(_number(level))
    for name, own in levels.items():
        logging.getLogger(name).setLevel(_number(own))
    for name in CLIENT_LOGGERS:
        # At debug level these print whole frames, payloads and passwords with them; and each loss of a connection,
        # which we report ourselves, as several warnings.
        floor = logging.INFO if name in levels else logging.CRITICAL
        logging.getLogger(name).setLevel(max(_number(levels.get(name, level)), floor))


def _number(level: str) -> int:
    return logging.getLevelNamesMapping()[level.upper()]


def _add_context(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    for name, value in context.get({}).items():
        event.setdefault(name, value)
    return event


def _strip_client_traceback(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Replace the AMQP client's tracebacks, of which one lost connection prints several, by their last line."""
    if str(event.get("logger", "")).startswith(CLIENT_LOGGERS):
        error = event.pop("exc_info", None)
        if isinstance(error, tuple):
            event["error"] = str(error[1])
    return event


def _clean(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Put the fixed fields first; escape control characters, cut long values and mask passwords in URLs."""
    ordered: dict[str, Any] = {
        "timestamp": event.pop("timestamp", ""),
        "level": event.pop("level", "info"),
        "event": _clean_value(event.pop("event", "")),
    }
    for name in _PLACE:
        if name in event:
            ordered[name] = _clean_value(event.pop(name))
    for name, value in event.items():
        ordered[name] = mask_passwords(value) if name == "exception" else _clean_value(value)
    return ordered


def _clean_value(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    if len(value) > MAX_VALUE_CHARACTERS:
        value = value[:MAX_VALUE_CHARACTERS] + "…"
    return mask_passwords(escape_controls(value))


def render_json(_: WrappedLogger, __: str, event: EventDict) -> str:
    """Render one line of JSON; values that JSON does not know become their `repr`."""
    return json.dumps(event, ensure_ascii=False, default=repr)


_RESET, _DIM = "\x1b[0m", "\x1b[2m"
_LEVEL_COLORS = {
    "debug": "\x1b[2m",
    "info": "\x1b[32m",
    "warning": "\x1b[33m",
    "error": "\x1b[31m",
    "critical": "\x1b[31;1m",
}
_NAME_COLORS = ("\x1b[36m", "\x1b[35m", "\x1b[34m", "\x1b[33m", "\x1b[32m", "\x1b[96m", "\x1b[95m", "\x1b[94m")
_HIDDEN = frozenset({"timestamp", "level", "event", "exception", "duration_ms", *_PLACE})


class ConsoleRenderer:
    """Renders a line for people: time, who (padded, in a colour of its own), what, and the fields that differ."""

    def __init__(self, is_colored: bool, width: int = 0) -> None:
        self._is_colored = is_colored
        self._width = width
        self._colors: dict[str, str] = {}

    def __call__(self, _: WrappedLogger, __: str, event: MutableMapping[str, Any]) -> str:
        """Return the line, with a traceback below it if there is one."""
        who = str(
            event.get("subscriber") or event.get("producer") or event.get("pipeline") or event.get("logger") or ""
        )
        color = self._colors.setdefault(who, _NAME_COLORS[len(self._colors) % len(_NAME_COLORS)])
        parts = (
            self._paint(_DIM, str(event["timestamp"])[11:19]),
            self._paint(color, f"{who:<{self._width}} │"),
            self._paint(_LEVEL_COLORS.get(str(event["level"]), ""), f"{event['event']:<21}"),
            *self._fields(event),
        )
        line = " ".join(part for part in parts if part).rstrip()
        return f"{line}\n{event['exception']}" if "exception" in event else line

    def _fields(self, event: MutableMapping[str, Any]) -> Iterator[str]:
        """Yield the fields; those that every delivery has in a shorter form, or not at all while they say nothing."""
        yield self._paint(_DIM, str(event.get("message_id") or "")[:8])
        if event.get("attempt", 1) != 1:
            yield f"attempt {event['attempt']}"
        if "duration_ms" in event:
            yield f"{event['duration_ms']} ms"
        for name, value in event.items():
            if name not in _HIDDEN and value is not None and not (name == "published" and value == 0):
                yield f"{self._paint(_DIM, f'{name}=')}{_field(value)}"

    def _paint(self, color: str, text: str) -> str:
        return f"{color}{text}{_RESET}" if self._is_colored and color and text else text


def _field(value: Any) -> str:
    text = value if isinstance(value, str) else repr(value)
    return f'"{text}"' if " " in text else text
