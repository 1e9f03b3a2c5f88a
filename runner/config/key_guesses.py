"""Guesses about a key that the language does not have, by its letters, its value, and the keys of other maps."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from runner.config.concepts import meaning
from runner.config.document import KeyPath
from runner.config.foreign_words import ForeignWord, foreign_word, normal
from runner.config.interpolation import FREE_KEYS
from runner.config.messages import abbreviated, is_one_slip, typo_of
from runner.config.models import model_below
from runner.config.proposals import place_of, refusal
from runner.config.slips.slip import SECTIONS
from runner.config.spec import PipelineSpec
from runner.config.spec_model import SpecModel, field_keys, model_keys

KINDS = {name: f"{'an' if name[0] == 'e' else 'a'} {name[:-1]}" for name in SECTIONS if name != "resources"}
_WITH_UNITS = ("bad-duration", "bad-size", "bad-rate", "bad-share")
_MAX_EXPLAINED = 4
"""The most keys that a help lists with what each is."""
_MAX_EXPLAINED_CHARACTERS = 240


def is_level(place: str, value: Iterable[str], model: type[SpecModel], *, is_known: bool) -> bool:
    """Whether most keys of a map have a meaning in a model, and one is a key of it; for a known level, a word will do.

    `enabled` says nothing, it is in the maps of many tools.
    """
    words = {key: foreign_word(place, key) for key in value}
    keys = model_keys(model)
    is_ours = any(
        (key in keys and key != "enabled") or (is_known and word is not None and word.is_rename)
        for key, word in words.items()
    )
    return is_ours and sum(key in keys or word is not None for key, word in words.items()) * 2 > len(words)


def is_all_known(word: ForeignWord | None, value: Mapping[str, Any], model: type[SpecModel]) -> bool:
    """Whether all keys of a map have a meaning in a model, and the word for the map has none for them."""
    if word is not None and word.key == "with":  # parameters of a handler, if they are not all options
        return {*value} <= {*model_keys(model)}
    path = tuple(word.key.split(".")) if word is not None and word.is_rename else ()
    if (word is not None and len(value) < 2) or any(
        model_keys(model_below(model, (*path, *end))) for end in ((), (0,)) if path
    ):
        return False
    place, keys = place_of(model), model_keys(model)
    found = {key: meaning(place, key, inner, keys) for key, inner in value.items() if key not in keys}
    words = [foreign_word(place, key) or (item and not item.what and item.word) for key, item in found.items()]
    return (word is None or bool(path)) and all(words) and any(item and item.is_rename for item in words)


def in_quotes(text: str) -> str:
    return f"`{text}`" if '"' in text else f'"{text}"'


def key_meant(key: str, model: type[SpecModel], free: list[str]) -> str | None:
    """Return the key that one with a prefix, an abbreviation or a misspelt one that is there already means."""
    bare = re.sub(r"^(?:worker|consumer|default|task|handler|subscriber|producer|queue)[_-]", "", key)
    key = normal(key)  # `idleTimeout` has a word more than `timeout`
    return bare if bare in free else abbreviated(key, free) or typo_of(key, model_keys(model))


def form_of(key: str, value: object, model: type[SpecModel], free: list[str]) -> str:
    """Return the key of which one is another form, as `retries`, if its map takes the keys of a value; else ""."""
    inner = {*value} if isinstance(value, dict) else set()
    slips = [name for name in free if sorted(name) == sorted(key) or (len(name) > 3 and is_one_slip(key, name))]
    near = (name for name in free if name[:4] == key[:4] or name in slips)
    keys = {name: {*model_keys(model_below(model, (name,)))} for name in near}
    fits = (name for name, known in keys.items() if inner <= known or (name in slips and name in FREE_KEYS))
    return next(fits, "") if inner else ""


def is_path(key: str, model: type[SpecModel]) -> bool:
    """Whether a key with dots is the path of a key in a map below, such as `retry.attempts`."""
    above, _, last = key.rpartition(".")
    return bool(above) and last in model_keys(model_below(model, tuple(above.split("."))))


def is_form_of(key: str, other: str) -> bool:
    """Whether a key has the letters of another one, its plural, or one slip of the keyboard."""
    letters, others = (re.sub(r"[^a-z0-9]", "", word.lower()) for word in (key, other))
    return letters in (others, f"{others}s", f"{others}es") or is_one_slip(letters, others)


def missing_at(missing: Collection[KeyPath], path: KeyPath) -> list[str]:
    """Return the required keys that are missing in the map of a key."""
    return [str(other[-1]) for other in missing if other[:-1] == path[:-1]]


def home_of(key: str, model: type[SpecModel]) -> str:
    """Return the help for a key of the language in the wrong map, "" for other keys."""
    if model is PipelineSpec and key.startswith("x_"):
        return f'write "x-{key[2:40]}": keys that begin with x- are ignored'
    if model is not PipelineSpec and key in {*model_keys(PipelineSpec)} - {"version", "name", "description", "owner"}:
        return "move it to the top level of the file"
    homes = [word for section, word in KINDS.items() if key in model_keys(model_below(PipelineSpec, (section, "*")))]
    return f"move it into {' or '.join(homes)}" if homes else ""


def one_of(model: type[SpecModel], parent: Mapping[str, Any], value: object) -> str:
    """Return the help for a key whose meaning is unknown: the keys that take its value, best each with what it is.

    It does not say "remove it": what the key means is lost.
    """
    free = [name for name in model_keys(model) if name not in parent and name not in ("description", "enabled")]
    fitting = [name for name in free if _fits(model, name, value)]
    free = fitting if len(fitting) > 1 else free
    texts = {
        key: (field.description or "").rstrip(".").partition(". ")[0]
        for name, field in model.model_fields.items()
        for key in field_keys(name, field)
    }
    shown = "; ".join(f"`{name}:` ({texts[name][:1].lower()}{texts[name][1:]})" for name in free)
    own = '; a key that begins with "x-" is ignored' if model is PipelineSpec else ""
    is_short = len(free) <= _MAX_EXPLAINED and len(shown) <= _MAX_EXPLAINED_CHARACTERS
    of = "one of: " if len(free) > 1 or not is_short else ""
    return f"write {of}{shown if is_short else ', '.join(free)}{own}" if free else "remove it"


def _fits(model: type[SpecModel], key: str, value: object) -> bool:
    """Whether a key takes a value, or a number once it has a unit."""
    refused = refusal(model, key, value)
    return refused is None or (type(value) in (int, float) and refused["type"] in _WITH_UNITS)


def keys_below(key: str, model: type[SpecModel], parent: Mapping[str, Any]) -> list[str]:
    """Return the keys of the maps and lists below this map that a key belongs in, best those that are there."""
    paths: list[KeyPath] = [(below, 0) for below in model_keys(model)] if model is not PipelineSpec else []
    paths += [(below,) for below in model_keys(model)]
    found = [*dict.fromkeys(str(path[0]) for path in paths if key in model_keys(model_below(model, path)))]
    return [below for below in found if parent.get(below)] or found
