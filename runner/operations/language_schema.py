"""The JSON Schemas (draft 2020-12) of pipeline files and test files, generated from the models, for editors.

pydantic writes the first version. This module adds what pydantic cannot know: short forms, `${…}` instead of any value,
patterns of durations and names, empty sections, `x-…` keys, and defaults as people write them.
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from typing import Any, Final

from runner.config.field_types import FIELD_TYPES, SUITE_FIELD_TYPES, TEXT, FieldType
from runner.config.spec import ITEM_MODELS, PipelineSpec
from runner.config.spec_model import SpecModel, field_keys
from runner.config.suite_spec import SuiteSpec
from runner.operations.type_shapes import TypeShape, field_shape, number_bounds, shape, union_members
from runner.operations.value_format import format_value

Schema = dict[str, Any]

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
VARIABLE: Final[Schema] = {"$ref": "#/$defs/variable"}
VARIABLE_PATTERN: Final[Schema] = {"pattern": r"\$\{.+\}"}


def language_schema() -> Schema:
    """Return the JSON Schema of a pipeline file."""
    made, models = _refined_models(PipelineSpec)
    for inner in {inner for model in ITEM_MODELS.values() for _, inner in _mergeable(model)}:
        models[inner.__name__].pop("required", None)  # `_needs` adds a rule that knows defaults
    models |= {f"{key}Defaults": deepcopy(models[model.__name__]) for key, model in ITEM_MODELS.items()}
    for key in ITEM_MODELS:
        models["DefaultsSpec"]["properties"][key] |= {"$ref": f"#/$defs/{key}Defaults"}
    rules = [rule for kind, model in ITEM_MODELS.items() for rule in _needs(kind, model)]
    return _file("Pipeline", made) | {"allOf": rules, "$defs": _kind_definitions() | models}


def suite_schema() -> Schema:
    """Return the JSON Schema of a test file. `${…}` is not replaced in one."""
    made, models = _refined_models(SuiteSpec)
    kinds = {kind.name: _kind_definition(kind) for kind in SUITE_FIELD_TYPES}
    without_variables: Schema = _without_variables(_file("Tests", made) | {"$defs": kinds | models})
    return without_variables


def _refined_models(root: type[SpecModel]) -> tuple[Schema, dict[str, Schema]]:
    """Return the schema of a file's map, and those of the maps below it by the names of their models."""
    made = root.model_json_schema(mode="validation")
    models = made.pop("$defs")
    for model in spec_models(root):
        _refine_model(made if model is root else models[model.__name__], model)
    return made, models


def _file(title: str, made: Schema) -> Schema:
    properties = made["properties"]
    properties["version"] = {"const": 1, "description": properties["version"]["description"]}
    return {
        "$schema": DIALECT,
        "title": title,
        "description": made["description"],
        "type": "object",
        "required": made["required"],
        "properties": properties,
        "patternProperties": {"^x-": {"description": "Ignored; for YAML anchors."}},
        "additionalProperties": False,
    }


def _without_variables(made: Any) -> Any:
    """Return a schema that accepts no `${…}`."""
    if isinstance(made, list):
        return [_without_variables(item) for item in made]
    if not isinstance(made, dict):
        return made
    made = {key: _without_variables(value) for key, value in made.items()}
    branches = [each for each in made.pop("anyOf", ()) if each not in (VARIABLE, VARIABLE_PATTERN)]
    return made | ({"anyOf": branches} if len(branches) > 1 else branches[0] if branches else {})


def spec_models(root: type[SpecModel] = PipelineSpec) -> list[type[SpecModel]]:
    """Return every model of the language once, in the order of a file."""
    found: list[type[SpecModel]] = []

    def visit(model: type[SpecModel]) -> None:
        if model not in found:
            found.append(model)
            shapes = [field_shape(field) for field in model.model_fields.values()]
            for inner in (inner for shape in (*shapes, *_other_keys(model)) for inner in _models_in(shape)):
                visit(inner)

    visit(root)
    return found


def _other_keys(model: type[SpecModel]) -> list[TypeShape]:
    """Return the shape of the values of other keys, in a list; an empty one if a model allows no other keys."""
    other = model.__annotations__.get("__pydantic_extra__")
    return [] if other is None else [shape(other).arguments[1]]


def _models_in(shape: TypeShape) -> list[type[SpecModel]]:
    if isinstance(shape.type, type) and issubclass(shape.type, SpecModel):
        return [shape.type]
    return [model for item in shape.arguments for model in _models_in(item)]


def _kind_definitions() -> Schema:
    """Return the definitions of field types and of variables."""
    variable = {
        "title": "variable",
        "description": "${NAME}, ${NAME:-default}, ${NAME:?message} or ${file:/path}: it is replaced by its value.",
        "type": "string",
    } | VARIABLE_PATTERN
    return {"variable": variable} | {kind.name: _kind_definition(kind) for kind in FIELD_TYPES}


def _kind_definition(kind: FieldType) -> Schema:
    made: Schema = {"title": kind.title, "description": kind.description, "type": "string"}
    made["anyOf"] = [{"pattern": kind.pattern}, VARIABLE_PATTERN]
    if kind.examples:
        made["examples"] = list(kind.examples)
    return made


# Models and their keys


def _refine_model(made: Schema, model: type[SpecModel]) -> None:
    made.pop("title", None)
    made["description"] = made["description"].partition(". ")[0].rstrip(".") + "."
    for other in _other_keys(model):
        made["additionalProperties"] = _value(made["additionalProperties"], other)
    for name, field in model.model_fields.items():
        names = [key for key in field_keys(name, field) if key in made["properties"]]
        for key in names:
            made["properties"][key] = _refined(
                made["properties"][key], field_shape(field), field, is_other=key != names[0]
            )


def _refined(made: Schema, shape: TypeShape, field: Any, *, is_other: bool) -> Schema:
    """Return the schema of one key: its description, its default as an author writes it, and its values.

    If a field has two keys (`urls` and `url`), pydantic's description is kept for the second one.
    """
    described: Schema = {"description": made.get("description", "") if is_other else field.description}
    default = field.default
    if not field.is_required() and default not in (None, "", (), {}):
        described["default"] = format_value(default, shape)
    if field.examples:
        described["examples"] = field.examples
    body = {key: value for key, value in made.items() if key not in ("title", "description", "default", "examples")}
    body = _value(body, shape.arguments[0] if is_other else shape)
    if shape.accepts_nothing:
        body = _either([body, {"type": "null"}])
    return described | body


def _value(made: Schema, shape: TypeShape) -> Schema:
    """Return the schema of a value, short forms and variables included."""
    if "anyOf" in made:
        return _either([_value(branch, _choice(branch, shape)) for branch in made["anyOf"]])
    if "$ref" in made or made.get("type") in (None, "null"):
        return made
    if made.get("type") == "array":
        return _list(made, shape)
    if made.get("type") == "object":
        return _map(made, shape)
    return _single(made, shape)


def _single(made: Schema, shape: TypeShape) -> Schema:
    """Return the schema of a text, a number, a boolean or an enumeration."""
    is_choice = "enum" in made or "const" in made
    kind = shape.field_type
    if kind is not None and kind is not TEXT and not is_choice:
        return {"$ref": f"#/$defs/{kind.name}"}
    if made["type"] == "string" and not is_choice:
        return made
    made = {key: value for key, value in made.items() if key not in ("ge", "le")}
    return _either([made | ({} if is_choice else number_bounds(shape)), VARIABLE])


def _list(made: Schema, shape: TypeShape) -> Schema:
    item = next((choice for choice in union_members(shape) if choice.is_list), shape)
    inner = item.arguments[0] if item.arguments else shape
    made = {"minItems" if key == "minLength" else key: value for key, value in made.items()}
    made["items"] = _value(made["items"], inner)
    stands_alone = inner.type is str or bool(getattr(inner.type, "short_form", ""))
    return _either([made["items"], made]) if stands_alone else made


def _map(made: Schema, shape: TypeShape) -> Schema:
    table = next((choice for choice in union_members(shape) if choice.is_map), None)
    if table is None or table.is_free_form:
        return made
    key, value = table.arguments
    made["additionalProperties"] = _value(made["additionalProperties"], value)
    kind = key.field_type
    if kind is not None and kind.pattern:
        made["propertyNames"] = {"pattern": kind.pattern}
    return made


def _choice(branch: Schema, shape: TypeShape) -> TypeShape:
    """Return the union member that a branch of `anyOf` describes; for a short form, the shape of the key it sets."""
    is_list, is_map = branch.get("type") == "array", branch.get("type") == "object"
    for choice in union_members(shape):
        if isinstance(choice.type, type) and issubclass(choice.type, SpecModel):
            return _short_form(choice)
        if choice.is_list == is_list and choice.is_map == is_map and "const" not in branch:
            return choice
    return TypeShape(bool)


def _short_form(shape: TypeShape) -> TypeShape:
    for name, field in shape.type.model_fields.items():
        if shape.type.short_form in field_keys(name, field):
            inner = next(union_members(field_shape(field)))
            return inner.arguments[0] if inner.is_list else inner
    return TypeShape(bool)


def _either(branches: list[Schema]) -> Schema:
    """Return a schema that accepts what any branch accepts, without duplicates and without nesting."""
    flat: list[Schema] = []
    for branch in branches:
        for item in branch["anyOf"] if set(branch) == {"anyOf"} else [branch]:
            if item not in flat:
                flat.append(item)
    return flat[0] if len(flat) == 1 else {"anyOf": flat}


# Keys that an item must have, unless `defaults` provides them


def _mergeable(model: type[SpecModel], path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], type[SpecModel]]]:
    """Yield a model and the maps inside it that defaults merge into. Lists are replaced, not merged."""
    yield path, model
    for name, field in model.model_fields.items():
        for choice in union_members(field_shape(field)):
            if isinstance(choice.type, type) and issubclass(choice.type, SpecModel):
                yield from _mergeable(choice.type, (*path, field_keys(name, field)[0]))


def _needs(kind: str, item: type[SpecModel]) -> Iterator[Schema]:
    """Yield a rule for each key that items of a kind must have unless a default has it."""
    for path, model in _mergeable(item):
        for name, field in model.model_fields.items():
            if field.is_required():
                has = {"required": [field_keys(name, field)[0]]}
                yield _unless_default(kind, path, has, has)
        if model.one_of:
            given = {key: {"required": [key], "properties": {key: {"not": {"type": "null"}}}} for key in model.one_of}
            yield _unless_default(kind, path, {"anyOf": [*given.values()]}, {"oneOf": [*given.values()]})


def _unless_default(kind: str, path: tuple[str, ...], default: Schema, rule: Schema) -> Schema:
    """Return a rule for the map at `path` of each item, which applies unless the defaults match `default`."""
    default = {"type": "object"} | default
    for part in reversed(("defaults", kind, *path)):
        default = {"type": "object", "required": [part], "properties": {part: default}}
    for part in reversed(path):
        rule = {"properties": {part: rule}}
    return {"if": default, "else": {"properties": {f"{kind}s": {"additionalProperties": rule}}}}
