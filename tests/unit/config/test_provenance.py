"""Where a value comes from, for `runner config --origin`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import BeforeValidator

from runner.config.loader import PipelineFile, load, load_text
from runner.config.spec_model import SpecModel
from runner.operations.language_schema import spec_models
from runner.operations.type_shapes import TypeShape, field_shape, union_members

A = """\
version: 1
include: parts/b.yaml
broker: {url: "${URL:-amqp://u:p@h}"}
defaults:
  subscriber: {concurrency: "${N:-5}", retry: {delay: 2s, max_delay: 3s}}
queues:
  q:
    max_length: 5
events: {e: "m:T"}
subscribers:
  s:
    from: q
    handler: a:b
    retry: {delay: 1s}
    batch: 5
  t: {from: q, handler: 'a:b', retry: 4, to: [q, e]}
"""
B = """\
defaults: {queue: {type: classic}}
queues: {r: }
resources:
  db: a:b
"""


@pytest.fixture
def loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PipelineFile:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "parts").mkdir()
    (tmp_path / "a.yaml").write_text(A)
    (tmp_path / "parts" / "b.yaml").write_text(B)
    loaded = load(tmp_path / "a.yaml", {})
    assert loaded.problems == []
    return loaded


@pytest.mark.parametrize(
    ("path", "origin"),
    [
        (("version",), "a.yaml:1"),
        (("name",), "default"),
        (("broker", "urls"), "a.yaml:3 (${URL})"),
        (("broker", "urls", 0), "a.yaml:3 (${URL})"),
        (("broker", "heartbeat"), "default"),
        (("logging", "format"), "default"),
        (("queues",), "a.yaml:6"),
        (("queues", "q"), "a.yaml:7"),
        (("queues", "q", "max_length"), "a.yaml:8"),
        (("queues", "q", "type"), "default"),
        (("queues", "r"), "parts/b.yaml:2"),
        (("queues", "r", "type"), "parts/b.yaml:1 (defaults)"),
        (("queues", "r", "max_length"), "default"),
        (("resources", "db", "factory"), "parts/b.yaml:4"),
        (("resources", "db", "with"), "default"),
        (("events", "e", "schema"), "a.yaml:9"),
        (("events", "e", "key"), "default"),
        (("subscribers", "s", "from"), "a.yaml:12"),
        (("subscribers", "s", "from", 0), "a.yaml:12"),
        (("subscribers", "s", "concurrency"), "a.yaml:5 (defaults, ${N})"),
        (("subscribers", "s", "retry"), "a.yaml:14"),
        (("subscribers", "s", "retry", "delay"), "a.yaml:14"),
        (("subscribers", "s", "retry", "max_delay"), "a.yaml:5 (defaults)"),
        (("subscribers", "s", "retry", "attempts"), "default"),
        (("subscribers", "s", "batch", "size"), "a.yaml:15"),
        (("subscribers", "s", "batch", "wait"), "default"),
        (("subscribers", "s", "to"), "default"),
        (("subscribers", "t", "retry", "attempts"), "a.yaml:16"),
        (("subscribers", "t", "retry", "delay"), "default"),
        (("subscribers", "t", "to", 1), "a.yaml:16"),
        (("subscribers", "t", "to", 5), "default"),
        (("nowhere", "at", "all"), "default"),
    ],
)
def test_a_value_has_the_place_where_it_is_written(
    loaded: PipelineFile, path: tuple[str | int, ...], origin: str
) -> None:
    """The origin has file and line, variables, and `defaults`; values that are not written have `default`."""
    assert loaded.origin(path) == origin


def test_a_broker_in_short_form_is_its_url() -> None:
    """As are all short forms what they stand for."""
    loaded = load_text("version: 1\nbroker: amqp://u:p@h\n", Path("a.yaml"), {})
    assert loaded.origin(("broker", "urls", 0)) == "a.yaml:2"
    assert loaded.origin(("broker", "heartbeat")) == "default"


def test_a_file_that_is_no_yaml_has_no_origins() -> None:
    """There is nothing to tell."""
    assert load_text("[", Path("a.yaml"), {}).origin(("version",)) == "default"


def test_the_short_forms_are_those_of_the_specs() -> None:
    """A model names the key that its validators put a single value under, and no other model takes one."""
    taken: dict[type[SpecModel], set[str]] = {}
    named: dict[type[SpecModel], set[str]] = {}
    for model in spec_models():
        for field in model.model_fields.values():
            for shape in _values(field_shape(field)):
                if isinstance(shape.type, type) and issubclass(shape.type, SpecModel):
                    taken.setdefault(shape.type, set()).update(_keys_of_single_values(shape))
                    named[shape.type] = {shape.type.short_form} - {""}
    assert taken == named


def _keys_of_single_values(shape: TypeShape) -> Iterator[str]:
    for validator in (item for item in shape.metadata if isinstance(item, BeforeValidator)):
        for example in (5, "word"):
            try:
                made = validator.func(example)  # type: ignore[call-arg]
            except ValueError:
                continue
            if isinstance(made, dict):
                yield from made


def _values(shape: TypeShape) -> Iterator[TypeShape]:
    """Yield a value, its choices, and those of a map of such values."""
    for choice in union_members(shape):
        yield from (shape, choice)
        if choice.is_map and not choice.is_free_form:
            yield from _values(choice.arguments[1])
