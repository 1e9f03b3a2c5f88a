"""Pipelines as an author might write them, made from the models themselves: a new key is tried as soon as it exists."""

from __future__ import annotations

from typing import Any, get_args

from hypothesis import strategies as st

from runner.config import field_types
from runner.config.spec import PipelineSpec
from runner.config.spec_model import SpecModel, field_keys
from runner.operations.type_shapes import TypeShape, field_shape, number_bounds

NAMES = st.sampled_from(["orders", "order.paid", "no", "010", "订单", "a b", "e: f", "#g", "x-y", "1e3", "12:30"])
TEXTS = st.text(st.sampled_from("abno1590 :#-'\"[]{},&*!|>%@`~?.\\$\n\té订😀\u0085\u2028"), max_size=12)
SAMPLES: dict[field_types.FieldType, st.SearchStrategy[Any]] = {
    field_types.DURATION: st.sampled_from(["1s", "1.5ms", "90s", "250ms", "0.1s", "2m", "1h", "1d", "0.0015s"]),
    field_types.SIZE: st.sampled_from(["1B", "64kB", "1MiB", "1.5kB", "1023B", "3GB"]),
    field_types.RATE: st.sampled_from(["1/s", "10/m", "7/h", "0.3/s", "200/s", "1.5/m"]),
    field_types.SHARE: st.sampled_from(["20%", "0.5%", "100%", "33.3%"]),
    field_types.NAME: NAMES.filter(lambda name: "#" not in name),
    field_types.PATTERN: st.sampled_from(["orders", "order.*", "#", "no", "*.paid"]),
    field_types.STORE: st.sampled_from(["sqlite:seen.db", "redis://localhost:6379/0"]),
    field_types.IDENTIFIER: st.sampled_from(["db", "cache", "y", "größe"]),
    field_types.IMPORT_PATH: st.sampled_from(["handlers.orders:place", "a:b"]),
    field_types.SCHEMA: st.sampled_from(["handlers.orders:Order", "schemas/order.json"]),
    field_types.ERROR_PATH: st.sampled_from(["TimeoutError", "a:B"]),
    field_types.URL: st.sampled_from(["amqp://localhost", "amqps://localhost/v%2F"]),
    field_types.TEXT: st.one_of(
        TEXTS, st.sampled_from(["0 6 * * mon-fri", "/orders", "Europe/Berlin", "data.csv", "a.b"])
    ),
}
PLAIN = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), TEXTS)
FOREIGN = st.dictionaries(
    TEXTS.filter(lambda key: key != "<<"),
    st.recursive(
        PLAIN, lambda inner: st.one_of(st.lists(inner, max_size=2), st.dictionaries(TEXTS, inner, max_size=2))
    ),
    max_size=2,
)


def value(shape: TypeShape) -> st.SearchStrategy[Any]:
    """Return values of a shape, as they are written."""
    if shape.is_union:
        return st.one_of([value(item) for item in shape.arguments])
    if shape.type is type(None):
        return st.none()
    if isinstance(shape.type, type) and issubclass(shape.type, SpecModel):
        return model(shape.type)
    if shape.is_free_form:
        return FOREIGN
    if shape.is_map:
        return st.dictionaries(value(shape.arguments[0]), value(shape.arguments[1]), max_size=2)
    if shape.is_list:
        return st.lists(value(shape.arguments[0]), max_size=2)
    if shape.field_type is not None or shape.type is str:
        return SAMPLES[shape.field_type or field_types.TEXT]
    if shape.type is bool:
        return st.booleans()
    if shape.type is int:
        limits = number_bounds(shape)
        return st.integers(limits.get("minimum", 0), min(limits.get("maximum", 100), 2**40))
    return st.sampled_from(get_args(shape.type))


@st.composite
def model(draw: st.DrawFn, model: type[SpecModel]) -> dict[str, Any]:
    """Return a map that the model takes: its required keys, and those of a few others that it takes beside them."""
    written: dict[str, Any] = {}
    fields = list(model.model_fields.items())
    required = [
        item for item in fields if item[1].is_required() or item[0] == draw(st.sampled_from(model.one_of or ("",)))
    ]
    others = draw(st.permutations([item for item in fields if item not in required]))[: draw(st.integers(0, 5))]
    for name, field in [*required, *others]:
        key = draw(st.sampled_from(field_keys(name, field)))
        if key != "url":
            written[key] = draw(value(field_shape(field)))
            if not _is_valid(model, written) and (name, field) in others:
                del written[key]
    return written


def _is_valid(model: type[SpecModel], written: dict[str, Any]) -> bool:
    try:
        model.model_validate(written)
    except ValueError:
        return False
    return True


def pipelines() -> st.SearchStrategy[dict[str, Any]]:
    """Return whole pipelines; some are not valid."""
    own = {"version", "include", "name", "defaults"}
    sections = {name: value(field_shape(field)) for name, field in PipelineSpec.model_fields.items() if name not in own}
    return st.fixed_dictionaries({"version": st.just(1)}, optional=sections)
