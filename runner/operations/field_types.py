"""Operations: the annotation of a field of the spec into the kind of value it takes: a duration, a name, a text.

Everything that is generated from the models knows kinds from here: the JSON Schema, the printed configuration and the
reference. A new field needs no line here as long as it is made of the types in `runner.config`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from types import UnionType
from typing import Annotated, Any, Final, Union, get_args, get_origin

from runner.config.fields import Text
from runner.config.name_fields import BrokerUrl, ErrorPath, ExchangeName, Identifier, ImportPath, Name, Pattern


@dataclass(frozen=True)
class FieldType:
    """One kind of text: what it is called, and what the JSON Schema says of it."""

    name: str
    title: str
    description: str
    pattern: str = ""
    examples: tuple[str, ...] = ()


MASK: Final = "***"
"""What stands for a secret, the same as in URLs."""

_PART = r"[A-Za-z_][^\s:.]*"
_IMPORT_PATH = rf"{_PART}(\.{_PART})*:{_PART}(\.{_PART})*"

DURATION: Final = FieldType(
    "duration", "duration", "A number with its unit.", r"^\s*\d+(\.\d+)?(ms|s|m|h|d)\s*$", ("250ms", "1s", "5m", "2d")
)
SIZE: Final = FieldType(
    "size", "size", "A number of bytes with its unit.", r"^\s*\d+(\.\d+)?(B|kB|MB|GB|KiB|MiB|GiB)\s*$", ("64kB", "1MiB")
)
RATE: Final = FieldType("rate", "rate", "So many in a time.", r"^\s*\d+(\.\d+)?/(s|m|h)\s*$", ("200/s", "10/m"))
NAME: Final = FieldType("name", "name", "A name, without * and #.", r"^[^*#]+$")
PATTERN: Final = FieldType("pattern", "pattern", "In a pattern * is one word, # any number of words.", r"^.+$")
IMPORT_PATH: Final = FieldType(
    "importPath", "import path", "package.module:name", rf"^{_IMPORT_PATH}$", ("handlers.orders:process_order",)
)
ERROR_PATH: Final = FieldType(
    "errorPath", "exception", "package.module:Name, or an exception of Python.", rf"^({_IMPORT_PATH}|[A-Za-z_]\w*)$"
)
URL: Final = FieldType(
    "url", "URL", "The address of a broker.", r"^(memory|amqps?://.+)$", ("amqp://user:password@host:5672/vhost",)
)
IDENTIFIER: Final = FieldType("identifier", "name", "The name of a parameter.", r"^[^\s\d.:-][^\s.:-]*$")
TEXT: Final = FieldType("text", "text", "Any text.")

FIELD_TYPES: Final = (DURATION, SIZE, RATE, NAME, PATTERN, IMPORT_PATH, ERROR_PATH, URL)
"""All that the JSON Schema has a definition for."""

_ALIASES: Final[tuple[tuple[Any, FieldType], ...]] = (
    (Name, NAME),
    (Identifier, IDENTIFIER),
    (Pattern, PATTERN),
    (ExchangeName, NAME),
    (ImportPath, IMPORT_PATH),
    (ErrorPath, ERROR_PATH),
    (BrokerUrl, URL),
    (Text, TEXT),
)
_PROBES: Final = ((DURATION, ("1s", "1h")), (SIZE, ("1kB",)), (RATE, ("1/s",)))


@dataclass(frozen=True)
class TypeShape:
    """A type without its wrapping: the bare type, and the validators that stood around it, the outermost first."""

    type: Any
    validators: tuple[Any, ...] = ()

    @property
    def arguments(self) -> tuple[TypeShape, ...]:
        """The shapes inside: the choices of a union, the item of a list, the key and value of a map."""
        return tuple(shape(item) for item in get_args(self.type) if item is not Ellipsis)

    @property
    def is_union(self) -> bool:
        """Whether it is one of several types, None among them."""
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
        """Whether it is a map that is handed on as it is."""
        return self.is_map and get_args(self.type)[1] is Any

    @property
    def accepts_mask(self) -> bool:
        """Whether any text can stand here, so that `***` can stand for a secret."""
        return field_type_of(self) is TEXT and all(
            _answer(validator, MASK) is not None for validator in self.validators if hasattr(validator, "func")
        )

    @property
    def accepts_nothing(self) -> bool:
        """Whether a key with nothing behind it stands for an empty map."""
        return any(_answer(validator, None) == {} for validator in self.validators)


def shape(annotation: Any, validators: tuple[Any, ...] = ()) -> TypeShape:
    """Return the shape of an annotation; `validators` are those that pydantic has taken off a field's own."""
    while get_origin(annotation) is Annotated:
        validators = (*validators, *annotation.__metadata__)
        annotation = annotation.__origin__
    return TypeShape(annotation, validators)


def field_shape(field: Any) -> TypeShape:
    """Return the shape of a field of a model."""
    return shape(field.annotation, tuple(field.metadata))


def union_members(shape: TypeShape) -> Iterator[TypeShape]:
    """Yield what a shape may be: itself, or each choice of a union, None left out."""
    if not shape.is_union:
        yield shape
        return
    for item in shape.arguments:
        if item.type is not type(None):
            yield from union_members(item)


def field_type_of(shape: TypeShape) -> FieldType | None:
    """Return the kind of a single value; None for lists, maps, booleans, plain numbers and choices of words."""
    if shape.type is str:
        return next((kind for alias, kind in _ALIASES if alias.__metadata__[0] in shape.validators), TEXT)
    for kind, examples in _PROBES:
        if any(_answer(validator, text) is not None for validator in _converters(shape) for text in examples):
            return kind
    return None


def short_form(shape: TypeShape, example: object) -> str:
    """Return which key of its map a short form such as `retry: 5` stands for, "" where it has none."""
    for validator in shape.validators:
        match _answer(validator, example):
            case {**items} if len(items) == 1:
                return str(next(iter(items)))
    return ""


def number_bounds(shape: TypeShape) -> dict[str, Any]:
    """Return the limits of a number, by the names that JSON Schema has for them."""
    found: dict[str, Any] = {}
    for item in shape.validators:
        for constraint in (item, *getattr(item, "metadata", ())):
            for name, word in (("ge", "minimum"), ("le", "maximum")):
                if (value := getattr(constraint, name, None)) is not None:
                    found[word] = value
    return found


def _converters(shape: TypeShape) -> Iterator[Any]:
    """Yield the validators that make a number, or something of ours, of a text."""
    if shape.type in (bool, dict, tuple) or get_origin(shape.type) is not None:
        return
    for validator in shape.validators:
        if getattr(validator, "json_schema_input_type", None) is str:
            yield validator


def _answer(validator: Any, value: object) -> object:
    """Return what a validator makes of a value, None where it refuses it."""
    function = getattr(validator, "func", None)
    if function is None:
        return None
    try:
        return function(value)
    except (ValueError, TypeError):  # pydantic's errors are ValueErrors
        return None
