"""The reference of the language: it is the models' own, complete, and its examples run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from runner.config.document import plain_data
from runner.config.loader import find_pipelines, load, load_text
from runner.config.spec import PipelineSpec
from runner.config.spec_model import SpecModel, field_keys
from runner.config.yaml_parser import parse_yaml
from runner.operations.language_schema import spec_models
from runner.operations.type_shapes import TypeShape, field_shape, union_members
from runner.pipeline.resolver import resolve
from tests import documents
from tests.process import ROOT
from tests.unit.operations.examples import yaml_blocks
from tools.reference.language import language_reference

TEXT = language_reference()


def test_the_file_is_what_the_models_say() -> None:
    """Written anew by `python -m tools.reference.language > docs/reference/language.md`."""
    assert (ROOT / "docs" / "reference" / "language.md").read_text("utf-8") == TEXT


def test_every_key_has_its_row() -> None:
    """In the table under the heading of its map."""
    for model in spec_models():
        for name, field in model.model_fields.items():
            for key in field_keys(name, field):
                assert f"| `{key}` |" in TEXT
    assert "<!-- keys" not in TEXT


def test_every_link_leads_to_a_heading() -> None:
    """Within the document."""
    anchors = {line.lstrip("# ").replace(" ", "-").lower() for line in TEXT.splitlines() if line.startswith("#")}
    assert {link.partition(")")[0] for link in TEXT.split("](#")[1:]} <= anchors


@pytest.mark.parametrize("text", yaml_blocks(TEXT), ids=lambda text: " ".join(text.split())[:40])
def test_every_example_is_valid(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As `runner validate --no-imports` judges it; warnings aside, except that of a password in the file."""
    monkeypatch.chdir(ROOT)
    for file in documents.steps(TEXT):
        if isinstance(file, documents.File):
            (tmp_path / file.name).parent.mkdir(exist_ok=True)
            (tmp_path / file.name).write_text(file.body, "utf-8")
    if "version:" not in text:
        return  # a file that others include
    resolved = resolve(load_text(text, tmp_path / "pipeline.yaml", {"RABBITMQ_PASSWORD": "x"}), imports=False)
    wrong = [each for each in resolved.problems if each.severity == "error" or each.code == "plain-password"]
    assert wrong == []


def test_every_key_has_an_example() -> None:
    """Somewhere in the reference each key is seen at work."""
    seen: set[tuple[type[SpecModel], str]] = set()
    for text in yaml_blocks(TEXT):
        _note(plain_data(parse_yaml(text, Path("a.yaml"))[0].root), TypeShape(PipelineSpec), seen)
    missing = [
        f"{model.__name__}.{'/'.join(field_keys(name, field))}"
        for model in spec_models()
        for name, field in model.model_fields.items()
        if not any((model, key) in seen for key in field_keys(name, field))
    ]
    assert missing == []


def _note(value: Any, shape: TypeShape, seen: set[tuple[type[SpecModel], str]]) -> None:
    """Note each key of each model that a value uses."""
    for choice in union_members(shape):
        if isinstance(choice.type, type) and issubclass(choice.type, SpecModel) and isinstance(value, dict):
            for name, field in choice.type.model_fields.items():
                for key in field_keys(name, field):
                    if key in value:
                        seen.add((choice.type, key))
                        _note(value[key], field_shape(field), seen)
        elif choice.is_map and isinstance(value, dict) and not choice.is_free_form:
            for item in value.values():
                _note(item, choice.arguments[1], seen)
        elif choice.is_list and isinstance(value, list):
            for item in value:
                _note(item, choice.arguments[0], seen)


def test_the_examples_of_the_repository_are_still_there() -> None:
    """The handlers that the reference names are those of the worked examples."""
    for path in find_pipelines([ROOT / "pipelines"]):
        assert load(path, {}).spec is not None
