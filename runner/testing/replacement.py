"""What stands in for handlers and resources during a test."""

from __future__ import annotations

import asyncio
import functools
import inspect
import itertools
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

from runner.message import Envelope
from runner.pipeline.annotations import EMPTY
from runner.pipeline.importer import import_callable, import_exception
from runner.pipeline.model import Handler, Resource
from runner.pipeline.signature import accepted_arguments, payload_annotation, read_factory, read_handler
from runner.units import parse_duration


@dataclass(frozen=True, slots=True, kw_only=True)
class Replacement:
    """Stands in for the handler of a subscriber or a producer.

    A call takes `takes` (a duration, or seconds of virtual time), then raises `raises`, or calls `handler`, or returns
    `returns`. `raises` is an exception, its class, or an import path such as `shop.errors:CarrierAway`; `handler` is a
    function with a signature of its own, or its import path. With `times`, only the first calls are replaced, and later
    ones reach the real handler.
    """

    raises: BaseException | type[BaseException] | str | None = None
    returns: Any = None
    handler: Callable[..., Any] | str | None = None
    times: int | None = None
    takes: str | float = 0.0

    def __post_init__(self) -> None:
        given = [name for name in ("raises", "returns", "handler") if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"a Replacement either {' or '.join(given)}: give one of them")
        if self.times is not None and self.times < 1:
            raise ValueError(f"times is how many calls are replaced, at least 1, not {self.times}")
        parse_duration(self.takes)

    def call(self) -> Callable[..., Any]:
        """Return the function to call. Raises ImportProblem for an import path that is wrong."""
        takes_s = parse_duration(self.takes)
        if self.handler is not None:
            handler = import_callable(self.handler) if isinstance(self.handler, str) else self.handler
            return _slowed(handler, takes_s) if takes_s else handler
        raised = import_exception(self.raises) if isinstance(self.raises, str) else self.raises

        async def stand_in(*_):  # type: ignore[no-untyped-def]  # without annotations, it takes every payload
            if takes_s:
                await asyncio.sleep(takes_s)
            if raised is not None:
                raise raised
            return self.returns

        return stand_in


def _slowed(handler: Callable[..., Any], takes_s: float) -> Callable[..., Any]:
    """Return a function with the same signature that first lets time pass."""

    @functools.wraps(handler)
    async def slowed(*arguments: Any, **named: Any) -> Any:
        await asyncio.sleep(takes_s)
        result = handler(*arguments, **named)
        return await result if inspect.isawaitable(result) else result

    return slowed


def replaced_handler(
    real: Handler,
    replacement: Replacement,
    arguments: Mapping[str, Any],
    resources: Mapping[str, Any],
    *,
    takes_payload: bool,
    is_batch: bool = False,
) -> Handler:
    """Return the handler that is called instead of the real one. `arguments` are the real one's `with:`.

    The stand-in gets those arguments and resources that it has parameters for. Messages that the real handler could not
    get do not reach it: they are checked as before. Its payload is converted to its own annotation, or without one to
    that of the real handler. Raises ImportProblem and BadArguments, as the real handler would.
    """
    call = replacement.call()
    path = replacement.handler if isinstance(replacement.handler, str) else _name_of(call)
    given = accepted_arguments(call, arguments)
    fake = read_handler(
        path, call, given, takes_payload=takes_payload, resources=resources, is_batch=is_batch, variables=given
    )
    if takes_payload:
        has_own = payload_annotation(call, fake, is_batch=is_batch) is not EMPTY
        fake = replace(fake, check=real.check, decode=_checked(real, fake) if has_own else real.decode)
    return fake if replacement.times is None else _alternating(real, fake, replacement.times)


def _checked(real: Handler, fake: Handler) -> Callable[[Envelope], Any]:
    def decode(envelope: Envelope) -> Any:
        real.decode(envelope)
        return fake.decode(envelope)

    return decode


def _alternating(real: Handler, fake: Handler, times: int) -> Handler:
    """Return a handler whose first `times` calls go to the stand-in, and later ones to the real handler.

    It runs in a thread, and what it returns is awaited or iterated where that belongs. Both get the real payload.
    """
    count = itertools.count()
    payload, message = ":payload", ":message"  # no names of parameters, so that they clash with none

    def call(**given: Any) -> Any:
        chosen = fake if next(count) < times else real
        values = {**chosen.arguments, **{name: given[name] for name in chosen.resources}}
        for name, slot in ((chosen.payload_parameter, payload), (chosen.message_parameter, message)):
            if name is not None:
                values[name] = given[slot]
        positional, named = chosen.bind(values)
        return chosen.call(*positional, **named)

    has_message = fake.message_parameter is not None or real.message_parameter is not None
    return Handler(
        path=real.path,
        call=call,
        kind="function",
        decode=real.decode,
        check=real.check,
        payload_parameter=payload if real.takes_payload or fake.takes_payload else None,
        message_parameter=message if has_message else None,
        resources=tuple(dict.fromkeys([*real.resources, *fake.resources])),
    )


def replaced_resource(real: Resource, value: Any, arguments: Mapping[str, Any]) -> Resource:
    """Return the resource that is opened instead of the real one.

    A function, a class, or an import path is a factory. It gets those `arguments` of the real one that it has
    parameters for. Anything else is the resource itself, and is neither called nor entered.
    """
    is_factory = isinstance(value, str | functools.partial) or inspect.isroutine(value) or inspect.isclass(value)
    if not is_factory:
        return replace(real, factory=functools.partial(nullcontext, value))
    call = import_callable(value) if isinstance(value, str) else value
    path = value if isinstance(value, str) else _name_of(call)
    given = accepted_arguments(call, arguments)
    return Resource(real.name, path, read_factory(path, call, given, variables=given))


def _name_of(call: Any) -> str:
    """Return what a stand-in is called in problems."""
    name = getattr(call, "__qualname__", None) or type(call).__qualname__
    return f"{getattr(call, '__module__', None) or type(call).__module__}:{name}"
