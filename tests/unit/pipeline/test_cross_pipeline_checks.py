"""Pipelines that say different things of one place are found before one of them is deployed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from runner.config.loader import load_text
from runner.errors import Problem
from runner.pipeline.cross_pipeline_checks import LoadedPipeline, cross_pipeline_problems, unsupported_options
from runner.pipeline.model import BrokerSettings, absolute_broker
from runner.pipeline.resolver import resolve
from runner.pipeline.topology import Exchange, Queue, merge_topologies

HERE = "tests.unit.pipeline.sample_handlers"
READS = "subscribers: {s: {from: q, handler: 'H:handle'}}\n"


def pipeline(name: str, text: str) -> LoadedPipeline:
    text = f"version: 1\nname: {name}\n{text}".replace("H:", f"{HERE}:")
    loaded = load_text(text, Path(f"{name}.yaml"), {})
    resolved = resolve(loaded)
    assert resolved.pipeline is not None, resolved.problems
    return LoadedPipeline(resolved.pipeline, loaded)


def at_rabbitmq(source: LoadedPipeline, **settings: Any) -> LoadedPipeline:
    """The same, at another broker than the file says, as `--broker` does."""
    broker = BrokerSettings(("amqp://localhost",), **settings)
    return source._replace(pipeline=replace(source.pipeline, broker=broker))


def place(problem: Problem) -> tuple[str, str, int, int]:
    return problem.code, problem.file, problem.line, problem.column


def codes(*pipelines: LoadedPipeline, is_one_process: bool = False) -> list[str]:
    return [problem.code for problem in cross_pipeline_problems(pipelines, is_one_process=is_one_process)]


def test_one_queue_with_different_options() -> None:
    """The broker could have it only in one way."""
    first, second = (
        pipeline("a", "queues: {q: }\n" + READS),
        pipeline("b", "queues: {q: {delivery_limit: 5}}\n" + READS),
    )
    (problem,) = cross_pipeline_problems([first, second], is_one_process=False)
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
    second = at_rabbitmq(pipeline("b", "queues: {q: {delivery_limit: 5}}\n" + READS))
    assert codes(first, second) == []
    assert codes(first, second, is_one_process=True) == ["broker-conflict"]


def test_what_a_broker_cannot_do_is_said() -> None:
    """Streams are RabbitMQ's."""
    streaming = pipeline("a", "queues: {log: {type: stream}}\nproducers: {p: {handler: 'H:produce', to: log}}\n")
    for broker in ("memory", "file:shop.queue"):
        problems = unsupported_options(streaming.loaded, broker)
        assert [problem.code for problem in problems] == ["not-on-this-broker"]
    assert not list(unsupported_options(streaming.loaded, "amqp://localhost"))


def test_the_place_is_that_of_the_key() -> None:
    """In the later file, with the line of the earlier one in the words."""
    first = pipeline("a", "queues:\n  q: {max_length: 9, message_ttl: 5s}\n" + READS)
    second = pipeline("b", "queues:\n  q:\n    message_ttl: 7s\n    max_length: 9\n" + READS)
    (problem,) = cross_pipeline_problems([first, second], is_one_process=True)
    assert place(problem) == ("topology-conflict", "b.yaml", 5, 18)
    assert problem.path == "queues.q.message_ttl"
    assert "a.yaml:4: message_ttl is 7s here, 5s there" in problem.message


def test_every_thing_that_differs_is_reported() -> None:
    """Not the first one only."""
    first = pipeline("a", "exchanges: {x: fanout}\nqueues: {q: , r: }\n" + READS)
    second = pipeline("b", "exchanges: {x: topic}\nqueues: {q: {max_length: 5}, r: {max_bytes: 5kB}}\n" + READS)
    assert codes(first, second) == ["topology-conflict"] * 3


def test_a_dead_letter_queue_that_one_of_them_declares() -> None:
    """In the other one it is a default of the queue that it belongs to."""
    first = pipeline("a", "queues: {q: , q.dead: {max_length: 5}}\n" + READS)
    second = pipeline("b", "queues: {q: }\n" + READS)
    (problem,) = cross_pipeline_problems([first, second], is_one_process=True)
    assert place(problem) == ("topology-conflict", "b.yaml", 3, 10)
    assert problem.path == "queues.q.dead_letter"


def test_settings_of_one_broker() -> None:
    """They share a connection, so `--broker` does not help."""
    first = at_rabbitmq(pipeline("a", "broker: {heartbeat: 20s}\nqueues: {q: }\n" + READS), heartbeat_s=20.0)
    second = at_rabbitmq(pipeline("b", "queues: {q: }\n" + READS))
    (problem,) = cross_pipeline_problems([first, second], is_one_process=True)
    assert place(problem) == ("broker-conflict", "a.yaml", 3, 21)
    assert "heartbeat" in problem.message
    assert "--broker" not in problem.help


def test_equal_settings_that_are_written_differently_are_equal() -> None:
    """Only what comes of them counts."""
    first = pipeline("a", "queues: {q: {type: quorum, durable: true}}\n" + READS)
    second = pipeline("b", "defaults: {queue: {delivery_limit: 20}}\nqueues: {q: }\n" + READS)
    assert codes(first, second, is_one_process=True) == []


OWNER = "queues: {q: {type: classic, max_length: 5}}\nexchanges: {x: fanout}\n"


def test_foreign_items_contradict_no_other_pipeline() -> None:
    """A foreign item takes its options from its owner, and `defaults` does not change them."""
    owner = pipeline("a", OWNER)
    reader = pipeline(
        "b",
        "defaults: {queue: {max_length: 7}}\nqueues: {q: {declare: false}}\nexchanges: {x: {declare: false}}\n" + READS,
    )
    for first, second in ((owner, reader), (reader, owner)):
        assert codes(first, second, is_one_process=True) == []
        merged = merge_topologies([first.pipeline.topology, second.pipeline.topology])
        assert Queue("q", arguments={"x-max-length": 5, "x-overflow": "reject-publish"}) in merged.queues
        assert Exchange("x", "fanout") in merged.exchanges
        assert [item.name for item in merged.queues].count("q") == 1
    assert codes(reader, pipeline("c", "queues: {q: {declare: false}}\n" + READS)) == []


def test_options_of_foreign_items_must_equal_those_of_the_owner() -> None:
    """Options beside `declare: false` are compared, and a problem is at their place; other options are not."""
    owner = pipeline("a", OWNER)
    reader = pipeline(
        "b",
        "queues: {q: {declare: false, max_length: 6}}\nexchanges: {x: {declare: false, type: topic}}\n" + READS,
    )
    found = list(cross_pipeline_problems([owner, reader], is_one_process=True))
    assert [problem.path for problem in found] == ["queues.q.max_length", "exchanges.x.type"]
    assert "max_length is 6 here, 5 there" in found[0].message
    truthful = pipeline("c", "queues: {q: {declare: false, type: classic, max_length: 5}}\n" + READS)
    assert codes(owner, truthful) == []


def test_a_dead_letter_queue_is_the_same_declared_or_not() -> None:
    """One pipeline reads what was given up on in the other."""
    first = pipeline("a", "queues: {q: }\n" + READS)
    second = pipeline("b", "queues: {q: , q.dead: }\n" + READS.replace("from: q", "from: q.dead"))
    assert codes(first, second, is_one_process=True) == []


def test_one_file_is_one_broker_from_whichever_folder(tmp_path: Path) -> None:
    """`..` and links lead to the same file, as its lock does."""
    (tmp_path / "shop").mkdir()
    (tmp_path / "mail").symlink_to(tmp_path / "shop", target_is_directory=True)
    wanted = f"file:{tmp_path / 'data' / 'q'}"
    for folder, written in (("", "data/q"), ("shop", "../data/q"), ("shop", "./.././data/q"), ("mail", "../data/q")):
        assert absolute_broker(f"file:{written}", tmp_path / folder) == wanted
    assert absolute_broker(f"file://{tmp_path}/shop/../data/q", tmp_path) == wanted
    assert absolute_broker("amqp://localhost/../x", tmp_path) == "amqp://localhost/../x"
