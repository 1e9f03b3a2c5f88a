"""docs/reference/commands.md is what the commands say of themselves."""

from __future__ import annotations

import re

from runner.cli import cli
from tests.process import ROOT
from tools.reference.commands import command_reference


def test_the_document_is_generated_from_the_help_texts() -> None:
    """`make docs` writes it."""
    assert (ROOT / "docs" / "reference" / "commands.md").read_text("utf-8") == command_reference()


def test_every_verb_has_a_section_and_every_option_a_meaning() -> None:
    text = command_reference()
    assert re.findall(r"^## runner (\w+)$", text, re.MULTILINE) == list(cli.list_commands(None))  # type: ignore[arg-type]
    assert "### runner dead replay" in text
    assert re.findall(r"^\| `--[^|]*\|\s*\|$", text, re.MULTILINE) == []
