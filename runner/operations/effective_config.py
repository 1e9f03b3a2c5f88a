"""Writes the effective configuration of a pipeline as YAML: includes merged, variables replaced, defaults filled in.

The result is itself a pipeline with the same spec, except for secrets. `include` and `defaults` are left out, because
their content is merged into the rest.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from runner.config.broker_spec import MEMORY
from runner.config.document import KeyPath
from runner.config.loader import PipelineFile
from runner.config.provenance import DEFAULT
from runner.config.spec import PipelineSpec
from runner.config.spec_model import SpecModel, field_keys
from runner.config.target_spec import TargetSpec
from runner.operations.masking import MASK, KnownSecrets, mask_free_text, mask_spec_text
from runner.operations.type_shapes import TypeShape, field_shape, union_members
from runner.operations.value_format import format_value
from runner.operations.yaml_writer import Leaf, Tree, to_yaml
from runner.redaction import mask_passwords

_MERGED: Final = frozenset({"defaults", "include"})


def effective_config(loaded: PipelineFile, spec: PipelineSpec, *, origins: bool = False) -> str:
    """Return the YAML text; with `origins`, each value has a comment that says where it comes from."""
    writer = _ConfigWriter(loaded, origins=origins)
    writer.root(spec)  # the first pass collects the secrets, so that the second one masks them everywhere
    return to_yaml(writer.root(spec))


class _ConfigWriter:
    """Writes one spec. Paths are those of the document, so that origins can be looked up."""

    def __init__(self, loaded: PipelineFile, *, origins: bool) -> None:
        self._loaded = loaded
        self._origins = origins
        self._secrets = KnownSecrets()
        self._variables: Mapping[KeyPath, tuple[str, ...]] = loaded.interpolated

    def root(self, spec: PipelineSpec) -> dict[str, Tree]:
        """Return the whole tree. The name is always written: the text may be stored under another file name."""
        entries = {key: node for key, node in self._fields(spec, ()).items() if key not in _MERGED}
        entries.setdefault("name", Leaf(self._loaded.name, self._comment((), is_set=False)))
        order = [key for name, field in PipelineSpec.model_fields.items() for key in field_keys(name, field)]
        return {key: entries[key] for key in order if key in entries}

    def _model(self, model: SpecModel, path: KeyPath) -> dict[str, Tree]:
        """Return a map, without defaults that conflict with the keys that were written."""
        entries = self._fields(model, path)
        if _is_valid(model, entries, list(entries)):
            return entries
        written = {
            key
            for name, field in type(model).model_fields.items()
            if name in model.model_fields_set
            for key in field_keys(name, field)
        }
        kept = [key for key in entries if key in written]
        for key in entries:
            if key not in written and _is_valid(model, entries, [*kept, key]):
                kept.append(key)
        return {key: node for key, node in entries.items() if key in kept}

    def _fields(self, model: SpecModel, path: KeyPath) -> dict[str, Tree]:
        entries: dict[str, Tree] = {}
        for name, field in type(model).model_fields.items():
            value, is_set = getattr(model, name), name in model.model_fields_set
            names = field_keys(name, field)
            key = next((key for key in names if self._is_written((*path, key))), names[0])
            if len(names) > 1 and getattr(model, "host", None) is not None:
                continue  # `host` replaces `url` and `urls`
            if len(names) > 1:  # urls and url
                entries |= self._urls(value, (*path, key), field_shape(field), is_set=is_set)
            elif value is None and field.default is None:
                continue
            elif value not in ((), {}, "") or value != field.default:
                node = self._value(value, (*path, key), field_shape(field), is_set=is_set)
                if node or field.default != {}:  # leave out a section in which no key is set
                    entries[key] = node
        return entries

    def _urls(self, urls: tuple[str, ...], path: KeyPath, shape: TypeShape, *, is_set: bool) -> dict[str, Tree]:
        """Return the broker's addresses: `url` for one and for the in-process broker, `urls` for several."""
        if not urls:
            is_set = is_set or self._is_written(("broker",))  # `broker: memory`, which is the default too
            return {"url": Leaf(MEMORY, self._comment(path, is_set=is_set))}
        if len(urls) == 1:
            return {"url": self._value(urls[0], (*path, 0), shape.arguments[0], is_set=is_set)}
        return {"urls": self._value(urls, path, shape, is_set=is_set)}

    def _value(self, value: Any, path: KeyPath, shape: TypeShape, *, is_set: bool) -> Tree:
        inner = next(union_members(shape))
        if isinstance(value, TargetSpec) and value.options is None:
            return self._value(value.name, path, field_shape(TargetSpec.model_fields["name"]), is_set=is_set)
        if isinstance(value, SpecModel):
            return self._model(value, path)
        if inner.is_free_form and isinstance(value, dict):
            return self._foreign(value, path, is_set=is_set)
        if isinstance(value, dict):
            return {
                key: self._value(item, (*path, key), inner.arguments[1], is_set=is_set) for key, item in value.items()
            }
        if isinstance(value, tuple):
            item_shape = inner.arguments[0]
            return [self._value(item, (*path, index), item_shape, is_set=is_set) for index, item in enumerate(value)]
        if isinstance(value, str):
            accepts_mask = any(choice.accepts_mask for choice in union_members(shape))
            variables = self._variables_at(path)
            is_password = path == ("broker", "password")
            masked = MASK if is_password else mask_spec_text(value, variables, accepts_mask=accepts_mask)
            self._secrets.note(value, masked, variables)
            value = self._secrets.hide(masked, variables) if accepts_mask else masked
        return Leaf(format_value(value, shape), self._comment(path, is_set=is_set))

    def _foreign(self, value: Any, path: KeyPath, *, is_set: bool) -> Tree:
        if isinstance(value, dict):
            return {
                mask_passwords(key): self._foreign(item, (*path, key), is_set=is_set) for key, item in value.items()
            }
        if isinstance(value, list):
            return [self._foreign(item, (*path, index), is_set=is_set) for index, item in enumerate(value)]
        if isinstance(value, str):
            keys = [str(part) for part in path if isinstance(part, str)][2:]
            variables = self._variables_at(path)
            masked = mask_free_text(value, keys, variables)
            self._secrets.note(value, masked, variables)
            value = self._secrets.hide(masked, variables)
        return Leaf(value, self._comment(path, is_set=is_set))

    def _is_written(self, path: KeyPath) -> bool:
        document = self._loaded.document
        return document is not None and document.node(path) is not None

    def _variables_at(self, path: KeyPath) -> tuple[str, ...]:
        document = self._loaded.document
        return self._variables.get(document.existing_prefix(path), ()) if document is not None else ()

    def _comment(self, path: KeyPath, *, is_set: bool) -> str:
        """Return where a value comes from: file and line, variable, or default."""
        if not self._origins:
            return ""
        return self._loaded.origin(path) if is_set else DEFAULT


def _is_valid(model: SpecModel, entries: Mapping[str, Tree], keys: list[str]) -> bool:
    """Whether a map with only these keys would be valid."""
    try:
        type(model).model_validate({key: _plain(entries[key]) for key in keys})
    except ValueError:  # pydantic's
        return False
    return True


def _plain(tree: Tree) -> Any:
    if isinstance(tree, Leaf):
        return tree.value
    if isinstance(tree, dict):
        return {key: _plain(node) for key, node in tree.items()}
    return [_plain(node) for node in tree] if isinstance(tree, list) else tree
