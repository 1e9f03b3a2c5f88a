"""The model of a pipeline file. Short forms are expanded, and defaults are filled in."""

# Annotations are not postponed here: pydantic would compile the text of each again, 5 ms of every start.

from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator, Field

from runner.config.broker_spec import BrokerField
from runner.config.fields import (
    DAY_S,
    OPTIONAL_MAP,
    Boolean,
    Duration,
    MessageLines,
    OpaqueMap,
    Text,
    Texts,
    choice,
    duration,
    short_form,
    text,
)
from runner.config.messages import describe, quoted, spec_error
from runner.config.name_fields import (
    ExchangeName,
    Identifier,
    ImportPath,
    LiteralKey,
    Name,
    OptionalNames,
    SchemaPath,
    StoreUrl,
)
from runner.config.producer_spec import ProducerSpec
from runner.config.queue_spec import CompressField, ExchangeField, QueueField, QueueSpec
from runner.config.spec_model import Conflict, SpecModel
from runner.config.subscriber_spec import SubscriberSpec
from runner.units import parse_address

Unheard = Literal["error", "ignore"]
Traces = Literal["none", "otlp"]
LogFormat = Literal["auto", "console", "json"]
LogLevel = Literal["debug", "info", "warning", "error"]


# Events


class EventSpec(SpecModel):
    """An event: a named fact of which every subscriber gets a copy."""

    short_form: ClassVar[str] = "schema"

    schema_: SchemaPath | None = Field(
        default=None,
        alias="schema",
        description="The payload's type, or a file with a JSON Schema. Default: any.",
        examples=["schemas/paid.json"],
    )
    exchange: ExchangeName | None = Field(default=None, description="The exchange it is published to. Default: events.")
    key: LiteralKey | None = Field(default=None, description="Its routing key. Default: the event's name.")
    unheard: Annotated[Unheard, choice(Unheard)] = Field(
        default="error",
        description="What happens if no queue receives it: error (publishing fails) or ignore (it is dropped).",
    )
    compress: CompressField | None = Field(
        default=None, description="Compress large messages when they are published.", examples=["4kB"]
    )
    description: Text = Field(default="", description="What the event says, for people.")


# Resources


class ResourceSpec(SpecModel):
    """A long-lived object that handlers need, such as a connection; it is opened once in each process."""

    short_form: ClassVar[str] = "factory"

    factory: ImportPath = Field(
        description="The function or context manager that creates it.", examples=["handlers.db:connect"]
    )
    with_: OpaqueMap = Field(
        default={}, alias="with", description="Values for parameters of the factory, converted to their annotations."
    )


ResourceField = Annotated[ResourceSpec, short_form(ResourceSpec, str | ResourceSpec, "an import path or a map")]


# The rest


class LoggingSpec(SpecModel):
    """What is logged, and how."""

    format: Annotated[LogFormat, choice(LogFormat)] = Field(
        default="auto", description="console, json, or auto: console on a terminal, json elsewhere."
    )
    level: Annotated[LogLevel, choice(LogLevel)] = Field(default="info", description="The lowest level that is logged.")
    levels: dict[str, Annotated[LogLevel, choice(LogLevel)]] = Field(
        default={}, description="Levels of individual loggers, by name."
    )
    messages: MessageLines = Field(
        default="all",
        description="Which messages have a line when they are published and handled: all (or true), errors (or false), "
        "a share of the flows such as 1%, or summary: one line with the counts now and then. What fails is always "
        "logged.",
        examples=["1%"],
    )
    every: Annotated[Duration, duration(1, DAY_S)] = Field(
        default=60.0, description="How often messages: summary writes a line."
    )
    payloads: Boolean = Field(default=False, description="Whether payloads are logged.")

    def conflicts(self) -> Iterator[Conflict]:
        if "every" in self.model_fields_set and self.messages != "summary":
            yield Conflict(("every",), '"every" needs "messages: summary"', 'add "messages: summary", or remove it')


def _address(value: object) -> str:
    address = str(value).lower() if isinstance(value, int) else text(value)
    try:
        parse_address(address)
    except ValueError:
        port = address.removeprefix(":")
        help_ = 'write HOST:PORT, as in "127.0.0.1:8080"'
        if port.isdecimal():
            help_ = f'write "127.0.0.1:{port}" for this machine only, "0.0.0.0:{port}" for others as well'
        raise spec_error("bad-address", f"{quoted(address)} is not an address to listen on", help_) from None
    return address


def _none_is_absent(value: object) -> object:
    return None if value == "none" else value


_TracesOrNone = BeforeValidator(_none_is_absent, json_schema_input_type=Traces)


class TelemetrySpec(SpecModel):
    """How the process reports its state."""

    http: Annotated[str, BeforeValidator(_address)] | None = Field(
        default=None,
        description="The address of the page, /healthz, /readyz and /metrics, HOST:PORT; `up --http` overrides it.",
        examples=["127.0.0.1:9090"],
    )
    traces: Annotated[Literal["otlp"] | None, _TracesOrNone, choice(Traces)] = Field(
        default=None,
        description="otlp: each publication and each attempt is a span, exported by OTLP over HTTP; the variables "
        "OTEL_* say where to. Needs the extra otel.",
        examples=["otlp"],
    )


class ShutdownSpec(SpecModel):
    """How the pipeline stops."""

    grace: Annotated[Duration, duration(0, DAY_S)] = Field(
        default=30.0, description="How long running handlers may take to finish."
    )


class DefaultsSpec(SpecModel):
    """Options for all items of a kind. An item's own options win, and its lists replace those of the defaults."""

    queue: OpaqueMap = Field(default={}, description="Options for each queue.")
    producer: OpaqueMap = Field(default={}, description="Options for each producer.")
    subscriber: OpaqueMap = Field(default={}, description="Options for each subscriber.")


def _version(value: object) -> object:
    if isinstance(value, int) and not isinstance(value, bool) and value == 1:
        return value
    message, meant = (
        f"this version of the language is not known: {describe(value)}",
        "1" if str(value) in ("1", "1.0") else "",
    )
    raise spec_error("bad-version", message, 'write "version: 1"', replacement=meant)


VersionField = Annotated[Literal[1], BeforeValidator(_version)]
EventField = Annotated[EventSpec, short_form(EventSpec, str | EventSpec | None, "a schema or a map")]


class PipelineSpec(SpecModel):
    """A pipeline file."""

    version: VersionField = Field(description="The version of the language: 1.", examples=[1])
    name: Name | None = Field(
        default=None, description="The pipeline's name. Default: the name of the file without its suffix."
    )
    description: Text = Field(default="", description="What the pipeline does, for people.")
    owner: Text | None = Field(default=None, description="The person or team that is responsible for it.")
    release: Text | None = Field(
        default=None,
        description="The release of your code, for the log, /healthz and the broker; RUNNER_RELEASE overrides it.",
        examples=["2026.11.3"],
    )
    broker: BrokerField = Field(
        default={}, validate_default=True, description="memory, file:PATH, an amqp:// or amqps:// URL, or a map."
    )
    include: Texts = Field(
        default=(), description="Files to merge in, relative to this one; patterns such as parts/*.yaml as well."
    )
    python_path: Texts = Field(
        default=(), description="Folders for the import path, before this file's own folder; relative to this file."
    )
    defaults: Annotated[DefaultsSpec, OPTIONAL_MAP] = Field(
        default={}, validate_default=True, description="Options for all queues, producers and subscribers."
    )
    exchanges: Annotated[dict[Name, ExchangeField], OPTIONAL_MAP] = Field(default={}, description="Exchanges by name.")
    queues: Annotated[dict[Name, QueueField], OPTIONAL_MAP] = Field(default={}, description="Queues by name.")
    events: Annotated[dict[Name, EventField], OPTIONAL_MAP] = Field(default={}, description="Events by name.")
    producers: Annotated[dict[Name, ProducerSpec], OPTIONAL_MAP] = Field(default={}, description="Producers by name.")
    subscribers: Annotated[dict[Name, SubscriberSpec], OPTIONAL_MAP] = Field(
        default={}, description="Subscribers by name."
    )
    delays: OptionalNames = Field(
        default=(),
        description="Queues and events that handlers and programs publish to with a delay of their own. What holds "
        "these messages on the broker is declared at the start. Default: with the first such message.",
        examples=["reminders"],
    )
    resources: Annotated[dict[Identifier, ResourceField], OPTIONAL_MAP] = Field(
        default={}, description="Long-lived objects that handlers need, by the name of the handlers' parameter."
    )
    stores: Annotated[dict[Name, StoreUrl], OPTIONAL_MAP] = Field(
        default={},
        repr=False,  # passwords
        description="Databases that remember which messages were handled, by name: sqlite:PATH, relative to this file, "
        "redis://… or rediss://….",
        examples=["{seen: sqlite:seen.db}"],
    )
    logging: Annotated[LoggingSpec, OPTIONAL_MAP] = Field(
        default={}, validate_default=True, description="What is logged, and how."
    )
    telemetry: Annotated[TelemetrySpec, OPTIONAL_MAP] = Field(
        default={}, validate_default=True, description="How the process reports its state."
    )
    shutdown: Annotated[ShutdownSpec, OPTIONAL_MAP] = Field(
        default={}, validate_default=True, description="How the pipeline stops."
    )

    redact: Texts = Field(
        default=(),
        description="Parts of payloads that are masked when messages are recorded as tests, as in customer.email.",
        examples=["[customer.email]"],
    )

    reserved: ClassVar[frozenset[str]] = frozenset({"brokers", "middleware", "profiles", "tests"})


ITEM_MODELS: dict[str, type[SpecModel]] = {"queue": QueueSpec, "producer": ProducerSpec, "subscriber": SubscriberSpec}
"""The models of the items that `defaults` are merged under, by their key in `defaults`."""
