"""Finds what a name on the command line refers to, for the verbs that work on a live broker."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from runner.config.messages import did_you_mean
from runner.errors import InvalidUsage
from runner.pipeline.model import BrokerSettings, Pipeline


class NoLiveBroker(InvalidUsage):
    """The pipeline runs on the in-process broker, which no other process can inspect."""


class UnknownTarget(InvalidUsage):
    """A name on the command line is not a queue, event or subscriber of the pipeline."""


def require_rabbitmq(settings: BrokerSettings, command: str) -> None:
    """Raise NoLiveBroker for a command that works on RabbitMQ only."""
    if settings.file is not None:
        text = f"{command} needs RabbitMQ, and the pipeline has a broker in a file"
        raise NoLiveBroker(text, "`runner status` and `runner dead` read the file; or give --broker amqp://…")


def require_live_broker(settings: BrokerSettings) -> None:
    """Raise NoLiveBroker for the in-process broker."""
    if settings.is_memory:
        text = "the pipeline runs on the in-process broker: there is no live broker to inspect"
        kept = "what it held has ended with `runner up`, and `broker: file:PATH` keeps it from then on"
        raise NoLiveBroker(text, f"give --broker URL for another one: {kept}")


def unknown_target(name: str, what: str, known: Iterable[str], meant: str = "") -> UnknownTarget:
    """Return the error for a name that does not exist; `known` are the names that do, `meant` a help if one is sure."""
    return UnknownTarget(f'no {what} is called "{name}"', meant or did_you_mean(name, known, "there are"))


def ambiguous_target(name: str, pipelines: Iterable[str]) -> UnknownTarget:
    """Return the error for a name that means different things in several pipelines."""
    return UnknownTarget(f'"{name}" means different things in {", ".join(pipelines)}', "name the file of one of them")


def pipeline_with_destination(pipelines: Sequence[Pipeline], name: str) -> Pipeline:
    """Return the one pipeline that has a queue or event of this name. Raises UnknownPlace."""
    found = [pipeline for pipeline in pipelines if name in pipeline.destinations]
    if len(found) > 1:
        files = ", ".join(pipeline.path for pipeline in found)
        raise UnknownTarget(f'{len(found)} pipelines have "{name}": {files}', "name the file of one of them")
    if not found:
        known = dict.fromkeys(target for pipeline in pipelines for target in pipeline.destinations)
        readers = (each for pipeline in pipelines for each in pipeline.subscribers if each.name == name)
        read = [target for each in readers for target in (each.queue, *each.event_patterns) if target in known]
        meant = f'write {read[0]}, from which the subscriber "{name}" gets its messages' if read else ""
        for each in (each for pipeline in pipelines for each in pipeline.subscribers if each.dead_letter == name):
            meant = f'it has the dead letters of queue "{each.queue}", and only the runner publishes to it'
        what = f"queue or event of {', '.join(pipeline.name for pipeline in pipelines)}"
        raise unknown_target(name, what, known, meant)
    return found[0]
