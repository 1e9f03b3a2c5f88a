"""Generates the references of pipeline files and of test files, in Markdown.

Keys, types, defaults and descriptions come from the models. The prose and the examples come from
`language.md` and `suite.md`, where a line such as `<!-- keys of QueueSpec -->` is replaced by a
table.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from runner.config.field_types import FIELD_TYPES, SUITE_FIELD_TYPES
from runner.config.spec import PipelineSpec
from runner.config.spec_model import SpecModel, field_keys
from runner.config.suite_spec import SuiteSpec
from runner.operations.language_schema import Schema, language_schema, spec_models, suite_schema

_PLACE: Final = re.compile(r"^<!-- keys of (\w+) -->$", re.MULTILINE)
_HEADING: Final = re.compile(r"^##+ (.+)$", re.MULTILINE)


def language_reference() -> str:
    """Return the reference of pipeline files."""
    return _reference("language.md", PipelineSpec, language_schema())


def suite_reference() -> str:
    """Return the reference of test files."""
    return _reference("suite.md", SuiteSpec, suite_schema())


def _reference(source: str, root: type[SpecModel], schema: Schema) -> str:
    """Return a whole reference. A model without a place in the text gets a section at the end."""
    text = Path(__file__).with_name(source).read_text("utf-8")
    placed = set(_PLACE.findall(text))
    for model in spec_models(root):
        if model.__name__ not in placed:
            heading = model.__name__.removesuffix("Spec").lower()
            text += f"\n## {heading}\n\n{model.__doc__}\n\n<!-- keys of {model.__name__} -->\n"
    tables = _Tables(schema, _headings(text), root)
    return _PLACE.sub(lambda match: tables.table(match[1]), text)


def _headings(text: str) -> dict[str, str]:
    """Return the heading above the table of each model."""
    found = {}
    for place in _PLACE.finditer(text):
        found[place[1]] = _HEADING.findall(text, 0, place.start())[-1]
    return found


class _Tables:
    """Writes the table of a model, from its JSON Schema."""

    def __init__(self, schema: Schema, headings: Mapping[str, str], root: type[SpecModel]) -> None:
        self._schema = schema
        self._headings = headings
        self._root = root

    def table(self, name: str) -> str:
        """Return the table of a model: one row for each key."""
        schema = self._schema if name == self._root.__name__ else self._schema["$defs"][name]
        model = next(model for model in spec_models(self._root) if model.__name__ == name)
        fields = model.model_fields.items()
        required = {key for item, field in fields if field.is_required() for key in field_keys(item, field)}
        rows = ["| key | type | default | meaning |", "|---|---|---|---|"]
        for key, made in schema["properties"].items():
            default = "one of them" if key in model.one_of else _default(made)
            default = "required" if key in required else default
            rows.append(f"| `{key}` | {_cell(self._type(made))} | {default} | {_cell(made['description'])} |")
        return "\n".join(rows)

    def _type(self, made: Schema) -> str:
        """Return the type of a key, in words."""
        return _listed(list(dict.fromkeys(self._types(made))))

    def _types(self, made: Schema) -> Iterator[str]:
        match made:
            case {"$ref": str(reference)}:
                yield from self._named(reference.rpartition("/")[2])
            case {"anyOf": list(branches)}:
                for branch in branches:
                    yield from self._types(branch)
            case {"enum": list(words)}:
                yield from map(_code, words)
            case {"const": value}:
                yield _code(value)
            case {"type": "array", "items": items}:
                inner = list(self._types(items))
                yield f"list of {_listed([f'{word}s' if word.isalpha() else word for word in inner])}"
            case {"type": "object", "additionalProperties": dict(value)}:
                yield f"map: name → {self._type(value)}"
            case {"type": "integer"}:
                yield _whole_number(made)
            case {"type": str(name)}:
                yield from {"boolean": ["`true` or `false`"], "string": ["text"], "object": ["map"], "null": []}[name]
            case _:
                yield "any value"

    def _named(self, name: str) -> Iterator[str]:
        if heading := self._headings.get(name):
            yield f"[map](#{heading.replace(' ', '-').lower()})"
        elif name.endswith("Defaults"):
            yield f"[map](#{name.removesuffix('Defaults')}s)"
        elif name != "variable":
            yield next(kind.title for kind in (*FIELD_TYPES, *SUITE_FIELD_TYPES) if kind.name == name)


def _listed(words: list[str]) -> str:
    return " or ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def _default(made: Schema) -> str:
    return _code(made["default"]) if "default" in made else ""


def _whole_number(made: Schema) -> str:
    low, high = made.get("minimum"), made.get("maximum")
    if high is not None and high < 2**31:
        return f"whole number, {low} to {high}"
    return f"whole number from {low}" if low is not None else "whole number"


def _code(value: Any) -> str:
    return f"`{value if isinstance(value, str) else json.dumps(value)}`"


def _cell(text: str) -> str:
    """Return text that is safe in a table cell."""
    return re.sub(r"(<[a-z]+>[\w.]*\w)", r"`\1`", text).replace("|", "\\|")


if __name__ == "__main__":
    sys.stdout.write(suite_reference() if sys.argv[1:] == ["tests"] else language_reference())
