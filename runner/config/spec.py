"""Input: what a pipeline file says, checked: every short form is written out, every default is filled in."""

# Annotations are not postponed here: pydantic would compile the text of each again, 5 ms of every start.

from typing import Annotated, Any, ClassVar, Final, Literal, Self

from pydantic import AliasChoices, BeforeValidator, ConfigDict, Field, model_validator

from runner.config.addresses import EXAMPLE, broker_url
from runner.config.conflicts import Conflict, refuse
from runner.config.fields import (
    DAY,
    Boolean,
    Foreign,
    Text,
    Texts,
    a_map,
    choice,
    duration,
    one_or_many,
    text,
    whole_number,
)
from runner.config.names import BrokerUrl, ExchangeName, Identifier, ImportPath, LiteralKey, Name
from runner.config.producer_spec import ProducerSpec
from runner.config.queue_spec import BindSpec, Exchange, ExchangeSpec, Queue, QueueSpec, SpecModel
from runner.config.subscriber_spec import BatchSpec, DedupeSpec, RetrySpec, SubscriberSpec
from runner.config.words import describe, quoted, wrong
from runner.units import parse_address

Topology = Literal["manage", "verify", "ignore"]
LogFormat = Literal["auto", "console", "json"]
LogLevel = Literal["debug", "info", "warning", "error"]

MEMORY: Final = "memory"

__all__ = [
    "BatchSpec",
    "BindSpec",
    "BrokerSpec",
    "DedupeSpec",
    "EventSpec",
    "ExchangeSpec",
    "LoggingSpec",
    "PipelineSpec",
    "ProducerSpec",
    "QueueSpec",
    "ResourceSpec",
    "RetrySpec",
    "ShutdownSpec",
    "SubscriberSpec",
    "TlsSpec",
]


# The broker


class TlsSpec(SpecModel):
    """Certificates for an amqps broker; files are relative to the pipeline's."""

    ca: Text | None = Field(default=None, description="File with the certificates of the authorities to trust.")
    cert: Text | None = Field(default=None, description="File with our certificate.")
    key: Text | None = Field(default=None, description="File with the private key of our certificate.")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.key is not None and self.cert is None:
            refuse([Conflict(("key",), '"key" needs "cert"', 'add "cert", or remove "key"')])
        return self


def _urls(value: object) -> object:
    if value is None:
        raise wrong("bad-url", "the broker has no URL", "write one, or remove the key for the in-process broker")
    if not isinstance(value, str | list | tuple):
        raise wrong("wrong-type", f"must be a URL or a list of URLs, not {describe(value)}", f"write {EXAMPLE}")
    urls = one_or_many(value)
    return () if urls == (MEMORY,) else urls


def _with_url(schema: dict[str, Any]) -> None:
    """Add the key `url` to the JSON Schema, which knows one name for each field."""
    schema["properties"]["url"] = {"type": "string", "description": "The broker's URL; or urls for several nodes."}


_PARTS: Final = ("host", "port", "vhost", "user", "password")
"""The keys that say together what a URL says."""


def _password(value: object) -> str:
    """Return a password; one that is a number is not shown."""
    if isinstance(value, str):
        return str(value)
    raise wrong("wrong-type", "must be text", "put it in quotes, or write ${RABBITMQ_PASSWORD}")


def _vhost(value: object) -> str:
    vhost = text(value)
    if "%2f" in vhost.lower():
        raise wrong("bad-url", 'the vhost is not encoded here: "%2F" would be a part of its name', 'write "/"')
    return vhost


def _tls(value: object) -> object:
    """Write out the short forms: true and false."""
    return {} if value is True else None if value is False else value


class BrokerSpec(SpecModel):
    """Where messages go. Without URLs: the in-process broker."""

    model_config = ConfigDict(json_schema_extra=_with_url)

    urls: Annotated[tuple[BrokerUrl, ...], BeforeValidator(_urls)] = Field(
        default=(),
        validation_alias=AliasChoices("urls", "url"),
        repr=False,  # passwords
        description="URLs of the cluster's nodes, or one URL under the key url; none: the in-process broker.",
    )
    connect_timeout: Annotated[float, duration(0.001, DAY)] = Field(
        default=60.0, description="How long to wait for the first connection."
    )
    heartbeat: Annotated[float, duration(1, 3600)] = Field(
        default=10.0, description="How often both sides show they are alive."
    )
    topology: Annotated[Topology, choice(Topology)] = Field(
        default="manage", description="manage: declare what is missing; verify: only check; ignore: neither."
    )
    host: Text | None = Field(default=None, description="The broker's host, instead of a URL.")
    port: Annotated[int, BeforeValidator(whole_number), Field(ge=1, le=65_535)] | None = Field(
        default=None, description="Its port; 5672 by default, 5671 with tls."
    )
    vhost: Annotated[str, BeforeValidator(_vhost)] | None = Field(
        default=None, description="Its virtual host, not encoded; / by default."
    )
    user: Text | None = Field(default=None, description="Who logs in, not encoded.")
    password: Annotated[str, BeforeValidator(_password)] | None = Field(
        default=None, repr=False, description="The user's password, not encoded."
    )
    tls: Annotated[TlsSpec | None, BeforeValidator(_tls)] = Field(
        default=None,
        description="true, or certificates; for amqps only. With host it makes the connection an amqps one.",
    )

    @property
    def addresses(self) -> tuple[str, ...]:
        """The URLs, also where the broker is given by its host."""
        return (self._url(),) if self.host is not None else self.urls

    def _url(self) -> str:
        login = (self.user, self.password) if self.user is not None and self.password is not None else None
        vhost = "/" if self.vhost is None else self.vhost
        return broker_url(self.host or "", self.port, vhost, login, is_secure=self.tls is not None)

    @model_validator(mode="after")
    def _check_host(self) -> Self:
        given = [name for name in _PARTS if getattr(self, name) is not None]
        if given and self.host is None:
            refuse([Conflict((given[0],), f'"{given[0]}" needs "host"', 'add "host: localhost", or write a URL')])
        if (self.user is None) != (self.password is None):
            there, missing = ("user", "password") if self.password is None else ("password", "user")
            refuse([Conflict((there,), f'"{there}" needs "{missing}"', f'add "{missing}"')])
        if self.host is not None:
            try:
                self._url()
            except ValueError as error:
                refuse([Conflict(("host",), str(error), "correct it", "bad-url")])
        return self

    @model_validator(mode="after")
    def _check(self) -> Self:
        is_secure = self.host is not None or (self.urls and all(url.startswith("amqps://") for url in self.urls))
        if self.tls is not None and not is_secure:
            help_ = "write amqps:// instead of amqp://, or remove it"
            if not self.urls:
                help_ = 'add "url: amqps://…" or "host", or remove it'
            refuse([Conflict(("tls",), '"tls" needs amqps:// URLs', help_)])
        return self


def _broker(value: object) -> object:
    """Write out the short forms: a URL, or `memory`."""
    if isinstance(value, BrokerSpec):
        return value
    if isinstance(value, str):
        return {"urls": [value]} if value != MEMORY else {}
    if value is not None and not isinstance(value, dict):
        raise wrong("wrong-type", f"must be memory, a URL or a map, not {describe(value)}", 'write "broker: memory"')
    if isinstance(value, dict) and "url" in value and "urls" in value:
        refuse([Conflict(("url",), '"url" and "urls" cannot stand together', "remove one of them")])
    url = next((key for key in ("url", "urls") if isinstance(value, dict) and key in value), None)
    if isinstance(value, dict) and url is not None:
        parts = [part for part in _PARTS if part in value]
        refuse(Conflict((part,), f'"{part}" and "{url}" cannot stand together', "remove one of them") for part in parts)
    return value or {}


# Events


class EventSpec(SpecModel):
    """An event: a named fact of which every subscriber gets a copy."""

    schema_: ImportPath | None = Field(
        default=None, alias="schema", description="The payload's type; without one, any."
    )
    exchange: ExchangeName | None = Field(
        default=None, description="The exchange it is published to; by default events."
    )
    key: LiteralKey | None = Field(default=None, description="Its routing key; by default the event's name.")
    description: Text = Field(default="", description="What the event says, for people.")


def _event(value: object) -> object:
    """Write out the short forms: a schema, or nothing."""
    if isinstance(value, str):
        return {"schema": value}
    return value if isinstance(value, EventSpec) else a_map(value, "an import path or a map")


# Resources


class ResourceSpec(SpecModel):
    """A long-lived thing that handlers need: opened once in each process."""

    factory: ImportPath = Field(
        description="The function or context manager that makes it.", examples=["handlers.db:connect"]
    )
    with_: Foreign = Field(
        default={}, alias="with", description="Values for parameters of the factory, converted to their annotations."
    )


def _resource(value: object) -> object:
    """Write out the short form: the factory."""
    if isinstance(value, str):
        return {"factory": value}
    return value if isinstance(value, ResourceSpec) else a_map(value, "an import path or a map")


Resource = Annotated[ResourceSpec, BeforeValidator(_resource, json_schema_input_type=str | ResourceSpec)]


# The rest


class LoggingSpec(SpecModel):
    """What is logged, and how."""

    format: Annotated[LogFormat, choice(LogFormat)] = Field(
        default="auto", description="console, json, or auto: console on a terminal, json elsewhere."
    )
    level: Annotated[LogLevel, choice(LogLevel)] = Field(default="info", description="The lowest level that is logged.")
    levels: dict[str, Annotated[LogLevel, choice(LogLevel)]] = Field(
        default={}, description="Levels of single loggers."
    )
    messages: Boolean = Field(default=True, description="Whether each message's end is logged.")
    payloads: Boolean = Field(default=False, description="Whether payloads are logged.")


def _address(value: object) -> str:
    is_port = isinstance(value, int) and not isinstance(value, bool)
    address = str(value) if is_port else text(value)
    try:
        parse_address(address)
    except ValueError:
        help_ = f'write "127.0.0.1:{value}"' if is_port else "write HOST:PORT, as in 127.0.0.1:9090"
        raise wrong("bad-address", f"{quoted(address)} is not an address to listen on", help_) from None
    return address


class TelemetrySpec(SpecModel):
    """What the process tells of itself."""

    http: Annotated[str, BeforeValidator(_address)] | None = Field(
        default=None,
        description="Where /healthz and /readyz are answered, HOST:PORT; `up --http` wins.",
        examples=["127.0.0.1:9090"],
    )


class ShutdownSpec(SpecModel):
    """How the pipeline stops."""

    grace: Annotated[float, duration(0, DAY)] = Field(
        default=30.0, description="How long running handlers may take to finish."
    )


class DefaultsSpec(SpecModel):
    """Options merged under each item of a kind before it is checked; the item wins, lists replace."""

    queue: Foreign = Field(default={}, description="Options for each queue.")
    producer: Foreign = Field(default={}, description="Options for each producer.")
    subscriber: Foreign = Field(default={}, description="Options for each subscriber.")


def _version(value: object) -> object:
    if isinstance(value, int) and not isinstance(value, bool) and value == 1:
        return value
    raise wrong("bad-version", f"this version of the language is not known: {describe(value)}", 'write "version: 1"')


def _or_defaults(value: object) -> object:
    return {} if value is None else value


Event = Annotated[EventSpec, BeforeValidator(_event, json_schema_input_type=str | EventSpec | None)]
_Section = BeforeValidator(a_map)


class PipelineSpec(SpecModel):
    """A whole pipeline file."""

    version: Annotated[Literal[1], BeforeValidator(_version)] = Field(
        description="The version of the language: 1.", examples=[1]
    )
    name: Name | None = Field(
        default=None, description="The pipeline's name; by default the file's, without its ending."
    )
    description: Text = Field(default="", description="What the pipeline does, for people.")
    owner: Text | None = Field(default=None, description="Who answers for it.")
    release: Text | None = Field(
        default=None,
        description="Which release of your code this is, for the log, /healthz and the broker; RUNNER_RELEASE wins.",
        examples=["2026.11.3"],
    )
    broker: Annotated[BrokerSpec, BeforeValidator(_broker, json_schema_input_type=str | BrokerSpec)] = Field(
        default={}, validate_default=True, description="memory, an amqp:// or amqps:// URL, or a map."
    )
    include: Texts = Field(default=(), description="Files merged in, relative to this one.")
    python_path: Texts = Field(
        default=(), description="Folders on the import path, before this file's own folder; relative to this file."
    )
    defaults: Annotated[DefaultsSpec, _Section] = Field(
        default={}, validate_default=True, description="Options merged under each queue, producer and subscriber."
    )
    exchanges: Annotated[dict[Name, Exchange], _Section] = Field(default={}, description="Exchanges by name.")
    queues: Annotated[dict[Name, Queue], _Section] = Field(default={}, description="Queues by name.")
    events: Annotated[dict[Name, Event], _Section] = Field(default={}, description="Events by name.")
    producers: Annotated[dict[Name, ProducerSpec], _Section] = Field(default={}, description="Producers by name.")
    subscribers: Annotated[dict[Name, SubscriberSpec], _Section] = Field(default={}, description="Subscribers by name.")
    resources: Annotated[dict[Identifier, Resource], _Section] = Field(
        default={}, description="Long-lived things that handlers need, by the name of the handlers' parameter."
    )
    logging: Annotated[LoggingSpec, _Section] = Field(
        default={}, validate_default=True, description="What is logged, and how."
    )
    telemetry: Annotated[TelemetrySpec, _Section] = Field(
        default={}, validate_default=True, description="What the process tells of itself."
    )
    shutdown: Annotated[ShutdownSpec, _Section] = Field(
        default={}, validate_default=True, description="How the pipeline stops."
    )

    reserved: ClassVar[frozenset[str]] = frozenset({"brokers", "middleware", "profiles", "tests"})
