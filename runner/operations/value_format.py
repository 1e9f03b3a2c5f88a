"""Formats values of the spec as an author writes them: `10s`, not 10.0."""

from __future__ import annotations

from decimal import Decimal
from typing import Any, Final

from runner.config.field_types import DURATION, RATE, SHARE, SIZE
from runner.operations.type_shapes import TypeShape, union_members
from runner.units import format_duration, parse_duration, parse_rate

_SIZES: Final = (("GiB", 1024**3), ("GB", 1000**3), ("MiB", 1024**2), ("MB", 1000**2), ("KiB", 1024), ("kB", 1000))


def format_value(value: Any, shape: TypeShape) -> Any:
    """Return a single value as written in a file: durations, sizes, rates and shares with units, others unchanged."""
    if value is None or isinstance(value, bool | str | dict | list | tuple):
        return value
    kinds = [choice.field_type for choice in union_members(shape)]
    if DURATION in kinds:
        return _duration(float(value))
    if SIZE in kinds:
        return _size(int(value))
    if RATE in kinds:
        return _rate(float(value))
    if SHARE in kinds:
        return f"{Decimal(repr(round(value * 100, 9))).normalize():f}%"
    return value


def _duration(seconds: float) -> str:
    text = format_duration(seconds)
    if parse_duration(text) == seconds:
        return text
    return f"{Decimal(repr(seconds)):f}s"  # finer than a millisecond


def _rate(per_second: float) -> str:
    for unit, seconds in (("s", 1), ("m", 60), ("h", 3600), ("d", 86_400)):
        number = round(per_second * seconds, 6)
        if number.is_integer() and parse_rate(text := f"{int(number)}/{unit}") == per_second:
            return text
    return f"{Decimal(repr(per_second)):f}/s"


def _size(count: int) -> str:
    unit, size = next(((unit, size) for unit, size in _SIZES if count and count % size == 0), ("B", 1))
    return f"{count // size}{unit}"
