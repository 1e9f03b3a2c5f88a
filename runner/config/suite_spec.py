"""The model of a test file, `*.test.yaml`: messages that are published to pipelines, and what is expected of them."""

# Annotations are not postponed here: pydantic would compile the text of each again, 5 ms of every start.

import contextlib
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, ConfigDict, Field

from runner.config.field_types import MOMENT, TIME
from runner.config.fields import (
    MAX_INTEGER,
    OPTIONAL_MAP,
    Boolean,
    Count,
    Duration,
    OpaqueMap,
    Text,
    Texts,
    choice,
    duration,
    mapping,
    short_form,
    whole_number,
)
from runner.config.messages import describe, quoted, spec_error
from runner.config.name_fields import ErrorPath, Identifier, ImportPath, Name, OptionalNames
from runner.config.spec import VersionField
from runner.config.spec_model import Conflict, SpecModel
from runner.config.target_spec import Delay, Expiry, Priority
from runner.units import format_duration, parse_duration

_MAX_VIRTUAL_S = 10 * 365 * 86_400.0
_DEFAULT_NOW = datetime(2026, 1, 1, tzinfo=UTC)
_EXAMPLE = "2026-03-28T05:00:00Z"
_TIME_OF_DAY = re.compile(r"\d{2}:\d{2}")


def _time(value: object, expected: str = "a time", example: str = _EXAMPLE) -> datetime:
    """Return a time in UTC. It must be written with the time of day and the offset."""
    try:
        found = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        found = None
    if found is None or (found.tzinfo is None and not _TIME_OF_DAY.search(str(value))):
        raise spec_error("bad-time", f"must be {expected}, not {describe(value)}", f"write it as in {example}")
    if found.tzinfo is None:
        raise spec_error("bad-time", f"the time {quoted(value)} has no time zone", f'add "Z" for UTC: {value}Z')
    return found.astimezone(UTC)


def _moment(value: object) -> datetime | float:
    """Return a time, or the seconds of a duration after the start."""
    if isinstance(value, str):
        with contextlib.suppress(ValueError):
            return parse_duration(value)
    return _time(value, "a time or a duration", f"{_EXAMPLE}, or as in 90s for a duration after the start")


def _none_or_list(name: str, value: object) -> object:
    """Return a list of messages. `name` is their key for the queue or event that they are in."""
    if value == "none":
        return ()
    if isinstance(value, dict):
        help_ = 'write "- " before its first key, or "[" and "]" around its braces'
        if value and all(type(count) is int for count in value.values()):  # as in `handled`
            help_ = f"write [{', '.join(f'{{{name}: {key}, times: {count}}}' for key, count in value.items())}]"
        raise spec_error("wrong-type", "must be none or a list, not a map", help_)
    if not isinstance(value, list | tuple):
        is_count = type(value) is int and value > 0
        item = f"times: {value}" if is_count and name == "queue" else f"{name}: NAME, times: {value}"
        help_ = (
            f"write [{{{item}}}]" if is_count else "write none" if value in (0, None) else "write none, or [{…}, {…}]"
        )
        raise spec_error("wrong-type", f"must be none or a list, not {describe(value)}", help_)
    return value


DeadReason = Literal[
    "exhausted",
    "rejected",
    "invalid",
    "too-large",
    "unreadable",
    "invalid-result",
    "expired",
    "maxlen",
    "delivery_limit",
]
"""Why a message is given up: the runner's reasons, and those of brokers."""

NoAnswerReason = Literal["timeout", DeadReason]

Time = Annotated[datetime, BeforeValidator(_time, json_schema_input_type=str), TIME]
Moment = Annotated[datetime | float, BeforeValidator(_moment, json_schema_input_type=str), MOMENT]
"""A time in UTC, or seconds after the start of the test."""

Number = Annotated[int, BeforeValidator(whole_number), Field(ge=0, le=MAX_INTEGER)]
Counts = Annotated[dict[Name, Number], OPTIONAL_MAP]
VirtualDuration = Annotated[Duration, duration(0, _MAX_VIRTUAL_S)]


class PublishSpec(SpecModel):
    """A message that the test publishes."""

    to: Name = Field(description="The queue or event that gets it.", examples=["order.paid"])
    payload: Any = Field(default=None, description="Its payload.")
    id: Text | None = Field(default=None, description="Its message id. Default: a new one.")
    headers: OpaqueMap = Field(default={}, description="Its headers.")
    at: Moment | None = Field(
        default=None,
        description="When it is published, in virtual time. Default: with the message above it, or at the start.",
        examples=["2h"],
    )
    delay: Delay | None = Field(default=None, description="How long the broker holds it before it arrives.")
    expires: Expiry | None = Field(
        default=None, description="How long it waits for a handler, after its delay, before it is dead-lettered."
    )
    priority: Priority | None = Field(default=None, description="Its priority.")
    reply: Boolean = Field(default=False, description="Whether it is a question: `answers` then has its answer.")
    timeout: VirtualDuration | None = Field(
        default=None, description="With reply: when the question expires, and no answer counts any more. Default: 1h."
    )

    def conflicts(self) -> Iterator[Conflict]:
        if self.reply and self.delay:
            message = '"reply" and a delay cannot be used together: a question cannot be delayed'
            yield Conflict(("delay",), message, "remove one of them")
        if self.timeout is not None and not self.reply:
            yield Conflict(("timeout",), '"timeout" is for questions', 'add "reply: true", or remove it')


# Replacements


class ReplacementSpec(SpecModel):
    """What stands in for the handler of a subscriber or a producer."""

    short_form: ClassVar[str] = "handler"

    raises: ErrorPath | None = Field(
        default=None, description="The exception that each call raises.", examples=["TimeoutError"]
    )
    returns: Any = Field(default=None, description="The result of each call; it is published to `to`, null is not.")
    handler: ImportPath | None = Field(default=None, description="Another function, with the handler's parameters.")
    times: Count | None = Field(
        default=None, description="How many calls are replaced; later ones reach the real handler. Default: all."
    )
    takes: VirtualDuration | None = Field(
        default=None,
        description="How long each call takes, in virtual time, before it raises or returns.",
        examples=["5s"],
    )

    def conflicts(self) -> Iterator[Conflict]:
        given = [key for key in ("raises", "handler") if getattr(self, key) is not None]
        given += ["returns"] if "returns" in self.model_fields_set else []
        if not given and self.takes is None:
            message = 'a replacement needs one of "raises", "returns", "handler" and "takes"'
            yield Conflict((), message, 'add "raises: TimeoutError" or "returns: …"', "missing-key")
        for key in given[1:]:
            yield Conflict((key,), f'"{given[0]}" and "{key}" cannot be used together', "remove one of them")


ReplacementField = Annotated[
    ReplacementSpec, short_form(ReplacementSpec, str | ReplacementSpec, "an import path or a map")
]


class ReplaceSpec(SpecModel):
    """What is replaced: subscribers and producers by their names, resources below `resources`."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, ReplacementField]

    resources: Annotated[dict[Identifier, ImportPath], OPTIONAL_MAP] = Field(
        default={}, description="Other factories of resources, by the resource's name."
    )


# Expectations


class ExpectedMessage(SpecModel):
    """What is expected of a message. Keys that are left out are not compared."""

    payload: Any = Field(default=None, description="A part of its payload: these keys at least, with these values.")
    exactly: Any = Field(default=None, description="Its whole payload.")
    headers: OpaqueMap = Field(default={}, description="Some of its headers.")
    id: Text | None = Field(default=None, description="Its message id.")
    at: Moment | None = Field(default=None, description="When it happens, in virtual time.")
    times: Number = Field(default=1, description="How many such messages there are; 0: there is none.")

    def conflicts(self) -> Iterator[Conflict]:
        if {"payload", "exactly"} <= self.model_fields_set:
            yield Conflict(("exactly",), '"payload" and "exactly" cannot be used together', "remove one of them")


class PublishedSpec(ExpectedMessage):
    """A message that a subscriber or a producer publishes."""

    to: Name = Field(description="The queue or event that gets it.", examples=["order.shipped"])
    arrives: Moment | None = Field(
        default=None, description="When a message with a delay arrives, in virtual time.", examples=["2h"]
    )
    delay: Delay | None = Field(default=None, description="Its delay.")
    expires: Expiry | None = Field(default=None, description="How long it waits for a handler, after its delay.")
    priority: Priority | None = Field(default=None, description="Its priority.")


class DeadSpec(ExpectedMessage):
    """A message that is given up."""

    queue: Name | None = Field(default=None, description="The queue that it comes from.")
    subscriber: Name | None = Field(default=None, description="The subscriber that gives it up.")
    reason: Annotated[DeadReason, choice(DeadReason)] | None = Field(
        default=None, description="Why: the dead letter's reason."
    )
    error_type: Text | None = Field(
        default=None, description="The class of the last error, without its module.", examples=["CarrierAway"]
    )
    error: Text | None = Field(default=None, description="A part of the last error's text.")


class AnswerSpec(ExpectedMessage):
    """The answer to a question of the test, or why there is none. `id` is that of the question."""

    to: Name | None = Field(default=None, description="The queue or event that was asked.")
    reason: Annotated[NoAnswerReason, choice(NoAnswerReason)] | None = Field(
        default=None, description="Why there is no answer: the reason of the dead letter, or timeout."
    )
    error_type: Text | None = Field(default=None, description="The class of the last error, without its module.")
    error: Text | None = Field(default=None, description="A part of the last error's text.")


class RetriedSpec(SpecModel):
    """How often a subscriber's messages are retried."""

    short_form: ClassVar[str] = "count"

    count: Number | None = Field(default=None, description="The number of retries. Default: that of the delays.")
    after: tuple[VirtualDuration, ...] | None = Field(
        default=None, description="The delay before each retry, in order.", examples=[["1s", "2s"]]
    )

    def conflicts(self) -> Iterator[Conflict]:
        if self.count is None and self.after is None:
            message = 'needs "count" or "after"'
            yield Conflict((), message, 'add "count: 3", or the delays as "after: [1s, 2s]"', "missing-key")
        if self.count is not None and self.after is not None and self.count != len(self.after):
            message = f'"count" is {self.count}, and "after" has {len(self.after)} delays'
            yield Conflict(("count",), message, "remove one of them, or correct it")


def _retried(value: object) -> object:
    """Expand the short form: the number of retries."""
    return value if isinstance(value, RetriedSpec | dict) else {"count": whole_number(value)}


RetriedField = Annotated[RetriedSpec, BeforeValidator(_retried, json_schema_input_type=int | RetriedSpec)]


def _none_or(item: Any) -> BeforeValidator:
    name = "queue" if "queue" in item.model_fields else "to"
    return BeforeValidator(partial(_none_or_list, name), json_schema_input_type=Literal["none"] | tuple[item, ...])


class ExpectSpec(SpecModel):
    """What is expected when the test ends. Keys and names that are left out are not compared."""

    handled: Counts = Field(
        default={}, description="How many messages each subscriber handles.", examples=[{"ship": 1}]
    )
    retried: Annotated[dict[Name, RetriedField], OPTIONAL_MAP] = Field(
        default={}, description="How often each subscriber's messages are retried."
    )
    published: Annotated[tuple[PublishedSpec, ...], _none_or(PublishedSpec)] = Field(
        default=(),
        description="The messages that subscribers and producers publish: all messages to each name in the list. none: "
        "they publish nothing.",
    )
    dead: Annotated[tuple[DeadSpec, ...], _none_or(DeadSpec)] = Field(
        default=(), description="All messages that are given up. none: there is none."
    )
    answers: Annotated[tuple[AnswerSpec, ...], _none_or(AnswerSpec)] = Field(
        default=(), description="The answers to all questions of the test. none: it asks none, or they are open."
    )
    duplicates: Counts = Field(
        default={}, description="How many messages each subscriber acknowledges without a call, because of `dedupe`."
    )
    unheard: Counts = Field(
        default={}, description="How many messages of each event are dropped, because no queue receives them."
    )

    def conflicts(self) -> Iterator[Conflict]:
        if not self.model_fields_set:
            yield Conflict((), "nothing is expected", 'add "dead: none" or "handled: {…}"', "missing-key")


# Tests and files


class CaseSpec(SpecModel):
    """A test: what is published, and what is expected."""

    skip: Text | None = Field(default=None, description="Why the test is left out.")
    now: Time | None = Field(
        default=None, description="The virtual time at the start. Default: 2026-01-01T00:00:00Z.", examples=[_EXAMPLE]
    )
    replace: Annotated[ReplaceSpec, OPTIONAL_MAP] = Field(
        default={}, validate_default=True, description="Handlers and resources that are replaced in this test."
    )
    only: OptionalNames = Field(
        default=(), description="The producers and subscribers that run. Default: all.", examples=[["ship"]]
    )
    publish: tuple[PublishSpec, ...] = Field(default=(), description="The messages that the test publishes.")
    run_for: VirtualDuration | None = Field(
        default=None,
        description="How long the pipelines run, in virtual time. Default: until there is nothing left to do.",
        examples=["48h"],
    )
    expect: ExpectSpec = Field(description="What is expected when the test ends.", examples=["{dead: none}"])

    @property
    def start(self) -> datetime:
        """The virtual time at the start."""
        return self.now or _DEFAULT_NOW

    def seconds(self, moment: datetime | float) -> float:
        """Return the seconds from the start to a moment."""
        return (moment - self.start).total_seconds() if isinstance(moment, datetime) else moment

    def conflicts(self) -> Iterator[Conflict]:
        for index, message in enumerate(self.publish):
            at, end = 0.0 if message.at is None else self.seconds(message.at), self.run_for
            if at < 0:
                yield Conflict(("publish", index, "at"), "this is before the test starts", 'write an earlier "now"')
            elif end is not None and at > end:
                text = f'this is after the test ends: "run_for" is {format_duration(end)}'
                yield Conflict(("publish", index, "at"), text, 'write a longer "run_for"')


def _cases(value: object) -> object:
    if value is None or value == {}:
        raise spec_error("no-tests", "there is no test in this file", "write the name of a test, and its keys below it")
    return mapping(value, "a map of tests by their names")


class SuiteSpec(SpecModel):
    """A test file."""

    version: VersionField = Field(description="The version of the language: 1.", examples=[1])
    pipelines: Annotated[Texts, Field(min_length=1)] = Field(
        description="The pipelines that run together: files or folders, relative to this file.",
        examples=["[pipeline.yaml]"],
    )
    env: dict[str, Text] = Field(
        default={}, description="Variables for ${…}. Of the real environment, only PATH and HOME are seen."
    )
    tests: Annotated[dict[str, CaseSpec], BeforeValidator(_cases)] = Field(
        description="Tests by their names.", examples=["{an order is shipped: {…}}"]
    )
