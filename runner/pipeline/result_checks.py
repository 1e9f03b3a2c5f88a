"""Checks of what handlers return: results that go nowhere, that never come, and that no reader takes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import is_dataclass
from typing import Any, get_origin

from pydantic import BaseModel

from runner.config.document import KeyPath
from runner.config.loader import PipelineFile
from runner.config.producer_spec import ProducerSpec
from runner.config.subscriber_spec import SubscriberSpec
from runner.errors import Problem
from runner.pipeline.model import Handler, Pipeline
from runner.pipeline.schema_checks import result_mismatches
from runner.pipeline.signature import payload_type, result_annotation, returned_value, returns_nothing

_LISTS = (list, tuple, set)


def missing_results(
    loaded: PipelineFile, path: KeyPath, spec: SubscriberSpec | ProducerSpec, handler: Handler
) -> Iterator[Problem]:
    """Warn of a `to`, and of a `reply`, of a handler that returns nothing."""
    how, is_subscriber = returns_nothing(handler), isinstance(spec, SubscriberSpec)
    if how and (spec.to or (is_subscriber and spec.reply)):
        key, then = ("to", f'nothing is ever published to "{spec.to[0].name}"') if spec.to else ("reply", _NULL)
        help_ = f"let it return {'what is published' if spec.to else 'the answer'}"
        help_ += (", and annotate it so" if "annotated" in how else "") + (f", or remove `{key}:`" * is_subscriber)
        message = f'"{spec.handler}" {how}: {then}'
        yield loaded.problem("no-result", (*path, key), message, help_, severity="warning")


_NULL = "each question is answered with null"


def lost_results(loaded: PipelineFile, path: KeyPath, spec: SubscriberSpec, handler: Handler) -> Iterator[Problem]:
    """Warn of results that go nowhere, or only to messages that ask for a reply."""
    result = returned_value(handler)
    if spec.to or spec.reply is not None or not result:
        return
    goes = "it is dropped" if spec.batch else "it goes only to messages with a reply_to"
    message = f'"{spec.handler}" returns {result}, and without `to:` {goes}'
    choices = "" if spec.batch else "`reply: true` if all messages ask for one, "
    help_ = f"add `to:` with a queue or an event, {choices}or annotate it `-> None`"
    yield loaded.problem("lost-result", (*path, "handler"), message, help_, severity="warning")


def unfit_results(
    loaded: PipelineFile, path: KeyPath, spec: SubscriberSpec, handler: Handler, schemas: Mapping[str, Any]
) -> Iterator[Problem]:
    """Yield the results that the schema of a destination refuses. `schemas` are those of all queues and events."""
    if handler.kind in ("function", "coroutine"):
        wanted = {target.name: schemas[target.name] for target in spec.to if target.name in schemas}
        for message, help_ in result_mismatches(handler.path, result_annotation(handler), wanted, schemas):
            yield loaded.problem("schema-mismatch", (*path, "to"), message, help_)


def unread_lists(loaded: PipelineFile, pipeline: Pipeline) -> Iterator[Problem]:
    """Yield the lists that a handler returns for a queue or an event whose readers take one object."""
    spec = loaded.spec or loaded.recovered
    found = {item.name: get_origin(result_annotation(item.handler)) for item in pipeline.subscribers}
    if spec is None or not {*found.values()} & {*_LISTS}:
        return
    readers = {
        source: kind
        for item in pipeline.subscribers
        if _is_object(kind := payload_type(item))
        for source in spec.subscribers[item.name].from_
    }
    for item in pipeline.subscribers:
        kind = found[item.name]
        if item.handler.kind not in ("function", "coroutine") or kind not in _LISTS:
            continue
        for target in spec.subscribers[item.name].to:
            if target.name in readers:
                one = readers[target.name].__name__
                message = f'"{item.handler.path}" returns a {kind.__name__}, which is one message, and '
                message += f'the reader of "{target.name}" takes one {one}'
                help_ = "write `yield` for each of its items in place of `return`: each becomes a message"
                yield loaded.problem("schema-mismatch", ("subscribers", item.name, "to"), message, help_)


def _is_object(kind: Any) -> bool:
    """Whether a payload of this annotation is an object of JSON, and no list."""
    return kind is dict or (isinstance(kind, type) and (is_dataclass(kind) or issubclass(kind, BaseModel)))
