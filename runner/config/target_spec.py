"""The model of a destination: a queue or an event that messages are published to, and how they are delivered there."""

# Annotations are not postponed here: pydantic would compile the text of each again, 5 ms of every start.

from collections.abc import Iterable
from typing import Annotated, ClassVar

from pydantic import AfterValidator, BeforeValidator, Field

from runner.config.fields import Duration, duration, one_or_many, short_form, whole_number
from runner.config.name_fields import Name, distinct
from runner.config.spec_model import SpecModel
from runner.message import MAX_DELAY_S, MAX_PRIORITY, MIN_EXPIRES_S, PublishOptions

Delay = Annotated[Duration, duration(0, MAX_DELAY_S)]
Expiry = Annotated[Duration, duration(MIN_EXPIRES_S, MAX_DELAY_S)]
Priority = Annotated[int, BeforeValidator(whole_number), Field(ge=0, le=MAX_PRIORITY)]


class TargetSpec(SpecModel):
    """A queue or an event that messages are published to, and how they are delivered there."""

    short_form: ClassVar[str] = "name"

    name: Name = Field(description="The queue or event.", examples=["reminders"])
    delay: Delay | None = Field(
        default=None,
        description="How long the broker holds each message before it goes to the queue or event.",
        examples=["24h"],
    )
    expires: Expiry | None = Field(
        default=None,
        description="How long a message waits for a handler, after its delay, before it is dead-lettered.",
        examples=["1d"],
    )
    priority: Priority | None = Field(
        default=None,
        description="The priority of the messages: of a classic queue up to its max_priority, of a quorum queue up to "
        "31 from RabbitMQ 4 on.",
    )

    @property
    def options(self) -> PublishOptions | None:
        """The options of the messages, None if there are none."""
        options = PublishOptions(self.delay, self.expires, self.priority)
        return options if options != PublishOptions() else None


def _one_or_many(value: object) -> object:
    """Return a list. One destination stands for a list of one."""
    return (value,) if isinstance(value, dict | TargetSpec) else one_or_many(value)


def _distinct(targets: tuple[TargetSpec, ...]) -> tuple[TargetSpec, ...]:
    """Return the destinations of a list. Duplicates are errors: their messages would have the same ids."""
    distinct(tuple(target.name for target in targets))
    return targets


def target_names(targets: Iterable[TargetSpec]) -> tuple[str, ...]:
    """Return the names of destinations."""
    return tuple(target.name for target in targets)


TargetField = Annotated[TargetSpec, short_form(TargetSpec, Name | TargetSpec)]
OptionalTargets = Annotated[tuple[TargetField, ...], BeforeValidator(_one_or_many), AfterValidator(_distinct)]
Targets = Annotated[OptionalTargets, Field(min_length=1)]
