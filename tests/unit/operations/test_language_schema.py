"""The JSON Schema of the language, judged by an implementation that is not ours."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from jsonschema import Draft202012Validator

from runner.config.document import plain_data
from runner.config.loader import find_pipelines, load_text
from runner.config.spec import PipelineSpec
from runner.config.spec_model import SpecModel, field_keys
from runner.config.suite_loader import read_suite
from runner.config.suite_spec import SuiteSpec
from runner.config.yaml_parser import parse_yaml
from runner.operations.language_schema import Schema, language_schema, spec_models, suite_schema
from tests.process import ROOT
from tests.unit.operations.examples import yaml_blocks
from tests.unit.operations.written_pipelines import pipelines
from tools.reference.language import language_reference, suite_reference

SCHEMA = language_schema()
VALIDATOR = Draft202012Validator(SCHEMA)


def data(text: str) -> Any:
    return plain_data(parse_yaml(text, Path("a.yaml"))[0].root)


def complaints(text: str) -> list[str]:
    return [error.message for error in VALIDATOR.iter_errors(data(text))]


def test_it_is_a_schema_of_the_draft_it_names() -> None:
    """Every keyword is known and used as it should be; nothing of Python's is left in it."""
    Draft202012Validator.check_schema(SCHEMA)
    known = {
        *("$schema", "$defs", "$ref", "title", "description", "default", "examples", "type", "enum", "const"),
        *("properties", "required", "additionalProperties", "patternProperties", "propertyNames"),
        *("items", "minItems", "allOf", "anyOf", "oneOf", "if", "else", "not", "minimum", "maximum", "pattern"),
    }
    assert set(_keywords(SCHEMA)) <= known
    assert SCHEMA["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert "$id" not in SCHEMA


def _keywords(made: Any) -> Iterator[str]:
    """Yield every keyword of a schema, and not the names under `properties` and `$defs`."""
    if isinstance(made, list):
        for item in made:
            yield from _keywords(item)
    elif isinstance(made, dict):
        for keyword, value in made.items():
            yield keyword
            if keyword in ("properties", "$defs", "patternProperties"):
                for item in value.values():
                    yield from _keywords(item)
            elif keyword not in ("default", "examples", "enum", "const", "required"):
                yield from _keywords(value)


@pytest.mark.parametrize("path", find_pipelines([ROOT / "pipelines"]), ids=lambda path: path.name)
def test_the_examples_are_valid(path: Path) -> None:
    """Every pipeline in the repository."""
    assert complaints(path.read_text("utf-8")) == []


def test_the_examples_of_the_reference_are_valid() -> None:
    """Whole pipelines."""
    for text in yaml_blocks(language_reference()):
        if "version" in data(text):
            assert complaints(text) == [], text


@settings(max_examples=60, suppress_health_check=list(HealthCheck), deadline=None)
@given(pipelines())
def test_what_the_runner_accepts_is_valid(written: dict[str, Any]) -> None:
    """An editor never underlines what would run."""
    text = json.dumps(written, ensure_ascii=False)
    assume(load_text(text, Path("pipeline.yaml"), {}).spec is not None)
    assert complaints(text) == []


@pytest.mark.parametrize(
    "text",
    [
        "broker: memory",
        "broker: amqps://u:p@h",
        "broker: ${URL}",
        "broker: {url: 'amqp://u:p@h'}",
        "broker: {urls: amqp://u:p@h}",
        "broker: ",
        "queues: ",
        "queues: {q: }",
        "queues: {q: {max_bytes: 1MiB, durable: '${D:-true}', type: '${T}', dead_letter: false}}",
        "events: {e: , f: a.b:C, g: {schema: a.b:C}}",
        "exchanges: {e: topic, f: , g: {type: fanout}}",
        "subscribers: {s: {from: [a, b], handler: 'a:b', retry: none, timeout: 1.5s}}",
        "subscribers: {s: {from: a, handler: '${H}', retry: 5, concurrency: '${N:-16}', to: [a]}}",
        "subscribers: {s: {from: 'a.*', handler: 'a:b', retry: {on: TimeoutError, delay: '${D}'}, with: }}",
        "x-anything: [1, {a: 3}]",
        "python_path: src",
        "defaults: {queue: {type: classic}, subscriber: {timeout: 5s}}",
        "defaults: {subscriber: {handler: 'a:b'}}\nsubscribers: {s: {from: q}}",
        "defaults: {subscriber: {from: q, handler: 'a:b'}}\nsubscribers: {s: {}}",
        "defaults: {subscriber: {batch: {size: 5}}}\nsubscribers: {s: {from: q, handler: 'a:b', batch: {wait: 1s}}}",
        "defaults: {subscriber: {batch: {wait: 1s}}}\nsubscribers: {s: {from: q, handler: 'a:b', batch: {size: 5}}}",
        "defaults: {producer: {to: q, handler: 'a:b'}}\nproducers: {p: {every: 5s}}",
        "defaults: {producer: {to: q}}\nproducers: {p: {file: a.csv}, r: {http: /a, to: [r]}}",
    ],
)
def test_short_forms_variables_and_empty_sections_are_valid(text: str) -> None:
    """As they are for the runner."""
    assert complaints(f"version: 1\n{text}\n") == []


@pytest.mark.parametrize(
    "text",
    [
        "",
        "version: 2",
        "version: '1'",
        "version: 1\nqueue: {}",
        "version: 1\nqueues: {q: {typ: classic}}",
        "version: 1\nqueues: {q: {type: clasic}}",
        "version: 1\nqueues: {q: {max_bytes: 5}}",
        "version: 1\nqueues: {q: {max_bytes: 5 MB}}",
        "version: 1\nqueues: {q: {max_length: 0}}",
        "version: 1\nqueues: {q: {durable: 'yes'}}",
        "version: 1\nqueues: {'a.*': }",
        "version: 1\nqueues: [q]",
        "version: 1\nbroker: redis://h",
        "version: 1\nbroker: {url: 'redis://h'}",
        "version: 1\nbroker: {heartbeat: 10}",
        "version: 1\nexchanges: {e: topics}",
        "version: 1\nevents: {e: not an import path}",
        "version: 1\nsubscribers: {s: {from: q}}",
        "version: 1\nsubscribers: {s: {handler: 'a:b'}}",
        "version: 1\nsubscribers: {s: {from: q, handler: a.b}}",
        "version: 1\nsubscribers: {s: {from: [], handler: 'a:b'}}",
        "version: 1\nsubscribers: {s: {from: q, handler: 'a:b', timeout: 30}}",
        "version: 1\nsubscribers: {s: {from: q, handler: 'a:b', timeout: 30 seconds}}",
        "version: 1\nsubscribers: {s: {from: q, handler: 'a:b', retry: never}}",
        "version: 1\nsubscribers: {s: {from: q, handler: 'a:b', retry: 0}}",
        "version: 1\nsubscribers: {s: {from: q, handler: 'a:b', concurrency: many}}",
        "version: 1\nsubscribers: {s: {from: q, handler: 'a:b', concurrency: 100000}}",
        "version: 1\nsubscribers: {s: {from: q, handler: 'a:b', with: [1]}}",
        "version: 1\nproducers: {p: {handler: 'a:b'}}",
        "version: 1\nlogging: {level: loud}",
        "version: 1\nlogging: {levels: {a: loud}}",
        "version: 1\ndefaults: {queue: {typ: classic}}",
        "version: 1\ndefaults: {subscriber: {handler: 'a:b'}}\nsubscribers: {s: {timeout: 5s}}",
        "version: 1\ndefaults: {subscriber: {from: q}}\nsubscribers: {s: {timeout: 5s}}",
        "version: 1\ndefaults: {producer: {handler: 'a:b'}}\nsubscribers: {s: {from: q}}",
        "version: 1\ndefaults: {producer: {to: q}}\nproducers: {p: {every: 5s}}",
        "version: 1\ndefaults: \nproducers: {p: {handler: 'a:b'}}",
        "version: 1\nproducers: {p: {to: q}}",
        "version: 1\nproducers: {p: {to: q, handler: 'a:b', file: a.csv}}",
        "version: 1\nsubscribers: {s: {from: q, handler: 'a:b', batch: {wait: 1s}}}",
        "version: 1\nsubscribers: {s: {from: q, handler: 'a:b', dedupe: {}}}",
    ],
)
def test_mistakes_are_found(text: str) -> None:
    """Unknown keys, wrong types, missing keys, words and patterns."""
    if text:
        assert complaints(text) != []
    else:
        assert list(VALIDATOR.iter_errors({}))


def test_the_examples_of_test_files_are_valid() -> None:
    """Those of the reference, and mistakes are found as the runner finds them."""
    validator = Draft202012Validator(suite_schema())
    assert [list(validator.iter_errors(data(text))) for text in yaml_blocks(suite_reference())] == [[]] * 7
    Draft202012Validator.check_schema(suite_schema())


@pytest.mark.parametrize(
    "case",
    [
        "{}",
        "{expect: {dead: all}}",
        "{expect: {dead: {}}}",
        "{expect: {dead: [{reason: tired}]}}",
        "{expect: {handled: {ship: '1'}}}",
        "{expect: {handled: {ship: -1}}}",
        "{expect: {retried: {ship: many}}}",
        "{expect: {published: [{}]}}",
        "{expect: {published: [{to: a, at: noon}]}}",
        "{expect: {dead: none}, publish: [{payload: 1}]}",
        "{expect: {dead: none}, now: 2026-03-28}",
        "{expect: {dead: none}, run_for: '${TIME}'}",
        "{expect: {dead: none}, replace: {ship: 5}}",
        "{expect: {dead: none}, replace: {ship: {returns: 1, twice: 2}}}",
        "{expect: {dead: none}, replace: {resources: {db: 5}}}",
    ],
)
def test_mistakes_in_test_files_are_found(case: str, tmp_path: Path) -> None:
    """By the schema and by the runner."""
    text = f"version: 1\npipelines: [a.yaml]\ntests: {{paid: {case}}}\n"
    (tmp_path / "a.test.yaml").write_text(text)
    assert list(Draft202012Validator(suite_schema()).iter_errors(data(text)))
    assert read_suite(tmp_path / "a.test.yaml").file.problems


@pytest.mark.parametrize(("schema", "root"), [(SCHEMA, PipelineSpec), (suite_schema(), SuiteSpec)])
def test_every_key_is_described(schema: Schema, root: type[SpecModel]) -> None:
    """What an editor shows when one points at a key."""
    for model in spec_models(root):
        made = schema if model is root else schema["$defs"][model.__name__]
        for name, field in model.model_fields.items():
            for key in field_keys(name, field):
                assert made["properties"][key]["description"], f"{model.__name__}.{key}"
        assert made["additionalProperties"] is False or model.model_config["extra"] == "allow"
