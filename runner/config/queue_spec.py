"""The models of queues, exchanges and bindings."""

# Annotations are not postponed here: pydantic would compile the text of each again, 5 ms of every start.

import math
from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator, Field

from runner.config.fields import (
    DAY_S,
    MAX_INTEGER,
    Boolean,
    Count,
    Duration,
    OpaqueMap,
    Size,
    choice,
    duration,
    mapping,
    short_form,
    whole_number,
)
from runner.config.messages import describe, spec_error
from runner.config.name_fields import (
    ExchangeName,
    Name,
    OptionalPatterns,
    PayloadPath,
    RoutingKey,
    SchemaPath,
    name,
)
from runner.config.scalars import resolve_scalar
from runner.config.spec_model import Conflict, SpecModel, raise_conflicts

ExchangeType = Literal["topic", "direct", "fanout", "headers"]
QueueType = Literal["quorum", "classic", "stream"]
Overflow = Literal["reject-publish", "drop-head", "reject-publish-dlx"]
Match = Literal["all", "any"]
Compression = Literal["gzip", "deflate", "zstd"]

MAX_PARTITIONS = 256


# Arguments for the broker


def _arguments(value: object) -> object:
    if isinstance(value, dict):
        raise_conflicts(conflict for key, item in value.items() if (conflict := _bad_argument(key, item)))
    return value


def _bad_argument(key: str, value: object) -> Conflict | None:
    if len(key.encode()) > 128:
        return Conflict((key,), "the name of an argument has at most 128 bytes", "write a shorter one", "bad-name")
    if not _fits_amqp(value):
        message = f"cannot be sent to a broker: {describe(value)}"
        return Conflict((key,), message, "write text, true, false, or a number of at most 64 bits", "out-of-range")
    return None


def _fits_amqp(value: object) -> bool:
    match value:
        case bool() | str():
            return True
        case int():
            return -MAX_INTEGER <= value <= MAX_INTEGER
        case float():
            return math.isfinite(value)
        case list():
            return all(_fits_amqp(item) for item in value)
        case dict():
            return all(_fits_amqp(item) for item in value.values())
        case _:
            return False


Arguments = Annotated[OpaqueMap, BeforeValidator(_arguments)]


# Exchanges


class ExchangeSpec(SpecModel):
    """An exchange that the pipeline needs."""

    short_form: ClassVar[str] = "type"

    type: Annotated[ExchangeType, choice(ExchangeType)] = Field(
        default="topic", description="How the exchange routes messages: topic, direct, fanout or headers."
    )
    durable: Boolean = Field(default=True, description="Whether it survives a restart of the broker.")
    declare: Boolean = Field(
        default=True, description="false: another program owns it; check that it exists, never create it."
    )
    arguments: Arguments = Field(default={}, description="Further AMQP arguments, passed to the broker unchanged.")


ExchangeField = Annotated[ExchangeSpec, short_form(ExchangeSpec, ExchangeType | ExchangeSpec | None, "a type or a map")]


# Bindings


class BindSpec(SpecModel):
    """A binding of a queue to an exchange."""

    exchange: ExchangeName = Field(description="The exchange to bind to.", examples=["erp"])
    key: RoutingKey | None = Field(
        default=None, description="The binding key: * matches one word, # any number of words."
    )
    headers: Arguments | None = Field(default=None, description="Headers to match, for a headers exchange.")
    match: Annotated[Match, choice(Match)] = Field(
        default="all", description="Whether all headers must match, or any of them."
    )

    def conflicts(self) -> Iterator[Conflict]:
        if self.headers is None and "match" in self.model_fields_set:
            yield Conflict(("match",), '"match" needs "headers"', 'add "headers", or remove "match"')


# Queues

OPTION_OF_ARGUMENT = {
    "x-queue-type": "type",
    "x-delivery-limit": "delivery_limit",
    "x-max-length": "max_length",
    "x-max-length-bytes": "max_bytes",
    "x-overflow": "overflow",
    "x-message-ttl": "message_ttl",
    "x-max-priority": "max_priority",
    "x-single-active-consumer": "single_active_consumer",
    "x-dead-letter-routing-key": "dead_letter",
    "x-dead-letter-exchange": "dead_letter",
    "x-dead-letter-strategy": "dead_letter",
}
"""The option that sets an AMQP argument. An option that others depend on comes before them."""


def _option(argument: str, value: object) -> str:
    """Return the help for an argument that an option sets, with its value in the option's unit."""
    from runner.config.foreign_words import foreign_word

    option, word = OPTION_OF_ARGUMENT[argument], foreign_word("queue", argument)
    values = word.values(value) if word is not None and word.key == option else []
    if not values and isinstance(value, str | int) and (option != "dead_letter" or argument.endswith("-key")):
        values = [(str(value).lower() if isinstance(value, bool) else str(value), "")]
    if option == "dead_letter" and not values:
        return "write `dead_letter: QUEUE` in the queue instead: it names the queue, and the runner makes the way to it"
    return f'write "{option}: {values[0][0]}" in the queue instead' if values else f'write "{option}" instead'


def _queue_arguments(value: object) -> object:
    if isinstance(value, dict):
        exchange, key_of_it = "x-dead-letter-exchange", "x-dead-letter-routing-key"
        both = {exchange, key_of_it} <= {*value}
        also = {key_of_it: f', in place of "{exchange}", too'} if both else {}
        raise_conflicts(
            Conflict(
                (key,),
                f'"{key}" is set by an option of its own',
                _option(key, item) + also.get(key, ""),
                "modelled-argument",
            )
            for key, item in value.items()
            if key in OPTION_OF_ARGUMENT and not (both and key == exchange)
        )
        raise_conflicts(
            Conflict((key,), f'"{key}" is no argument of AMQP', f'move "{key}" into the queue', "modelled-argument")
            for key in value
            if key in OPTION_OF_ARGUMENT.values()
        )
    return value


# Compression


class CompressSpec(SpecModel):
    """Which messages are compressed when they are published, and how. Handlers get them uncompressed."""

    short_form: ClassVar[str] = "over"

    over: Size = Field(description="Bodies that are larger are compressed.", examples=["4kB"])
    encoding: Annotated[Compression, choice(Compression)] = Field(
        default="gzip", description="gzip, deflate, or zstd (the extra zstd, before Python 3.14)."
    )


CompressField = Annotated[CompressSpec, short_form(CompressSpec, str | CompressSpec)]


def _dead_letter(value: object) -> object:
    if value is False or value is None or (isinstance(value, str) and resolve_scalar(value or " ") is False):
        return value if value is None else False
    if not isinstance(value, str):
        raise spec_error(
            "wrong-type", f"must be a queue's name or false, not {describe(value)}", "write a name or false"
        )
    return name(value)


class QueueSpec(SpecModel):
    """A queue. Sources of the rules: https://www.rabbitmq.com/docs/quorum-queues, https://www.rabbitmq.com/docs/queues."""

    type: Annotated[QueueType, choice(QueueType)] = Field(
        default="quorum",
        description="quorum: replicated and safe; classic: for queues that other programs declare so; stream: a log.",
    )
    durable: Boolean = Field(
        default=True, description="Whether it survives a restart of the broker; false for classic queues only."
    )
    dead_letter: Annotated[Name | Literal[False] | None, BeforeValidator(_dead_letter)] = Field(
        default=None,
        description="The queue for messages that failed for good. Default: <queue>.dead; false drops them.",
    )
    delivery_limit: Count | None = Field(
        default=None,
        description="How many deliveries may end in a crash before the broker dead-letters a message; quorum only.",
    )
    max_length: Count | None = Field(default=None, description="Maximum number of messages.")
    max_bytes: Size | None = Field(default=None, description="Maximum size of all message bodies together.")
    overflow: Annotated[Overflow, choice(Overflow)] | None = Field(
        default=None, description="What the broker does when a limit is reached. Default: reject-publish."
    )
    message_ttl: Annotated[Duration, duration(0, 49 * DAY_S)] | None = Field(
        default=None,
        description="How long a message may wait before it is dead-lettered; in a stream, how long it is kept.",
    )
    max_priority: Annotated[int, BeforeValidator(whole_number), Field(ge=1, le=255)] | None = Field(
        default=None, description="Maximum priority of a message; classic only."
    )
    partitions: Annotated[int, BeforeValidator(whole_number), Field(ge=2, le=MAX_PARTITIONS)] | None = Field(
        default=None,
        description="How many queues share its messages: <queue>.0, <queue>.1, and so on, with one active consumer "
        "each, so that several processes keep the order of each key. Needs `partition_by`.",
        examples=[8],
    )
    partition_by: PayloadPath | None = Field(
        default=None,
        description="A dotted path into the payload: messages with the same value go to the same partition. It is also "
        "the default of `order_by` of its subscribers.",
        examples=["customer.id"],
    )
    single_active_consumer: Boolean = Field(
        default=False,
        description="Deliver messages to one consumer at a time, which keeps their order with `concurrency: 1` or "
        "`order_by`.",
    )
    exclusive: Boolean = Field(
        default=False, description="Only the connection that declares it can use it; classic only."
    )
    auto_delete: Boolean = Field(default=False, description="Delete it when its last consumer is gone; classic only.")
    declare: Boolean = Field(
        default=True, description="false: another program owns it; check that it exists, never create or change it."
    )
    arguments: Annotated[Arguments, BeforeValidator(_queue_arguments)] = Field(
        default={}, description="Further AMQP arguments, passed to the broker unchanged."
    )
    events: OptionalPatterns = Field(default=(), description="Events, or patterns of events, that it receives.")
    bind: tuple[BindSpec, ...] = Field(default=(), description="Bindings to exchanges of other programs.")
    schema_: SchemaPath | None = Field(
        default=None,
        alias="schema",
        description="The payload's type, or a file with a JSON Schema; checked before publishing and after receiving.",
        examples=["schemas/order.json"],
    )

    compress: CompressField | None = Field(
        default=None, description="Compress large messages when they are published.", examples=["4kB"]
    )
    unread: Annotated[Literal["warn", "ignore"], choice(Literal["warn", "ignore"])] = Field(
        default="warn",
        description="ignore: another program reads it, so `validate` does not warn without a subscriber.",
    )

    def conflicts(self) -> Iterator[Conflict]:
        if self.partitions is not None or self.partition_by is not None:
            yield from _partition_conflicts(self)
        if self.type == "stream":
            yield from _stream_conflicts(self)
            return
        if self.type == "quorum":
            yield from _quorum_conflicts(self)
        elif self.delivery_limit is not None:
            message = "a classic queue has no delivery limit"
            yield Conflict(("delivery_limit",), message, 'remove it, or write "type: quorum"')
        if self.overflow is not None and self.max_length is None and self.max_bytes is None:
            message = '"overflow" needs a limit'
            yield Conflict(("overflow",), message, 'add "max_length" or "max_bytes", or remove it')


Lacks = dict[str, tuple[bool, str, str]]
"""By option: whether it is wrong, why, and what to do."""


def _lacking(what: str, lacks: Lacks) -> Iterator[Conflict]:
    for key, (is_wrong, reason, help_) in lacks.items():
        if is_wrong:
            yield Conflict((key,), f"{what} {reason}", help_)


def _partition_conflicts(queue: QueueSpec) -> Iterator[Conflict]:
    if queue.partition_by is None:
        message = '"partitions" needs "partition_by", which says what messages of one partition have in common'
        yield Conflict(("partitions",), message, 'add it, as in "partition_by: customer.id"')
    if queue.partitions is None:
        yield Conflict(("partition_by",), '"partition_by" needs "partitions"', 'add it, as in "partitions: 8"')
        return
    limit = "a limit would hold for each partition, and not for all of them together"
    events = "the broker cannot choose the partition of what is published to an exchange"
    instead = "remove it, and write this queue under `to:`, beside the event, where it is published"
    owner = "must be declared by each pipeline that uses it: the number of partitions is compared"
    lacks: Lacks = {
        "type": (queue.type != "quorum", "must be a quorum queue", 'remove it, or write "type: quorum"'),
        "single_active_consumer": (queue.single_active_consumer, "has one for each partition already", "remove it"),
        "max_length": (queue.max_length is not None, f"has no maximum length: {limit}", "remove it"),
        "max_bytes": (queue.max_bytes is not None, f"has no maximum size: {limit}", "remove it"),
        "declare": (not queue.declare, owner, "remove it, and write the same options as its owner"),
        "events": (bool(queue.events), f"cannot receive events: {events}", instead),
        "bind": (bool(queue.bind), f"cannot be bound to an exchange: {events}", "remove it, and publish by its name"),
    }
    yield from _lacking("a queue with partitions", lacks)


def _quorum_conflicts(queue: QueueSpec) -> Iterator[Conflict]:
    help_ = 'remove it, or write "type: classic"'
    instead = 'write "reject-publish" or "drop-head", or "type: classic"'
    lacks: Lacks = {
        "durable": (not queue.durable, "is always durable", help_),
        "exclusive": (queue.exclusive, "cannot be exclusive", help_),
        "auto_delete": (queue.auto_delete, "cannot be deleted automatically", help_),
        "max_priority": (queue.max_priority is not None, "has no maximum priority", help_),
        "overflow": (queue.overflow == "reject-publish-dlx", "does not support this overflow", instead),
    }
    yield from _lacking("a quorum queue", lacks)


def _stream_conflicts(queue: QueueSpec) -> Iterator[Conflict]:
    """Source: https://www.rabbitmq.com/docs/streams, feature comparison."""
    lacks = {
        "durable": (not queue.durable, "is always durable"),
        "exclusive": (queue.exclusive, "cannot be exclusive"),
        "auto_delete": (queue.auto_delete, "cannot be deleted automatically"),
        "max_priority": (queue.max_priority is not None, "has no priorities"),
        "single_active_consumer": (queue.single_active_consumer, "has no single active consumer"),
        "delivery_limit": (queue.delivery_limit is not None, "has no delivery limit"),
        "dead_letter": (queue.dead_letter is not None, "has no dead letters"),
        "max_length": (queue.max_length is not None, "is limited by its size or age, not by its length"),
        "overflow": (queue.overflow is not None, "always drops its oldest messages at a limit"),
    }
    instead = {"max_length": 'write "max_bytes" or "message_ttl" instead'}
    help_ = 'remove it, or write "type: quorum" or "type: classic"'
    yield from _lacking("a stream", {key: (*why, instead.get(key, help_)) for key, why in lacks.items()})


def _queue(value: object) -> object:
    """Expand the short form: nothing, for all defaults."""
    return value if isinstance(value, QueueSpec) else mapping(value)


QueueField = Annotated[QueueSpec, BeforeValidator(_queue, json_schema_input_type=QueueSpec | None)]
