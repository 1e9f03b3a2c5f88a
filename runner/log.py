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

from runner.log_lines import MAX_TEXT_CHARACTERS, PLACE, ConsoleRenderer, render_json
from runner.log_output import Descriptor, Output, Stream
from runner.log_printed import Printed, forgiving_stderr

__all__ = ["MAX_TEXT_CHARACTERS", "bound", "configure", "context", "flush", "get_logger", "get_message_logger"]

Format = Literal["auto", "console", "json"]
Processor = Callable[[WrappedLogger, str, EventDict], Any]

CLIENT_LOGGERS = ("aio_pika", "aiormq", "pamqp")

_NOWHERE: Mapping[str, Any] = {}

context: ContextVar[Mapping[str, Any]] = ContextVar("runner_log_context", default=_NOWHERE)
"""What every log line of the current delivery or producer carries."""


class _Lines:
    """How the lines of this process are made, and where they go."""

    def __init__(self, out: Output, level: str, worker: int | None, render: Processor) -> None:
        self.out = out
        self.wrapper = structlog.make_filtering_bound_logger(_number(level))
        place: list[Processor] = [] if worker is None else [_adder_of("worker", worker)]
        last: list[Processor] = [structlog.processors.format_exc_info, render]
        time = structlog.processors.TimeStamper(fmt="iso", utc=True)
        level_of = structlog.processors.add_log_level
        self.ours: list[Processor] = [_add_context, _add_foreign_context, level_of, time, *place, *last]
        self.of_structlog: list[Processor] = [_rename_ours, *self.ours, _as_ours]
        self.of_stdlib: list[Processor] = [_add_context, _add_foreign_context, time, *place, *last]


_settings: dict[str, Any] = {}
_current: list[_Lines] = []
_stdout: list[Descriptor] = []
_of_structlog: list[Processor] = []
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
    on_lost: Callable[[OSError], None] = lambda _: None,
    takes_prints: bool = False,
) -> None:
    """Send all log lines of this process to `stream` (descriptor 1), as JSON lines, or coloured text on a terminal.

    The same settings are given to the processes of handlers with `run_in: process`.

    `width` is how many columns the text has for the name of a subscriber or a producer. `worker` is which of several
    processes we are; each line says so. `on_lost` is called once for each reason why a line cannot be written, as when
    the reader of the lines is gone: work is never lost for a line. With `takes_prints`, what is written to `sys.stdout`
    from now on becomes log lines.
    """
    _settings.update(
        format=format,
        level=level,
        levels=levels,
        is_colored=is_colored,
        width=width,
        worker=worker,
        takes_prints=takes_prints,
    )
    flush()
    out = Output(stream or _standard_output(), on_lost)
    is_console = format == "console" or (format == "auto" and out.isatty())
    colors = out.isatty() if is_colored is None else is_colored
    lines = _Lines(out, level, worker, ConsoleRenderer(colors, width) if is_console else render_json)
    _offer_structlog(lines)
    _current[:] = [lines]
    _configure_stdlib(lines, level, levels or {})
    if takes_prints and not isinstance(sys.stdout, Printed):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            sys.stdout.flush()
        sys.stdout = Printed(_say_printed, context.get, 1)
        sys.stderr = forgiving_stderr()


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


def flush() -> None:
    """Write what waits: lines for the end of the loop's turn, and printed text without a line end."""
    if isinstance(sys.stdout, Printed):
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
    return _logger(_current[0].out.write_line_soon)


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


def _standard_output() -> Descriptor:
    """Return a copy of descriptor 1, of which there is one: handlers may close the original, or lead it elsewhere."""
    if not _stdout:
        _stdout.append(Descriptor(os.dup(1)))
    return _stdout[0]


def _offer_structlog(lines: _Lines) -> None:
    """Let handlers' structlog lines look like ours, unless the application has configured structlog itself."""
    _of_structlog[:] = lines.of_structlog
    if structlog.is_configured() and structlog.get_config()["processors"] is not _of_structlog:
        return
    structlog.configure(
        processors=_of_structlog,
        wrapper_class=lines.wrapper,
        context_class=dict,
        logger_factory=lambda *_: _Writer(_write_foreign),
        cache_logger_on_first_use=False,
    )


class _Ours(str):
    """A line that our processors have rendered."""


def _as_ours(_: WrappedLogger, __: str, line: Any) -> _Ours:
    return _Ours(line)


def _write_foreign(line: Any) -> None:
    """Write a line of handlers' structlog. With processors of its own, the application may still have our writer."""
    if isinstance(line, _Ours):
        _current[0].out.write_line(line)
    else:
        for text in str(line).splitlines():
            _say_printed(text, context.get())


def _configure_stdlib(lines: _Lines, level: str, levels: Mapping[str, str]) -> None:
    root = logging.getLogger()
    root.handlers[:] = [_StdlibHandler(lines)]
    root.setLevel(_number(level))
    for name, own in levels.items():
        logging.getLogger(name).setLevel(_number(own))
    for name in CLIENT_LOGGERS:
        # At debug level these print whole frames, payloads and passwords with them; and each loss of a connection,
        # which we report ourselves, as several warnings.
        floor = logging.INFO if name in levels else logging.CRITICAL
        logging.getLogger(name).setLevel(max(_number(levels.get(name, level)), floor))
    logging.getLogger("asyncio").addFilter(_says_more_than_that_a_connection_is_lost)


class _StdlibHandler(logging.Handler):
    """Writes the records of the standard library's loggers, with their `extra` fields."""

    def __init__(self, lines: _Lines) -> None:
        super().__init__()
        self._lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        """Write one."""
        try:
            event: Any = _event_of(record)
            for process in self._lines.of_stdlib:
                event = process(None, "info", event)
            self._lines.out.write_line(event)
        except Exception:  # as every handler of the standard library does
            self.handleError(record)


_OF_RECORD = frozenset({*logging.makeLogRecord({}).__dict__, "message", "asctime", "taskName"})
"""Attributes of a record that are no `extra` fields."""


def _event_of(record: logging.LogRecord) -> EventDict:
    """Return the fields of a record. A field of the application that clashes with ours gets `extra_`."""
    extra = {str(name): value for name, value in record.__dict__.items() if name not in _OF_RECORD}
    if isinstance(record.msg, Mapping) and not record.args:  # as structlog hands lines to the standard library
        extra |= {str(name): value for name, value in record.msg.items() if name != "event"}
        text = record.msg.get("event", "")
    else:
        text = _message_of(record)
    if "event" in extra:
        extra.setdefault("extra_event", extra.pop("event"))
    event = dict(_rename_ours(None, "", extra))
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


def _message_of(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception:  # the arguments do not fit the text, or raise
        return f"{record.msg!r} {record.args!r}"


def _says_more_than_that_a_connection_is_lost(record: logging.LogRecord) -> bool:
    """Drop what asyncio writes for each frame that the AMQP client still sends into a connection that is gone."""
    return record.msg != "socket.send() raised exception."


def _say_printed(text: str, place: Mapping[str, Any]) -> None:
    with bound(place):
        get_logger().info("stdout", text=text)


def _number(level: str) -> int:
    return logging.getLevelNamesMapping()[level.upper()]


_OURS = frozenset({"timestamp", "level", "event", "logger", *PLACE})


def _rename_ours(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Put `extra_` in front of an application's fields that are called like ours: those say what a line is about."""
    place = context.get()
    for name in [name for name in event if name in place or (name in _OURS and name != "event")]:
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
            is_ours = name in _OURS or name in place
            event.setdefault(f"extra_{name}" if is_ours else name, value)
    return event


def _adder_of(name: str, value: object) -> Processor:
    def add(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
        event.setdefault(name, value)
        return event

    return add
