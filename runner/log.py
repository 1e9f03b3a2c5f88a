"""Vocabulary: log lines. One shape for ours, for handlers' structlog and stdlib lines, and for what they print.

Our loggers carry their own processors and write to a descriptor of their own: whatever handlers do with structlog,
logging or `sys.stdout`, our lines stay as they are. The place of the current delivery is a context variable that is
read only when a line is really written, so that a delivery without log lines costs one `set`.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Literal

import structlog
from structlog.typing import EventDict, FilteringBoundLogger, WrappedLogger

from runner.log_capture import CapturedStdout, open_lossy_stderr
from runner.log_output import DescriptorStream, LogSink, Stream
from runner.log_renderers import CONTEXT_FIELDS, MAX_TEXT_CHARACTERS, ConsoleRenderer, render_json

__all__ = ["MAX_TEXT_CHARACTERS", "bound_context", "configure", "context", "flush", "get_logger", "get_message_logger"]

Format = Literal["auto", "console", "json"]
Processor = Callable[[WrappedLogger, str, EventDict], Any]

CLIENT_LOGGERS = ("aio_pika", "aiormq", "pamqp")

_NO_CONTEXT: Mapping[str, Any] = {}

context: ContextVar[Mapping[str, Any]] = ContextVar("runner_log_context", default=_NO_CONTEXT)
"""What every log line of the current delivery or producer carries."""


class _Processors:
    """How the lines of this process are made, and where they go."""

    def __init__(self, out: LogSink, level: str, worker: int | None, render: Processor) -> None:
        self.out = out
        self.wrapper = structlog.make_filtering_bound_logger(_level_number(level))
        place: list[Processor] = [] if worker is None else [_constant_field("worker", worker)]
        last: list[Processor] = [structlog.processors.format_exc_info, render]
        time = structlog.processors.TimeStamper(fmt="iso", utc=True)
        level_of = structlog.processors.add_log_level
        self.ours: list[Processor] = [_add_context, _add_foreign_context, level_of, time, *place, *last]
        self.for_structlog: list[Processor] = [_prefix_reserved, *self.ours, _mark_rendered]
        self.for_stdlib: list[Processor] = [_add_context, _add_foreign_context, time, *place, *last]


_settings: dict[str, Any] = {}
_current: list[_Processors] = []
_stdout: list[DescriptorStream] = []
_structlog_processors: list[Processor] = []
"""What handlers' structlog loggers do. It is changed in place: some are bound while their module is imported."""


def configure(
    *,
    format: Format = "auto",
    level: str = "info",
    levels: Mapping[str, str] | None = None,
    stream: Stream | None = None,
    is_colored: bool | None = None,
    width: int = 0,
    worker: int | None = None,
    on_write_error: Callable[[OSError], None] = lambda _: None,
    capture_stdout: bool = False,
) -> None:
    """Send all log lines of this process to `stream` (descriptor 1), as JSON lines, or coloured text on a terminal.

    The same settings are given to the processes of handlers with `run_in: process`.

    `width` is how many columns the text has for the name of a subscriber or a producer. `worker` is which of several
    processes we are; each line says so. `on_write_error` is called once for each reason why a line cannot be written,
    as when the reader of the lines is gone: work is never lost for a line. With `capture_stdout`, what is written to
    `sys.stdout` from now on becomes log lines.
    """
    _settings.update(
        format=format,
        level=level,
        levels=levels,
        is_colored=is_colored,
        width=width,
        worker=worker,
        capture_stdout=capture_stdout,
    )
    flush()
    out = LogSink(stream or _standard_output(), on_write_error)
    is_console = format == "console" or (format == "auto" and out.isatty())
    colors = out.isatty() if is_colored is None else is_colored
    lines = _Processors(out, level, worker, ConsoleRenderer(colors, width) if is_console else render_json)
    _configure_structlog(lines)
    _current[:] = [lines]
    _configure_stdlib(lines, level, levels or {})
    if capture_stdout and not isinstance(sys.stdout, CapturedStdout):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            sys.stdout.flush()
        sys.stdout = CapturedStdout(_log_printed_line, context.get, 1)
        sys.stderr = open_lossy_stderr()


@contextmanager
def bound_context(fields: Mapping[str, Any]) -> Iterator[None]:
    """Give all log lines of this task, inside the block, these fields."""
    token = context.set(fields)
    try:
        yield
    finally:
        context.reset(token)


def current_settings() -> dict[str, Any]:
    """Return what `configure` was called with, for another process."""
    return dict(_settings)


def flush() -> None:
    """Write what waits: lines for the end of the loop's turn, and printed text without a line end."""
    if isinstance(sys.stdout, CapturedStdout):
        sys.stdout.flush_all()
    if _current:
        _current[0].out.flush()


def get_logger() -> FilteringBoundLogger:
    """Return a logger of ours; configure first."""
    return _logger(_current[0].out.write_line)


def get_message_logger() -> FilteringBoundLogger:
    """Return a logger for what is said once for each message: its lines go out together, at the end of the loop's turn.

    A process that is killed in between loses them. Any other line takes with it what waits.
    """
    return _logger(_current[0].out.buffer_line)


def _logger(write: Callable[[str], object]) -> FilteringBoundLogger:
    lines = _current[0]
    logger: FilteringBoundLogger = structlog.wrap_logger(
        _Writer(write), processors=lines.ours, wrapper_class=lines.wrapper, context_class=dict
    ).bind()
    return logger


class _Writer:
    """What structlog gives a rendered line to."""

    def __init__(self, write: Callable[[str], object]) -> None:
        self._write = write

    def msg(self, line: str) -> None:
        """Write a line."""
        self._write(line)

    debug = info = warning = error = critical = fatal = failure = exception = log = msg


def _standard_output() -> DescriptorStream:
    """Return a copy of descriptor 1, of which there is one: handlers may close the original, or lead it elsewhere."""
    if not _stdout:
        _stdout.append(DescriptorStream(os.dup(1)))
    return _stdout[0]


def _configure_structlog(lines: _Processors) -> None:
    """Let handlers' structlog lines look like ours, unless the application has configured structlog itself."""
    _structlog_processors[:] = lines.for_structlog
    if structlog.is_configured() and structlog.get_config()["processors"] is not _structlog_processors:
        return
    structlog.configure(
        processors=_structlog_processors,
        wrapper_class=lines.wrapper,
        context_class=dict,
        logger_factory=lambda *_: _Writer(_write_foreign),
        cache_logger_on_first_use=False,
    )


class _RenderedLine(str):
    """A line that our processors have rendered."""


def _mark_rendered(_: WrappedLogger, __: str, line: Any) -> _RenderedLine:
    return _RenderedLine(line)


def _write_foreign(line: Any) -> None:
    """Write a line of handlers' structlog. With processors of its own, the application may still have our writer."""
    if isinstance(line, _RenderedLine):
        _current[0].out.write_line(line)
    else:
        for text in str(line).splitlines():
            _log_printed_line(text, context.get())


def _configure_stdlib(lines: _Processors, level: str, levels: Mapping[str, str]) -> None:
    root = logging.getLogger()
    root.handlers[:] = [_StdlibHandler(lines)]
    root.setLevel(_level_number(level))
    for name, own in levels.items():
        logging.getLogger(name).setLevel(_level_number(own))
    for name in CLIENT_LOGGERS:
        # At debug level these print whole frames, payloads and passwords with them; and each loss of a connection,
        # which we report ourselves, as several warnings.
        floor = logging.INFO if name in levels else logging.CRITICAL
        logging.getLogger(name).setLevel(max(_level_number(levels.get(name, level)), floor))
    logging.getLogger("asyncio").addFilter(_is_no_send_failure)


class _StdlibHandler(logging.Handler):
    """Writes the records of the standard library's loggers, with their `extra` fields."""

    def __init__(self, lines: _Processors) -> None:
        super().__init__()
        self._lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        """Write one."""
        try:
            event: Any = _record_fields(record)
            for process in self._lines.for_stdlib:
                event = process(None, "info", event)
            self._lines.out.write_line(event)
        except Exception:  # as every handler of the standard library does
            self.handleError(record)


_RECORD_ATTRIBUTES = frozenset({*logging.makeLogRecord({}).__dict__, "message", "asctime", "taskName"})
"""Attributes of a record that are no `extra` fields."""


def _record_fields(record: logging.LogRecord) -> EventDict:
    """Return the fields of a record. A field of the application that clashes with ours gets `extra_`."""
    extra = {str(name): value for name, value in record.__dict__.items() if name not in _RECORD_ATTRIBUTES}
    if isinstance(record.msg, Mapping) and not record.args:  # as structlog hands lines to the standard library
        extra |= {str(name): value for name, value in record.msg.items() if name != "event"}
        text = record.msg.get("event", "")
    else:
        text = _record_message(record)
    if "event" in extra:
        extra.setdefault("extra_event", extra.pop("event"))
    event = dict(_prefix_reserved(None, "", extra))
    event |= {"event": text, "logger": record.name, "level": record.levelname.lower()}
    if record.exc_info and not record.name.startswith(CLIENT_LOGGERS):
        event["exc_info"] = record.exc_info
    elif record.exc_info:  # of the AMQP client, which prints several tracebacks for one lost connection
        event["error"] = str(record.exc_info[1])
    elif record.exc_text:
        event["exception"] = record.exc_text
    if record.stack_info:
        event["stack"] = record.stack_info
    return event


def _record_message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception:  # the arguments do not fit the text, or raise
        return f"{record.msg!r} {record.args!r}"


def _is_no_send_failure(record: logging.LogRecord) -> bool:
    """Drop what asyncio writes for each frame that the AMQP client still sends into a connection that is gone."""
    return record.msg != "socket.send() raised exception."


def _log_printed_line(text: str, place: Mapping[str, Any]) -> None:
    with bound_context(place):
        get_logger().info("stdout", text=text)


def _level_number(level: str) -> int:
    return logging.getLevelNamesMapping()[level.upper()]


_RESERVED_FIELDS = frozenset({"timestamp", "level", "event", "logger", *CONTEXT_FIELDS})


def _prefix_reserved(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Put `extra_` in front of an application's fields that are called like ours: those say what a line is about."""
    place = context.get()
    for name in [name for name in event if name in place or (name in _RESERVED_FIELDS and name != "event")]:
        event.setdefault(f"extra_{name}", event.pop(name))
    return event


def _add_context(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    for name, value in context.get().items():
        event.setdefault(name, value)
    return event


def _add_foreign_context(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Add what the application has bound to structlog's context variables."""
    if found := structlog.contextvars.get_contextvars():
        place = context.get()
        for name, value in found.items():
            is_ours = name in _RESERVED_FIELDS or name in place
            event.setdefault(f"extra_{name}" if is_ours else name, value)
    return event


def _constant_field(name: str, value: object) -> Processor:
    def add(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
        event.setdefault(name, value)
        return event

    return add
