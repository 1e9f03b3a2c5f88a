"""Meaning: problems that only several pipelines together show: they share a broker, and perhaps a process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations

from runner.errors import Problem, TopologyMismatch
from runner.pipeline.model import Pipeline
from runner.pipeline.topology import merge


def contradictions(pipelines: Sequence[Pipeline], *, is_one_process: bool) -> Iterator[Problem]:
    """Yield what pipelines say against one another; each is reported at the later of two files.

    Pipelines of different brokers have nothing to do with one another, unless they are to run in one process.
    """
    for other, pipeline in combinations(pipelines, 2):
        if pipeline.broker != other.broker:
            if is_one_process:
                message = f"its broker is not that of {other.path}, and pipelines in one process share one"
                yield _problem("broker-conflict", pipeline, message, "run them apart, or pass --broker")
            continue
        if pipeline.name == other.name:
            message = f'two pipelines are called "{pipeline.name}": the other is {other.path}'
            yield _problem("name-clash", pipeline, message, "give one of them another `name:`")
        yield from _different_queues(pipeline, other)
        yield from _different_schemas(pipeline, other)


def unsupported(pipeline: Pipeline) -> Iterator[Problem]:
    """Yield what a pipeline asks for and its broker cannot do."""
    if not pipeline.broker.is_memory:
        return
    for queue in pipeline.topology.queues:
        if queue.arguments.get("x-queue-type") == "stream":
            help_text = "set `broker:` to RabbitMQ, or use another type"
            message = "the in-process broker has no streams"
            yield _problem("not-on-this-broker", pipeline, message, help_text, f"queues.{queue.name}")


def _different_queues(pipeline: Pipeline, other: Pipeline) -> Iterator[Problem]:
    try:
        merge([other.topology, pipeline.topology])
    except TopologyMismatch as error:
        yield _problem("topology-conflict", pipeline, f"{error}: the other is {other.path}", error.hint)


def _different_schemas(pipeline: Pipeline, other: Pipeline) -> Iterator[Problem]:
    """Compare the schemas of names that lead to one place: what one publishes, the other must be able to read."""
    for name, schema in pipeline.schemas.items():
        wanted = other.schemas.get(name)
        is_one_place = name in other.destinations and (
            other.destinations[name].address == pipeline.destinations[name].address
        )
        if wanted is not None and wanted != schema and is_one_place:
            message = f'the schema of "{name}" is {schema}, but {wanted} in {other.path}'
            yield _problem("schema-conflict", pipeline, message, "let both name one type, in a module that both share")


def _problem(code: str, pipeline: Pipeline, message: str, help_text: str, path: str = "") -> Problem:
    return Problem(code=code, message=message, path=path, file=pipeline.path, line=1, column=1, help=help_text)
