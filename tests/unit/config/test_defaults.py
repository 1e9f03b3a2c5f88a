"""`defaults`: merged under each item, and judged where they are written."""

from __future__ import annotations

from pathlib import Path

from runner.config.loader import PipelineFile, load_text
from runner.config.spec import PipelineSpec


def load(text: str) -> PipelineFile:
    return load_text("version: 1\n" + text, Path("a.yaml"), {"N": "7"})


def spec(text: str) -> PipelineSpec:
    loaded = load(text)
    assert loaded.problems == []
    assert loaded.spec is not None
    return loaded.spec


def test_the_item_wins_lists_replace_and_maps_are_merged() -> None:
    """Short forms of the item replace a map of the defaults."""
    pipeline = spec(
        "defaults:\n"
        "  queue: {type: classic, max_length: 5, events: [a, b]}\n"
        "  producer: {every: 5s}\n"
        "  subscriber: {concurrency: '${N}', retry: {attempts: 9, delay: 2s}}\n"
        "queues: {x: , y: {type: quorum, events: [c]}}\n"
        "producers: {p: {handler: 'a:b', to: x}}\n"
        "subscribers:\n"
        "  s: {from: x, handler: 'a:b', retry: {delay: 1s}}\n"
        "  t: {from: x, handler: 'a:b', retry: none, concurrency: 1}\n"
    )
    assert (pipeline.queues["x"].type, pipeline.queues["x"].events) == ("classic", ("a", "b"))
    assert (pipeline.queues["y"].type, pipeline.queues["y"].events) == ("quorum", ("c",))
    assert pipeline.queues["y"].max_length == 5
    assert pipeline.producers["p"].every == 5.0
    one, two = pipeline.subscribers.values()
    assert (one.concurrency, one.retry.attempts, one.retry.delay) == (7, 9, 1.0)
    assert (two.concurrency, two.retry.attempts) == (1, 1)


def test_queue_defaults_reach_the_own_queues_of_subscribers_of_events() -> None:
    """A subscriber of a queue has no queue of its own."""
    subscribers = spec(
        "defaults: {queue: {max_length: 5}}\nqueues: {q: }\nsubscribers:\n"
        "  own: {from: some.event, handler: 'a:b'}\n"
        "  set: {from: 'some.*', handler: 'a:b', queue: {max_length: 6, type: classic}}\n"
        "  none: {from: q, handler: 'a:b'}\n"
    ).subscribers
    assert subscribers["own"].queue is not None
    assert subscribers["own"].queue.max_length == 5
    assert subscribers["set"].queue is not None
    assert subscribers["set"].queue.max_length == 6
    assert subscribers["none"].queue is None


def test_a_wrong_default_is_reported_once_where_it_is_written() -> None:
    """However many items it reaches, and also if it reaches none."""
    defaults = "defaults:\n  queue: {max_length: -1, typ: quorum}\n  subscriber: {timeout: 5}\n"
    items = "queues: {a: , b: , c: {}}\nsubscribers: {s: {from: e, handler: 'a:b'}}\n"
    for text in (defaults, defaults + items):
        assert [(problem.path, problem.code, problem.line, problem.column) for problem in load(text).problems] == [
            ("defaults.queue.max_length", "out-of-range", 3, 23),
            ("defaults.queue", "unknown-key", 3, 27),
            ("defaults.subscriber.timeout", "bad-duration", 4, 25),
        ]


def test_a_misspelt_section_of_defaults_is_told() -> None:
    """`queues` for `queue`."""
    (problem,) = load("defaults: {queues: {}}\n").problems
    assert (problem.message, problem.help) == ('unknown key "queues"', 'write "queue:"')


def test_a_default_is_judged_together_with_the_item_it_is_merged_into() -> None:
    """`durable: false` is right for a classic queue and wrong for a quorum queue: told once, at the default."""
    text = "defaults: {queue: {durable: false}}\nqueues: {%s}\n"
    assert load(text % "a: {type: classic}").problems == []
    (problem,) = load(text % "a: {type: classic}, b: , c: ").problems
    assert (problem.path, problem.line, problem.column) == ("queues.b.durable", 2, 29)


def test_a_default_may_be_a_part_that_the_item_completes() -> None:
    """`wait` for all batches, their size in each; but lists are not merged, so their items are judged."""
    text = (
        "defaults: {subscriber: {batch: {wait: 2s}}}\nsubscribers: {s: {from: q, handler: 'a:b', batch: {size: 5}}}\n"
    )
    batch = spec(text).subscribers["s"].batch
    assert batch is not None
    assert (batch.size, batch.wait) == (5, 2.0)
    assert [problem.path for problem in load(text.replace(", batch: {size: 5}", "")).problems] == [
        "subscribers.s.batch"
    ]
    assert [problem.path for problem in load("defaults: {queue: {bind: [{key: x}]}}\n").problems] == [
        "defaults.queue.bind.0"
    ]
    assert [problem.path for problem in load("defaults: {subscriber: {to: [q, q]}}\n").problems] == [
        "defaults.subscriber.to.1"
    ]


def test_a_producer_without_a_source_is_no_fault_of_the_defaults() -> None:
    """Only the items need one."""
    assert load("defaults: {producer: {to: q}}\n").problems == []


def test_required_keys_may_come_from_the_defaults() -> None:
    """One handler for all producers."""
    pipeline = spec("defaults: {producer: {handler: 'a:b'}}\nproducers: {p: {to: q}}\n")
    assert pipeline.producers["p"].handler == "a:b"


def test_a_problem_for_a_merged_value_points_at_the_default() -> None:
    """Other rooms ask for places by the item's path."""
    loaded = load("defaults: {subscriber: {handler: 'a:b'}}\nsubscribers:\n  s: {from: q}\n")
    problem = loaded.problem("x", ("subscribers", "s", "handler"), "m")
    assert (problem.path, problem.line, problem.column) == ("subscribers.s.handler", 2, 34)


def test_defaults_cannot_make_a_small_file_large() -> None:
    """Thousands of items times thousands of defaults are refused before they are merged."""
    text = "defaults: {queue: {arguments: {%s}}}\nqueues: {%s}\n"
    many = ", ".join(f"a{n}: 1" for n in range(2000))
    (problem,) = load(text % (many, ", ".join(f"q{n}: {{}}" for n in range(1000)))).problems
    assert problem.code == "too-large"


def test_a_dead_letter_queue_without_options_gets_no_defaults() -> None:
    """It is what it would be undeclared, so that it can be declared when it exists; with an option it is as others."""
    text = (
        "defaults: {queue: {max_length: 5}}\nevents: {e: }\n"
        "queues: {x: , x.dead: , y: {dead_letter: lost}, lost: {dead_letter: false}, z: , z.dead: {max_bytes: 1kB},\n"
        "  a.s.dead: , t.dead: }\n"
        "subscribers: {s: {from: e, handler: 'a:b'}}\n"
    )
    queues = spec(text).queues
    limited = [name for name, queue in queues.items() if queue.max_length == 5]
    assert limited == ["x", "y", "z", "z.dead", "t.dead"]
    dropping = spec("defaults: {queue: {max_length: 5, dead_letter: false}}\nqueues: {x: , x.dead: }\n").queues
    assert dropping["x.dead"].max_length == 5
