"""Meaning: which keys the JSON of a type can have, as far as the type tells. What is not certain counts as right."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Iterable, Iterator, Mapping
from types import NoneType, UnionType
from typing import Any, NamedTuple, Union, get_args, get_origin

from pydantic import AliasChoices, AliasPath, BaseModel
from pydantic.fields import FieldInfo

_WITHOUT_KEYS = frozenset({bool, int, float, str, list, tuple, set, frozenset, NoneType})
_HARMLESS = frozenset({"Discriminator", "FieldInfo", "PydanticGeneralMetadata", "Strict", "Tag", "str"})
"""Kinds of metadata that change nothing of a value, beside those of annotated_types."""

Keys = Mapping[str, Any]
"""Each key and the type of its value."""


class Unknown(NamedTuple):
    """The first part of a path that leads nowhere, the types it was looked for in, and the keys that they have."""

    part: str
    kinds: list[Any]
    keys: list[str]


def first_unknown(path: str, types: Iterable[Any]) -> Unknown | None:
    """Return the part of a dotted path that no payload of these types has, None where one of them may have it."""
    kinds = [kind for item in types for kind in _alternatives(item)]
    for part in path.split("."):
        found = [keys for kind in kinds if (keys := _keys(kind)) is not None]
        if len(found) < len(kinds):
            return None
        if not any(part in keys for keys in found):
            shown = [kind for kind in kinds if kind is not NoneType]
            return Unknown(part, shown or kinds, sorted({key for keys in found for key in keys}))
        kinds = [kind for keys in found if part in keys for kind in _alternatives(keys[part])]
    return None


def _alternatives(kind: Any) -> Iterator[Any]:
    """Yield the types that a type stands for: those of a union, and what a root model holds."""
    if get_origin(kind) in (Union, UnionType):
        for item in get_args(kind):
            yield from _alternatives(item)
    elif get_origin(kind) is typing.Annotated:
        yield from _alternatives(_plain_type(FieldInfo.from_annotation(kind)))
    elif _is_model(kind) and kind.__pydantic_root_model__:
        root = Any if _is_reshaped(kind) else _plain_type(kind.model_fields["root"])
        yield from _alternatives(root)
    else:
        yield kind


def _keys(kind: Any) -> Keys | None:
    """Return the keys of a type's JSON object, none where it is no object, None where it may have any."""
    if kind in _WITHOUT_KEYS or get_origin(kind) in _WITHOUT_KEYS:
        return {}
    if _is_model(kind):
        makers = [item for item in kind.__mro__ if "__get_pydantic_core_schema__" in vars(item)]
        return _model_keys(kind, kind.model_config) if makers == [BaseModel] else None
    if not isinstance(kind, type) or hasattr(kind, "__get_pydantic_core_schema__"):
        return None
    config = getattr(kind, "__pydantic_config__", {})
    if hasattr(kind, "__pydantic_fields__"):
        return _model_keys(kind, config)
    is_typed_dict = issubclass(kind, dict) and hasattr(kind, "__required_keys__")
    if config or not (is_typed_dict or dataclasses.is_dataclass(kind)):
        return None
    return _annotated_keys(kind)


def _model_keys(kind: Any, config: Any) -> Keys | None:
    """Return the keys of a pydantic model or dataclass."""
    if config.get("extra") == "allow" or _is_reshaped(kind):
        return None
    decorators = kind.__pydantic_decorators__
    judged = [*decorators.validators.values(), *decorators.field_validators.values()]
    touched = {name for item in judged if item.info.mode != "after" for name in item.info.fields}
    touched |= {name for item in decorators.field_serializers.values() for name in item.info.fields}
    by_name = bool(config.get("populate_by_name") or config.get("validate_by_name"))
    keys: dict[str, Any] = {item.info.alias or name: Any for name, item in decorators.computed_fields.items()}
    for name, field in kind.__pydantic_fields__.items():
        is_touched = name in touched or "*" in touched
        keys |= _field_keys(name, field, Any if is_touched else _plain_type(field), by_name=by_name)
    return keys


def _is_reshaped(kind: Any) -> bool:
    """Whether functions of a model may make its JSON look different from its fields."""
    decorators = kind.__pydantic_decorators__
    is_reshaped = any(item.info.mode != "after" for item in decorators.model_validators.values())
    return is_reshaped or bool(decorators.root_validators or decorators.model_serializers)


def _field_keys(name: str, field: FieldInfo, kind: Any, *, by_name: bool = False) -> Keys:
    """Return the keys under which a field is read or written."""
    alias = field.validation_alias if field.validation_alias is not None else field.alias
    choices = alias.choices if isinstance(alias, AliasChoices) else [alias or name]
    keys = {str(choice.path[0]) if isinstance(choice, AliasPath) else str(choice) for choice in choices}
    is_moved = any(isinstance(choice, AliasPath) for choice in choices)
    keys |= {field.serialization_alias or name, *([name] if by_name else [])}
    return dict.fromkeys(keys, Any if is_moved else kind)


def _annotated_keys(kind: Any) -> Keys | None:
    """Return the keys of a plain dataclass or a TypedDict."""
    try:
        hints = typing.get_type_hints(kind, include_extras=True)
    except Exception:  # evaluating annotations runs foreign code; pydantic has its own ways
        return None
    fields = dataclasses.fields(kind) if dataclasses.is_dataclass(kind) else ()
    defaults = {field.name: field.default for field in fields}
    keys: dict[str, Any] = {}
    for name, hint in hints.items():
        while get_origin(hint) in (typing.Required, typing.NotRequired):
            hint = get_args(hint)[0]
        field, default = FieldInfo.from_annotation(hint), defaults.get(name)
        if isinstance(default, FieldInfo):
            field = FieldInfo.from_annotated_attribute(hint, default)
        keys |= _field_keys(name, field, _plain_type(field))
    return keys


def _plain_type(field: FieldInfo) -> Any:
    """Return the type of a field, Any where something beside the type has a say in its values."""
    for item in field.metadata:
        if type(item).__module__ != "annotated_types" and type(item).__name__ not in _HARMLESS:
            return Any
    return field.annotation


def _is_model(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)
