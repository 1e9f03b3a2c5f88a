"""The types of fields: text, numbers, choices, durations, sizes, rates, lists and maps.

Each type has its own error messages. A value from `${…}` is always text, and is converted here. A literal in quotes is
not: `"16"` is text, `16` is a number.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Final, Literal, get_args

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic_core import PydanticCustomError

from runner.config.document import Interpolated
from runner.config.field_types import DURATION, RATE, SHARE, SIZE, TEXT
from runner.config.messages import abbreviated, closest, describe, quoted, quoted_collection, spec_error, typo_of
from runner.config.scalars import resolve_scalar
from runner.config.spec_model import SpecModel
from runner.units import format_duration, parse_duration, parse_rate, parse_share, parse_size

MAX_INTEGER: Final = 2**63 - 1
DAY_S: Final = 86_400.0
YEAR_S: Final = 365 * DAY_S
MAX_RATE: Final = 1_000_000.0
"""Messages per second, which is more than any broker handles."""


def _typed(value: object) -> object:
    """Return the value that an interpolated text would have without quotes in the file."""
    return resolve_scalar(value) if isinstance(value, Interpolated) else value


# Text, booleans, numbers


def text(value: object, what: str = "text") -> str:
    """Return a text. Numbers and booleans are errors."""
    if isinstance(value, str):
        return str(value)
    help_ = f"write {'a text' if what == 'text' else what}"
    if isinstance(value, bool | int | float):
        shown = str(value).lower() if isinstance(value, bool) else value
        help_ = f'put it in quotes: "{shown}"'
    elif isinstance(value, dict) and len(value) == 1 and type(only := next(iter(value.values()))) is str:
        help_ = f"write {quoted(only)}, without {quoted(next(iter(value)))}"
    raise spec_error("wrong-type", f"must be {what}, not {describe(value)}", help_, is_quoting=True)


def _boolean(value: object) -> bool:
    typed = _typed(value)
    if isinstance(typed, bool):
        return typed
    help_, meant = "write true or false", ""
    if isinstance(value, str) and value.lower() in ("true", "false"):
        meant = value.lower()
        help_ = f"remove the quotes: {meant}"
    elif not isinstance(value, Interpolated) and (meant := SWITCHES.get(str(value).lower(), "")):
        help_ = f"write {meant}"
    raise spec_error("wrong-type", f"must be true or false, not {describe(value)}", help_, replacement=meant)


SWITCHES = {
    **dict.fromkeys(("yes", "on", "y", "1", "enabled", "enable"), "true"),
    **dict.fromkeys(("no", "off", "n", "0", "disabled", "disable"), "false"),
}
"""What other tools write for true and false."""


def whole_number(value: object) -> int:
    """Return an integer. Text and floats are errors, even if they look like an integer."""
    typed = _typed(value)
    if isinstance(typed, int) and not isinstance(typed, bool):
        return typed
    help_, meant = "write a number, as in 10", ""
    is_literal = isinstance(value, str) and not isinstance(value, Interpolated)
    from runner.config import guesses

    if is_literal and isinstance(resolve_scalar(str(value) or "~"), int):
        meant = str(value)
        help_ = f"remove the quotes: {value}"
    elif isinstance(typed, float) and typed.is_integer() and abs(typed) < MAX_INTEGER:
        meant = str(int(typed))
        help_ = f"write {meant}"
    elif is_literal and (meant := guesses.number(str(value))):
        help_ = f"write {meant}"
    elif is_literal and (numbers := re.fullmatch(r"(\d+)\s*(?:-|\.\.|to)\s*(\d+)", str(value))):
        help_ = f"there is no range: write {numbers[2]}"
    raise spec_error("wrong-type", f"must be a whole number, not {describe(value)}", help_, replacement=meant)


Text = Annotated[str, BeforeValidator(text), TEXT]
Boolean = Annotated[bool, BeforeValidator(_boolean)]
Count = Annotated[int, BeforeValidator(whole_number), Field(ge=1, le=MAX_INTEGER)]


def choice(literal: object, remark: str = "") -> BeforeValidator:
    """Return the validator of a field that takes one of the words of a `Literal`; `remark` says what they do."""
    words: tuple[str, ...] = get_args(literal)

    def check(value: object) -> object:
        if isinstance(value, str) and value in words:
            return str(value)
        if not isinstance(value, str) or isinstance(value, Interpolated):
            message = f"must be one of {', '.join(words)}, not {describe(value)}"
            raise spec_error("bad-choice", message, f"write one of them{remark}")
        message = f"must be one of {', '.join(words)}, not {quoted(value)}"
        match = typo_of(value, words) or abbreviated(value, words, least=3)
        help_ = f'did you mean "{match}"?' if match else f"write one of them{remark}"
        raise spec_error("bad-choice", message, help_, replacement=match or "")

    return BeforeValidator(check)


# Durations, sizes and rates


Duration = Annotated[float, DURATION]
"""Seconds. The bounds are added, as in `Annotated[Duration, duration(0.001)]`."""


def duration(low: float, high: float = YEAR_S) -> BeforeValidator:
    """Return the validator of a duration between two bounds, in seconds."""

    def check(value: object) -> float:
        seconds = _seconds(value, low, high)
        if not low <= seconds <= high:
            raise _out_of_range(value, seconds, low, high)
        return seconds

    return BeforeValidator(check, json_schema_input_type=str)


def _out_of_range(value: object, seconds: float, low: float, high: float) -> PydanticCustomError:
    bound = f"at least {format_duration(low)}" if seconds < low else f"at most {format_duration(high)}"
    help_ = f"write a duration between {format_duration(low)} and {format_duration(high)}"
    return spec_error("out-of-range", f"must be {bound}, not {describe(value)}", help_)


def _seconds(value: object, low: float, high: float) -> float:
    if isinstance(value, str):
        try:
            return parse_duration(str(value))
        except ValueError:
            pass
    raise _no_duration(value, low, high)


def _no_duration(value: object, low: float, high: float) -> PydanticCustomError:
    """Return the error of a value that is no duration. What it proposes lies between the bounds."""
    from runner.config import guesses  # only for pipelines with mistakes
    from runner.config.foreign_words import readings_of_number

    is_written = isinstance(value, str) and not isinstance(value, Interpolated)
    number = int(str(value)) if is_written and re.fullmatch(r"[1-9]\d{0,11}", str(value)) else value
    if isinstance(number, int | float) and not isinstance(number, bool):
        readings = readings_of_number(number) if number else []
        fitting = [" ".join(reading).rstrip() for reading in readings if low <= parse_duration(reading[0]) <= high]
        if readings and not fitting:
            return _out_of_range(value, parse_duration(readings[0][0]), low, high)
        help_ = f"write its unit: {', '.join(fitting)}" if fitting else "write it as in 30s"
        help_ += ", or remove the key" if value == 0 else ""
        return spec_error("bad-duration", f"must be a duration with a unit, not {describe(value)}", help_)
    meant = guesses.duration(str(value)) if is_written else ""
    if meant and not low <= parse_duration(meant) <= high:
        return _out_of_range(value, parse_duration(meant), low, high)
    examples = [text for text in ("250ms", "1s", "5m", "1h", "2d") if low <= parse_duration(text) <= high]
    help_ = f"write it as in {', '.join(examples[:-1])} or {examples[-1]}"
    if meant:
        help_ = f'write "{meant}"'
    elif isinstance(value, list):
        help_ = "write one duration: there are no lists of them"
    elif is_written and re.fullmatch(r"\d{1,2}:[0-5]\d", str(value)):
        shorter, longer = guesses.duration(f"0:{value:0>5}"), guesses.duration(f"{value}:00")
        help_ = f'write "{shorter}" for minutes and seconds, or "{longer}" for hours and minutes'
    elif is_written and _LONG_UNIT.fullmatch(str(value).strip()):
        help_ = f"a year or a month is no unit: write days, as in 30d, at most {format_duration(high)}"
    return spec_error("bad-duration", f"must be a duration, not {describe(value)}", help_, replacement=meant)


_LONG_UNIT: Final = re.compile(r"\d+\s*(?:y|yrs?|years?|mo|mon|months?|M)", re.IGNORECASE)
_SIZES: Final = {
    **dict.fromkeys(("", "b", "byte"), "B"),
    **{word: unit for unit in ("kB", "MB", "GB") for word in (unit.lower(), unit[0].lower())},
    **{word: unit for unit in ("KiB", "MiB", "GiB") for word in (unit.lower(), unit[:2].lower())},
}
_AMOUNT: Final = re.compile(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)")


def _meant_size(value: object) -> str:
    """Return the size that a number with a misspelt unit means, "" if the unit cannot be guessed."""
    match = None if isinstance(value, Interpolated) else _AMOUNT.fullmatch(str(value).strip())
    word = match[2].lower() if match is not None else ""
    unit = _SIZES.get(word) or _SIZES.get(word.removesuffix("s"))
    return f"{match[1]}{unit}" if match is not None and unit else ""


def _size(value: object) -> int:
    if isinstance(value, int | float) and not isinstance(value, bool):
        meant = f"{value}B" if isinstance(value, int) and value > 0 else ""
        help_ = f"write {meant} if these are bytes" if meant else "write it as in 64kB"
        raise spec_error("bad-size", f"must be a size with a unit, not {describe(value)}", help_)
    if isinstance(value, str):
        try:
            size = parse_size(str(value))
        except (ValueError, OverflowError):
            pass
        else:
            if 1 <= size <= MAX_INTEGER:
                return size
            bound = "at least 1B" if size < 1 else f"at most {MAX_INTEGER}B"
            raise spec_error(
                "out-of-range", f"must be {bound}, not {describe(value)}", "write it as in 64kB, 1MiB or 2GB"
            )
    meant = _meant_size(value)
    help_ = f'did you mean "{meant}"?' if meant else "write it as in 512B, 64kB, 1MiB or 2GB"
    raise spec_error("bad-size", f"must be a size, not {describe(value)}", help_, replacement=meant)


Size = Annotated[int, BeforeValidator(_size, json_schema_input_type=str), SIZE]


def _rate(value: object) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool):
        help_ = "write it as in 100/s"
        if value > 0:
            help_ = f"write its unit: {value}/s per second, {value}/m per minute, {value}/h per hour"
        raise spec_error("bad-rate", f"must be a rate with a unit, not {describe(value)}", help_)
    try:
        rate = parse_rate(value) if isinstance(value, str) else None
    except ValueError:
        rate = None
    if rate is None:
        is_literal = isinstance(value, str) and not isinstance(value, Interpolated)
        from runner.config import guesses

        meant = guesses.rate(str(value)) if is_literal else ""
        help_ = f'did you mean "{meant}"?' if meant else "write it as in 100/s, 10/m, 5/h or 20/d"
        raise spec_error("bad-rate", f"must be a rate, not {describe(value)}", help_, replacement=meant)
    if not 0 < rate <= MAX_RATE:
        bound = "more than 0" if rate == 0 else f"at most {MAX_RATE:.0f}/s"
        raise spec_error(
            "out-of-range", f"must be {bound}, not {describe(value)}", "write it as in 100/s, or remove it"
        )
    return rate


Rate = Annotated[float, BeforeValidator(_rate, json_schema_input_type=str), RATE]
"""Messages per second."""


def _share(value: object) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool):
        percent = round(value * 100) if 0 < value < 1 else value if 0 < value <= 100 else 20
        help_ = f"write it in percent, as in {percent}%"
        raise spec_error("bad-share", f"must be a share in percent, not {describe(value)}", help_)
    try:
        share = parse_share(value) if isinstance(value, str) else None
    except ValueError:
        share = None
    if share is None:
        raise spec_error("bad-share", f"must be a share of at most 100%, not {describe(value)}", "write it as in 20%")
    if not share:
        raise spec_error("out-of-range", "must be more than 0%", "write it as in 20%, or remove it")
    return share


Share = Annotated[float, BeforeValidator(_share, json_schema_input_type=str), SHARE]
"""A part of a whole: `20%` is 0.2."""


# Which messages are logged

MESSAGE_LINES: Final = ("all", "errors", "summary")


def _message_lines(value: object) -> str:
    """Return one of the words, or a share as text; `true` means all, and `false` errors."""
    typed = _typed(value)
    if isinstance(typed, bool):
        return "all" if typed else "errors"
    if isinstance(value, str) and value in MESSAGE_LINES:
        return str(value)
    text = value.strip() if isinstance(value, str) else ""
    if text.endswith("%"):
        try:
            if parse_share(text) > 0:
                return str(text)
        except ValueError:
            pass
        raise spec_error(
            "out-of-range", f"must be more than 0% and at most 100%, not {quoted(text)}", "write it as in 1%"
        )
    match = closest(text, MESSAGE_LINES)
    help_ = f'did you mean "{match}"?' if match else "write one of these, or a share as in 1%"
    raise spec_error("bad-choice", f"must be {', '.join(MESSAGE_LINES)} or a share, not {describe(value)}", help_)


_MessageLinesInput = bool | Literal["all", "errors", "summary"] | Annotated[str, Field(pattern=r"^\d+(\.\d+)?%$")]
MessageLines = Annotated[str, BeforeValidator(_message_lines, json_schema_input_type=_MessageLinesInput)]


# Lists and maps


def one_or_many(value: object) -> object:
    """Return a list. One name stands for a list of one, and so does a number, whose own error says what to write."""
    if quoted_collection(value):
        raise spec_error("wrong-type", "this list is in quotes", "remove the quotes")
    if isinstance(value, str | bool | int | float):
        return (value,)
    if not isinstance(value, list | tuple):
        help_ = "write one name, or a list as in [one, two]"
        raise spec_error("wrong-type", f"must be one name or a list, not {describe(value)}", help_)
    return value


def mapping(value: object, expected: str = "a map") -> object:
    """Return a map. An empty value is an empty map, for sections in which every line is a comment."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        help_ = 'write "key: value" on lines of their own'
        if isinstance(value, list) and value and (name := item_name(value[0])):
            rest = "" if isinstance(value[0], str) else ", without the rest of its list"
            help_ = (
                f"write each on a line of its own with a colon, without dashes and brackets, as in {quoted(f'{name}:')}"
            )
            help_ += rest
        raise spec_error("wrong-type", f"must be {expected}, not {describe(value)}", help_)
    return value


def item_name(item: object) -> str:
    """Return the name in an item of a list in place of a map: the item itself, or its first part; "" if none is."""
    first = item[0] if isinstance(item, list) and item else item
    first = next(iter(first)) if isinstance(first, dict) and len(first) == 1 else first
    return first if isinstance(first, str) and not isinstance(first, Interpolated) else ""


def short_form(model: type[SpecModel], forms: Any, expected: str = "") -> BeforeValidator:
    """Return the validator of a map that may be written as the value of one key alone, `short_form` of its model.

    Without `expected`, every value but a map is that value; with it only a text is, and errors say what is `expected`.
    `forms` are the types for the JSON Schema.
    """

    def expand(value: object) -> object:
        if isinstance(value, model):
            return value
        if isinstance(value, str) if expected else not isinstance(value, dict):
            return {model.short_form: value}
        return mapping(value, expected) if expected else value

    return BeforeValidator(expand, json_schema_input_type=forms)


def _plain(value: Any) -> Any:
    """Return data with plain strings in place of `Interpolated`."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, str) else value


OPTIONAL_MAP: Final = BeforeValidator(mapping)
"""Marks a map whose key may stand without a value."""

Texts = Annotated[tuple[Text, ...], BeforeValidator(one_or_many)]
OpaqueMap = Annotated[dict[str, Any], OPTIONAL_MAP, AfterValidator(_plain)]
"""A map that is passed on unchanged."""
