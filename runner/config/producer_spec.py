"""The model of a producer."""

# Annotations are not postponed here: pydantic would compile the text of each again, 5 ms of every start.

import re
from collections.abc import Iterator
from typing import Annotated, ClassVar, Final
from urllib.parse import unquote

from pydantic import BeforeValidator, Field

from runner.config.document import Interpolated
from runner.config.field_types import TEXT
from runner.config.fields import DAY_S, SWITCHES, Boolean, Duration, OpaqueMap, Rate, Text, duration, text
from runner.config.messages import describe, quoted, spec_error
from runner.config.name_fields import ImportPath, file_name
from runner.config.spec_model import Conflict, SpecModel
from runner.config.subscriber_spec import DedupeField
from runner.config.target_spec import Targets

_HTTP_PATH = re.compile(r"/[A-Za-z0-9._~!$&'()*+,;=:@%/-]*")
_RESERVED_PATHS: Final = frozenset({"/healthz", "/readyz", "/metrics"})
"""Paths of the runner's own endpoints."""


def _file(value: object) -> str:
    """Return the name of a file; `-` is standard input."""
    name = text(value)
    if not name or "\0" in name:
        raise spec_error("bad-file", f"{quoted(value)} is not the name of a file", "write a path, or - for stdin")
    return file_name(name)


def _http(value: object) -> str:
    path = text(value)
    if not path.startswith("/"):
        url = re.fullmatch(r"(?:[A-Z]+ +|https?://[^/\s]+|[\w.-]*:\d+)(/\S*)", path)
        plain = url[1] if url else f"/{path}" if re.fullmatch(r"[\w/-]+", path) else ""
        help_ = f'write "{plain}"' if plain and not isinstance(value, Interpolated) else "write it as in /orders"
        raise spec_error("bad-http-path", f"must start with a slash, not {quoted(value)}", help_)
    if "?" in path or "#" in path:
        raise spec_error("bad-http-path", f"{quoted(value)} has a query or fragment in it", "write only the path")
    if not _HTTP_PATH.fullmatch(path):
        help_ = "write letters, digits, and other characters as %XX"
        raise spec_error("bad-http-path", f"{quoted(value)} has characters that a path cannot have", help_)
    decoded = unquote(path)
    if decoded.startswith("/-/") or decoded.rstrip("/") in _RESERVED_PATHS:
        raise spec_error("bad-http-path", f"{quoted(value)} is a path of the runner itself", "write another path")
    return path


def _cron(value: object) -> str:
    from runner.config.schedule_fields import cron  # only for pipelines that have one

    return cron(value)


def _timezone(value: object) -> str:
    from runner.config.schedule_fields import timezone  # only for pipelines that have one

    return timezone(value)


def _once(value: object) -> str | None:
    """Return the text under which the end of a producer is remembered, None for `false`."""
    is_flag = isinstance(value, bool) or (isinstance(value, Interpolated) and value in ("true", "false"))
    if is_flag:
        return "true" if value in (True, "true") else None
    if meant := SWITCHES.get(str(value).lower()):
        raise spec_error("bad-once", f"must be true, false or a text, not {describe(value)}", f"write {meant}")
    if isinstance(value, str) and value:
        return text(value)
    help_ = f'put it in quotes: "{value}"' if isinstance(value, int | float) else "write true, or a text such as v2"
    raise spec_error("bad-once", f"must be true or a text, not {describe(value)}", help_)


class ProducerSpec(SpecModel):
    """A producer: a handler, a file or an HTTP path that messages come from; exactly one of them."""

    handler: ImportPath | None = Field(
        default=None, description="The function that yields or returns messages.", examples=["handlers.orders:place"]
    )
    file: Annotated[str, BeforeValidator(_file), TEXT] | None = Field(
        default=None,
        description="A file, relative to this one: CSV with a header if it ends in .csv, else JSON lines; - is stdin.",
    )
    http: Annotated[str, BeforeValidator(_http)] | None = Field(
        default=None, description="A path of the runner's HTTP server: the body of each POST is a message."
    )
    enabled: Boolean = Field(default=True, description="false: no process runs it.")
    every: Annotated[Duration, duration(0.001)] | None = Field(
        default=None, description="How often to call the handler. Without every and cron, it is called once."
    )
    cron: Annotated[str, BeforeValidator(_cron)] | None = Field(
        default=None, description="When to call the handler: minute, hour, day of the month, month, day of the week."
    )
    timezone: Annotated[str, BeforeValidator(_timezone)] | None = Field(
        default=None, description="The time zone of cron, as in Europe/Berlin. Default: UTC."
    )
    timeout: Annotated[Duration, duration(0.001, 3600)] | None = Field(
        default=None,
        description="How long a POST to http waits for the broker to confirm its message, or with reply for the "
        "answer. Default: 10s.",
    )
    reply: Boolean = Field(
        default=False,
        description="With http: a POST is a call. Its response is the answer of the subscriber, which needs `reply: "
        "true` if it has a `to`.",
        examples=[True],
    )
    idempotency: DedupeField | None = Field(
        default=None,
        description="How long POSTs to http with an Idempotency-Key are remembered: a duration, or a map of window and "
        "store. Default: 24h, in memory.",
    )
    once: Annotated[Text | None, BeforeValidator(_once, json_schema_input_type=bool | str)] = Field(
        default=None,
        description="true: once it has ended, later starts do not run it again; a new text runs it once more.",
        examples=["v2"],
    )
    rate: Rate | None = Field(default=None, description="Maximum rate of publishing, as in 100/s, 10/m, 5/h or 20/d.")
    to: Targets = Field(description="The queues and events that get its messages.", examples=["order_queue"])
    with_: OpaqueMap = Field(
        default={}, alias="with", description="Values for parameters of the handler, converted to their annotations."
    )
    description: Text = Field(default="", description="What it publishes, for people.")

    one_of: ClassVar[tuple[str, ...]] = ("handler", "file", "http")

    def conflicts(self) -> list[Conflict]:
        return [*_source_conflicts(self), *_option_conflicts(self)]


def _source_conflicts(producer: ProducerSpec) -> Iterator[Conflict]:
    sources = [key for key in producer.one_of if getattr(producer, key) is not None]
    if not sources:
        message = 'a producer needs one of "handler", "file" and "http"'
        yield Conflict((), message, 'add "handler: handlers.orders:place_orders"', "no-source")
    for key in sources[1:]:
        message = f'a producer has one source, and this one has "{sources[0]}" already'
        yield Conflict((key,), message, "remove one of them, or write two producers", "several-sources")


def _both(every_s: float, cron: str) -> str:
    """Return the help for an interval within the times of a cron line, "" if it cannot be a step of its minutes."""
    minute, _, others = cron.partition(" ")
    step = every_s / 60
    return (
        f'write `cron: "*/{step:.0f} {others}"` for both, or '
        if minute == "*" and step in range(1, 31) and 60 % step == 0
        else ""
    )


def _once_conflicts(producer: ProducerSpec) -> Iterator[Conflict]:
    if producer.once is not None:
        for key, value in (("every", producer.every), ("cron", producer.cron), ("http", producer.http)):
            if value is not None:
                message = f'"once" is for producers that end, and this one has "{key}"'
                help_ = 'remove it: "http" takes requests as long as the pipeline runs'
                if key != "http":
                    help_ = (
                        f'remove it to run at each time of "{key}", or remove "{key}" to run only once, at the start'
                    )
                yield Conflict(("once",), message, help_)


def _option_conflicts(producer: ProducerSpec) -> Iterator[Conflict]:
    source = "file" if producer.file is not None else "http" if producer.http is not None else ""
    if producer.handler is None and source:
        for key, value in (("every", producer.every), ("cron", producer.cron), ("with", producer.with_ or None)):
            if value is not None:
                message = f'"{key}" is for handlers, and this producer has "{source}"'
                yield Conflict((key,), message, f'remove it, or write "handler" instead of "{source}"')
    if producer.every is not None and producer.cron is not None:
        help_ = f"{_both(producer.every, producer.cron)}remove one of them"
        yield Conflict(("cron",), '"every" and "cron" cannot be used together', help_)
    yield from _once_conflicts(producer)
    if producer.timezone is not None and producer.cron is None:
        help_ = 'add "cron", or remove it' if producer.handler is not None else f'remove it: "{source}" runs at no time'
        if producer.every is not None:
            line = "0 0 * * *" if producer.every == DAY_S else "MINUTE HOUR * * *"
            help_ = f'write `cron: "{line}"` in place of "every", or remove "timezone": "every" does not depend on it'
        yield Conflict(("timezone",), '"timezone" needs "cron"', help_)
    if producer.timeout is not None and producer.http is None and (producer.handler is not None or source):
        help_ = "remove it: a handler or a file may take as long as it needs"
        yield Conflict(("timeout",), '"timeout" is for producers with "http"', help_)
    if producer.reply and producer.http is None and (producer.handler is not None or source):
        help_ = 'remove it, or write "http" instead of the other source'
        yield Conflict(("reply",), '"reply" is for producers with "http": nothing else waits for an answer', help_)
    if producer.reply and len(producer.to) > 1:
        message = f'"reply" needs one queue or event in "to", and this producer has {len(producer.to)}'
        yield Conflict(("reply",), message, "write two producers, or let an event have several subscribers")
    if producer.reply and any(target.delay for target in producer.to):
        yield Conflict(("to",), '"reply" and a delay cannot be used together: the client waits', "remove one of them")
    if producer.idempotency is not None and producer.http is None:
        yield Conflict(("idempotency",), '"idempotency" is for producers with "http"', "remove it")
    if producer.idempotency is not None and producer.idempotency.key is not None:
        message = '"key" is for subscribers: the key of a POST is its header Idempotency-Key'
        yield Conflict(("idempotency", "key"), message, "remove it")
    if producer.rate is not None and producer.http is not None:
        help_ = 'remove it, or limit the subscriber with "rate"'
        yield Conflict(("rate",), '"rate" does not limit "http": its clients decide when they send', help_)
