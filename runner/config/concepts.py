"""What a key means that no table has, by its words: they stand for concepts, and concepts for an option."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from functools import cache
from typing import Final, NamedTuple

from runner.config.foreign_words import ForeignWord, normal
from runner.config.models import model_below
from runner.config.proposals import proposals, refusal, written
from runner.config.spec import PipelineSpec
from runner.config.spec_model import SpecModel
from runner.redaction import mask_passwords
from runner.tables import read_table

_NEUTRAL: Final = frozenset(("-", "item", "worker", "limit", "min", "count", "on"))
"""Concepts that say little beside another one: `max_parallel_tasks` is `concurrency`."""
_OWN: Final = {
    **{home: home for home in ("retry", "batch", "dedupe")},
    **{"trip": "breaker", "logging": "log", "telemetry": "metrics", "shutdown": "stop", "broker": "connect"},
    **{"tls": "secure", "queue": "place", "producer": "out", "target": "out", "pipeline": "-", "subscriber": "-"},
    "event": "item",
}
"""The concept that the place of a key stands for."""
_NEEDED: Final = ("retry", "batch", "dedupe", "trip", "logging", "telemetry", "shutdown", "broker", "tls")
"""Homes whose concept must be in a key that stands elsewhere, as in `retry_wait` in a subscriber."""
_PARENTS: Final = {
    **dict.fromkeys(("retry", "batch", "dedupe", "trip"), "subscriber"),
    **dict.fromkeys(("logging", "telemetry", "shutdown", "broker"), "pipeline"),
    "tls": "broker",
}
_NEAR: Final = {"target": "producer"}
_PATHS: Final = {
    **{item: (f"{item}s", "*") for item in ("queue", "event", "producer", "subscriber")},
    **{home: ("subscribers", "*", home) for home in ("retry", "batch", "dedupe", "trip")},
    **{home: (home,) for home in ("logging", "telemetry", "shutdown", "broker")},
    **{"tls": ("broker", "tls"), "target": ("producers", "*", "to", 0), "pipeline": ()},
}
_ROUTES: Final = {
    ("subscriber", "queue"): "in the subscriber that reads this queue",
    ("subscriber", "event"): "in a subscriber of this event",
    ("queue", "subscriber"): "in the queue that it reads, under `queues:`; if it reads events, under `queue:` here",
    ("queue", "event"): "under `queue:` in a subscriber of this event",
    ("queue", "producer"): "in the queue that it publishes to, under `queues:`",
    ("producer", "queue"): "in the producer that publishes to this queue",
    ("target", "producer"): "here",
    ("target", "queue"): "beside `name:` in the `to:` of what publishes to it",
}
"""Where an option stands, by its home and by the place of the key."""
_ELSEWHERE: Final = {
    **dict.fromkeys(("logging", "telemetry", "shutdown", "broker", "pipeline"), "at the top level"),
    "target": "beside `name:` in a `to:`",
}
_UNITS: Final = {
    **dict.fromkeys(("ms", "msec", "msecs", "millis", "millisecond", "milliseconds"), "ms"),
    **dict.fromkeys(("s", "sec", "secs", "second", "seconds"), "s"),
    **dict.fromkeys(("m", "min", "mins", "minute", "minutes"), "min"),
    **dict.fromkeys(("h", "hour", "hours"), "unit h"),
    **dict.fromkeys(("d", "day", "days"), "unit d"),
    **{name.lower(): f"unit {name}" for name in ("kB", "MB", "GB", "KiB", "MiB", "GiB")},
    **{f"{name}bytes": f"unit {name[0]}B" for name in ("mega", "giga")},
}
_ITEMS: Final = ("subscriber", "producer", "queue")
_RETRIES: Final = re.compile(r"(?:retry|retries|redelivery|redeliveries)_(?:attempt|tries)")
_FAR: Final = 2
"""The distance of an option that stands neither in the place of a key nor in a map below it."""


class Meaning(NamedTuple):
    """What a key may mean. `what` is what that option is, "" if the meaning is certain."""

    word: ForeignWord
    what: str


class _Option(NamedTuple):
    home: str
    key: str
    how: str
    sets: tuple[frozenset[str], ...]
    text: str


class _Match(NamedTuple):
    rank: tuple[int, int, int, int]
    option: _Option
    is_certain: bool


_MAX_WORD = 40
"""The length of the longest word that is looked at in two halves."""


@cache
def _tables() -> tuple[dict[str, frozenset[str]], list[_Option]]:
    """Return the concepts by their words, and the options."""
    concepts: dict[str, frozenset[str]] = {}
    options = []
    for home, name, how, words, text in read_table("runner.config", "concepts.txt", 5):
        if home == "=":
            for word in words.split():
                concepts[word] = concepts.get(word, frozenset()) | {name}
        else:
            sets = tuple(frozenset(part.split()) for part in words.split(","))
            options += [_Option(item, name, how, sets, text) for item in home.split()]
    return concepts, options


def meaning(place: str, key: str, value: object, free: Collection[str]) -> Meaning | None:
    """Return what a key of a place may mean, None if that is unknown. `free` are the keys that the map lacks."""
    parts = [part for part in normal(key).split("_") if part]
    if isinstance(value, dict) and (home := _home(place, parts)) in free:
        return Meaning(ForeignWord(home, "=", ""), "")
    found = sorted(_matches(place, parts), key=lambda match: match.rank)
    found = [match for match in found if match.option.home != place or match.option.key in (*free, "-")]
    for match in found:
        is_off = value is False and match.option.how.startswith(":")
        if match.option.key == "-" or is_off or _takes(match.option, value):
            return Meaning(_word(match.option, place, value), "" if match.is_certain else match.option.text)
    certain = found[0] if found and found[0].is_certain and found[0].rank[-1] < _FAR else None
    return Meaning(_word(certain.option, place, value), "") if certain is not None else None


def _home(place: str, parts: list[str]) -> str:
    """Return the map below a place that a key means by its words alone, such as `batch` for `batching`, or ""."""
    tokens = [token for part in parts for token in _concepts_of(part)]
    homes = (home for home, parent in _PARENTS.items() if parent == place)
    return next(
        (
            home
            for home in homes
            if any(_OWN[home] in token for token in tokens) and all({_OWN[home], "-"} & token for token in tokens)
        ),
        "",
    )


def _concepts_of(part: str) -> Iterator[frozenset[str]]:
    """Yield the concepts of a word, and of both halves of two words in one, such as `maxretries`."""
    table = _tables()[0]

    def known(word: str) -> frozenset[str]:
        if word in _UNITS:
            return frozenset(("-", "byte" if _UNITS[word].endswith("B") else "time"))
        return frozenset("-") if word.isdecimal() else table.get(word) or table.get(word.removesuffix("s"), frozenset())

    cuts = range(len(part) - 2, 1, -1) if not known(part) and len(part) <= _MAX_WORD else ()
    halves = ((part[:index], part[index:]) for index in cuts)
    pair = next(((first, rest) for first, rest in halves if len(first) > 2 and known(first) and known(rest)), (part,))
    yield from map(known, pair)


def _matches(place: str, parts: list[str]) -> Iterator[_Match]:
    """Yield the options that the concepts of a key fit, each with its rank: the more concepts, the better."""
    tokens = [token for part in parts for token in _concepts_of(part)]
    own: frozenset[str] = frozenset().union(*tokens)
    strong = (
        own - {"time"}
        if not any("time" in token for part in parts if part not in _UNITS for token in _concepts_of(part))
        else own
    )
    unit = next((_UNITS[part] for part in reversed(parts) if part in _UNITS), "")
    kinds = ("!", "size") if unit.endswith("B") else ("!", "time", "rate") if unit else ()
    for option in _tables()[1] if place in _OWN else ():
        is_here = option.home == place
        if (option.key == "-" and not is_here) or (kinds and option.how not in kinds):
            continue
        is_key = "_".join(parts) == option.key and place == _PARENTS.get(option.home)
        needed = {_OWN[option.home]} if option.home in _NEEDED and not is_key else set()
        for concepts in option.sets:
            wanted, said = concepts | needed, concepts & own
            if not wanted <= own | {_OWN[place]} or not said or not (is_here or said - _NEUTRAL):
                continue
            rest = sum(not token & (wanted | {_OWN[place], _OWN[option.home]} | _NEUTRAL) for token in tokens)
            is_certain = rest == 0 or option.key == "-"
            distance = 0 if is_here else 1 if place in (_PARENTS.get(option.home), _NEAR.get(option.home)) else _FAR
            if distance == _FAR and not (is_certain and _is_way(option.home, place)):
                continue
            if is_certain or (option.text and rest <= len(wanted & own) and said & strong - _NEUTRAL):
                how = _how(option.how, unit, parts)
                yield _Match(
                    (-len(wanted & own - _NEUTRAL), -len(wanted & own), rest, distance),
                    option._replace(how=how),
                    is_certain,
                )


def _section_of(home: str) -> str:
    """Return the item, or the map at the top level, that a map of options belongs to."""
    return home if _PARENTS.get(home) == "pipeline" else _PARENTS.get(home, home)


def _is_way(home: str, place: str) -> bool:
    """Whether a help may send a key from its place to the home of another option."""
    parent = _section_of(home)
    is_top = parent in ("logging", "telemetry", "shutdown", "broker")
    return is_top or (parent, place) in _ROUTES or (place == "pipeline" and parent in _ITEMS)


def _how(how: str, unit: str, parts: list[str]) -> str:
    """Return how a value is converted, by the unit and the words in its key."""
    if how == "rate":
        return (
            f"unit /{unit.removeprefix('unit ')[0]}" if unit else "unit /s" if {"rps", "qps", "tps"} & {*parts} else how
        )
    if how == "tries" and _RETRIES.search("_".join(parts)):
        return "retries"
    return unit or {"time": "?", "size": "bytes"}[how] if how in ("time", "size") else how


def _model(home: str) -> type[SpecModel]:
    return model_below(PipelineSpec, _PATHS[home])


def _takes(option: _Option, value: object) -> bool:
    model = _model(option.home)
    if option.how.startswith(":") and not isinstance(value, bool):
        return False
    if isinstance(value, dict) and option.key in ("from", "to"):
        return False  # a map of another tool, whose keys are not ours
    found = proposals(model, option.key, value, option.how)
    return any(item.text for item in found) or refusal(model, option.key, value) is None


def _word(option: _Option, place: str, value: object) -> ForeignWord:
    """Return a row for the key: another name of an option, or a help that says where the option stands."""
    home, key, how, _, text = option
    if key == "-":
        return ForeignWord("", "!", text)
    parent = _section_of(home)
    remark = "attempts count the first try" if how == "retries" else ""
    if place in (home, _PARENTS.get(home)):
        return ForeignWord(key if home == place else f"{home}.{key}", how, remark)
    shown = []
    for item in proposals(_model(home), key, value, how) if _takes(option, value) else ():
        pair = f"{key}: {mask_passwords(item.text or written(value))}"
        pair = f"{home}: {{{pair}}}" if home in _PARENTS else pair
        pair = f"to: {{name: {{to|NAME}}, {pair}}}" if (home, place) == ("target", "producer") else pair
        is_default = place == "pipeline" and parent in _ITEMS and key not in ("from", "to", "handler")
        pair = f"defaults: {{{parent}: {{{pair}}}}}` for all {parent}s, or `{pair}" if is_default else pair
        shown.append(f"`{pair}` {item.condition}".rstrip())
    is_one = place == "pipeline" and "defaults" in "".join(shown)
    route = "in one" if is_one else _ROUTES.get((parent, place)) or _ELSEWHERE.get(parent) or f"in a {parent}"
    return ForeignWord("", "!", f"write {', '.join(shown) or f'`{key}:`'} {route}, in place of it")
