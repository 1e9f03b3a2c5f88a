"""Vocabulary: log lines. One shape for ours, for handlers' structlog and stdlib lines and for the AMQP client's.

The place of the current delivery is a context variable that is read only when a line is really written, so that a
delivery without log lines costs one `set`.
"""

from __future__ import annotations

import itertools
import json
import logging
import math
import sys
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Literal, TextIO

import structlog
from structlog.typing import EventDict, FilteringBoundLogger, WrappedLogger

from runner.log_output import Output, SoonLogger
from runner.redaction import escape_controls, mask_passwords

Format = Literal["auto", "console", "json"]

CLIENT_LOGGERS = ("aio_pika", "aiormq", "pamqp")
MAX_VALUE_CHARACTERS = 2048
MAX_TRACEBACK_CHARACTERS = 32_768
MAX_DEPTH = 5
MAX_ITEMS = 100
"""What a nested value may have of levels, and each level of items; the rest is left out."""

_TEXTS = ("exception", "stack")
"""Fields of several lines."""

_ATOMS = frozenset({int, bool, type(None)})

_PLACE = ("worker", "pipeline", "subscriber", "producer", "queue", "message_id", "correlation_id", "attempt")

context: ContextVar[Mapping[str, Any]] = ContextVar("runner_log_context")
"""What every log line of the current delivery or producer carries."""


_settings: dict[str, Any] = {}
_outputs: list[Output] = []


def configure(
    *,
    format: Format = "auto",
    level: str = "info",
    levels: Mapping[str, str] | None = None,
    stream: TextIO | None = None,
    is_colored: bool | None = None,
    width: int = 0,
    worker: int | None = None,
    on_lost: Callable[[OSError], None] = lambda _: None,
) -> None:
    """Send all log lines of this process to `stream` (stdout), as JSON lines, or coloured text on a terminal.

    The same settings are given to the processes of handlers with `run_in: process`.

    `width` is how many columns the text has for the name of a subscriber or a producer. `worker` is which of several
    processes we are; each line says so. `on_lost` is called once when nothing can be written any more, as when who read
    the lines is gone: work is never lost for a line.
    """
    _settings.update(format=format, level=level, levels=levels, is_colored=is_colored, width=width, worker=worker)
    target = stream or sys.stdout
    if hasattr(target, "reconfigure"):
        target.reconfigure(errors="backslashreplace")
    out: Any = Output(target, on_lost)
    _outputs[:] = [out]
    is_console = format == "console" or (format == "auto" and out.isatty())
    colors = out.isatty() if is_colored is None else is_colored
    render = ConsoleRenderer(colors, width) if is_console else render_json
    shared: list[Callable[[WrappedLogger, str, EventDict], Any]] = [
        structlog.contextvars.merge_contextvars,
        _add_context,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        *([] if worker is None else [_adder_of("worker", worker)]),
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


def get_message_logger() -> FilteringBoundLogger:
    """Return a logger for what is said once for each message: its lines go out together, at the end of the loop's turn.

    A process that is killed in between loses them. Any other line takes with it what waits.
    """
    logger: FilteringBoundLogger = structlog.wrap_logger(SoonLogger(_outputs[-1]))
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
    logging.getLogger("asyncio").addFilter(_says_more_than_that_a_connection_is_lost)


def _says_more_than_that_a_connection_is_lost(record: logging.LogRecord) -> bool:
    """Drop what asyncio writes for each frame that the AMQP client still sends into a connection that is gone."""
    return record.msg != "socket.send() raised exception."


def _number(level: str) -> int:
    return logging.getLevelNamesMapping()[level.upper()]


def _add_context(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    for name, value in context.get({}).items():
        event.setdefault(name, value)
    return event


def _adder_of(name: str, value: object) -> Callable[[WrappedLogger, str, EventDict], EventDict]:
    def add(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
        event.setdefault(name, value)
        return event

    return add


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
        ordered[name] = _clean_lines(str(value)) if name in _TEXTS else _clean_value(value)
    return ordered


def _clean_value(value: Any, depth: int = 0) -> Any:
    """Return a value that is safe to show: what is neither text, number nor made of those becomes its `repr`."""
    kind = type(value)
    if kind is str:
        if len(value) <= MAX_VALUE_CHARACTERS and value.isprintable() and ":/" not in value:
            return value  # nearly all are so
    elif kind in _ATOMS:
        return value
    match value:
        case str():
            if len(value) > MAX_VALUE_CHARACTERS:
                value = mask_passwords(value[: 2 * MAX_VALUE_CHARACTERS])[:MAX_VALUE_CHARACTERS] + "…"
            return mask_passwords(escape_controls(value))
        case float() if not math.isfinite(value):
            return str(value)
        case bool() | int() | float() | None:
            return value
        case _ if depth >= MAX_DEPTH:
            return "…"
        case Mapping():
            some = itertools.islice(value.items(), MAX_ITEMS)
            return {_clean_value(str(name)): _clean_value(item, depth + 1) for name, item in some}
        case list() | tuple() | set() | frozenset():
            return [_clean_value(item, depth + 1) for item in itertools.islice(value, MAX_ITEMS)]
    return _clean_value(_repr(value))


def _repr(value: object) -> str:
    try:
        return repr(value)
    except Exception:  # a foreign __repr__ may raise anything
        return f"<{type(value).__qualname__}>"


def _clean_lines(text: str) -> str:
    """Return a traceback without control characters but its line ends; the end of it, where it is too long."""
    lines = mask_passwords(text)[-MAX_TRACEBACK_CHARACTERS:].split("\n")
    return "\n".join(escape_controls(line) for line in lines)


_encode = json.JSONEncoder(ensure_ascii=False).encode


def render_json(_: WrappedLogger, __: str, event: EventDict) -> str:
    """Render one line of JSON."""
    return _encode(event)


_RESET, _DIM = "\x1b[0m", "\x1b[2m"
_LEVEL_COLORS = {
    "debug": "\x1b[2m",
    "info": "\x1b[32m",
    "warning": "\x1b[33m",
    "error": "\x1b[31m",
    "critical": "\x1b[31;1m",
}
_NAME_COLORS = ("\x1b[36m", "\x1b[35m", "\x1b[34m", "\x1b[33m", "\x1b[32m", "\x1b[96m", "\x1b[95m", "\x1b[94m")
_HIDDEN = frozenset({"timestamp", "level", "event", "duration_ms", *_TEXTS, *_PLACE})


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
            self._paint(_DIM, f"#{event['worker']}" if isinstance(event.get("worker"), int) else ""),
            self._paint(color, f"{who:<{self._width}} │"),
            self._paint(_LEVEL_COLORS.get(str(event["level"]), ""), f"{event['event']:<21}"),
            *self._fields(event),
        )
        line = " ".join(part for part in parts if part).rstrip()
        return "\n".join([line, *(str(event[name]) for name in _TEXTS if name in event)])

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
