"""Finds the model of a map of the file by its path."""

from __future__ import annotations

from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from runner.config.document import KeyPath
from runner.config.spec import ITEM_MODELS, PipelineSpec
from runner.config.spec_model import SpecModel, field_keys


def model_at(path: KeyPath, root: type[SpecModel] = PipelineSpec) -> type[SpecModel]:
    """Return the model of the map at a path."""
    if path[:1] == ("defaults",) and len(path) > 1:
        return model_below(ITEM_MODELS.get(str(path[1]), SpecModel), path[2:])
    return model_below(root, path)


def _step(annotation: Any, part: str | int) -> Any:
    """Return the type of a key or an item of a type."""
    if isinstance(annotation, type) and issubclass(annotation, SpecModel):
        for name, field in annotation.model_fields.items():
            if part in field_keys(name, field):
                return field.annotation
        annotation = annotation.__annotations__.get("__pydantic_extra__")  # a map of names beside the known keys
    arguments = get_args(annotation)
    if get_origin(annotation) is dict:
        return arguments[1]
    return arguments[0] if get_origin(annotation) is tuple else None


def _bare(annotation: Any) -> Any:
    """Return a type without its metadata and without None."""
    while True:
        if get_origin(annotation) is Annotated:
            annotation = get_args(annotation)[0]
        elif get_origin(annotation) in (Union, UnionType):
            annotation = next(item for item in get_args(annotation) if item is not type(None))
        else:
            return annotation


def model_below(model: type[SpecModel], path: KeyPath) -> type[SpecModel]:
    """Return the model of the map at a path below another one; `SpecModel`, which has no keys, for other values."""
    annotation: Any = model
    for part in path:
        annotation = _bare(_step(annotation, part))
    return annotation if isinstance(annotation, type) and issubclass(annotation, SpecModel) else SpecModel
