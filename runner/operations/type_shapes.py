"""The shape of a field's annotation: the bare type, and the metadata around it.

The JSON Schema, the printed configuration and the reference are made from shapes. The kind of a value (a duration, a
name, a text) is in the metadata of its type, see `runner.config.field_types`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from runner.config.field_types import TEXT, FieldType, field_type_in
from runner.config.fields import OPTIONAL_MAP


@dataclass(frozen=True)
class TypeShape:
    """A type without Annotated: the bare type, and the metadata that was around it."""

    type: Any
    metadata: tuple[Any, ...] = ()

    @property
    def arguments(self) -> tuple[TypeShape, ...]:
        """The shapes inside: members of a union, item of a list, key and value of a map."""
        return tuple(shape(item) for item in get_args(self.type) if item is not Ellipsis)

    @property
    def is_union(self) -> bool:
        """Whether it is a union; `X | None` is one."""
        return get_origin(self.type) in (Union, UnionType)

    @property
    def is_list(self) -> bool:
        """Whether it is a list of one type."""
        return get_origin(self.type) is tuple

    @property
    def is_map(self) -> bool:
        """Whether it is a map from names to one type."""
        return get_origin(self.type) is dict

    @property
    def is_free_form(self) -> bool:
        """Whether it is a map that is passed on unchanged."""
        return self.is_map and get_args(self.type)[1] is Any

    @property
    def field_type(self) -> FieldType | None:
        """The type of a single value; None for lists, maps, booleans, plain numbers and enumerations."""
        return field_type_in(self.metadata)

    @property
    def accepts_mask(self) -> bool:
        """Whether any text is valid, so that `***` can replace a secret."""
        return self.field_type is TEXT

    @property
    def accepts_nothing(self) -> bool:
        """Whether a key without a value means an empty map."""
        return OPTIONAL_MAP in self.metadata


def shape(annotation: Any, metadata: tuple[Any, ...] = ()) -> TypeShape:
    """Return the shape of an annotation; `metadata` is what pydantic removed from a field's annotation."""
    while get_origin(annotation) is Annotated:
        metadata = (*metadata, *annotation.__metadata__)
        annotation = annotation.__origin__
    return TypeShape(annotation, metadata)


def field_shape(field: Any) -> TypeShape:
    """Return the shape of a field of a model."""
    return shape(field.annotation, tuple(field.metadata))


def union_members(shape: TypeShape) -> Iterator[TypeShape]:
    """Yield the members of a union except None; for other shapes, and for a field type, the shape itself."""
    if not shape.is_union or shape.field_type is not None:
        yield shape
        return
    for item in shape.arguments:
        if item.type is not type(None):
            yield from union_members(item)


def number_bounds(shape: TypeShape) -> dict[str, Any]:
    """Return the limits of a number, with their names in JSON Schema."""
    found: dict[str, Any] = {}
    for item in shape.metadata:
        for constraint in (item, *getattr(item, "metadata", ())):
            for name, word in (("ge", "minimum"), ("le", "maximum")):
                if (value := getattr(constraint, name, None)) is not None:
                    found[word] = value
    return found
