"""JSON Schemas in files: what they refuse and in which words, wrong schemas, and what `$ref` may read."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from runner.config.loader import load
from runner.errors import PublishFailed
from runner.message import Envelope
from runner.outcome import InvalidMessage
from runner.pipeline.data_errors import validation_errors
from runner.pipeline.import_problems import ImportProblem
from runner.pipeline.model import Pipeline
from runner.pipeline.resolver import resolve
from runner.pipeline.schema_files import DIALECT, read_schema_file, schema_file

ORDER = {
    "$schema": DIALECT,
    "type": "object",
    "required": ["id"],
    "additionalProperties": False,
    "properties": {
        "id": {"type": "integer"},
        "items": {"type": "array", "maxItems": 2, "items": {"$ref": "parts/item.json"}},
        "state": {"enum": ["open", "paid"]},
        "kind": {"const": 1},
        "code": {"type": "string", "pattern": "^[A-Z]{3}$"},
        "note": {"type": ["string", "null"]},
        "any": {"anyOf": [{"type": "string"}, {"type": "boolean"}]},
        "tags": {"uniqueItems": True},
    },
}
ITEM = {"type": "object", "required": ["qty"], "properties": {"qty": {"type": "integer", "minimum": 1}}}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "schemas" / "parts").mkdir(parents=True)
    (tmp_path / "schemas" / "order.json").write_text(json.dumps(ORDER))
    (tmp_path / "schemas" / "parts" / "item.json").write_text(json.dumps(ITEM))
    return tmp_path / "schemas"


def words(folder: Path, payload: Any, *, shows_values: bool = False) -> str:
    """Return what is said of a payload, "" for one that fits."""
    try:
        TypeAdapter(read_schema_file(folder / "order.json")).validate_json(json.dumps(payload))
    except ValidationError as error:
        return validation_errors(error, shows_values=shows_values)
    return ""


@pytest.mark.parametrize(
    ("payload", "said"),
    [
        ({"id": 1, "items": [{"qty": 2}], "note": None, "any": True}, ""),
        ({}, "id is missing"),
        ([], "the payload must be an object"),
        ({"id": "1"}, "id must be a whole number"),
        ({"id": 1, "items": [{"qty": 0}, {}]}, "items.0.qty must be at least 1; items.1.qty is missing"),
        ({"id": 1, "items": [{"qty": 1}] * 3}, "items must have at most 2 items"),
        ({"id": 1, "state": "lost"}, 'state must be "open" or "paid"'),
        ({"id": 1, "kind": 2}, "kind must be 1"),
        ({"id": 1, "code": "abc"}, "code must match ^[A-Z]{3}$"),
        ({"id": 1, "note": 5}, "note must be null or text"),
        ({"id": 1, "any": 5}, 'any does not fit "anyOf" of its schema'),
        ({"id": 1, "tags": [1, 1]}, "tags must not have the same item twice"),
        ({"id": 1, "colour": "red"}, "colour is not a field of it"),
        ({"id": True, "kind": 2, "state": 1, "code": 1}, "(and 1 more)"),
    ],
)
def test_what_does_not_fit_is_said_as_for_models(folder: Path, payload: Any, said: str) -> None:
    found = words(folder, payload)
    assert found == said or (said.startswith("(") and found.endswith(said))


def test_values_are_shown_only_when_asked_for(folder: Path) -> None:
    """A payload may be secret, and a log is read by many."""
    for wrong in ({"id": "s3cret"}, {"code": "s3cret"}, {"any": {"s3cret": 1}}, {"state": "s3cret"}):
        assert "s3cret" not in words(folder, {"id": 1, **wrong})
    assert words(folder, {"id": "s3cret"}, shows_values=True) == 'id must be a whole number, not the text "s3cret"'


def test_a_number_that_json_does_not_know_fits_no_schema(folder: Path) -> None:
    (folder / "order.json").write_text('{"type": "number"}')
    with pytest.raises(ValidationError):
        TypeAdapter(read_schema_file(folder / "order.json")).validate_json(b"NaN")


def test_many_errors_of_one_payload_cost_little(folder: Path) -> None:
    (folder / "order.json").write_text('{"items": {"type": "string"}}')
    assert words(folder, [0] * 100_000).endswith("(and 97 more)")


def test_a_yaml_file_is_a_schema_too(folder: Path) -> None:
    (folder / "order.yaml").write_text("type: object\nproperties:\n  id: {type: integer}\n")
    adapter = TypeAdapter(read_schema_file(folder / "order.yaml"))
    assert adapter.validate_json(b'{"id": 1}') == {"id": 1}
    with pytest.raises(ValidationError):
        adapter.validate_json(b'{"id": "x"}')


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"type": "objekt"}', "is not a JSON Schema: type must be one of array, boolean,"),
        ('{"properties": {"a": {"minimum": "x"}}}', 'properties.a.minimum must be a number, not the text "x"'),
        ('{"properties": {"a": {"pattern": "("}}}', "properties.a.pattern is not a regular expression"),
        ("[1]", "is not a JSON Schema"),
        ('{"a": 1,}', 'is not JSON: a "," before "}" (column 8)'),
        ("", "is not JSON: it is empty"),
        ("[" * 500_000, "is not JSON: it is nested too deeply"),
        ('{"$ref": "#/$defs/none"}', "pointer '/$defs/none' does not exist"),
        ('{"$ref": "none.json"}', "there is no file"),
        ('{"$schema": "http://json-schema.org/draft-07/schema#"}', "is written in http://json-schema.org/draft-07"),
        ('{"$ref": "parts/old.json"}', 'old.json" is written in https://elsewhere.example'),
    ],
)
def test_a_wrong_schema_is_an_error_with_its_place_in_the_schema(folder: Path, text: str, said: str) -> None:
    (folder / "parts" / "old.json").write_text('{"$schema": "https://elsewhere.example/dialect"}')
    (folder / "order.json").write_text(text)
    with pytest.raises(ImportProblem) as caught:
        read_schema_file(folder / "order.json")
    assert said in str(caught.value)


def test_references_read_only_files_below_the_schemas_folder(folder: Path) -> None:
    """Neither another folder, nor through a link, nor a network: the listener is never asked."""
    (folder.parent / "secret.json").write_text("{}")
    (folder / "link.json").symlink_to(folder.parent / "secret.json")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/schema.json"
        outside = (folder.parent / "secret.json").as_uri()
        for target in (url, "../secret.json", "link.json", outside, "ftp://h/x", "//h/x"):
            for schema in ({"$ref": target}, {"items": {"$ref": f"{target}#/a"}}):
                (folder / "order.json").write_text(json.dumps(schema))
                with pytest.raises(ImportProblem, match="only files in the folder of the schema"):
                    read_schema_file(folder / "order.json")
            (folder / "order.json").write_text(json.dumps({"$dynamicRef": target}))
            with pytest.raises(ImportProblem):
                read_schema_file(folder / "order.json")
        with pytest.raises(BlockingIOError):
            listener.accept()


def test_a_schema_may_refer_to_itself_and_names_all_its_files(folder: Path) -> None:
    (folder / "order.json").write_text(
        json.dumps({"type": "object", "properties": {"next": {"$ref": "#"}, "item": {"$ref": "parts/item.json"}}})
    )
    found = schema_file(read_schema_file(folder / "order.json"))
    assert found is not None
    assert [file.name for file in found.documents] == ["order.json", "item.json"]
    assert words(folder, {"next": {"next": 5}}) == "next.next must be an object"


def test_without_the_library_the_error_names_the_extra(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "jsonschema_rs", None)
    with pytest.raises(ImportProblem) as caught:
        read_schema_file(folder / "order.json")
    assert caught.value.code == "missing-extra"
    assert 'pip install "mqrunner[jsonschema]"' in caught.value.hint


PIPELINE = """
version: 1
name: shop
include: parts/events.yaml
queues: {orders: {schema: schemas/order.json}}
subscribers:
  ship: {from: [orders], handler: tests.unit.pipeline.sample_handlers:handle}
"""


def resolved(folder: Path) -> Pipeline:
    (folder.parent / "shop.yaml").write_text(PIPELINE)
    (folder.parent / "parts").mkdir(exist_ok=True)
    (folder.parent / "parts" / "events.yaml").write_text("events: {paid: own/paid.json}\n")
    (folder.parent / "parts" / "own").mkdir(exist_ok=True)
    (folder.parent / "parts" / "own" / "paid.json").write_text('{"required": ["sum"]}')
    found = resolve(load(folder.parent / "shop.yaml", {}))
    assert found.pipeline is not None, found.problems
    return found.pipeline


def test_it_is_checked_before_publishing_and_on_arrival(folder: Path) -> None:
    pipeline = resolved(folder)
    encode = pipeline.destinations["orders"].encode
    assert encode({"id": 1}) == (b'{"id":1}', "application/json")
    with pytest.raises(PublishFailed, match='does not fit the schema of "orders": id is missing'):
        encode({})
    check = pipeline.subscribers[0].handler.check
    assert check is not None
    check(Envelope(b'{"id": 1}', content_type="application/json"), None)
    with pytest.raises(InvalidMessage, match="id must be a whole number"):
        check(Envelope(b'{"id": "x"}', content_type="application/json"), None)
    with pytest.raises(InvalidMessage):
        check(Envelope(b"\xff\xfe\x00", content_type="application/octet-stream"), None)


def test_its_path_is_relative_to_the_file_that_says_it(folder: Path) -> None:
    """An included file has its schemas beside itself."""
    pipeline = resolved(folder)
    with pytest.raises(PublishFailed, match="sum is missing"):
        pipeline.destinations["paid"].encode({})
    assert {file.name for file in pipeline.schema_files} == {"order.json", "item.json", "paid.json"}


def test_without_imports_it_is_judged_as_well(folder: Path) -> None:
    resolved(folder)
    (folder / "order.json").write_text('{"type": 5}')
    problems = resolve(load(folder.parent / "shop.yaml", {}), imports=False).problems
    assert ("bad-schema", 5, "queues.orders.schema") in [(each.code, each.line, each.path) for each in problems]
