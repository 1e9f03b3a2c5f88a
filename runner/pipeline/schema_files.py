"""Schemas in files: JSON Schema 2020-12, written as JSON or YAML.

A schema becomes a type that pydantic understands, so that it is used like the schemas in Python modules.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from copy import deepcopy
from itertools import islice
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

from pydantic import ValidationError
from pydantic_core import CoreSchema, InitErrorDetails, PydanticCustomError, core_schema

from runner.config.diagnostics import display_path
from runner.config.document import plain_data
from runner.config.guesses import file_near
from runner.config.yaml_parser import parse_yaml, read_text
from runner.errors import PipelineInvalid
from runner.pipeline.data_errors import EXPECTED_TYPES, json_error, validation_errors
from runner.pipeline.import_problems import ImportProblem

DIALECT = "https://json-schema.org/draft/2020-12/schema"

MAX_ERRORS = 100
"""The maximum number of errors that are collected for one payload."""

_INSTALL = 'install it: pip install "mqrunner[jsonschema]"'

_BOUNDS = {"minimum": "ge", "maximum": "le", "exclusiveMinimum": "gt", "exclusiveMaximum": "lt"}
"""The names that pydantic has for limits, by keyword."""

_LIMITS = {
    "minLength": "must have at least … characters",
    "maxLength": "must have at most … characters",
    "minItems": "must have at least … items",
    "maxItems": "must have at most … items",
    "minProperties": "must have at least … fields",
    "maxProperties": "must have at most … fields",
    "multipleOf": "must be a multiple of …",
    "pattern": "must match …",
}


class SchemaFile:
    """The metadata that makes a type of the JSON Schema in a file.

    `documents` are the contents of all files that were read for it, its own first.

    Raises ImportProblem for a file that cannot be read or is no JSON Schema, and if the library is not installed.
    """

    def __init__(self, file: Path) -> None:
        self._folder = file.resolve().parent
        self._refused: list[ImportProblem] = []
        self.documents: dict[Path, Any] = {}
        document = self._read(file)
        try:
            import jsonschema_rs  # only for pipelines with such a schema: an extra
        except ImportError:
            what = f'"{display_path(file)}" needs the library jsonschema-rs, which is not installed'
            raise ImportProblem("missing-extra", what, _INSTALL) from None
        uri = file.resolve().as_uri()
        try:
            self._validator = jsonschema_rs.Draft202012Validator(document, retriever=self._retrieve, base_uri=uri)
        except (jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError) as error:
            raise (self._refused or [_not_a_schema(file, error)])[-1] from None

    def __get_pydantic_core_schema__(self, *_: Any) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._check, core_schema.any_schema())

    def __get_pydantic_json_schema__(self, *_: Any) -> Any:
        return next(iter(self.documents.values()))

    def definitions(self, template: str, names: dict[Path, str]) -> dict[str, Any]:
        """Return the contents of all files by their names, with each `$ref` written as a reference by that name.

        `names` has the names of files, and gets those that it lacks.
        """
        for file in self.documents:
            name = re.sub(r"[^\w.-]", "_", file.relative_to(self._folder).as_posix(), flags=re.ASCII)
            names.setdefault(file, f"{len(names)}_{name}" if name in names.values() else name)
        return {names[file]: self._portable(file, template, names) for file in self.documents}

    def _portable(self, file: Path, template: str, names: Mapping[Path, str]) -> Any:
        """Return the content of a file without its own address. A reference that needs it is left out."""
        found = deepcopy(self.documents[file])
        for _, node in _nodes(found):
            reference = node.pop("$ref", None) if isinstance(node.get("$ref"), str) else None
            if reference is not None:
                path, _, fragment = reference.partition("#")
                target = (file.parent / url2pathname(path)).resolve() if path else file
                if fragment and not fragment.startswith("/"):
                    anchors = _nodes(self.documents.get(target))
                    fragment = next((at for at, each in anchors if each.get("$anchor") == fragment), "")
                if target in names:
                    node["$ref"] = template.replace("{model}", names[target]) + fragment
        if isinstance(found, dict):
            found = {key: value for key, value in found.items() if key not in ("$schema", "$id")}
        return found

    def _check(self, value: Any) -> Any:
        """Return a value that fits. Raises ValidationError with the errors, as pydantic words them."""
        if isinstance(value, bytes):
            raise PydanticCustomError("bytes", "is bytes, and a JSON Schema describes JSON")
        if not self._validator.is_valid(value):
            errors = [detail for error in self._validator.iter_errors(value) for detail in _details(error)]
            raise ValidationError.from_exception_data("schema", [*islice(errors, MAX_ERRORS)])
        return value

    def _retrieve(self, uri: str) -> Any:
        """Return the schema that a `$ref` names. The library calls this, and shows no error of it."""
        parts = urlsplit(uri)
        file = Path(url2pathname(parts.path)).resolve()
        if parts.scheme != "file" or not file.is_relative_to(self._folder):
            message = f'"$ref" to {uri}: only files in the folder of the schema, or below it, are read'
            hint = 'copy it there, and write its path; a relative path belongs to "$id" if the schema has one'
            self._refused.append(ImportProblem("bad-schema", message, hint))
            raise self._refused[-1]
        try:
            return self._read(file)
        except ImportProblem as error:
            self._refused.append(error)
            raise

    def _read(self, file: Path) -> Any:
        document = self.documents[file.resolve()] = _parse(file)
        dialect = document.get("$schema", DIALECT) if isinstance(document, dict) else DIALECT
        if dialect not in (DIALECT, f"{DIALECT}#"):
            message = f'"{display_path(file)}" is written in {dialect}, and the runner knows JSON Schema 2020-12'
            raise ImportProblem("bad-schema", message, f'write "$schema": "{DIALECT}"')
        return document


def schema_file(schema: Any) -> SchemaFile | None:
    """Return the file behind a type that `read_schema_file` has returned, None for other types."""
    return next((item for item in getattr(schema, "__metadata__", ()) if isinstance(item, SchemaFile)), None)


def read_schema_file(file: Path) -> Any:
    """Return the type for the JSON Schema in a file. Raises ImportProblem."""
    return Annotated[Any, SchemaFile(file)]


def _nodes(value: Any, at: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each object in a schema with its JSON pointer."""
    if isinstance(value, dict):
        yield at, value
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in list(inner):
        yield from _nodes(item, f"{at}/{str(key).replace('~', '~0').replace('/', '~1')}")


def _parse(file: Path) -> Any:
    name = display_path(file)
    try:
        text = read_text(file)
        if file.suffix != ".json":
            document, problems = parse_yaml(text, file)
            if problems:
                raise PipelineInvalid(problems)
            return plain_data(document.root)
        return json.loads(text)
    except PipelineInvalid as error:
        first = error.problems[0]
        if not file.exists():
            what = f'there is no file "{name}"'
            folder = next(parent for parent in file.parents if parent.is_dir())
            meant = file_near(folder, file.relative_to(folder).as_posix())
            help_ = (
                f'did you mean "{display_path(folder / meant)}"?'
                if meant
                else "it is relative to the file that names it"
            )
            raise ImportProblem("no-such-file", what, help_) from None
        where = f" (line {first.line}, column {first.column})" if first.line else ""
        raise ImportProblem("bad-schema", f'"{name}" cannot be read: {first.message}{where}', first.help) from None
    except (ValueError, RecursionError):
        message = f'"{name}" is not JSON: {json_error(text.encode())}'
        raise ImportProblem("bad-schema", message, "correct it there") from None


def _not_a_schema(file: Path, error: Any) -> ImportProblem:
    """Return the problem of a schema that the meta-schema, or the library, refuses."""
    path = list(getattr(error, "instance_path", ()))
    if not path:
        what = f"{error.message[:1].lower()}{error.message[1:]}"
    elif path[-1] == "type":
        what = f"{_dotted(path)} must be one of {', '.join(sorted(_TYPES))}, or a list of them"
    elif path[-1] == "pattern":
        what = f"{_dotted(path)} is not a regular expression"
    else:
        found = ValidationError.from_exception_data("schema", [*_details(error)])
        what = validation_errors(found, shows_values=True)
    message = f'"{display_path(file)}" is not a JSON Schema: {what}'
    return ImportProblem("bad-schema", message, "correct it there; https://json-schema.org has the keywords")


_TYPES = {
    "array": "list_type",
    "boolean": "bool_type",
    "integer": "int_type",
    "null": "none_type",
    "number": "decimal_type",
    "object": "dict_type",
    "string": "string_type",
}
"""The types of pydantic's errors, by the types of JSON Schema."""


def _dotted(path: list[Any]) -> str:
    return ".".join(str(part) for part in path)


def _details(error: Any) -> Iterator[InitErrorDetails]:
    """Yield an error of the library as pydantic's errors, which have words in `data_errors`. Values are not in them."""
    place, kind = tuple(error.instance_path), error.kind
    match kind.name:
        case "required":
            yield _detail(error, "missing", "is missing", (*place, kind.property))
        case "additionalProperties" | "unevaluatedProperties":
            for name in kind.unexpected:
                yield _detail(error, "extra_forbidden", "is not a field of it", (*place, name))
        case "type" if len(kind.types) == 1:
            yield _detail(error, _TYPES[kind.types[0]], "must be null", place)
        case "type":
            names = [EXPECTED_TYPES.get(_TYPES[name].partition("_")[0], name) for name in sorted(kind.types)]
            yield _detail(error, "types", f"must be {' or '.join(names)}", place)
        case "enum" | "const":
            values = kind.options if kind.name == "enum" else [kind.expected_value]
            expected = " or ".join(json.dumps(value, ensure_ascii=False) for value in values)
            yield _detail(error, "literal_error", "", place, expected=expected)
        case bound if bound in _BOUNDS:
            yield _detail(error, bound, "", place, **{_BOUNDS[bound]: kind.limit})
        case limit if limit in _LIMITS:
            yield _detail(error, limit, _LIMITS[limit].replace("…", str(kind.value), 1), place)
        case "uniqueItems":
            yield _detail(error, "unique", "must not have the same item twice", place)
        case keyword:
            yield _detail(error, "keyword", f'does not fit "{keyword}" of its schema', place)


def _detail(error: Any, kind: str, words: str, place: tuple[Any, ...], **context: Any) -> InitErrorDetails:
    # Braces in the words would be read as names of the context.
    made = PydanticCustomError(kind, "{words}", {"words": words, **context})
    return {"type": made, "loc": place, "input": error.instance}
