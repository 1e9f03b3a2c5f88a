"""What is generated and kept in the repository is what the models say today."""

import json

from runner.config.loader import is_test_file
from runner.operations.language_schema import language_schema, suite_schema
from tests.process import ROOT
from tools.reference.language import suite_reference


def test_the_examples_schema_is_that_of_the_language() -> None:
    """`make docs` writes it anew."""
    kept = json.loads((ROOT / "pipelines/pipeline.schema.json").read_text("utf-8"))
    assert kept == language_schema()
    assert json.loads((ROOT / "pipelines/test.schema.json").read_text("utf-8")) == suite_schema()


def test_the_reference_of_test_files_is_that_of_the_models() -> None:
    """Written by `make docs`, too."""
    assert (ROOT / "docs/reference/test-files.md").read_text("utf-8") == suite_reference()


def test_every_example_names_its_schema_for_editors() -> None:
    """In its first line."""
    for path in (ROOT / "pipelines").glob("*.yaml"):
        schema = "test.schema.json" if is_test_file(path) else "pipeline.schema.json"
        assert path.read_text("utf-8").startswith(f"# yaml-language-server: $schema={schema}\n"), path
