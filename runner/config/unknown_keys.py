"""Finds out which key is meant by one that the language does not have, and checks its value under that key."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from runner.config.concepts import meaning
from runner.config.document import Document, Interpolated, KeyPath, MappingNode, Node, ScalarNode, value_at
from runner.config.foreign_words import ForeignWord, foreign_word, has_parts, normal, section_of, unit_of
from runner.config.guesses import duration
from runner.config.key_guesses import (
    KINDS,
    form_of,
    home_of,
    in_quotes,
    is_all_known,
    is_form_of,
    is_level,
    is_path,
    key_meant,
    keys_below,
    missing_at,
    one_of,
)
from runner.config.messages import error_message, quoted, typo_of
from runner.config.models import model_at, model_below
from runner.config.proposals import (
    Proposal,
    cluster_urls,
    duration_of,
    fill,
    place_of,
    proposals,
    refusal,
    remark_on,
    required_keys,
    value_errors,
    value_of,
    written,
)
from runner.config.slips.slip import LISTS
from runner.config.spec import PipelineSpec
from runner.config.spec_model import SpecModel, model_keys
from runner.errors import Problem
from runner.redaction import mask_passwords

_MAX_CHARACTERS = 80
_IMPORT_PATH = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*(?:\.\w+)*")
_EXCLUDED = "conflicting-options"
_MAX_GUESSED = 50
"""How many unknown keys are guessed by their words, which takes some milliseconds for each."""
_MAX_TOGETHER = 6
"""The most unknown keys in one problem. More have a problem each."""


@dataclass(slots=True)
class _Unknown:
    """An unknown key, its place, and what is known of it. `target` is the path of the key that is meant, if any.

    `values` are the values to write; empty for the value that is there. `refused` is the help for a value that the key
    does not take, and that cannot be converted: then no value is proposed.
    """

    path: KeyPath
    problem: Problem
    node: Node | None
    word: ForeignWord | None = None
    target: KeyPath = ()
    values: list[Proposal] = field(default_factory=list)
    written: str = ""
    excluded: str = ""
    """The key beside it, with its value, that the key that is meant cannot be used together with."""
    refused: str = ""
    what: str = ""
    """What the key that is meant is, where that is only likely: the help says so."""


class UnknownKeys:
    """The unknown keys of a document. Those with a known meaning are renamed in it and in its `data`."""

    def __init__(self, document: Document, data: dict[str, Any], root: type[SpecModel] = PipelineSpec) -> None:
        self._document, self._data, self._root = document, data, root
        self._found: dict[KeyPath, _Unknown] = {}
        self._wrappers: dict[KeyPath, str] = {}
        """The unknown keys whose maps held what are keys of other tools, such as `repeat` for `repeat.pattern`."""
        self._unwrapped: list[Problem] = []
        self.stood_for: set[KeyPath] = set()
        """Required keys that an unknown key stands for although it cannot be renamed: they are not missing."""
        self.refused: set[KeyPath] = set()
        """Keys whose values the help for an unknown key says to change: their errors are not reported again."""

    def settle(self, paths: Iterable[KeyPath], missing: Collection[KeyPath]) -> None:
        """Rename or remove unknown keys, and remember them. `missing` are the paths of required keys."""
        for path in sorted(paths, key=self._turn):
            parent, key = value_at(self._data, path[:-1]), str(path[-1])
            if isinstance(parent, dict) and key in parent and not self._unwrap(path, key, parent):
                self._settle(path, key, parent, missing)

    def _turn(self, path: KeyPath) -> int:
        """Return the turn of a key: nodes of a cluster take the keys beside them up, also those of maps beside them."""
        word = foreign_word("broker", str(path[-1])) if path[0] == "broker" else None
        is_map = path[0] == "broker" and isinstance(value_at(self._data, path), dict)
        return 0 if is_map else 1 if word is not None and word.key == "urls" else 2

    def _unwrap(self, path: KeyPath, key: str, parent: dict[str, Any]) -> bool:
        """Put the keys of the map under an unknown key beside it if their meaning is known there. False if not."""
        model, nodes = model_at(path[:-1], self._root), self._document.node(path[:-1])
        if self._is_named(path, model, parent, nodes):
            return True
        place, value, node = place_of(model), parent[key], self._document.node(path)
        word = foreign_word(place, key, value)
        if isinstance(value, list) and len(value) == 1:
            value, node = value[0], self._document.node((*path, 0))
        free = [name for name in model_keys(model) if name not in parent]
        if key in (*model_keys(model), *model.reserved) or not isinstance(value, dict) or not value:
            return False
        if form_of(key, value, model, free):
            return False
        is_payload = word is not None and word.key == "payload"  # what is below it are not keys of the language
        is_compound = has_parts(place, key, value) and not duration_of(value) and not is_payload
        may_be = word is None or word.how in ("^", "!") or word.key in ("arguments", "handler", "from", "url")
        is_known = word is not None and word.how in ("^", "!")
        may_be = (may_be and is_level(place, value, model, is_known=is_known)) or is_all_known(word, value, model)
        if is_payload or (not is_compound and not may_be):
            return False
        names = {inner: f"{key}.{inner}" if is_compound else inner for inner in value}
        if {*names.values()} & {*parent}:
            return False
        if not is_compound:
            message, help_ = f"unknown key {quoted(key)}", f'remove "{key}:", and move what is below it one level up'
            problem = self._document.problem("unknown-key", path[:-1], message, help_, at=path, on="key")
            self._unwrapped.append(problem)
        del parent[key]
        parent |= {name: value[inner] for inner, name in names.items()}
        self._wrappers |= {(*path[:-1], name): self._wrappers.get(path, key) for name in names.values() if is_compound}
        if isinstance(nodes, MappingNode) and isinstance(node, MappingNode):
            del nodes.nodes[key]
            nodes.nodes |= {names[inner]: entry for inner, entry in node.nodes.items() if inner in names}
        return True

    def _is_named(self, path: KeyPath, model: type[SpecModel], parent: dict[str, Any], nodes: Node | None) -> bool:
        """Whether queues or events are the keys of a map, as in `to: {orders: {delay: 2h}}`. Then it is rewritten."""
        keys, short = model_keys(model), model.short_form
        own, names = {key: parent[key] for key in parent if key in keys}, [key for key in parent if key not in keys]
        if short not in keys or short in own or not {*names} <= {*self._names()}:
            return False
        if not all(
            parent[name] is None or (isinstance(parent[name], dict) and {*parent[name]} <= {*keys}) for name in names
        ):
            return False
        items = [{short: name, **(parent[name] or {}), **own} for name in names]
        text = written(items[0] if len(items) == 1 else items)
        list_ = next((str(part) for part in reversed(path[:-1]) if isinstance(part, str)), "")
        is_item = isinstance(list_of := value_at(self._data, path[:-2]), list) and len(list_of) > 1
        help_ = f"write `- {text}`" if is_item else f"write `{list_}: {text}`"
        message = f'{quoted(names[0])} is the "{short}" of a map here, not a key'
        self._unwrapped.append(self._document.problem("unknown-key", path[:-1], message, help_, at=path, on="key"))
        parent.clear()
        parent |= items[0]
        if isinstance(nodes, MappingNode):
            span, node = nodes.nodes.pop(names[0])
            nodes.nodes[short] = (span, ScalarNode(span, names[0]))
            nodes.nodes |= node.nodes if isinstance(node, MappingNode) else {}
        return True

    def _names(self) -> list[str]:
        """Return the names of the queues and events."""
        return [name for section in ("queues", "events") for name in self._data.get(section) or ()]

    def _settle(self, path: KeyPath, key: str, parent: dict[str, Any], missing: Collection[KeyPath]) -> None:
        model = model_at(path[:-1], self._root)
        code, message, help_ = "unknown-key", f"unknown key {quoted(key)}", ""
        target: KeyPath = ()
        value = parent[key]
        word, what, meant = self._understood(path, key, model, parent, missing_at(missing, path))
        anchored, fix = self._anchored(path, key), None
        if key in model.reserved:
            code, message, help_ = "reserved-key", f'"{key}" is a reserved word', "write another key, or remove it"
            word = None
        elif anchored:
            word, help_ = None, f'write "{anchored}": keys that begin with "x-" are ignored'
            fix = self._document.rewriting(path, anchored)
            if key.startswith(".") and "*" not in self._document.text:
                bare = anchored.removeprefix("x-")
                fix, help_ = None, f'write "{anchored}: &{bare}", and "<<: *{bare}" in each map that takes it over'
        elif word is not None and word.is_absent(parent[key]):
            word, help_ = None, "remove it: it is off without it"
        elif word is not None:
            target = (*path[:-1], *word.key.split(".")) if word.key and word.is_rename else ()
            if word.key and not word.is_rename:
                self.stood_for.add((*path[:-1], word.key))
        elif meant:
            target, help_ = (*path[:-1], meant), f'did you mean "{meant}"?'
        else:
            help_ = self._place_of(path, key, model) or one_of(model, parent, value)
        if key in model_keys(model):
            code = "wrong-type"
            message = "`queue` holds options of a subscriber's own queue; the queue that it reads is `from`"
        shown = path if key in model_keys(model) else path[:-1]
        problem = self._document.problem(code, shown, message, help_, at=path, on="key", fix=fix)
        node = self._document.node(path)
        found = _Unknown(path, problem, node, word, target, [], self._written(path, node), what=what)
        self._found[path] = found
        del parent[key]
        self._take(found, parent, value)

    def _cluster(self, word: ForeignWord, nodes: object, parent: dict[str, Any]) -> ForeignWord:
        """Return the meaning of a list of nodes, and take what is a part of their URLs out of data and document."""
        help_, keys = cluster_urls(nodes, parent)
        broker = self._document.node(("broker",))
        for key in keys:
            del parent[key]
            if isinstance(broker, MappingNode):
                broker.nodes.pop(key, None)
        also = f", in place of {' and '.join(map(quoted, keys))}, too" if keys else ""
        return word._replace(remark=f"{help_}{also}") if help_ else word

    def _understood(
        self, path: KeyPath, key: str, model: type[SpecModel], parent: dict[str, Any], missing: list[str]
    ) -> tuple[ForeignWord | None, str, str | None]:
        """Return the word of another tool that a key is, what that means if it is only likely, and a misspelt key."""
        siblings = [*parent, *(str(found[-1]) for found in self._found if found[:-1] == path[:-1])]
        value, place = parent[key], place_of(model)
        only = value[0] if isinstance(value, list) and len(value) == 1 else value
        if path[0] == "subscribers" and path[2:] == (
            "queue",
            "name",
        ):  # `queue: {name: orders}`, as other tools write it
            self.stood_for.add((*path[:2], "from"))
            return ForeignWord("", "!", 'write "from: {value}" in the subscriber, in place of "queue:"'), "", ""
        if is_path(key, model):
            return ForeignWord(key, "=", ""), "", ""
        word, concept = self._inner(path, key, model, value, parent) or foreign_word(place, key, value, siblings), None
        free = [name for name in model_keys(model) if name not in parent]
        if meant := form_of(key, value, model, free):
            return None, "", meant
        elsewhere = self._place_of(path, key, model)
        is_first = len(self._found) < _MAX_GUESSED
        if word is None and is_first and self._root is PipelineSpec and (not elsewhere or " or " not in elsewhere):
            concept = meaning(place, key, value, free)
        is_known = word is not None or (concept is not None and not concept.what)
        typo = typo_of(normal(key), free, missing) if word is None else None
        if typo and (not is_known or is_form_of(key, typo)):
            return None, "", typo
        if not is_known and (near := key_meant(key, model, free)):
            return None, "", near
        word = self._meaning(path, word, value, only, missing)
        is_only = len(missing) == 1 and not {*siblings} - {key, *model_keys(model)}
        if not is_known and word is None and is_only and not elsewhere and refusal(model, missing[0], value) is None:
            return None, "", missing[0]  # the only key that it can be
        return (*concept, "") if word is None and concept is not None else (word, "", "")

    def _take(self, found: _Unknown, parent: dict[str, Any], value: Any) -> None:
        """Put a value under the key that is meant, as that key needs it."""
        target, word, length = found.target, found.word, len(found.path)
        if target and word is not None and not self._convert(found, word, value):
            self.refused |= {target} if value_at(self._data, target) is None else set()
        if len(target) > length:  # the map that the help says to write has the keys that it needs
            self.stood_for |= {(*target[:-1], name) for name in required_keys(self._model(target[:-1]))}
        if target and not self._move(found, value_of(found.values[0].text) if found.values else value):
            help_ = self._taken(found, target, is_map=isinstance(value, dict))
            found.problem, found.target, found.word = replace(found.problem, help=help_), (), None
        elif len(target) == length and not found.refused:
            found.excluded = self._excluded(parent, model_at(found.path[:-1], self._root), str(target[-1]))

    def _model(self, path: KeyPath) -> type[SpecModel]:
        """Return the model of the map at a path, or of each map of the list there."""
        model = model_at(path, self._root)
        return model if model_keys(model) else model_at((*path, 0), self._root)

    def _convert(self, found: _Unknown, word: ForeignWord, value: object) -> bool:
        """Find the values to write for one of another tool. False if the key that is meant takes none of them."""
        model, key = self._model(found.target[:-1]), str(found.target[-1])
        items = proposals(model, key, value, word.how)
        if len(items) > 1 and isinstance(there := value_at(self._data, found.target[:-1]) or {}, dict):
            fitting = [item for item in items if not value_errors(model, {**there, key: value_of(item.text)})]
            items = [item._replace(condition="") for item in fitting] if len(fitting) == 1 else items
        unit = re.search(r"second|minute", normal(str(found.path[-1])))  # of a rate, as in `messages_per_second`
        if word.how == "rate" and unit is not None:
            items = [item._replace(condition="") for item in items if unit[0] in item.condition] or items
        found.values = [item for item in items if item.text]
        if items or (refused := refusal(model, key, value)) is None:
            return True
        help_ = error_message(refused["type"], refused.get("ctx", {}), refused["input"])[2]
        found.refused = remark_on(model, key, value) or help_
        return False

    def _meaning(
        self, path: KeyPath, word: ForeignWord | None, value: object, only: object, missing: list[str]
    ) -> ForeignWord | None:
        """Return what an unknown key means by its value: an import path, the name of a queue, a host, or items."""
        place, parent = place_of(model_at(path[:-1], self._root)), value_at(self._data, path[:-1])
        if word is not None and place == "pipeline" and word.key in ("subscribers", "producers"):
            return section_of(word, value)
        is_period = isinstance(only, int | float) or duration(str(only))
        if isinstance(only, dict):  # `{minutes: 5}` is a period, `{minute: 5}` a time
            is_period = duration_of(only) if not {"minute", "hour"} & {*only} else ""
        if word is not None and word.key == "cron" and is_period:
            return ForeignWord("every", "s", "")
        if word is not None and word.key == "bind" and value and isinstance(value, list) and isinstance(value[0], dict):
            return ForeignWord("bind", "=", "")
        if word is not None and word.key == "urls" and not word.is_rename:
            is_host = isinstance(only, str) and re.fullmatch(r"[\w.-]+(:\d+)?", only)
            return ForeignWord("host", "=", "") if is_host else self._cluster(word, value, parent)
        if not isinstance(only, str) or (word is not None and word.is_rename) or path[-1] == "image":
            return word
        if place not in ("subscriber", "producer"):
            return word
        is_file = place == "producer" and only.endswith((".csv", ".jsonl", ".ndjson"))
        if (is_file or _IMPORT_PATH.fullmatch(only)) and not {"handler", "file", "http"} & {*parent}:
            return ForeignWord("file" if is_file else "handler", "=", "")
        key = next((name for name in ("from", "to") if name in missing and only in self._names()), "")
        return ForeignWord(key, "=", "") if key else word

    def _inner(
        self, path: KeyPath, key: str, model: type[SpecModel], value: object, parent: Mapping[str, Any]
    ) -> ForeignWord | None:
        """Return the meaning of a key that belongs in a map beside it, as `delay` in `to: {name: done, delay: 2h}`."""
        below = keys_below(key, model, parent) if not isinstance(value, dict | list) else []
        beside = [found.target for at, found in self._found.items() if at[:-1] == path[:-1]]
        wanted = {str(target[len(path) - 1]) for target in beside if len(target) > len(path)}
        below = [name for name in below if name in wanted and key not in (parent.get(name) or ())] or below
        if len(below) != 1 or below[0] not in parent or self._root is not PipelineSpec or model is PipelineSpec:
            return None
        other = parent[below[0]]
        if isinstance(other, list):
            short = model_below(model, (below[0], 0)).short_form
            items = [{**(item if isinstance(item, dict) else {short: item}), key: "{value}"} for item in other]
            text = written(items).replace('"{value}"', "{value}")
            return ForeignWord("", "!", f"write `{below[0]}: {text}` in place of it and `{below[0]}`")
        return ForeignWord(f"{below[0]}.{key}", "?", f'in place of "{below[0]}"')

    def _anchored(self, path: KeyPath, key: str) -> str:
        """Return the key to write for one at the top level that only holds what an alias repeats, "" for others."""
        text = self._document.text
        block = re.search(rf"^[\"']?{re.escape(key)}[\"']?[ ]*:.*(?:\n(?:[ \t#-].*)?)*", text, re.MULTILINE)
        anchors = re.findall(r"(?:^|[\s\[{{,])&([^\s,\[\]{}]+)", block[0]) if block and len(path) == 1 else []
        is_used = any(f"*{anchor}" in text for anchor in anchors) or key.startswith((".", "_"))
        return (
            f"x-{re.sub(r'^(?:[._-]+|x_)', '', key)}"
            if is_used and self._root is PipelineSpec and len(path) == 1
            else ""
        )

    def _excluded(self, parent: dict[str, Any], model: type[SpecModel], key: str) -> str:
        """Return the key beside a proposed one that excludes it, with its value; it is taken out of the data."""
        known = {name: value for name, value in parent.items() if name in model_keys(model)}
        for error in value_errors(model, known):
            name = str([*error["loc"], ""][0])
            meant = error.get("ctx", {}).get("replacement") if name == key else None
            known |= {name: meant.strip('"')} if meant else {}
            if not meant and error["type"] != _EXCLUDED:
                known.pop(name, None)
        for error in value_errors(model, known):
            names = re.findall(r'"([\w-]+)"', error["msg"])
            other = next((name for name in names if name in parent and name != key), "")
            if error["type"] == _EXCLUDED and key in names and other and not isinstance(parent[other], dict | list):
                return mask_passwords(f"{other}: {written(parent.pop(other))}")
        return ""

    def _place_of(self, path: KeyPath, key: str, model: type[SpecModel]) -> str:
        """Return the help for a key that belongs elsewhere, "" for other keys."""
        if section := next((name for name in KINDS if not path[:-1] and key in (self._data.get(name) or ())), None):
            return f'it is one of `{section}:`: write "{section}.{key}"'
        if self._root is PipelineSpec and len(path) == 3 and path[1] in model_keys(PipelineSpec):
            return f'write "{path[1]}:" at the left margin, with what is below it'
        if below := keys_below(key, model, value_at(self._data, path[:-1]) or {}):
            return f"write it under {' or '.join(quoted(f'{name}:') for name in below)}"
        return home_of(key, model) if self._root is PipelineSpec else ""

    def _taken(self, found: _Unknown, target: KeyPath, *, is_map: bool) -> str:
        """Return the help for a key where the one that is meant is there already; in an overlay, it replaces that."""
        key, document = str(target[-1]), self._document
        if found.path[0] == "subscribers" and found.path[-1] == "queue" and found.written not in self._names():
            return "write its options as a map, as in `queue: {type: classic}`"
        other = document.span(target, "key")
        if document.part(other).file != found.problem.file:
            return f'did you mean "{key}"?'
        if is_map:
            return f'move what is below it under "{key}", which is there already'
        if found.word is not None:
            if key in LISTS - {"from"}:
                return f'add its value to "{key}", which is there already, and remove it'
            return f'remove it: "{key}" is there already'
        return f'did you mean "{key}"? It is there already: keep one of the two'

    def _written(self, path: KeyPath, node: Node | None) -> str:
        """Return the value of a key as it is written, "" if it is not a short scalar."""
        written = self._document.source_text(path)
        is_whole = isinstance(node, ScalarNode) and isinstance(node.value, Interpolated)
        return written if is_whole or ("\n" not in written and len(written) <= _MAX_CHARACTERS) else ""

    def _move(self, found: _Unknown, value: Any) -> bool:
        """Move a value to the path that is meant, in the data and in the document. False if another one is there."""
        target, base = found.target, len(found.path) - 1
        nodes, data = self._document.node(found.path[:-1]), value_at(self._data, found.path[:-1])
        entry = nodes.nodes.pop(str(found.path[-1]), None) if isinstance(nodes, MappingNode) else None
        for index in range(base, len(target) - 1):
            key, below = str(target[index]), self._model(target[: index + 1]).short_form
            inner = data.setdefault(key, {})
            if not isinstance(inner, dict):
                inner = data[key] = {below: inner}
                if isinstance(nodes, MappingNode) and key in nodes.nodes:
                    span, child = nodes.nodes[key]
                    nodes.nodes[key] = (span, MappingNode(span, True, {below: (span, child)}))
            elif isinstance(nodes, MappingNode) and entry is not None:
                nodes.nodes.setdefault(key, (entry[0], MappingNode(entry[0], True)))
            nodes = nodes.nodes[key][1] if isinstance(nodes, MappingNode) and key in nodes.nodes else None
            data = inner
        key = str(target[-1])
        if key in data:
            there = nodes.nodes[key][1] if isinstance(nodes, MappingNode) and key in nodes.nodes else None
            is_section = found.word is not None and not found.word.remark and isinstance(value, dict)
            if is_section and isinstance(data[key], dict) and not {*data[key]} & {*value}:
                data[key] |= value  # what is moved there is checked, too
                if isinstance(there, MappingNode) and entry is not None and isinstance(entry[1], MappingNode):
                    there.nodes |= entry[1].nodes
            return False
        data[key] = value
        if isinstance(nodes, MappingNode) and entry is not None:
            nodes.nodes[key] = entry
        return True

    def is_refused(self, path: KeyPath) -> bool:
        """Whether the help for an unknown key says already that the value at a path is another one."""
        keys = [part for part in path if isinstance(part, str)]  # one map stands for a list of one
        return any(keys[: len(target)] == [*target] for target in self.refused)

    def problems(self) -> list[Problem]:
        """Return the problems of unknown keys: one for those that one key is written for."""
        groups: dict[tuple[object, ...], list[_Unknown]] = {}
        for found in self._found.values():
            meant = found.target[: len(found.path)] if len(found.target) > len(found.path) else found.path
            if found.word is not None and found.word.key and not found.target:
                meant = (*found.path[:-1], found.word.key)
            groups.setdefault((bool(found.target) and not found.refused, *meant), []).append(found)
        return [*self._unwrapped, *(problem for group in groups.values() for problem in self._problems_of(group))]

    def _problems_of(self, group: list[_Unknown]) -> list[Problem]:
        """Return one problem for the parts of one map, and for keys of which one's help has the values of others."""
        problems = [self._for(found, self._problem(found)) for found in group]
        names = [self._wrappers.get(found.path, str(found.path[-1])) for found in group]
        is_wrapped = group[0].path in self._wrappers
        others = [*dict.fromkeys(names if is_wrapped else names[1:])]
        for found, problem in zip(group, problems, strict=True):
            remark = found.word.remark if found.word is not None else ""
            keys = [normal(str(other.path[-1]).rpartition(".")[2]) for other in group if other is not found]
            is_whole = (found.target and not found.refused) or (keys and all(f"{{{key}|" in remark for key in keys))
            is_only = is_wrapped and [*self._wrappers.values()].count(names[0]) == 1 and not found.target
            if is_only and problem.help.startswith("write") and "in place" not in problem.help:
                return [replace(problem, help=f"{problem.help}, in place of {quoted(names[0])}", fix=None)]
            if others and is_whole and len(group) <= _MAX_TOGETHER:
                help_ = (
                    f"{problem.help}, in place of {' and '.join(map(quoted, others))}{'' if is_wrapped else ', too'}"
                )
                return [replace(group[0].problem, help=help_, fix=None)]
        return problems

    def _for(self, found: _Unknown, problem: Problem) -> Problem:
        """Return a problem whose help says what the proposed key is, and that is no fix, where it is only likely."""
        if not found.what or found.word is None or problem.help.startswith("remove"):
            return problem
        return replace(problem, help=f"for {found.what}, {problem.help}", fix=None)

    def _problem(self, found: _Unknown) -> Problem:
        word, target = found.word, found.target
        if word is None:
            fix = self._document.rewriting(target, str(target[-1])) if target else found.problem.fix
            return self._beside(found, replace(found.problem, fix=fix))
        if found.refused:
            key = ": {".join(map(str, target[len(found.path) - 1 :]))
            key = f"{key}: …{'}' * (len(target) - len(found.path))}"
            is_all = found.refused.startswith("remove") or f"{target[-1]}: " in found.refused
            help_ = found.refused if is_all else f'write it as "{key}", with another value: {found.refused}'
            return replace(found.problem, help=mask_passwords(help_))
        if not target:
            parent, key = found.path[:-1], str(found.path[-1])
            words = {name: written(value) for name, value in (value_at(self._data, parent) or {}).items()}
            near = {str(path[-1]): item.written for path, item in self._found.items() if path[:-1] == parent}
            words |= {name.rpartition(".")[2]: text for name, text in near.items()}
            words |= {"word": key, "value": found.written or "…", "bare": found.written.lstrip("._$@\"'") or "NAME"}
            help_ = fill(word, str(parent[-1]) if parent else "", words, model_at(parent, self._root), unit_of(key))
            return replace(found.problem, help=help_)
        if len(target) > len(found.path):
            return replace(found.problem, help=f"write {self._map(target, len(found.path))}")
        key = str(target[-1])
        choices = found.values or [Proposal(found.written)]
        texts = [
            f"{in_quotes(f'{key}: {mask_passwords(item.text)}')} {item.condition}".rstrip()
            if item.text
            else f'"{key}:"'
            for item in choices
        ]
        is_masked = any(mask_passwords(item.text) != item.text for item in choices)
        yours = ", with your password in place of ***" if is_masked else ""
        help_ = self._with_remark(word, f"write {', '.join(texts)}{yours}")
        fix = None
        if len(choices) == 1 and choices[0].is_whole:
            fix = self._document.rewriting(target, key, choices[0].text if found.values else None)
        return self._beside(found, replace(found.problem, help=help_, fix=fix))

    def _beside(self, found: _Unknown, problem: Problem) -> Problem:
        """Return a problem whose help says which key beside the proposed one is to be removed."""
        if not found.excluded:
            return problem
        other = in_quotes(found.excluded)
        also = f", in place of {other}, too: only one of both can stand"
        also = f" Only one of it and {other} can stand" if problem.help.endswith("?") else also
        help_ = f"{problem.help}{also}"
        return replace(problem, help=help_, fix=None)

    def _with_remark(self, word: ForeignWord, help_: str) -> str:
        return f"{help_} ({word.remark})" if word.remark else help_

    def _map(self, target: KeyPath, depth: int) -> str:
        """Return the map that several unknown keys make together, as in `retry: {attempts: 4, delay: 5s}`."""
        inner = value_at(self._data, target[:depth]) or {}
        inner = {**required_keys(self._model(target[:depth])), **inner}
        below = [found for found in self._found.values() if found.target[:depth] == target[:depth]]
        said = {str(found.target[-1]): found for found in below}
        parts = []
        for key, value in inner.items():
            if (*target[:depth], key) in self.refused:
                continue
            text = said[key].written if key in said and not said[key].values else ""
            parts.append(f"{key}: {text or written(value)}")
        units = [f"{item.text} {item.condition}" for found in below if len(found.values) > 1 for item in found.values]
        shown = in_quotes(f"{target[depth - 1]}: {{{', '.join(parts)}}}")
        words = (found.word.remark for found in below if found.word is not None)
        remarks = [*dict.fromkeys(item for item in words if item and (len(below) == 1 or "in place" not in item))]
        notes = "; ".join([*([", ".join(units)] if units else []), *remarks])
        return f"{shown} ({notes})" if notes else shown
