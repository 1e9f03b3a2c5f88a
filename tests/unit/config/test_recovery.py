"""A file with mistakes still shows the rest of its mistakes."""

from __future__ import annotations

from pathlib import Path

import pytest

from runner.config.loader import load_text
from runner.config.recovery import UNKNOWN
from runner.config.spec import PipelineSpec
from runner.config.target_spec import target_names
from runner.pipeline.resolver import resolve


def recovered(text: str) -> PipelineSpec:
    loaded = load_text(text, Path("p.yaml"), {})
    assert loaded.spec is None
    assert loaded.recovered is not None
    return loaded.recovered


GOOD = "subscribers: {good: {from: q, handler: 'a:b'}}\n"


def test_a_misspelt_key_counts_as_the_one_that_was_meant() -> None:
    """So that the handler behind it is imported and judged."""
    spec = recovered("version: 1\nqueues: {q: }\nsubscribers: {s: {from: q, handlr: 'a:b'}}\n")
    assert spec.subscribers["s"].handler == "a:b"


def test_what_is_said_of_a_misspelt_keys_value_has_its_place() -> None:
    """Not that of the map around it."""
    loaded = load_text("version: 1\nsubscribers:\n  s:\n    from: q\n    handlr: a:b\n", Path("p.yaml"), {})
    problem = loaded.problem("x", ("subscribers", "s", "handler"), "", offset=2, length=1)
    assert (problem.line, problem.column, problem.path) == (5, 15, "subscribers.s.handler")


def test_a_misspelt_source_of_a_producer_counts_as_the_one_that_was_meant() -> None:
    """Though none of the three is required by itself."""
    spec = recovered(
        "version: 1\nqueues: {q: }\nproducers: {p: {to: q, handlr: 'a:b'}, r: {to: q, file: x, htp: /x}}\n"
    )
    assert spec.producers["p"].handler == "a:b"
    assert (spec.producers["r"].file, spec.producers["r"].http) == ("x", None)


def test_of_two_sources_one_is_left() -> None:
    """So that the producer's handler is imported and judged."""
    spec = recovered("version: 1\nqueues: {q: }\nproducers: {p: {to: q, handler: 'a:b', file: x}}\n")
    assert (spec.producers["p"].handler, spec.producers["p"].file) == ("a:b", None)


def test_a_queue_with_wrong_options_is_still_a_queue() -> None:
    """Its name would else be unknown where it is used."""
    spec = recovered("version: 1\nqueues: {q: {type: clasic, durable: maybe}, r: 5}\nevents: {e: [1]}\n" + GOOD)
    assert list(spec.queues) == ["q", "r"]
    assert list(spec.events) == ["e"]


def test_what_is_missing_is_replaced_by_what_is_never_looked_for() -> None:
    """The handler of a subscriber without a source is checked all the same."""
    spec = recovered("version: 1\nqueues: {q: }\n" + GOOD.replace("{good", "{bad: {handler: 'a:b'}, good"))
    assert [(name, item.from_) for name, item in spec.subscribers.items()] == [("bad", (UNKNOWN,)), ("good", ("q",))]


def test_wrong_values_deep_down_are_left_out() -> None:
    """Also two in one list, and one that only shows when another is gone."""
    spec = recovered(
        "queues: {q: }\nsubscribers:\n  s:\n    from: q\n    handler: a:b\n    to: [q, 5, 6, r, q]\n"
        "    retry: {attempts: many, delay: 10m, max_delay: 1s}\n    timeout: 30\n"
    )
    assert target_names(spec.subscribers["s"].to) == ("q", "r")
    assert spec.subscribers["s"].timeout is None


def test_an_unset_variable_makes_no_second_problem() -> None:
    """The queue it should have named is not called unknown."""
    spec = recovered("version: 1\nqueues: {q: }\nsubscribers: {s: {from: '${NOPE}', handler: 'a:b'}}\n")
    assert spec.subscribers["s"].from_ == (UNKNOWN,)


def test_an_unset_variable_that_is_handed_on_stays() -> None:
    """The function it is for is not said to lack it; a resource and an exchange keep their names."""
    spec = recovered(
        "version: 1\nresources: {db: {factory: 'a:b', with: {path: '${NOPE}', deep: ['${NOPE}']}}, cache: '${NOPE}'}\n"
        "exchanges: {x: '${NOPE}'}\nqueues: {q: {arguments: {x-a: '${NOPE}'}}}\n"
    )
    assert list(spec.resources["db"].with_) == ["path", "deep"]
    assert list(spec.resources) == ["db", "cache"]
    assert list(spec.exchanges) == ["x"]
    assert spec.queues["q"].arguments == {}


def test_a_right_file_is_not_salvaged() -> None:
    """There is nothing to look for."""
    assert load_text("version: 1\nqueues: {q: }\n" + GOOD, Path("p.yaml"), {}).recovered is None


@pytest.mark.parametrize("name", ['"a*b"', "'x '", '""', "amq.x"])
@pytest.mark.parametrize("section", ["queues", "events", "exchanges"])
def test_a_wrong_name_takes_no_other_name_with_it(section: str, name: str) -> None:
    """Whatever stands behind it."""
    for value in ("", "{}"):
        spec = recovered(f"version: 1\n{section}: {{{name}: {value}, good: }}\nqueues2: {{}}\n")
        assert list(getattr(spec, section)) == ["good"]


@pytest.mark.parametrize("section", ["queues", "producers", "subscribers", "resources"])
def test_a_wrong_name_is_one_problem(section: str) -> None:
    """`a:b` of the others is not called unknown, nor the names that they use."""
    sections = {
        "queues": "q: ",
        "producers": "p: {handler: 'os:listdir', to: q}",
        "subscribers": "s: {from: q, handler: 'json:dumps'}",
        "resources": "r: 'builtins:object'",
    }
    sections[section] = sections[section].replace(sections[section][0], '"a*b": {}, ' + sections[section][0], 1)
    text = "version: 1\n" + "".join(f"{key}: {{{items}}}\n" for key, items in sections.items())
    found = resolve(load_text(text, Path("p.yaml"), {})).problems
    assert {problem.code for problem in found} <= {"bad-name", "missing-key", "no-source"}
    assert all(problem.path.startswith(section) for problem in found), found


@pytest.mark.parametrize("section", ["queues", "events", "exchanges"])
def test_a_section_that_is_no_map_makes_no_name_unknown(section: str) -> None:
    """What it should have had in it is not known."""
    loaded = load_text(
        f"version: 1\n{section}: 5\nsubscribers: {{s: {{from: q, handler: 'json:dumps'}}}}\n", Path("p.yaml"), {}
    )
    assert [problem.path for problem in resolve(loaded).problems] == [section]


@pytest.mark.parametrize(
    ("queue", "codes"),
    [
        ("partitions: '4', partition_by: id, single_active_consumer: true", ["conflicting-options", "wrong-type"]),
        ("type: clasic, max_priority: 5, delivery_limit: 3", ["bad-choice", "conflicting-options"]),
        ("partitions: many, partition_by: id", ["wrong-type"]),  # "partition_by" needs what is wrong
    ],
)
def test_a_wrong_value_does_not_hide_the_conflicts_of_the_options_beside_it(queue: str, codes: list[str]) -> None:
    """Where the right value is certain, it counts; where it is not, what needs it is no conflict."""
    loaded = load_text(f"version: 1\nqueues: {{q: {{{queue}}}}}\n{GOOD}", Path("p.yaml"), {})
    assert sorted(problem.code for problem in loaded.problems) == codes
