"""Pipelines that say different things of one place are found before one of them is deployed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from runner.config.loading import load_text
from runner.pipeline.contradictions import contradictions, unsupported
from runner.pipeline.model import BrokerSettings, Pipeline
from runner.pipeline.resolve import resolve

HERE = "tests.unit.pipeline.sample_handlers"
READS = "subscribers: {s: {from: q, handler: 'H:handle'}}\n"


def pipeline(name: str, text: str) -> Pipeline:
    text = f"version: 1\nname: {name}\n{text}".replace("H:", f"{HERE}:")
    resolved = resolve(load_text(text, Path(f"{name}.yaml"), {}))
    assert resolved.pipeline is not None, resolved.problems
    return resolved.pipeline


def codes(*pipelines: Pipeline, is_one_process: bool = False) -> list[str]:
    return [problem.code for problem in contradictions(pipelines, is_one_process=is_one_process)]


def test_one_queue_with_different_options() -> None:
    """The broker could have it only in one way."""
    first, second = (
        pipeline("a", "queues: {q: }\n" + READS),
        pipeline("b", "queues: {q: {delivery_limit: 5}}\n" + READS),
    )
    (problem,) = contradictions([first, second], is_one_process=False)
    assert (problem.code, problem.file) == ("topology-conflict", "b.yaml")
    assert '"q"' in problem.message
    assert "a.yaml" in problem.message


def test_one_event_with_different_schemas() -> None:
    """What one publishes, the other could not read; an event of another exchange is another event."""
    first = pipeline("a", "events: {e: 'H:Order'}\nsubscribers: {s: {from: e, handler: 'H:handle'}}\n")
    second = pipeline("b", "events: {e: 'H:Other'}\nsubscribers: {s: {from: e, handler: 'H:handle'}}\n")
    third = pipeline(
        "c", "events: {e: {schema: 'H:Other', exchange: x}}\nsubscribers: {s: {from: e, handler: 'H:handle'}}\n"
    )
    assert codes(first, second) == ["schema-conflict"]
    assert codes(first, third) == []


def test_equal_pipelines_do_not_contradict_one_another() -> None:
    """A sender and a receiver describe the same queue."""
    sender = pipeline("a", "queues: {q: }\nproducers: {p: {handler: 'H:produce', to: q}}\n")
    assert codes(sender, pipeline("b", "queues: {q: }\n" + READS), is_one_process=True) == []


def test_two_pipelines_of_one_name() -> None:
    """Their own queues would be the same."""
    assert codes(
        pipeline("a", "queues: {q: }\n" + READS), pipeline("a", "queues: {r: }\n" + READS.replace("q", "r"))
    ) == ["name-clash"]


def test_other_brokers_have_nothing_to_do_with_one_another() -> None:
    """Except where both are to share one process, and one connection."""
    first = pipeline("a", "queues: {q: }\n" + READS)
    second = replace(
        pipeline("b", "queues: {q: {delivery_limit: 5}}\n" + READS), broker=BrokerSettings(("amqp://localhost",))
    )
    assert codes(first, second) == []
    assert codes(first, second, is_one_process=True) == ["broker-conflict"]


def test_what_a_broker_cannot_do_is_said() -> None:
    """Streams are RabbitMQ's."""
    streaming = pipeline("a", "queues: {log: {type: stream}}\nproducers: {p: {handler: 'H:produce', to: log}}\n")
    assert [problem.code for problem in unsupported(streaming)] == ["not-on-this-broker"]
    assert not list(unsupported(replace(streaming, broker=BrokerSettings(("amqp://localhost",)))))
