"""The words of other tools, from `foreign_words.txt`: what they are called here, and with which value."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import cache
from types import NoneType
from typing import Final, NamedTuple

from runner.tables import read_table

_PREFIX = re.compile(
    r"^(?:is|max|num|number_of|worker|consumer|listener|default|global|task|job|message|handler|subscriber|my"
    r"|rabbitmq|rabbit|amqp|celery|kafka|broker)_"
)
_SUFFIX = re.compile(r"_(?:name|config|configuration|options|settings|policy|value|spec)$")
_UNIT = re.compile(r"(?:^|_)(?:in_)?(?:(ms|msecs?|millis|milliseconds?)|(m|mins?|minutes?)|(?:s|secs?|seconds?))$")
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_PLACEHOLDER = re.compile(r"((?:([\w-]+): )?)\{(=?)(\w+)(?:\|([^}]*))?\}")
_FEW_SECONDS, _MANY_SECONDS = 100, 1000
"""A number below the first is one of seconds, and from the second on more often one of milliseconds."""
_DIGITS: Final = 12


class ForeignWord(NamedTuple):
    """One row of the table: `key` is dotted for a key one map below, and "" if there is none."""

    key: str
    how: str
    remark: str

    @property
    def is_rename(self) -> bool:
        """Whether the key takes the word's value, perhaps in another unit."""
        return self.how not in ("!", "items", "^")

    def is_absent(self, value: object) -> bool:
        """Whether the word says with `false` that there is none of it, as `retry_jitter: false` does."""
        return value is False and self.how.startswith(":") and "/" not in self.how

    def values(self, value: object) -> list[tuple[str, str]]:
        """Return the values to write for a value, each with its condition; more than one if its unit is unknown."""
        if self.how.startswith(":"):
            return [(self.how[1:].split("/")[value is False], "")]
        if self.how == "vhost" and isinstance(value, str):
            return [(value.removeprefix("/") or '"/"', "")]
        if isinstance(value, bool) or not isinstance(value, int | float):
            return [(_opposite(value), "")] if self.how == "not" and isinstance(value, bool) else []
        if self.how.startswith("unit "):
            return [(f"{value:.{_DIGITS}g}{self.how[5:]}", "")]
        convert = _CONVERSIONS.get(self.how)
        return convert(value) if convert is not None else []

    def help(
        self, name: str, words: Mapping[str, str], convert: Callable[[str, str], str] = lambda _, text: text
    ) -> str:
        """Return the remark as a help. `words` are those for its placeholders, such as the word's value and neighbours.

        `convert` gets the key before a placeholder and the text for it, and returns what the language takes there.
        """
        known = {"name": name, **{normal(word): text for word, text in words.items()}}

        def fill(match: re.Match[str]) -> str:
            before, key, is_raw, word, example = match.groups(default="")
            text = known.get(word)
            if text is None:
                return match[0] if match[5] is None else f"{before}{example}"
            return f"{before}{convert(key, text) if key and not is_raw else text}"

        return _PLACEHOLDER.sub(fill, self.remark)


def _opposite(value: bool) -> str:
    return "false" if value else "true"


def _seconds(number: float) -> list[tuple[str, str]]:
    return [(f"{number:.{_DIGITS}g}s", "")] if 0 <= number < 10**_DIGITS else []


def _milliseconds(number: float) -> list[tuple[str, str]]:
    if number % 1000 == 0:
        return _seconds(number // 1000)
    return [(f"{number:.{_DIGITS}g}ms", "")] if 0 <= number < 10**_DIGITS else []


def readings_of_number(number: float) -> list[tuple[str, str]]:
    """Return a number as a duration, in seconds and in milliseconds, the likelier first; a small one is in seconds."""
    if not _FEW_SECONDS <= number < 10**_DIGITS:
        return _seconds(number)
    seconds, milliseconds = _seconds(number)[0][0], _milliseconds(number)[0][0]
    if number >= _MANY_SECONDS:
        return [(milliseconds, "if these are milliseconds"), (seconds, "if seconds")]
    return [(seconds, "if these are seconds"), (milliseconds, "if milliseconds")]


_CONVERSIONS: Final[Mapping[str, Callable[[float], list[tuple[str, str]]]]] = {
    "retries": lambda number: [(str(int(number) + 1), "")],
    "tries": lambda number: [(str(int(number)), "")],
    "ms": _milliseconds,
    "s": _seconds,
    "min": lambda number: [(f"{number:.{_DIGITS}g}m", "")],
    "?": readings_of_number,
    "bytes": lambda number: [(f"{int(number)}B", "")],
    "%": lambda number: [(f"{number * 100 if number < 1 else number:g}%", "")],
    "rate": lambda number: [(f"{number}/s", "if per second"), (f"{number}/m", "if per minute")],
}


@cache
def _table() -> dict[str, dict[str, ForeignWord]]:
    """Return the words by their place and by their normal form."""
    table: dict[str, dict[str, ForeignWord]] = {}
    for place, words, key, how, remark in read_table("runner.config", "foreign_words.txt", 5):
        for word in words.split():
            name, has_value, value = word.partition("=")
            is_one_value = value and how.startswith(":")
            meaning = ForeignWord(key.strip("-"), f"{how}/{how[1:]}" if is_one_value else how, remark)
            table.setdefault(place, {})[normal(name) + (f"={normal(value)}" if has_value else "")] = meaning
    return table


def has_parts(place: str, word: str, parts: Iterable[str]) -> bool:
    """Whether the table has words for the keys of the map under a word, such as `repeat.pattern` in a producer."""
    begins = tuple(f"{normal(word)}_{normal(part)}" for part in parts)
    return any(row == begin or row.startswith(f"{begin}_") for row in _table().get(place, {}) for begin in begins)


def section_of(word: ForeignWord, items: object) -> ForeignWord:
    """Return the meaning of a word for subscribers or producers; what its items have says which of both they are."""
    if isinstance(items, dict) and any(
        isinstance(item, dict) and {"image", "build"} & {*item} for item in items.values()
    ):
        return ForeignWord("", "!", _CONTAINERS)
    if (
        word.key == "producers"
        or not isinstance(items, dict)
        or not items
        or not all(isinstance(item, dict) for item in items.values())
    ):
        return word
    kinds = {next((kind for kind, keys in _MARKS.items() if _means(kind, item, keys)), "") for item in items.values()}
    kind = kinds.pop() if len(kinds) == 1 else ""
    return ForeignWord(f"{kind}s", "=", "") if kind and (f"{kind}s" != word.key or not word.is_rename) else word


_CONTAINERS: Final = "remove it: these are containers; `runner export compose` writes such a file from a pipeline"
_MARKS: Final = {"subscriber": ("from",), "producer": ("cron", "every", "file", "http")}


def _means(place: str, item: Mapping[str, object], keys: Collection[str]) -> bool:
    """Whether one of the keys of an item is, or means, one of some keys."""
    known = ((key, foreign_word(place, key)) for key, value in item.items() if not isinstance(value, dict))
    return any(key in keys or (word is not None and word.is_rename and word.key in keys) for key, word in known)


def foreign_word(place: str, word: str, value: object = None, siblings: Collection[str] = ()) -> ForeignWord | None:
    """Return what a word of another tool means in a kind of map, such as `subscriber`; None if it is not known.

    A value, and the other keys of the map, may give it another meaning.
    """
    words, whole = _table().get(place, {}), normal(word)
    plain = _PREFIX.sub("", whole)
    given = "" if isinstance(value, list | dict | NoneType) else f"={normal(str(value))}"
    for name in (whole, plain, _SUFFIX.sub("", whole), _SUFFIX.sub("", plain)):
        for row in (f"{name}{given}", *(f"{name}&{normal(other)}" for other in siblings), name):
            if row in words:
                return words[row]
    if "." in place or whole.startswith("x_"):  # a value, or a key that is ignored but for its dash
        return None
    unit = _UNIT.search(whole)
    found = foreign_word(place, whole[: unit.start()]) if unit is not None else None
    if unit is not None and found is not None and found.how in ("?", "s", "ms"):
        return found._replace(how=unit_of(word))
    parts = whole.split("_")
    for length in range(len(parts) - 1, 1, -1):  # a beginning that has no counterpart here, as in `on_failure_callback`
        part = words.get("_".join(parts[:length]))
        if part is not None and part.remark.startswith("remove"):
            return part
    return None


def unit_of(word: str) -> str:
    """Return how a number under a word with a unit is converted, as `ms` for `delay_ms`; "?" for other words."""
    unit = _UNIT.search(normal(word))
    return "?" if unit is None else "ms" if unit[1] else "min" if unit[2] else "s"


def normal(word: str) -> str:
    """Return a word in small letters with underscores, as in `max_retries` for `maxRetries` and `max-retries`."""
    return re.sub(r"[-. ]", "_", _CAMEL.sub("_", word)).lower().strip(":")
