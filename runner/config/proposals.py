"""Converts values of other tools, and checks each result with the language, so that no help says what is refused."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from runner.config import guesses
from runner.config.document import Interpolated
from runner.config.fields import SWITCHES
from runner.config.foreign_words import ForeignWord, foreign_word
from runner.config.messages import quoted
from runner.config.models import model_below
from runner.config.scalars import resolve_scalar
from runner.config.spec import PipelineSpec
from runner.config.spec_model import SpecModel, field_keys, model_keys
from runner.redaction import mask_passwords
from runner.units import parse_duration

_NUMBER: Final = re.compile(r"\d{1,12}(?:\.\d+)?")
_SPECIAL: Final = re.compile(r"^[#*&!|>'\"%@`?-]|: | #|[\[\]{},]|:$")
"""What a text in quotes has."""
_PLAIN_NAMES: Final = (
    *("value", "name", "path", "limit", "max", "count", "size", "number", "total", "address", "url", "uri", "file"),
    *("local", "queue", "level", "amount", "text"),
)
"""Keys of a map that hold its only value, as in `file: {path: orders.csv}`."""
_PERIOD: Final = re.compile(r"(?:duration|period|interval|per|unit|window|every|seconds?|ms)$")
_MAX_DEPTH: Final = 3
_HOMES: Final = (
    *(model_below(PipelineSpec, (section, "*")) for section in ("subscribers", "queues", "producers", "events")),
    *(model_below(PipelineSpec, ("producers", "*", "to", 0)), model_below(PipelineSpec, ("subscribers", "*", "retry"))),
    *(model_below(PipelineSpec, ("subscribers", "*", "trip")),),
    *(model_below(PipelineSpec, (key,)) for key in ("broker", "shutdown", "logging", "telemetry")),
)
"""Where the keys in the remarks of the tables stand."""

_BROKER: Final = model_below(PipelineSpec, ("broker",))
_URL_PARTS: Final = ("host", "port", "vhost", "user", "password", "tls")


class Proposal(NamedTuple):
    """A value to write, as YAML; "" is the value that is there. `is_whole` is false if a part of that is left out."""

    text: str
    condition: str = ""
    is_whole: bool = True


def place_of(model: type[SpecModel]) -> str:
    """Return the word of the tables for the map of a model, such as `subscriber`."""
    return model.__name__.removesuffix("Spec").lower()


def value_errors(model: type[SpecModel], data: Mapping[str, Any]) -> list[ErrorDetails]:
    """Return the errors of a map."""
    try:
        model.model_validate(data)
    except ValidationError as error:
        return error.errors(include_url=False)
    return []


def refusal(model: type[SpecModel], key: str, value: object) -> ErrorDetails | None:
    """Return the error of a value that a key does not take. What only the other keys of the map show is no error."""
    errors = (item for item in value_errors(model, {key: value}) if item["loc"][:1] == (key,))
    return next((item for item in errors if item["type"] != "conflicting-options"), None)


def proposals(model: type[SpecModel], key: str, value: object, how: str = "=", *, depth: int = 0) -> list[Proposal]:
    """Return what to write for a value of another tool under a key, each with its condition; none if that is unknown.

    `how` is that of the word in the table. The language takes every value that is returned.
    """
    if isinstance(value, Interpolated) or depth > _MAX_DEPTH:
        return [Proposal("")]
    for reading in (how, "=") if how == "?" else (how,):  # a number in a unit, or one without
        found = [*_readings(model, key, value, reading, depth)]
        found = [item for item in found if not is_refused(model, key, value_of(item.text) if item.text else value)]
        if len(found) == 1:  # the other unit is refused
            return [found[0]._replace(condition=found[0].condition.partition("if ")[0].strip())]
        if found:
            return found
    return []


def is_refused(model: type[SpecModel], key: str, value: object) -> bool:
    """Whether a key does not take a value. What is wrong deeper in a map or a list has problems of its own."""
    refused = refusal(model, key, value)
    has_parts = isinstance(value, dict) or (isinstance(value, list) and any(isinstance(item, dict) for item in value))
    return refused is not None and (len(refused["loc"]) == 1 or not has_parts)


def value_of(text: str) -> object:
    """Return the value of a scalar of YAML, with or without quotes."""
    return text[1:-1] if text[:1] == '"' else resolve_scalar(text)


def _readings(model: type[SpecModel], key: str, value: object, how: str, depth: int) -> Iterator[Proposal]:
    if isinstance(value, dict):
        yield from _of_map(model, key, value, how, depth)
        return
    if isinstance(value, list):
        if not is_refused(model, key, value):
            yield Proposal("")
        elif len(value) == 1:
            yield from (_shown(item, value[0]) for item in proposals(model, key, value[0], how, depth=depth + 1))
        return
    converted = ForeignWord(key, how, "").values(_plain(value, how))
    if converted:
        yield from (Proposal(text, condition) for text, condition in converted)
    elif not is_refused(model, key, value):
        yield Proposal("")
    elif replacement := _replacement(model, key, value):
        yield Proposal(replacement)
    elif (word := foreign_value(model, key, value)) is not None and word.how != "!":
        yield Proposal(word.key)


def _plain(value: object, how: str) -> object:
    """Return the number or boolean that a text means where the word takes one, such as `"60000"`."""
    if isinstance(value, str) and how == "not":
        switch = resolve_scalar(SWITCHES.get(value.lower(), value.lower()))
        return switch if isinstance(switch, bool) else value
    return resolve_scalar(value) if isinstance(value, str) and how != "=" and _NUMBER.fullmatch(value) else value


def _shown(item: Proposal, value: object) -> Proposal:
    """Return a proposal for a part of a value with its text, which is no longer what is there."""
    return item if item.text else item._replace(text=written(value))


def written(value: object) -> str:
    """Return a value as YAML in one line, as in `{attempts: 4, on: [TimeoutError]}`."""
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key}: {written(inner)}' for key, inner in value.items())}}}"
    if isinstance(value, list):
        return f"[{', '.join(map(written, value))}]"
    if isinstance(value, Interpolated):
        return value.expression  # the value may be secret
    if isinstance(value, str) and (resolve_scalar(value or "~") != value or _SPECIAL.search(value)):
        return f'"{value}"' if '"' not in value else f"'{value}'"
    return str(value).lower() if isinstance(value, bool) else "null" if value is None else str(value)


def _replacement(model: type[SpecModel], key: str, value: object) -> str:
    """Return the value that the validator of a key knows for a wrong one, "" if there is none."""
    refused = refusal(model, key, value)
    return str(refused.get("ctx", {}).get("replacement") or "") if refused is not None else ""


def _of_map(model: type[SpecModel], key: str, value: dict[str, Any], how: str, depth: int) -> Iterator[Proposal]:
    """Yield the value of a map that has it under a key of its own, such as `{prefetch_count: 50}` or `{minutes: 5}`."""
    if not is_refused(model, key, value):
        yield Proposal("")
    elif replacement := _replacement(model, key, value):
        yield Proposal(replacement)
    elif text := _rate(value) if how == "rate" or key == "rate" else duration_of(value):
        yield Proposal(text)
    else:
        names = (key, model_below(model, (key,)).short_form, *_PLAIN_NAMES)
        found = []
        for name, inner in value.items():
            word = foreign_word(place_of(model), str(name))
            is_same = word is not None and word.is_rename and word.key == key
            if inner is not None and (is_same or name in names):
                inner_how = word.how if word is not None and is_same else how
                found += [(name, item, inner) for item in proposals(model, key, inner, inner_how, depth=depth + 1)]
        if len({name for name, *_ in found}) == 1:
            rest = [quoted(name) for name in value if name != found[0][0]]
            left_out = f"without {' and '.join(rest)} " if rest else ""
            for _, item, inner in found:
                condition, is_whole = f"{left_out}{item.condition}".strip(), item.is_whole and not rest
                yield _shown(item, inner)._replace(condition=condition, is_whole=is_whole)


def duration_of(value: dict[str, Any]) -> str:
    """Return the duration that a map of units means, such as `{hours: 1, minutes: 30}`; "" for other maps."""
    parts = [f"{number} {unit}" for unit, number in value.items() if isinstance(number, int | float)]
    if len(parts) == 1 and len(value) == 2 and (units := [unit for unit in value.values() if isinstance(unit, str)]):
        return guesses.duration(f"{parts[0].partition(' ')[0]} {units[0]}")  # as in `{interval: 30, unit: seconds}`
    return guesses.duration(" ".join(parts)) if len(parts) == len(value) else ""


def _rate(value: dict[str, Any]) -> str:
    """Return the rate that a number and its period mean, such as `{max: 10, duration: 1000}`; "" for other maps."""
    periods = [str(item) for key, item in value.items() if _PERIOD.search(str(key).lower())]
    numbers = [item for key, item in value.items() if type(item) is int and not _PERIOD.search(str(key).lower())]
    if len(numbers) != 1 or len(periods) != 1:
        return ""
    text = re.sub(r"^(?:per[ _-]?)?(second|minute|hour|day)s?$", r"1 \1", periods[0].lower())
    if text.isdecimal():
        text += "ms" if text.endswith("000") else "s"
    try:
        seconds = parse_duration(guesses.duration(text) or text)
    except ValueError:
        return ""
    unit = {1: "s", 60: "m", 3600: "h", 86_400: "d"}.get(int(seconds))
    return f"{numbers[0]}/{unit}" if unit and seconds >= 1 else f"{numbers[0] / seconds:g}/s" if seconds else ""


def required_keys(model: type[SpecModel]) -> dict[str, object]:
    """Return the keys that a map needs, each with an example."""
    return {
        key: (field.examples or ["…"])[0]
        for name, field in model.model_fields.items()
        if field.is_required()
        for key in field_keys(name, field)
    }


def cluster_urls(nodes: object, broker: Mapping[str, Any]) -> tuple[str, list[str]]:
    """Return the help for a list of a cluster's nodes, and the keys beside it that are parts of its URLs."""
    items = re.split(r"[,;\s]+", nodes.strip()) if isinstance(nodes, str) else nodes
    hosts = [_host(item) for item in items] if isinstance(items, list) else []
    if not hosts or not all(hosts):
        return "", []
    parts: dict[str, str] = {}
    taken = []
    for key, value in broker.items():
        word = foreign_word("broker", key, value)
        name = key if key in model_keys(_BROKER) or word is None else word.key
        if name in _URL_PARTS and isinstance(value, str | int) and value is not False:
            readings = word.values(value) if word is not None else []
            parts[name] = readings[0][0] if readings else _without_default(value)
            taken.append(key)
    login = f"{parts['user']}:{parts.get('password', 'PASSWORD')}@" if "user" in parts else ""
    scheme = "amqps" if "tls" in parts else "amqp"
    port = f":{parts['port']}" if "port" in parts else ""
    urls = [
        host
        if "://" in host
        else f"{scheme}://{login}{host}{'' if ':' in host else port}/{parts.get('vhost', '').strip('/')}"
        for host in hosts
    ]
    help_ = mask_passwords(f"write `urls: {written(urls)}`")
    return f"{help_}{' with your password in place of ***' if '***' in help_ else ''}", taken


def _without_default(value: str | int) -> str:
    """Return a value as text: of a variable the name alone, for a password may be its default."""
    return re.sub(r"(\$\{\w+)[^}]*", r"\1", value.expression) if isinstance(value, Interpolated) else str(value)


def _host(node: object) -> str:
    """Return the host of a node, with its port where it has one; "" for what is no node."""
    if isinstance(node, dict):
        host = next(
            (str(node[key]) for key in ("host", "hostname", "address", "name", "url", "uri") if key in node), ""
        )
        return f"{host}:{node['port']}" if host and "port" in node else host
    return _without_default(node) if isinstance(node, str) else ""


def foreign_value(model: type[SpecModel], key: str, value: object) -> ForeignWord | None:
    """Return the word of another tool that a value of a key is; of a map or a list, only that it is one counts."""
    kind = "[map]" if isinstance(value, dict) else "null" if value is None else str(value).strip()
    if isinstance(value, list):
        kind = "[list]" if value and not any(isinstance(item, dict | list) for item in value) else "[]"
    place = f"{place_of(model)}.{key}"
    is_percent = type(value) is int and 0 < value <= 100
    return foreign_word(place, kind) or (foreign_word(place, "[percent]") if is_percent else None)


def fill(word: ForeignWord, name: str, words: Mapping[str, str], model: type[SpecModel], how: str = "?") -> str:
    """Return the help that a word of another tool has as its remark, with values that the language takes.

    `model` is that of the map that the word stands in, and `how` the conversion of its numbers.
    """

    units: list[str] = []

    def convert(key: str, text: str) -> str:
        home = next((item for item in (model, *_HOMES) if key in model_keys(item)), None)
        if key.startswith("x-") and (meant := guesses.duration(text)):
            return f"{parse_duration(meant) * 1000:.0f}"
        if home is None or text[:1] in ("", "{", "["):
            return text
        found = proposals(home, key, value_of(text)) or proposals(home, key, value_of(text), how)
        if len(found) > 1:
            units.extend(f"{item.text} {item.condition}" for item in found)
        return (found[0].text or text) if len(found) == 1 else "…"

    help_ = word.help(name, words, convert)
    return mask_passwords(f"{help_} ({', '.join(units)})" if units else help_)


def remark_on(model: type[SpecModel], key: str, value: object, name: str = "") -> str:
    """Return the help that the table has for a value of a key, "" if it has none.

    Its words are the ends of a list and how many tries that are, the items of a map by key, and the `rest` of them.
    """
    word = foreign_value(model, key, value)
    if word is None or word.how != "!":
        return ""

    def shown(item: object) -> str:
        items = proposals(model, key, item, "?")
        return (items[0].text if items else "") or written(item)

    words = {"value": written(value)}
    if isinstance(value, list):
        words |= {"first": shown(value[0]), "last": shown(value[-1]), "tries": str(len(value) + 1)}
    elif isinstance(value, dict):
        words |= {str(item): shown(inner) for item, inner in value.items()}
        rest = ", ".join(f"{item}: {words[str(item)]}" for item in value if item not in ("root", "default"))
        words["rest"] = f"{{{rest}}}"
    return fill(word, name, words, model)
