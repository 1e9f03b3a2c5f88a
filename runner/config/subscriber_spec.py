"""The model of a subscriber."""

# Annotations are not postponed here: pydantic would compile the text of each again, 5 ms of every start.

import os
import re
from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from runner.config.fields import (
    Boolean,
    Count,
    Duration,
    OpaqueMap,
    Rate,
    Share,
    Text,
    choice,
    duration,
    one_or_many,
    short_form,
    whole_number,
)
from runner.config.messages import describe, quoted, spec_error
from runner.config.name_fields import ErrorPath, ImportPath, Name, Patterns, PayloadPath
from runner.config.queue_spec import QueueSpec
from runner.config.scalars import resolve_scalar
from runner.config.spec_model import Conflict, SpecModel
from runner.config.target_spec import OptionalTargets
from runner.outcome import MAX_DELAY_S, Backoff
from runner.units import format_duration

RunIn = Literal["thread", "process"]


# Retry

ErrorPaths = Annotated[tuple[ErrorPath, ...], BeforeValidator(one_or_many), Field(min_length=1)]


class RetrySpec(SpecModel):
    """How often and when a failed message is tried again."""

    short_form: ClassVar[str] = "attempts"

    attempts: Count = Field(default=3, description="Maximum number of attempts, the first one included.")
    backoff: Annotated[Backoff, choice(Backoff, ": exponential doubles the delay; there are no other factors")] = Field(
        default="exponential", description="How the delay grows: exponential (it doubles), linear or fixed."
    )
    delay: Annotated[Duration, duration(0, MAX_DELAY_S)] = Field(
        default=1.0, description="The delay after the first failure."
    )
    max_delay: Annotated[Duration, duration(0, MAX_DELAY_S)] = Field(default=300.0, description="Maximum delay.")
    jitter: Share | None = Field(
        default=None,
        description="How much shorter or longer a delay may be, so that messages that failed together do not return "
        "together. It makes five delays of each, and so up to five wait queues.",
    )
    on: ErrorPaths | None = Field(
        default=None, description="Exceptions to retry after; after any other, the message is dead-lettered at once."
    )
    not_on: ErrorPaths | None = Field(
        default=None,
        description="Exceptions after which the message is dead-lettered at once, also if `on` has one of their base "
        "classes.",
    )

    def conflicts(self) -> Iterator[Conflict]:
        if self.delay > self.max_delay:
            message = f'"delay" is longer than "max_delay", which is {format_duration(self.max_delay)}'
            growth = {"exponential": 2 ** (self.attempts - 2), "linear": self.attempts - 1}.get(self.backoff, 1)
            longest = min(self.delay * max(1, growth), max(self.delay, _LONG_DELAY_S))
            yield Conflict(("delay",), message, f'write "max_delay: {format_duration(longest)}"')
        if both := set(self.on or ()).intersection(self.not_on or ()):
            message = f'"on" has {quoted(min(both))} as well, so it would never be retried'
            yield Conflict(("not_on",), message, "remove it from one of them")


_LONG_DELAY_S = 86_400.0
"""The longest delay that is proposed where a longer one is not written."""


def _retry(value: object) -> object:
    """Expand the short forms: `none`, or the number of attempts."""
    if isinstance(value, RetrySpec | dict):
        return value
    if value == "none":
        return {"attempts": 1}
    if _is_number(value) and whole_number(value) != 0:
        return {"attempts": whole_number(value)}
    help_ = 'write "retry: none", or a number of attempts, as in "retry: 5"'
    raise spec_error("wrong-type", f"must be none, a number from 1 or a map, not {describe(value)}", help_)


def _is_number(value: object) -> bool:
    """Whether a value is a whole number, or a text that looks like one."""
    if isinstance(value, str):
        value = resolve_scalar(value or " ")
    return isinstance(value, int) and not isinstance(value, bool)


# The kill switch


class TripSpec(SpecModel):
    """When a subscriber pauses by itself, instead of emptying its queue into the dead letters."""

    short_form: ClassVar[str] = "failures"

    failures: Share = Field(
        default=0.5, description="The share of attempts that must fail. Messages that cannot be decoded do not count."
    )
    over: Annotated[Duration, duration(1, 86_400)] = Field(
        default=60.0, description="The time in which attempts are counted."
    )
    least: Count = Field(default=20, description="Minimum number of attempts in that time, successful ones included.")
    pause: Annotated[Duration, duration(0.1, 86_400)] = Field(
        default=30.0,
        description="How long the first pause takes. Then one message is let through: if it is handled, the subscriber "
        "goes on; if it fails, the next pause takes twice as long, up to ten times the first one.",
    )
    on: ErrorPaths | None = Field(
        default=None, description="Exceptions that count as failures. Default: all that the handler raises, but Reject."
    )


# Batches and duplicates


class BatchSpec(SpecModel):
    """How many messages a handler gets at once."""

    short_form: ClassVar[str] = "size"

    size: Annotated[int, BeforeValidator(whole_number), Field(ge=1, le=10_000)] = Field(
        description="Maximum number of messages in a batch.", examples=[200]
    )
    wait: Annotated[Duration, duration(0.001, 3600)] = Field(
        default=1.0, description="How long the first message of a batch waits for more."
    )


def _batch(value: object) -> object:
    """Expand the short form: the size."""
    if isinstance(value, BatchSpec | dict):
        return value
    if _is_number(value):
        return {"size": whole_number(value)}
    raise spec_error("wrong-type", f"must be a number or a map, not {describe(value)}", 'write "batch: 200"')


class DedupeSpec(SpecModel):
    """How long what was done is remembered, by which key, and where."""

    short_form: ClassVar[str] = "window"

    window: Annotated[Duration, duration(0.001)] = Field(
        description="How long what comes again is not done again; without a store for the newest 100,000 at most.",
        examples=["1h"],
    )
    key: PayloadPath | None = Field(
        default=None,
        description="A dotted path into the payload: messages with the same value are the same. Default: those with "
        "the same id and the same body.",
        examples=["order.id"],
    )
    store: Name | None = Field(
        default=None,
        description="One of `stores`, which remembers for all processes and over restarts. Default: the memory of the "
        "process.",
    )


def _no_key_alone(value: object) -> object:
    """Refuse the path of a key in the place of the window."""
    if type(value) is str and re.fullmatch(r"(?:[A-Za-z_]\w*\.)+[A-Za-z_]\w*|\w*(?:id|Id|ID|key|Key|number)", value):
        message = f"must be a duration or a map, not the text {quoted(value)}"
        raise spec_error("bad-duration", message, f"write {{window: 1h, key: {value}}}")
    return value


OffsetWord = Literal["stored", "first", "last", "next"]


def _offset(value: object) -> object:
    """Return one of the words, or a duration in seconds."""
    is_age = str(value)[:1].isdigit()
    return (duration(1) if is_age else choice(OffsetWord)).func(value)  # type: ignore[call-arg]


RetryField = Annotated[RetrySpec, BeforeValidator(_retry, json_schema_input_type=Literal["none"] | int | RetrySpec)]
BatchField = Annotated[BatchSpec, BeforeValidator(_batch, json_schema_input_type=int | BatchSpec)]
TripField = Annotated[TripSpec, short_form(TripSpec, str | TripSpec)]
OffsetField = Annotated[Duration | OffsetWord, BeforeValidator(_offset, json_schema_input_type=OffsetWord | str)]
DedupeField = Annotated[
    DedupeSpec,
    short_form(DedupeSpec, str | DedupeSpec),
    BeforeValidator(_no_key_alone, json_schema_input_type=str | DedupeSpec),
]


# Subscribers


class SubscriberSpec(SpecModel):
    """A subscriber: a source, a handler and limits."""

    from_: Patterns = Field(
        alias="from",
        description="A queue, an event, a pattern of events, or a list of events.",
        examples=["order_queue"],
    )
    handler: ImportPath = Field(
        description="The function that gets each message.", examples=["handlers.orders:process_order"]
    )
    enabled: Boolean = Field(
        default=True,
        description="false: no process runs it. Its queue is still declared, and keeps the messages for it.",
    )
    to: OptionalTargets = Field(default=(), description="Where results go.")
    reply: Boolean | None = Field(
        default=None,
        description="Whether results go to the `reply_to` of their message. Default: true without `to`. With an "
        "explicit true, a handler that returns nothing answers null.",
    )
    with_: OpaqueMap = Field(
        default={},
        alias="with",
        description="Values for parameters of the handler, converted to their annotations.",
    )
    concurrency: Annotated[int, BeforeValidator(whole_number), Field(ge=1, le=10_000)] = Field(
        default=10,
        description="Maximum number of handlers that run at once in one process. Default with run_in: process: the "
        "number of usable cores, at most 10.",
    )
    prefetch: Annotated[int, BeforeValidator(whole_number), Field(ge=1, le=65_535)] | None = Field(
        default=None, description="Maximum number of unacknowledged messages. Default: derived from concurrency."
    )
    timeout: Annotated[Duration, duration(0.001)] | None = Field(
        default=None,
        description="Maximum duration of one attempt. After it, an async def is cancelled, and a process (run_in: "
        "process) is killed. A def in a thread cannot be stopped: its attempt fails when it returns, and until then it "
        "counts for concurrency.",
    )
    retry: RetryField = Field(default={}, validate_default=True, description="none, a number of attempts, or a map.")
    trip: TripField | None = Field(
        default=None,
        description="Pauses the subscriber in this process when too many attempts fail: their share, or a map.",
    )
    batch: BatchField | None = Field(
        default=None, description="Gives the handler lists of messages: the maximum size, or a map of size and wait."
    )
    order_by: PayloadPath | None = Field(
        default=None,
        description="A dotted path into the payload: messages with the same value are handled one at a time, in order.",
    )
    rate: Rate | None = Field(default=None, description="Maximum rate of handling, as in 100/s, 10/m, 5/h or 20/d.")
    dedupe: DedupeField | None = Field(
        default=None,
        description="Skips messages that have been handled before: for a duration, or a map of window, key and store.",
    )
    run_in: Annotated[RunIn, choice(RunIn)] | None = Field(
        default=None,
        description="Where a def handler runs: thread (the default), or process, in a pool of as many processes as "
        "concurrency.",
    )
    offset: OffsetField | None = Field(
        default=None,
        description="Where it begins in a stream. stored (the default): where it was, and the first time at the first "
        "message. At each start of the pipeline: first, last (the last messages that were written together), next "
        "(what comes from now on), or a duration: messages of that age.",
        examples=["1h"],
    )
    queue: QueueSpec | None = Field(
        default=None, description="Options of the subscriber's own queue, if it subscribes to events."
    )
    description: Text = Field(default="", description="What it does, for people.")

    def conflicts(self) -> Iterator[Conflict]:
        if self.batch is None:
            return
        if self.order_by is not None:
            yield Conflict(("order_by",), '"order_by" and "batch" cannot be used together', "remove one of them")
        if self.reply:
            message = '"reply" and "batch" cannot be used together: the result of a batch belongs to no single message'
            yield Conflict(("reply",), message, "remove one of them")
        if self.prefetch is not None and self.prefetch < self.batch.size:
            message = f'"prefetch" is smaller than a batch, which has {self.batch.size} messages'
            yield Conflict(("prefetch",), message, f"write at least {self.batch.size}, or remove it")

    @property
    def answers(self) -> bool:
        """Whether results go to the `reply_to` of their message."""
        return self.reply if self.reply is not None else not (self.to or self.batch)

    @model_validator(mode="after")
    def _limit_concurrency(self) -> Self:
        if self.run_in == "process" and "concurrency" not in self.model_fields_set:
            object.__setattr__(self, "concurrency", min(self.concurrency, _usable_cores()))
        return self


def _usable_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
