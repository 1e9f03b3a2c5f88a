"""What is generated and kept in the repository is what the models say today."""

import json

from runner.operations.language_schema import language_schema
from tests.process import ROOT


def test_the_examples_schema_is_that_of_the_language() -> None:
    """`make docs` writes it anew."""
    kept = json.loads((ROOT / "pipelines/pipeline.schema.json").read_text("utf-8"))
    assert kept == language_schema()


def test_every_example_names_its_schema_for_editors() -> None:
    """In its first line."""
    for path in (ROOT / "pipelines").glob("*.yaml"):
        assert path.read_text("utf-8").startswith("# yaml-language-server: $schema=pipeline.schema.json\n"), path
