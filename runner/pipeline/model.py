"""Pipelines that are ready to run: handlers are callables, names are addresses, and the topology is computed."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any, Literal

from runner.config.broker_urls import broker_file
from runner.message import Address, Envelope, PublishOptions
from runner.outcome import RetryPolicy, TripPolicy
from runner.pipeline.event_names import EventOf, type_alone
from runner.pipeline.partitioning import Partitioning
from runner.pipeline.topology import Topology
from runner.redaction import mask_passwords
from runner.schedule import Schedule


@dataclass(frozen=True, slots=True)
class TlsSettings:
    """Files for a TLS connection. Without `ca`, the CA certificates of the system are used."""

    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None


def absolute_broker(url: str, folder: Path) -> str:
    """Return the URL of a broker; in a file, with the one path that two pipelines in different folders have for it."""
    path = broker_file(url)
    return url if path is None else f"file:{(folder / path).resolve()}"


@dataclass(frozen=True, slots=True)
class BrokerSettings:
    """The broker and its connection. Without URLs, it is the in-process broker; several are nodes of a cluster.

    URLs contain passwords: they are not in `repr`, and must be masked in output.
    """

    urls: tuple[str, ...] = field(default=(), repr=False)
    connect_timeout_s: float = 60.0
    heartbeat_s: float = 10.0
    topology: Literal["manage", "verify", "ignore"] = "manage"
    tls: TlsSettings | None = None
    management_url: str | None = field(default=None, repr=False)
    """The URL of the management API, if it is not the default one."""

    @property
    def is_memory(self) -> bool:
        """Whether this is the in-process broker."""
        return not self.urls

    @property
    def file(self) -> Path | None:
        """The file of a broker in a file."""
        path = broker_file(self.urls[0]) if self.urls else None
        return None if path is None else Path(path)

    @property
    def is_rabbitmq(self) -> bool:
        """Whether it is reached over AMQP."""
        return bool(self.urls) and self.file is None

    def shown(self) -> str:
        """Return the URLs with masked passwords."""
        return ", ".join(mask_passwords(url) for url in self.urls) or "memory"


@dataclass(frozen=True, slots=True)
class Destination:
    """A queue or an event that messages are published to.

    `encode` turns a payload into a body and its content type, and checks its schema; it raises PublishFailed if the
    payload does not match. Without `needs_queue`, a message that no queue receives is dropped silently.
    """

    name: str
    address: Address
    is_event: bool
    encode: Callable[[Any], tuple[bytes, str]]
    needs_queue: bool = True
    compress: Callable[[bytes], tuple[bytes, str | None]] | None = None
    """Returns a body as it travels, and its content encoding."""
    partitioning: Partitioning | None = None
    counted_as: str = ""
    """What it is called in metrics, where that is not its name: callers that wait for an answer are too many."""
    options: PublishOptions | None = None
    """How its messages are delivered, if a `Publish` does not say so."""
    check_options: Callable[[PublishOptions], None] = lambda _: None
    """Raises PublishFailed for options that its queues do not have."""
    has_quorum_queues: bool = False
    """Whether priorities need a broker whose quorum queues have them."""
    is_delayed_to: bool = False
    """Whether what holds delayed messages for it is part of the topology."""
    origin: Destination | None = None
    """The destination that this one stands for: its messages have options, and may go there by a ladder of delays."""

    def address_of(self, envelope: Envelope) -> Address:
        """Return where a message goes. Raises PublishFailed("invalid") if it has no key for a partition."""
        return self.address if self.partitioning is None else self.partitioning.address_of(envelope)


@dataclass(frozen=True, slots=True)
class Handler:
    """A user's function and what is known about its signature.

    `decode` turns an envelope into the payload. Before it, `check` compares an envelope and its event with the schemas
    of the source. Both raise InvalidMessage. `arguments` are its `with:`, converted to the annotations.
    `payload_parameter` and `message_parameter` are the parameters for the payload and the `Message`, `resources` those
    for resources.
    Parameters in `positional` are passed by position, all others by name; `defaults` has the values of those that get
    nothing. The handler of a batch gets a list of payloads and a list of messages; `decode` decodes each.
    """

    path: str
    call: Callable[..., Any]
    kind: Literal["function", "coroutine", "generator", "async generator"]
    decode: Callable[[Envelope], Any]
    check: Callable[[Envelope, str | None], None] | None = None
    payload_parameter: str | None = None
    message_parameter: str | None = None
    positional: tuple[str, ...] = ()
    defaults: Mapping[str, Any] = field(default_factory=dict)
    arguments: Mapping[str, Any] = field(default_factory=dict)
    resources: tuple[str, ...] = ()

    def bind(self, given: Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the positional and the keyword arguments of a call, from values by the names of parameters."""
        named = {**self.defaults, **given}
        return tuple([named.pop(name) for name in self.positional]), named

    @property
    def takes_payload(self) -> bool:
        """Whether a parameter gets the payload."""
        return self.payload_parameter is not None

    @property
    def is_async(self) -> bool:
        """Whether it runs on the event loop, not in a thread."""
        return self.kind in ("coroutine", "async generator")


@dataclass(frozen=True, slots=True)
class Resource:
    """A long-lived object that handlers need: the result of its factory, which is entered if it is a context manager.

    The arguments of `factory` are bound.
    """

    name: str
    path: str
    factory: Callable[[], Any]


@dataclass(frozen=True, slots=True)
class StoreSettings:
    """A store. Its URL may contain a password."""

    name: str
    url: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Remembering:
    """How long what was done is remembered, and where. Without `key_of`, a message is identified by its id and body."""

    window_s: float
    store: StoreSettings | None = None
    key_of: Callable[[Envelope], bytes] | None = None


HTTP_TIMEOUT_S = 10.0
"""The default time that a POST waits for the confirm of its message."""


@dataclass(frozen=True, slots=True)
class Producer:
    """A source of messages: a function that is called once or by a schedule, or an HTTP path without a handler.

    `http_timeout_s` is the time that a POST waits for the confirm of its message, or for the answer if it `is_call`;
    `idempotency` is for POSTs with an Idempotency-Key; `per_second` is the maximum rate.
    With `once`, it runs once for each value of that key, over all starts.
    """

    name: str
    handler: Handler | None
    to: tuple[Destination, ...]
    schedule: Schedule | None = None
    http_path: str | None = None
    http_timeout_s: float = HTTP_TIMEOUT_S
    is_call: bool = False
    idempotency: Remembering | None = None
    per_second: float | None = None
    once: str | None = None
    is_enabled: bool = True


@dataclass(frozen=True, slots=True)
class Batch:
    """The maximum size of a batch, and how long its first message waits for more."""

    size: int
    wait_s: float


StreamStart = Literal["stored", "first", "last", "next"] | float
"""Where a subscriber begins to read a stream: see `offset` in the language; a number is an age in seconds."""


@dataclass(frozen=True, slots=True)
class Subscriber:
    """A queue, a handler and limits. `event_patterns` are the declared events that reach the queue.

    With `key_of`, messages with the same key are handled one at a time and in order.
    """

    name: str
    queue: str
    event_patterns: tuple[str, ...]
    dead_letter: str | None
    handler: Handler
    to: tuple[Destination, ...]
    concurrency: int
    prefetch: int
    timeout_s: float | None
    retry: RetryPolicy
    batch: Batch | None = None
    key_of: Callable[[Envelope], Hashable] | None = None
    per_second: float | None = None
    dedupe: Remembering | None = None
    runs_in_process: bool = False
    trip: TripPolicy | None = None
    event_of: EventOf = type_alone
    replies: bool = False
    """Whether results also go to the `reply_to` of the message."""
    partitioning: Partitioning | None = None
    is_enabled: bool = True
    is_responder: bool = False
    """Whether the pipeline says so: then a result for a message without `reply_to` is no mistake."""
    stream: StreamStart | None = None
    """Where it begins, if it reads a stream."""

    @property
    def queues(self) -> tuple[str, ...]:
        """The queues on the broker that it consumes: its queue, or the partitions of it."""
        return (self.queue,) if self.partitioning is None else self.partitioning.names


@dataclass(frozen=True, slots=True)
class LoggingSettings:
    """Settings of the log. `levels` are per logger; `messages` says which outcomes of deliveries are logged."""

    format: Literal["auto", "console", "json"] = "auto"
    level: str = "info"
    levels: Mapping[str, str] = field(default_factory=dict)
    messages: str = "all"
    payloads: bool = False
    summary_every_s: float = 60.0


@dataclass(frozen=True, slots=True)
class Pipeline:
    """A pipeline that is ready to run. `destinations` has all queues and events, `schemas` the paths of their types.

    `schema_files` are the files that were read for schemas.
    """

    name: str
    path: str
    broker: BrokerSettings
    destinations: Mapping[str, Destination]
    producers: tuple[Producer, ...]
    subscribers: tuple[Subscriber, ...]
    topology: Topology
    resources: tuple[Resource, ...] = ()
    schemas: Mapping[str, str | Path] = field(default_factory=dict)
    schema_files: tuple[Path, ...] = ()
    logging: LoggingSettings = LoggingSettings()
    grace_s: float = 30.0
    http: tuple[str, int] | None = None
    """The host and port of the HTTP server."""
    is_traced: bool = False
    """Whether publications and attempts are exported as spans."""
    release: str = ""
    """The release of the user's code, from the file."""
    fingerprint: str = ""
    """Identifies the whole pipeline in its file, even if only a part of it runs."""

    redact: tuple[str, ...] = ()
    """The parts of payloads to mask in recorded tests."""

    content_hash: str = ""
    """A hash of everything in the resolved file except the broker."""

    @property
    def disabled(self) -> tuple[str, ...]:
        """The names of the producers and subscribers with `enabled: false`."""
        producers = [item.name for item in self.producers if not item.is_enabled]
        return (*producers, *(item.name for item in self.subscribers if not item.is_enabled))

    @property
    def partitionings(self) -> Mapping[str, Partitioning]:
        """The partitions of its queues, by the name of the queue."""
        return {each.name: each.partitioning for each in self.destinations.values() if each.partitioning is not None}

    @property
    def wait_prefix(self) -> str:
        """The prefix of the names of the wait queues."""
        return f"{self.name}.retry"

    @property
    def delay_prefix(self) -> str:
        """The prefix of the names of the queues that hold delayed messages."""
        return delay_prefix(self.name)


def delay_prefix(pipeline: str) -> str:
    """Return the prefix of the names of the queues that hold the delayed messages of a pipeline."""
    return f"{pipeline}.delay"


def fingerprint_of(subscribers: Iterable[Subscriber], producers: Iterable[Producer]) -> str:
    """Return a hash of the parts of a pipeline: their names, sources, handlers and destinations.

    It changes if one of these changes. Limits, retries and schedules are not a part of it.
    """
    parts = [(each.name, each.queue, each.handler.path, *(to.name for to in each.to)) for each in subscribers]
    parts += [
        (each.name, each.http_path or (each.handler.path if each.handler else ""), *(to.name for to in each.to))
        for each in producers
    ]
    return blake2b(repr(sorted(parts)).encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()
