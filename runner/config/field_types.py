"""The kinds of values that fields take beside plain numbers, booleans and words of a list.

A type of the language carries its kind as metadata: `Name = Annotated[str, BeforeValidator(name), NAME]`. The JSON
Schema, the printed configuration and the reference read it from there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final


@dataclass(frozen=True)
class FieldType:
    """One kind of value. `name` is its name in the JSON Schema, `title` the one in the reference."""

    name: str
    title: str
    description: str
    pattern: str = ""
    examples: tuple[str, ...] = ()


_PART = r"[A-Za-z_][^\s:.]*"
_IMPORT_PATH = rf"{_PART}(\.{_PART})*:{_PART}(\.{_PART})*"

DURATION: Final = FieldType(
    "duration", "duration", "A number with its unit.", r"^\s*\d+(\.\d+)?(ms|s|m|h|d)\s*$", ("250ms", "1s", "5m", "2d")
)
SIZE: Final = FieldType(
    "size", "size", "A number of bytes with its unit.", r"^\s*\d+(\.\d+)?(B|kB|MB|GB|KiB|MiB|GiB)\s*$", ("64kB", "1MiB")
)
RATE: Final = FieldType("rate", "rate", "A count per unit of time.", r"^\s*\d+(\.\d+)?/[smhd]\s*$", ("200/s", "10/m"))
SHARE: Final = FieldType("share", "share", "A part of a whole, in percent.", r"^\s*\d+(\.\d+)?%\s*$", ("20%",))
NAME: Final = FieldType("name", "name", "A name, without * and #.", r"^[^*#]+$")
PATTERN: Final = FieldType("pattern", "pattern", "A name in which * matches one word, # any number of words.", r"^.+$")
IMPORT_PATH: Final = FieldType(
    "importPath", "import path", "package.module:name", rf"^{_IMPORT_PATH}$", ("handlers.orders:process_order",)
)
SCHEMA: Final = FieldType(
    "schema",
    "schema",
    "package.module:name of a type, or a file with a JSON Schema (2020-12), relative to the file that names it.",
    rf"^({_IMPORT_PATH}|.+\.(json|ya?ml))$",
    ("handlers.orders:Order", "schemas/order.json"),
)
ERROR_PATH: Final = FieldType(
    "errorPath",
    "exception",
    "package.module:Name, or a built-in exception of Python.",
    rf"^({_IMPORT_PATH}|[A-Za-z_]\w*)$",
)
URL: Final = FieldType(
    "url", "URL", "The URL of a broker.", r"^(memory|amqps?://.+|file:.+)$", ("amqp://user:password@host:5672/vhost",)
)
STORE: Final = FieldType(
    "store",
    "store",
    "The URL of a store.",
    r"^(sqlite:.+|rediss?://.+)$",
    ("sqlite:seen.db", "redis://localhost:6379/0"),
)
IDENTIFIER: Final = FieldType("identifier", "name", "The name of a parameter.", r"^[^\s\d.:-][^\s.:-]*$")
_TIME = r"\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}(:\d{2}(\.\d+)?)?(Z|[+-]\d{2}:?\d{2})"
TIME: Final = FieldType("time", "time", "A time with its zone.", rf"^{_TIME}$", ("2026-03-28T05:00:00Z",))
MOMENT: Final = FieldType(
    "moment",
    "time or duration",
    "A time with its zone, or a duration after the start.",
    rf"^({_TIME}|\s*\d+(\.\d+)?(ms|s|m|h|d)\s*)$",
    ("2026-03-28T05:00:00Z", "90s"),
)
TEXT: Final = FieldType("text", "text", "Any text.")

FIELD_TYPES: Final = (DURATION, SIZE, RATE, SHARE, NAME, PATTERN, IMPORT_PATH, SCHEMA, ERROR_PATH, URL, STORE)
"""The kinds that the JSON Schema of pipelines has a definition for."""

SUITE_FIELD_TYPES: Final = (DURATION, TIME, MOMENT, NAME, IMPORT_PATH, ERROR_PATH)
"""The kinds that the JSON Schema of test files has a definition for."""


def field_type_in(metadata: tuple[Any, ...]) -> FieldType | None:
    """Return the kind that the metadata of a type names, None if it names none."""
    return next((item for item in metadata if isinstance(item, FieldType)), None)
