"""Log lines. Ours, those of handlers' structlog and stdlib loggers, and what handlers print all have one shape.

Our loggers carry their own processors and write to a descriptor of their own, so whatever handlers do with structlog,
logging or `sys.stdout` does not affect our lines. The fields of the current delivery are in a context variable that is
read only when a line is written: a delivery without log lines pays for one `set`.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, Literal

import structlog
from structlog.typing import EventDict, FilteringBoundLogger, WrappedLogger

from runner.log_capture import CapturedStdout, open_lossy_stderr
from runner.log_output import DescriptorStream, LogSink, Stream
from runner.log_renderers import CONTEXT_FIELDS, ConsoleRenderer, JsonLine, render_json

Format = Literal["auto", "console", "json"]
Processor = Callable[[WrappedLogger, str, EventDict], Any]

AMQP_LOGGERS = ("aio_pika", "aiormq", "pamqp")
CLIENT_LOGGERS = (*AMQP_LOGGERS, "opentelemetry")

_NO_CONTEXT: Mapping[str, Any] = {}

context: ContextVar[Mapping[str, Any]] = ContextVar("runner_log_context", default=_NO_CONTEXT)
"""The fields of every log line of the current delivery or producer."""


class _Processors:
    """The structlog processors of this process, by the source of a line, and where the lines go."""

    def __init__(self, out: LogSink, level: str, worker: int | None, render: Processor, muted: Collection[str]) -> None:
        self.out = out
        self.level = _level_number(level)
        self.is_json = render is render_json
        self.muted = frozenset(muted)
        self.worker = {} if worker is None else {"worker": worker}
        self.wrapper = structlog.make_filtering_bound_logger(self.level)
        place: list[Processor] = [] if worker is None else [_constant_field("worker", worker)]
        last: list[Processor] = [structlog.processors.format_exc_info, render]
        time = structlog.processors.TimeStamper(fmt="iso", utc=True)
        level_of = structlog.processors.add_log_level
        mute: list[Processor] = [_dropped(self.muted)] if muted else []
        self.ours: list[Processor] = [*mute, _add_context, _add_foreign_context, level_of, time, *place, *last]
        self.for_structlog: list[Processor] = [_prefix_reserved, *self.ours, _mark_rendered]
        self.for_stdlib: list[Processor] = [_add_context, _add_foreign_context, time, *place, *last]


_settings: dict[str, Any] = {}
_current: list[_Processors] = []
_stdout: list[DescriptorStream] = []
_structlog_processors: list[Processor] = []
"""The processors of handlers' structlog loggers. Changed in place: some loggers are bound while their module is
imported.
"""


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
    muted: Collection[str] = (),
) -> None:
    """Send all log lines of this process to `stream` (default: descriptor 1), as JSON, or as text on a terminal.

    Processes of handlers with `run_in: process` get the same settings.

    `width` is the number of columns for the name of a subscriber or producer. `worker` is the number of this worker
    process, and is added to each line. `on_write_error` is called once for each kind of error when lines cannot be
    written, for example because their reader is gone: a lost line never stops the work. With `capture_stdout`,
    everything written to `sys.stdout` becomes log lines. Events in `muted` are not written.
    """
    _settings.update(
        format=format,
        level=level,
        levels=levels,
        is_colored=is_colored,
        width=width,
        worker=worker,
        capture_stdout=capture_stdout,
        muted=muted,
    )
    flush()
    out = LogSink(stream or _standard_output(), on_write_error)
    is_console = format == "console" or (format == "auto" and out.isatty())
    colors = out.isatty() if is_colored is None else is_colored
    lines = _Processors(out, level, worker, ConsoleRenderer(colors, width) if is_console else render_json, muted)
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
    """Add fields to all log lines of this task inside the block."""
    token = context.set(fields)
    try:
        yield
    finally:
        context.reset(token)


def current_settings() -> dict[str, Any]:
    """Return the arguments of `configure`, for another process."""
    return dict(_settings)


def flush() -> None:
    """Write everything that is buffered: lines that wait for the loop, and printed text without a newline."""
    if isinstance(sys.stdout, CapturedStdout):
        sys.stdout.flush_all()
    if _current:
        _current[0].out.flush()


@contextmanager
def held() -> Iterator[None]:
    """Keep lines for standard output until the block ends, so that a person can type a line."""
    out = _standard_output()
    out.hold()
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            out.release()


def get_logger() -> FilteringBoundLogger:
    """Return a logger of the runner. In a program that has not called `configure`, it is the logger `runner`."""
    return _logger(_current[0].out.write_line) if _current else _HOST_LOGGER


def get_message_logger(shared: Mapping[str, Any]) -> FilteringBoundLogger | MessageLogger:
    """Return a logger for lines that are written once per message.

    `shared` are the fields that the context of each of these lines has, with the same values. The lines are buffered
    until the end of the loop's iteration. If the process is killed before that, they are lost. Any other line flushes
    them.
    """
    if not _current:
        return _HOST_LOGGER
    lines = _current[0]
    general = _logger(lines.out.buffer_line)
    return MessageLogger(lines, general, shared) if lines.is_json else general


class MessageLogger:
    """Writes the same JSON lines as the general logger, without its steps. What it cannot write, that one writes."""

    def __init__(self, lines: _Processors, general: FilteringBoundLogger, shared: Mapping[str, Any]) -> None:
        self._lines = lines
        self._general = general
        self._shared = {**lines.worker, **shared}
        self._forms: dict[tuple[str, str], JsonLine] = {}

    def info(self, event: str, **fields: Any) -> None:
        """Write a line, unless its level or its event is not written."""
        if self._lines.level <= logging.INFO:
            self._write("info", event, fields)

    def debug(self, event: str, **fields: Any) -> None:
        """Write a line at debug level."""
        if self._lines.level <= logging.DEBUG:
            self._write("debug", event, fields)

    def _write(self, level: str, event: str, fields: dict[str, Any]) -> None:
        lines = self._lines
        if event in lines.muted:
            return
        form = self._forms.get((level, event))
        if form is None:
            form = self._forms[level, event] = JsonLine(level, event, self._shared)
        place = context.get()
        line = None
        if "payload" not in place and not structlog.contextvars.get_contextvars():
            line = form.render(_timestamp(), place, fields)
        if line is not None:
            lines.out.buffer_line(line)
        else:
            getattr(self._general, level)(event, **fields)


_second: list[tuple[int, str]] = [(0, "")]
"""The second of the last timestamp since 1970, and how it is written."""


def _timestamp() -> str:
    """Return the time as structlog writes it, with microseconds. Date and second are written once for each second."""
    second, rest_ns = divmod(time.time_ns(), 1_000_000_000)
    known, text = _second[0]
    if second != known:
        text = datetime.fromtimestamp(second, UTC).isoformat().removesuffix("+00:00")
        _second[0] = second, text
    return f"{text}.{rest_ns // 1000:06d}Z"


def _logger(write: Callable[[str], object]) -> FilteringBoundLogger:
    lines = _current[0]
    logger: FilteringBoundLogger = structlog.wrap_logger(
        _Writer(write), processors=lines.ours, wrapper_class=lines.wrapper, context_class=dict
    ).bind()
    return logger


def _as_record(_: WrappedLogger, __: str, event: EventDict) -> tuple[tuple[str], dict[str, Any]]:
    """Return the arguments of a call of the standard library's logger: one text with all fields that have a value."""
    fields = {**context.get(), **event}
    return (
        " ".join(
            [fields.pop("event"), *(f"{name}={value}" for name, value in fields.items() if value not in (None, ""))]
        ),
    ), {}


_HOST_LOGGER: FilteringBoundLogger = structlog.wrap_logger(
    logging.getLogger("runner"),
    processors=[structlog.stdlib.filter_by_level, _as_record],
    wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG),
    context_class=dict,
).bind()


class _Writer:
    """The logger that structlog passes rendered lines to."""

    def __init__(self, write: Callable[[str], object]) -> None:
        self._write = write

    def msg(self, line: str) -> None:
        """Write a line."""
        self._write(line)

    debug = info = warning = error = critical = fatal = failure = exception = log = msg


def _standard_output() -> DescriptorStream:
    """Return a copy of descriptor 1, made once: handlers may close or redirect the original."""
    if not _stdout:
        _stdout.append(DescriptorStream(os.dup(1)))
    return _stdout[0]


def _configure_structlog(lines: _Processors) -> None:
    """Make handlers' structlog lines look like ours, unless the application has configured structlog itself."""
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
    """A line rendered by our processors."""


def _mark_rendered(_: WrappedLogger, __: str, line: Any) -> _RenderedLine:
    return _RenderedLine(line)


def _write_foreign(line: Any) -> None:
    """Write a line of a handler's structlog logger. An application with its own processors may still use our writer."""
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
        floor = logging.INFO if name in levels else logging.CRITICAL
        logging.getLogger(name).setLevel(max(_level_number(levels.get(name, level)), floor))
    silence_client()


def silence_client() -> None:
    """Silence the AMQP client's loggers that have no level of their own.

    At debug level these log whole frames, with payloads and passwords; and they log each lost connection, which we
    report ourselves, as several warnings.
    """
    for name in AMQP_LOGGERS:
        if logging.getLogger(name).level == logging.NOTSET:
            logging.getLogger(name).setLevel(logging.CRITICAL)
    logging.getLogger("asyncio").addFilter(_is_no_send_failure)


class _StdlibHandler(logging.Handler):
    """Writes the records of the standard library's loggers, including `extra` fields."""

    def __init__(self, lines: _Processors) -> None:
        super().__init__()
        self._lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record."""
        try:
            event: Any = _record_fields(record)
            for process in self._lines.for_stdlib:
                event = process(None, "info", event)
            self._lines.out.write_line(event)
        except Exception:  # like the standard library's handlers
            self.handleError(record)


_RECORD_ATTRIBUTES = frozenset({*logging.makeLogRecord({}).__dict__, "message", "asctime", "taskName"})
"""The attributes of a record that are not `extra` fields."""


def _record_fields(record: logging.LogRecord) -> EventDict:
    """Return the fields of a record. An application's field with a reserved name gets the prefix `extra_`."""
    extra = {str(name): value for name, value in record.__dict__.items() if name not in _RECORD_ATTRIBUTES}
    if isinstance(record.msg, Mapping) and not record.args:  # the form in which structlog passes lines on
        extra |= {str(name): value for name, value in record.msg.items() if name != "event"}
        text = record.msg.get("event", "")
    else:
        text, failure = _record_message(record)
        extra |= failure
    if "event" in extra:
        extra.setdefault("extra_event", extra.pop("event"))
    event = dict(_prefix_reserved(None, "", extra))
    event |= {"event": text, "logger": record.name, "level": record.levelname.lower()}
    if record.exc_info and not record.name.startswith(CLIENT_LOGGERS):
        event["exc_info"] = record.exc_info
    elif record.exc_info:  # the AMQP client logs several tracebacks for one lost connection
        event["error"] = str(record.exc_info[1])
    elif record.exc_text:
        event["exception"] = record.exc_text
    if record.stack_info:
        event["stack"] = record.stack_info
    return event


def _record_message(record: logging.LogRecord) -> tuple[str, dict[str, Any]]:
    """Return the text of a record; that it cannot be made, with what it is made of, if it cannot."""
    try:
        return record.getMessage(), {}
    except Exception as error:  # the arguments do not match the format, or their __str__ raises
        why = f"the arguments do not fit the format: {error}" if isinstance(error, TypeError) else repr(error)
        at = f"{os.path.relpath(record.pathname)}:{record.lineno}"
        event = "log.failed"
        return event, {"error": why, "text": f"{record.msg!r} {record.args!r}", "at": at}


def _is_no_send_failure(record: logging.LogRecord) -> bool:
    """Drop asyncio's line for every frame that the AMQP client sends into a lost connection."""
    return record.msg != "socket.send() raised exception."


def _log_printed_line(text: str, place: Mapping[str, Any]) -> None:
    with bound_context(place):
        get_logger().info("stdout", text=text)


def _level_number(level: str) -> int:
    return logging.getLevelNamesMapping()[level.upper()]


_RESERVED_FIELDS = frozenset({"timestamp", "level", "event", "logger", *CONTEXT_FIELDS}) - {"trace_id", "span_id"}
"""Fields that only the runner sets. An application may set the trace and the span of a line that has none."""


def _prefix_reserved(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Add `extra_` to an application's fields with reserved names, so that they cannot change what a line is about."""
    place = context.get()
    for name in [name for name in event if name in place or (name in _RESERVED_FIELDS and name != "event")]:
        event.setdefault(f"extra_{name}", event.pop(name))
    return event


def _dropped(events: frozenset[str]) -> Processor:
    def drop(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
        if event["event"] in events:
            raise structlog.DropEvent
        return event

    return drop


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
