"""Meaning: what will run. Handlers are callables, names are addresses, topology is computed. Never validated again."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any, Literal

from runner.message import Address, Envelope
from runner.outcome import RetryPolicy
from runner.pipeline.event_names import EventOf, type_alone
from runner.pipeline.topology import Topology
from runner.redaction import mask_passwords
from runner.schedule import Schedule


@dataclass(frozen=True, slots=True)
class TlsSettings:
    """Files for an `amqps` connection; `ca` None means the system's own authorities."""

    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None


@dataclass(frozen=True, slots=True)
class BrokerSettings:
    """Which broker, and how to reach it. No URL means the embedded in-process broker; several are nodes of a cluster.

    URLs hold passwords: they stay out of `repr` and are masked wherever they are shown.
    """

    urls: tuple[str, ...] = field(default=(), repr=False)
    connect_timeout_s: float = 60.0
    heartbeat_s: float = 10.0
    topology: Literal["manage", "verify", "ignore"] = "manage"
    tls: TlsSettings | None = None
    management_url: str | None = field(default=None, repr=False)
    """Where the management API is, if not at its usual place."""

    @property
    def is_memory(self) -> bool:
        """Whether this is the in-process broker."""
        return not self.urls

    def shown(self) -> str:
        """Return the address as it may be shown, passwords masked."""
        return ", ".join(mask_passwords(url) for url in self.urls) or "memory"


@dataclass(frozen=True, slots=True)
class Destination:
    """A queue or an event that messages are published to.

    `encode` turns a payload into a body and its content type, checked against the schema; it raises PublishFailed where
    they do not fit. Without `needs_queue` a message that no queue takes is published all the same, and gone.
    """

    name: str
    address: Address
    is_event: bool
    encode: Callable[[Any], tuple[bytes, str]]
    needs_queue: bool = True
    counted_as: str = ""
    """What it is called in metrics, where that is not its name: callers that wait for an answer are too many."""


@dataclass(frozen=True, slots=True)
class Handler:
    """A user's function, with everything about its signature found out beforehand.

    `decode` turns an envelope into the payload or raises InvalidMessage; before it, `check` raises that for an envelope
    (and the event that it is) that does not fit the schemas of what is heard. `arguments` are its `with:`, converted to
    the annotations; `payload_parameter` and `message_parameter` name the parameters that get the payload and the
    `Message`, `resources` those that get a resource. `positional` are passed by position, all others by name;
    `defaults` are for those of them that get nothing. The handler of a batch gets a list of payloads and a list of
    messages; `decode` then decodes each.
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
        """Return what is given, by the names of parameters, as the arguments of a call: by position and by name."""
        named = {**self.defaults, **given}
        return tuple([named.pop(name) for name in self.positional]), named

    @property
    def takes_payload(self) -> bool:
        """Whether a parameter gets the payload."""
        return self.payload_parameter is not None

    @property
    def is_async(self) -> bool:
        """Whether it runs on the event loop, and not in a thread."""
        return self.kind in ("coroutine", "async generator")


@dataclass(frozen=True, slots=True)
class Resource:
    """A long-lived thing that handlers need: what its factory returns, entered where it can be.

    `factory` has its arguments already.
    """

    name: str
    path: str
    factory: Callable[[], Any]


HTTP_TIMEOUT_S = 10.0
"""How long a POST waits for the confirm of its message, where the producer says nothing else."""


@dataclass(frozen=True, slots=True)
class Producer:
    """What brings messages in: a function, called once or by a schedule, or an HTTP path (`handler` is None then).

    `http_timeout_s` is how long a POST waits for the confirm of its message; `per_second` limits what it publishes.
    With `once`, it runs once for each value of that key, over all starts.
    """

    name: str
    handler: Handler | None
    to: tuple[Destination, ...]
    schedule: Schedule | None = None
    http_path: str | None = None
    http_timeout_s: float = HTTP_TIMEOUT_S
    per_second: float | None = None
    once: str | None = None


@dataclass(frozen=True, slots=True)
class Batch:
    """How many messages a handler gets at once, and how many seconds the first of them waits for the others."""

    size: int
    wait_s: float


@dataclass(frozen=True, slots=True)
class Subscriber:
    """A source, a handler and limits. `queue` is what it reads, `event_patterns` what it is bound to (for people).

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
    dedupe_window_s: float | None = None
    runs_in_process: bool = False
    event_of: EventOf = type_alone
    replies: bool = False
    """Whether results go to the `reply_to` of the message, too."""


@dataclass(frozen=True, slots=True)
class LoggingSettings:
    """How lines are written; `levels` are per logger, `messages` says which messages have lines, as in the file."""

    format: Literal["auto", "console", "json"] = "auto"
    level: str = "info"
    levels: Mapping[str, str] = field(default_factory=dict)
    messages: str = "all"
    payloads: bool = False
    summary_every_s: float = 60.0


@dataclass(frozen=True, slots=True)
class Pipeline:
    """One pipeline, ready to run. `destinations` are all its queues and events by name, `schemas` their types
    as import paths."""

    name: str
    path: str
    broker: BrokerSettings
    destinations: Mapping[str, Destination]
    producers: tuple[Producer, ...]
    subscribers: tuple[Subscriber, ...]
    topology: Topology
    resources: tuple[Resource, ...] = ()
    schemas: Mapping[str, str] = field(default_factory=dict)
    logging: LoggingSettings = LoggingSettings()
    grace_s: float = 30.0
    http: tuple[str, int] | None = None
    """Where probes are answered, host and port."""
    is_traced: bool = False
    """Whether publications and attempts are exported as spans."""
    release: str = ""
    """Which release of the user's code this is, as the file says."""
    fingerprint: str = ""
    """Stands for the whole pipeline as its file has it, also where only a part of it runs."""

    content_hash: str = ""
    """Stands for everything that the resolved file says, but for its broker."""

    @property
    def wait_prefix(self) -> str:
        """The beginning of the names of this pipeline's wait queues."""
        return f"{self.name}.retry"


def fingerprint_of(subscribers: Iterable[Subscriber], producers: Iterable[Producer]) -> str:
    """Return what stands for the parts of a pipeline: names, what they read and run, and where they publish.

    It changes where a release changes one of these; limits, retries and schedules are left out.
    """
    parts = [(each.name, each.queue, each.handler.path, *(to.name for to in each.to)) for each in subscribers]
    parts += [
        (each.name, each.http_path or (each.handler.path if each.handler else ""), *(to.name for to in each.to))
        for each in producers
    ]
    return blake2b(repr(sorted(parts)).encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()
