"""What the verbs that look at a running broker have in common: there must be one, and a name must be known."""

from __future__ import annotations

from collections.abc import Iterable

from runner.config.words import did_you_mean
from runner.errors import RunnerError
from runner.pipeline.model import BrokerSettings


class NothingLive(RunnerError):
    """The pipeline's broker is the in-process one, which no other process can look into."""

    exit_code = 2


class UnknownPlace(RunnerError):
    """A name on the command line is no queue, event or subscriber of the pipeline."""

    exit_code = 2


def need_broker(settings: BrokerSettings) -> None:
    """Raise NothingLive where there is no broker of its own."""
    if settings.is_memory:
        text = "the pipeline runs on the in-process broker: there is nothing live to look at"
        raise NothingLive(text, "give --broker URL")


def unknown(name: str, what: str, known: Iterable[str]) -> UnknownPlace:
    """Return the error for a name that is none of the known ones."""
    return UnknownPlace(f'no {what} is called "{name}"', did_you_mean(name, known).replace("write one of", "there are"))
