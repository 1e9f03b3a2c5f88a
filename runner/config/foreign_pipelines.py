"""Writes the pipeline that a file of another tool becomes, with the names and values of that file.

The rows of `foreign_files.txt` say where it has them. Its keys are those of `foreign_words.txt`, and what the language
refuses in spite of both is left out: nothing is proposed that is an error by itself.
"""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator, Sequence
from configparser import ConfigParser, Error
from contextlib import suppress
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from runner.config import guesses
from runner.config.document import KeyPath, value_at
from runner.config.foreign_words import foreign_word, normal, readings_of_number
from runner.config.models import model_at
from runner.config.name_fields import name_problem
from runner.config.proposals import refusal, value_of, written
from runner.config.spec import PipelineSpec
from runner.config.validation import default_errors, document_data, validate, validate_as
from runner.config.yaml_parser import parse_yaml
from runner.errors import PipelineInvalid
from runner.redaction import mask_passwords

_ORDER: Final = (
    *("version", "name", "description", "broker", "defaults", "exchanges", "queues", "events", "producers"),
    *("subscribers", "telemetry", "logging", "shutdown"),
)
_ITEMS: Final = ("exchanges", "queues", "events", "producers", "subscribers")
_MAX_PASSES: Final = 12
_CRON_LINE: Final = re.compile(r"^[ \t]*(@\w+|(?:[\w*/,-]+[ \t]+){4}[\w*/,-]+)[ \t]+(\S.*)$", re.MULTILINE)
_NAMES: Final = ("name", "id", "task_id", "queue", "queue_name", "title", "key")
_KEYS: Final = ("routing_key", "binding_key", "pattern", "key")
_RUNS: Final = ("push", "pull_request", "workflow_dispatch", "schedule", "release", "workflow_call")
"""What runs a workflow of GitHub, where only the names of queues have a place."""
_SAYS_NOTHING: Final = (
    *("version", "kind", "api_version", "$schema", "asyncapi", "awstemplate_format_version", "transform", "type"),
    *("labels", "annotations", "description", "action", "protocol", "runtime", "info", "$ref", "is", "binding_version"),
    *("default_content_type", "delivery_mode"),
)
"""Keys that only say what kind of file it is, or what is in it."""
_LOCAL: Final = r"localhost|127\.|\[::1"
_ARROW: Final = re.compile(r"([^\[]+)\[(.*)\]\s*->\s*(.+)")
"""A binding, as in `shop[order.placed] -> orders`."""
_ADDRESS: Final = re.compile(r"^(?:arn:|projects/|\w+://|#/)")


def pipeline_for(rows: Sequence[str], text: str, folder: Path) -> tuple[str, list[str]]:
    """Return the pipeline for a file, as YAML, and the keys of the file that are not in it; "" if nothing has a place.

    A row has a section, the path of what belongs there, and paths for its keys, as in `producers beat.* handler=task`.
    """
    data, found = _read(text), dict[str, Any]()
    for row in rows:
        _add(found, row, data)
    _chain(found.get("subscribers") or {})
    _rename(found, found.pop("alias", {}))
    with suppress(PipelineInvalid):  # of a text that cannot be written as YAML in one line
        completed = _completed(_converted(found), folder)
        pipeline = _shown(completed)
        document, problems = parse_yaml(pipeline)
        if (
            not problems
            and not validate(document)[1]
            and any(completed.get(key) for key in ("broker", "defaults", *_ITEMS))
        ):
            return mask_passwords(pipeline), [*_left_out(data, pipeline)]
    return "", []


def with_values(help_: str, text: str) -> str:
    """Return a help with the values of a file, for `{spec.replicas|3}` the one at this path, 3 if it has none."""

    def value(match: re.Match[str]) -> str:
        return next((str(found) for _, found in _matches(_read(text), match[1].split("."))), match[2])

    return re.sub(r"\{([\w.*]+)\|(\w+)\}", value, help_)


def _left_out(data: Any, pipeline: str, path: str = "") -> Iterator[str]:
    """Yield the keys whose values are not in a pipeline, each map that is left out as a whole by its own key."""
    for key, value in data.items() if isinstance(data, dict) else ():
        if normal(str(key)) in _SAYS_NOTHING or value in (None, "", {}, [], True, False):
            continue
        if isinstance(value, dict) and _is_kept({key: value}, pipeline):
            yield from _left_out(value, pipeline, f"{path}{key}.")
        elif not _is_kept(value, pipeline):
            yield f"{path}{key}"


def _is_kept(value: Any, pipeline: str) -> bool:
    """Whether a value is in a pipeline, perhaps in another unit; of a map any part, of a list all items."""
    if isinstance(value, dict):
        parts = [(key, inner) for key, inner in value.items() if normal(str(key)) not in _SAYS_NOTHING]
        return not parts or any(f"{key}:" in pipeline or _is_kept(inner, pipeline) for key, inner in parts)
    if isinstance(value, list):
        return all(_is_kept(item, pipeline) for item in value)
    if type(value) in (int, float):
        meant = (value, value + 1, value / 1000, value / 60)
        return any(re.search(rf"(?<![\w.]){number:g}(?![.\d])", pipeline) for number in meant)
    words = re.findall(r"\w{3,}", str(value))
    return not words or any(word in pipeline for word in words)


# Reading


def _read(text: str) -> Any:
    """Return the data of a file in one of the formats that tools have, None for another one."""
    for read in (_yaml, _cron_lines, tomllib.loads, _python, _blocks, _ini):
        with suppress(PipelineInvalid, ValueError, SyntaxError, Error, RecursionError):
            if data := read(text):
                return data
    return None


def _yaml(text: str) -> Any:
    first = next(part for part in re.split(r"^---.*$", text, flags=re.MULTILINE) if part.strip())
    return document_data(parse_yaml(f"list:\n{first}" if re.search(r"\A(?:\s*#.*\n|\s*\n)*- ", first) else first)[0])


def _cron_lines(text: str) -> Any:
    """Return the lines of a crontab, each by the name of its script and the word behind it."""
    lines = dict[str, Any]()
    for when, command in _CRON_LINE.findall(text):
        script = re.search(r"([\w-]+)\.(?:py|sh|rb)\b(?:\s+([A-Za-z]\w*))?", command)
        module = script[1] if script else re.split(r"[\s/]", re.split(r"\s", command)[0])[-1]
        name = (script[2] if script else "") or module
        lines[name if name not in lines else f"{name}_{len(lines) + 1}"] = {"when": when, "handler": module}
    return {"lines": lines} if lines else None


def _python(text: str) -> Any:
    """Return what a module assigns: constants, `app.conf.name`, and keywords of `update()`."""
    found: dict[str, Any] = {}
    if not re.search(r"^(?:from|import)\s|=\s*[\"'{\[(]", text, re.MULTILINE):
        return None  # properties
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Assign):
            found |= {ast.unparse(target).rpartition(".")[2]: _constant(node.value) for target in node.targets}
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("conf.update", "Celery")):
            found |= {keyword.arg: _constant(keyword.value) for keyword in node.keywords if keyword.arg}
    return {re.sub(r"^(?:celery_)?", "", key.lower()): value for key, value in found.items() if value is not None}


def _constant(node: ast.expr) -> Any:
    """Return a constant, or the keywords of a call such as `crontab(hour=3)`; None for other code."""
    if isinstance(node, ast.Dict):
        keys = [_constant(key) if key is not None else None for key in node.keys]
        return {str(key): _constant(value) for key, value in zip(keys, node.values, strict=True)}
    if isinstance(node, ast.List | ast.Tuple | ast.Set):
        return [_constant(item) for item in node.elts]
    if isinstance(node, ast.Call):
        first = {"name": _constant(node.args[0])} if node.args else {}
        return {**first, **{str(word.arg): _constant(word.value) for word in node.keywords}}
    return node.value if isinstance(node, ast.Constant) else None


def _blocks(text: str) -> Any:
    """Return the blocks in braces of Logstash and Terraform, by the words before each."""
    stack: list[dict[str, Any]] = [{}]
    apart = re.sub(r'"[^"\n]*"|[{}]', lambda match: {"{": "{\n", "}": "\n}\n"}.get(match[0], match[0]), text)
    for line in apart.splitlines():
        if opened := re.fullmatch(r"\s*([^=#]*?)\s*=?\s*\{", line):
            inner = stack[-1]
            for word in re.findall(r"[\w.-]+", opened[1]):
                inner = _below(inner, word)
            stack.append(inner)
        elif line.strip().startswith("}") and len(stack) > 1:
            stack.pop()
        elif (pair := re.fullmatch(r'\s*"?([\w-]+)"?\s*(?:=>?|:)\s*(.*?),?\s*', line)) and len(stack) > 1:
            stack[-1][pair[1]] = value_of(pair[2])
    return stack[0]


def _below(data: dict[str, Any], key: str) -> dict[str, Any]:
    """Return the map under a key, which is a new one in place of another value."""
    data[key] = data[key] if isinstance(data.get(key), dict) else {}
    return data[key]  # type: ignore[no-any-return]


def _ini(text: str) -> Any:
    """Return the sections of an INI file, and properties outside of them, by the parts of their names."""
    parser = ConfigParser(interpolation=None, strict=False, allow_no_value=True, delimiters=("=",))
    parser.optionxform = str  # type: ignore[assignment,method-assign]  # as written
    parser.read_string("[.]\n" + re.sub(r"^[ \t]+", "", text, flags=re.MULTILINE))
    found: dict[str, Any] = {}
    for section in parser.sections():
        for key, value in parser[section].items():
            inner = found
            *parents, last = re.findall(r"[^.:\s\"]+", f"{section}.{key}")
            for part in parents:
                inner = _below(inner, part)
            inner[last] = value_of(value or "")
    return found


# Carrying over


def _matches(data: Any, path: Sequence[str], name: str = "") -> Iterator[tuple[str, Any]]:
    """Yield each value at a path with the name of its item. `*` is each item; a list on the way stands for its items.

    In a list of `{name: …, value: …}`, and of `NAME=value`, the name is a key.
    """
    if not path:
        yield name, data
        return
    if isinstance(data, list) and path[0] != "*":
        pairs = {
            str(item["name"]): item["value"] for item in data if isinstance(item, dict) and {*item} >= {"name", "value"}
        }
        pairs |= {item.partition("=")[0]: item.partition("=")[2] for item in data if isinstance(item, str)}
        for item in [pairs] if pairs else data:
            yield from _matches(item, path, name)
    items = data.items() if isinstance(data, dict) else enumerate(data, 1) if isinstance(data, list) else ()
    for key, value in items:
        if any(word == str(key) or fnmatchcase(normal(str(key)), word) for word in path[0].split("|")):
            yield from _matches(value, path[1:], str(key) if "*" in path[0] else name or str(key))


def _add(found: dict[str, Any], row: str, data: Any) -> None:
    """Add what a row says of a file to a pipeline."""
    section, path, *words = row.split()
    fields = dict(word.split("=", 1) for word in words)
    for name, value in _matches(data, path.split(".") if path != "." else []):
        if section == "broker" and isinstance(value, dict) and "url" in value:
            value = value["url"]
        if section == "alias":
            found.setdefault("alias", {})[name] = value
        elif section.rstrip("!") in _ITEMS:
            _add_item(found, section, name, value, fields, data)
        elif isinstance(value, dict):
            _add_map(found, section, value, data)
        elif value not in (None, ""):
            *parents, last = section.split(".")
            scalar = _broker(value) if section == "broker" else value_of(str(value))
            _add_map(found, ".".join(parents) or ".", {last: scalar}, data)


def _add_map(found: dict[str, Any], section: str, value: dict[str, Any], data: Any) -> None:
    """Add a map that has what a section has; `.` is the top level, where lists of items are by their names."""
    home: Any = found
    for part in section.split(".") if section != "." else ():
        home = home.setdefault(part, {}) if isinstance(home, dict) else {}
    for key, inner in value.items():
        word = foreign_word("pipeline", key, inner) if section == "." and isinstance(inner, dict | list) else None
        kind = key if section == "." and key in _ITEMS else word.key if word is not None and word.is_rename else ""
        if kind in _ITEMS and isinstance(inner, dict | list):
            for name, item in _matches(inner, ["*"]):
                _add_item(found, kind, name, item, {}, data)
        elif isinstance(home, dict) and kind not in _ITEMS:
            url = _broker(inner) if key == "broker" and not isinstance(inner, dict) else inner
            home.setdefault(key if section == "." else normal(key), url)


def _add_item(found: dict[str, Any], section: str, name: str, value: Any, fields: dict[str, str], data: Any) -> None:
    """Add one item, with its own keys unless the section has a `!`. An item without the keys of its row is none."""
    if name.isdecimal() and isinstance(value, str | list) and value:  # the place in a list
        name = str(value if isinstance(value, str) else value[0])
    given = _fields(fields, name, value, data)
    if isinstance(value, str) and (arrow := _ARROW.fullmatch(value)):
        keys = [key.strip() for key in arrow[2].split(",")]
        name, given = arrow[3], {"bind": [{"exchange": arrow[1], "key": key} for key in keys]}
    if given is None:
        return
    item = dict[str, Any]()
    if isinstance(value, dict) and section[-1] != "!":
        taken = (path for path in fields.values() if "'" not in path)
        used = {word for path in taken for each in path.split(",") for word in each.split(".")[0].split("|")}
        named = {normal(str(key)): inner for key, inner in value.items()}
        item = {key: inner for key, inner in named.items() if key not in used or key in fields}
        for wrapper in ("options", "settings", "arguments"):
            item |= item.pop(wrapper) if isinstance(item.get(wrapper), dict) else {}
    section = section.rstrip("!")
    if section == "queues" and name in found.get("events", {}):
        return
    if name.isdecimal():
        own = next((item.pop(key) for key in _NAMES if item.get(key)), f"{section[:-1]}_{name}")
        name = str(own)
    name = str(_bare(given.pop("name", name)))
    if section == "events" and given.get("exchange") == "":  # the default exchange
        section, given = "queues", {}
    if not name or name_problem(name):
        return
    there = found.setdefault(section, {}).setdefault(name, {})
    if "bind" in given:
        given["bind"] = [*there.get("bind", []), *given["bind"]]
    there |= {**item, **there, **given}


def _fields(fields: dict[str, str], name: str, value: Any, data: Any) -> dict[str, Any] | None:
    """Return the keys that a row gives an item; None for an item without its name, source, file or time."""
    given: dict[str, Any] = {}
    for field, paths in fields.items():
        if field[0] == "?":  # a condition
            found = next((str(inner) for _, inner in _matches(value, field[1:].split("."))), None)
            if found is None or not {found, "*"} & {*paths.split("|")}:
                return None
            continue
        meant = next(
            (inner for path in paths.split(",") for inner in _at(path, name, value, data) if inner is not None), None
        )
        if meant is None and field in ("name", "from", "file", "when"):
            return None
        if field == "when" and meant is not None:
            given |= _schedule(meant)
        elif field == "bind" and isinstance(meant, dict):
            known = {normal(key): inner for key, inner in meant.items()}
            exchange = known.get("source") or known.get("exchange") or known.get("exchange_name")
            key = next((known[word] for word in _KEYS if word in known), "")
            if known.get("group"):  # of Spring Cloud Stream: its queue gets all messages of the destination
                exchange, key = known.get("destination"), "#"
            given["bind"] = [{"exchange": exchange, "key": key}] if exchange else []
        elif meant is not None:
            given[field] = _bare(meant) if field in ("from", "to", "dead_letter", "file", "name") else meant
    return given


def _at(path: str, name: str, value: Any, data: Any) -> Iterator[Any]:
    """Yield the values at a path of a row below an item. `@` is its name, `/` starts at the top, `'a'` is a word."""
    if path in ("@", "."):
        yield name if path == "@" else value
    elif path[0] == "'":
        yield path.strip("'")
    elif "+" in path:
        parts = [next(_at(part, name, value, data), None) for part in path.split("+")]
        yield None if None in parts else ".".join(map(str, parts))
    else:
        base = data if path[0] == "/" else value
        yield from (
            inner
            for _, inner in _matches(base, path.strip("/").split("."))
            if path != "/on" or _bare(inner) not in _RUNS
        )


def _bare(value: Any) -> Any:
    """Return the name at the end of an address, such as that of a queue in an ARN; the first one of several."""
    if isinstance(value, list | dict):
        return _bare(next(iter(value), ""))
    if isinstance(value, str) and _ADDRESS.match(value):
        return re.split(r"[/:]", value)[-1]
    return value.removesuffix(".Arn") if isinstance(value, str) else value


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _chain(subscribers: dict[str, Any]) -> None:
    """Let each subscriber publish to the one that comes after it."""
    for name, item in subscribers.items():
        for other in _listed(item.pop("after", None)):
            if isinstance(other, str) and other in subscribers:
                subscribers[other].setdefault("to", item.get("from") or name)


def _rename(found: dict[str, Any], aliases: dict[str, Any]) -> None:
    """Write the names of queues and events in place of what the file has for them, such as the ids of channels."""
    for section in ("queues", "subscribers", "producers"):
        for item in (found.get(section) or {}).values():
            renamed = {key: aliases[item[key]] for key in ("from", "to", "dead_letter") if item.get(key) in aliases}
            item |= renamed


def _broker(value: Any) -> Any:
    """Return the URL of a broker, or a map of several. Only a local broker takes the login guest."""
    if isinstance(value, list):
        return _broker(value[0]) if len(value) == 1 else {"urls": [_broker(item) for item in value]}
    url = re.sub(r"^(?:pyamqp|librabbitmq|rabbitmq)(?=://)", "amqp", str(value))
    url = url if "://" in url else guesses.broker(url)[0] or url
    url = re.sub(r"(://[^/]*/[^/]+)/.*", r"\1", re.sub(r"(?<=[^/:])//$", "/", url))
    url = re.sub(rf"//guest:guest@(?={_LOCAL})", "//", url)
    return re.sub(rf"^(amqps?://)(?!{_LOCAL}|[^/]*@)", r"\1user:***@", url)


def _schedule(value: Any) -> dict[str, Any]:
    """Return `every` for a number of seconds, a duration or units of time, else `cron`."""
    if isinstance(value, int | float):
        return {"every": f"{value:g}s"}
    if isinstance(value, list) and value and not isinstance(value[0], dict):
        return _schedule(value[0])
    if isinstance(value, dict):
        inner = [*value.values()]
        if len(inner) == 1 and isinstance(inner[0], dict):  # `{crontab: {hour: 3}}`
            return _schedule(inner[0])
        if units := guesses.duration(
            " ".join(f"{number} {unit}" for unit, number in value.items() if unit[-1:] == "s")
        ):
            return {"every": units}
    cron = guesses.cron_of(value) or (value if isinstance(value, str) and not guesses.duration(value) else "")
    return {"cron": cron} if cron else {"every": value}


def _converted(found: dict[str, Any]) -> dict[str, Any]:
    """Return a draft with the keys of the language in place of those of other tools."""
    document = parse_yaml(_shown({"version": 1, **found}))[0]
    data = document_data(document)
    validate_as(PipelineSpec, document, data, default_errors(data.get("defaults")))
    return data


def _completed(data: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return a draft with the names that it needs, and without what the language refuses."""
    for section in _ITEMS:
        items = data.get(section)
        data[section] = {name: item or {} for name, item in items.items()} if isinstance(items, dict) else {}
    broker = data.get("broker")
    if isinstance(broker, dict) and (host := broker.get("host")):
        is_guest = broker.get("user", "guest") == "guest" and re.match(_LOCAL, str(host))
        login = {} if is_guest else {"user": broker.get("user", "user"), "password": "***"}
        data["broker"] = {**{key: value for key, value in broker.items() if key not in ("user", "password")}, **login}
    for section in ("subscribers", "producers"):
        for name, item in data[section].items():
            _complete(item, name, section, folder)
    _declare(data)
    for _ in range(_MAX_PASSES):
        errors = [(error.path, error.context) for error in default_errors(data.get("defaults"))]
        try:
            PipelineSpec.model_validate(data)
        except ValidationError as error:
            errors += [(item["loc"], item.get("ctx", {})) for item in error.errors(include_url=False)]
        if not errors:
            break
        for path, context in reversed(errors):
            _mend(data, path, str(context.get("replacement") or ""))
    _declare(data)
    return data


def _complete(item: dict[str, Any], name: str, section: str, folder: Path) -> None:
    """Give a subscriber or a producer the keys that it needs."""
    item.setdefault("to" if section == "producers" else "from", name)
    path = str(item.get("handler") or "")
    error = refusal(model_at((section, name), PipelineSpec), "handler", path)
    if error is None or "file" in item or "http" in item:
        return
    meant = "" if "@" in path else str(error.get("ctx", {}).get("replacement") or "").strip('"')
    function = re.sub(r"\W+", "_", name).strip("_")
    item["handler"] = meant or guesses.function_in([folder], path or name, name) or f"module:{function}"


def _declare(data: dict[str, Any]) -> None:
    """Add the queues and exchanges that are named and not declared. Other programs read what no subscriber reads."""
    data |= {section: data.get(section) or {} for section in _ITEMS}
    items = [item for section in _ITEMS for item in data[section].values() if isinstance(item, dict)]
    names = [item.get(key) for item in items for key in ("from", "to", "dead_letter")]
    binds = [bind for item in items for bind in _listed(item.get("bind")) if isinstance(bind, dict)]
    exchanges = [item.get("exchange") for item in (*items, *binds)]
    for section, found in (("queues", names), ("exchanges", exchanges)):
        new = [name for name in found if isinstance(name, str) and name not in data["events"]]
        data[section] = {**{name: {} for name in new}, **data[section]}
    read = {str(item.get("from")) for item in items}
    for section, key in (("queues", "unread"), ("events", "unheard")):
        for name, item in data[section].items():
            if isinstance(item, dict) and name in names and name not in read:
                item.setdefault(key, "ignore")


def _mend(data: dict[str, Any], path: KeyPath, replacement: str) -> None:
    """Write the value that is meant at a path, or remove what is there, or else the item that lacks it."""
    parent = value_at(data, path[:-1])
    keys = parent if isinstance(parent, dict) else range(len(parent)) if isinstance(parent, list) else ()
    if isinstance(parent, dict | list) and path and path[-1] in keys:
        value = parent[path[-1]]  # type: ignore[index]  # a key of one, or an index of the other
        if isinstance(value, int | float) and not isinstance(value, bool) and not replacement:
            replacement = next((text for text, _ in readings_of_number(value)), "")  # a duration
        if replacement and isinstance(parent, dict):
            parent[path[-1]] = value_of(replacement)
        else:
            del parent[path[-1]]  # type: ignore[arg-type]
    elif len(path) > 1:
        _mend(data, path[:-1], "")


def _shown(data: dict[str, Any]) -> str:
    """Return a pipeline as YAML, each of its items in one line."""
    lines = []
    for key in sorted({"version": 1, **data}, key=lambda key: _ORDER.index(key) if key in _ORDER else len(_ORDER)):
        value = {"version": 1, **data}[key]
        if isinstance(value, dict) and key in (*_ITEMS, "defaults") and value:
            items = (f"  {written(name)}: {written(item or {})}" for name, item in value.items())
            lines += [f"{key}:", *items]
        elif value not in (None, {}, ""):
            lines.append(f"{key}: {written(value)}")
    return "\n".join(lines)
