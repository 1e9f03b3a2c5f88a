"""Puts stand-ins into loaded pipelines."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import replace
from typing import Any, TypeVar

from runner.config.messages import did_you_mean
from runner.config.spec import PipelineSpec
from runner.errors import PipelineInvalid, Problem
from runner.pipeline.import_problems import ImportProblem
from runner.pipeline.model import Handler, Pipeline, Producer, Resource, Subscriber
from runner.pipeline.signature import BadArguments
from runner.system import System
from runner.testing.loading import InvalidUnderTest
from runner.testing.replacement import Replacement, replaced_handler, replaced_resource
from runner.testing.virtual_time import VirtualTimeLoop

T = TypeVar("T")
RESOURCES = "resources"

StandIn = Replacement | Callable[..., Any] | str
"""A replacement, or the function that replaces a handler, or its import path."""


class StandIns:
    """What stands in for handlers and resources, by name. In several pipelines, `pipeline.name` tells them apart.

    Raises InvalidUnderTest for names that do not exist, and stand-ins that do not fit in their place.
    """

    def __init__(self, system: System, given: Mapping[str, StandIn | Mapping[str, Any]]) -> None:
        self._given = {name: value for name, value in given.items() if name != RESOURCES}
        resources = given.get(RESOURCES, {})
        self._resources: dict[str, Any] = dict(resources) if isinstance(resources, Mapping) else {}
        self._problems: list[Problem] = []
        self._check_names(system)
        specs = (spec for _, spec in system.specs)
        self.pipelines = tuple(map(self._applied, system.pipelines, specs)) if given else system.pipelines
        if self._problems:
            raise InvalidUnderTest(PipelineInvalid(self._problems))

    def _check_names(self, system: System) -> None:
        names = {each.name: None for each in system.items()}
        resources = {each.name: None for pipeline in system.pipelines for each in pipeline.resources}
        for path, wanted, known in (("", self._given, names), ("resources.", self._resources, resources)):
            qualified = {f"{pipeline.name}.{name}" for pipeline in system.pipelines for name in known}
            for name in wanted:
                if name not in known and name not in qualified:
                    what = "resource" if path else "subscriber or producer"
                    self._note(
                        f"{path}{name}", "unknown-name", f'no {what} is called "{name}"', did_you_mean(name, known)
                    )

    def _applied(self, pipeline: Pipeline, spec: PipelineSpec) -> Pipeline:
        return replace(
            pipeline,
            subscribers=tuple(self._subscriber(each, pipeline, spec) for each in pipeline.subscribers),
            producers=tuple(self._producer(each, pipeline, spec) for each in pipeline.producers),
            resources=tuple(self._resource(each, pipeline, spec) for each in pipeline.resources),
        )

    def _subscriber(self, real: Subscriber, pipeline: Pipeline, spec: PipelineSpec) -> Subscriber:
        def make(name: str, given: StandIn) -> Subscriber:
            written = spec.subscribers[real.name]
            handler = replaced_handler(
                real.handler,
                _replacement(given),
                written.with_,
                spec.resources,
                takes_payload=True,
                is_batch=real.batch is not None,
            )
            return replace(real, handler=handler, runs_in_process=False)

        return self._made(real, pipeline, self._given, "", make)

    def _producer(self, real: Producer, pipeline: Pipeline, spec: PipelineSpec) -> Producer:
        def make(name: str, given: StandIn) -> Producer:
            if real.handler is None:
                raise ImportProblem(
                    "not-callable", "this producer has no handler", "publish to its destination instead"
                )
            arguments, resources = spec.producers[real.name].with_, spec.resources
            handler = replaced_handler(real.handler, _replacement(given), arguments, resources, takes_payload=False)
            return replace(real, handler=handler)

        return self._made(real, pipeline, self._given, "", make)

    def _resource(self, real: Resource, pipeline: Pipeline, spec: PipelineSpec) -> Resource:
        def make(name: str, given: Any) -> Resource:
            return replaced_resource(real, given, spec.resources[real.name].with_)

        return self._made(real, pipeline, self._resources, "resources.", make)

    def _made(
        self, real: T, pipeline: Pipeline, given: Mapping[str, Any], path: str, make: Callable[[str, Any], T]
    ) -> T:
        """Return what `make` makes of the stand-in for an item; the item itself without one, or where it is wrong."""
        own = getattr(real, "name", "")
        name = f"{pipeline.name}.{own}" if f"{pipeline.name}.{own}" in given else own
        if name not in given:
            return real
        try:
            return make(name, given[name])
        except ImportProblem as problem:
            self._note(f"{path}{name}", problem.code, str(problem), problem.hint)
        except BadArguments as bad:
            for mismatch in bad.mismatches:
                self._note(f"{path}{name}", "bad-argument", *mismatch.words(bad.target, ()))
        return real

    def _note(self, path: str, code: str, message: str, help_: str) -> None:
        self._problems.append(Problem(code=code, message=message, path=f"replace.{path}", help=help_))


def _replacement(given: StandIn) -> Replacement:
    return given if isinstance(given, Replacement) else Replacement(handler=given)


def noted_calls(pipelines: tuple[Pipeline, ...]) -> tuple[Pipeline, ...]:
    """Return pipelines whose handlers on the loop tell it while they run: see `VirtualTimeLoop.user_call`."""
    return tuple(
        replace(
            pipeline,
            subscribers=tuple(replace(each, handler=_noted(each.handler)) for each in pipeline.subscribers),
            producers=tuple(
                replace(each, handler=_noted(each.handler)) if each.handler is not None else each
                for each in pipeline.producers
            ),
        )
        for pipeline in pipelines
    )


def _noted(handler: Handler) -> Handler:
    if handler.kind == "coroutine":
        return replace(handler, call=functools.partial(_await_noted, handler.call))
    if handler.kind == "async generator":
        return replace(handler, call=functools.partial(_iterate_noted, handler.call))
    return handler


async def _await_noted(call: Callable[..., Any], *positional: Any, **named: Any) -> Any:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualTimeLoop)
    with loop.user_call():
        return await call(*positional, **named)


async def _iterate_noted(call: Callable[..., Any], *positional: Any, **named: Any) -> AsyncGenerator[Any, None]:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualTimeLoop)
    generator = call(*positional, **named)
    try:
        while True:
            with loop.user_call():
                try:
                    item = await anext(generator)
                except StopAsyncIteration:
                    return
            yield item
    finally:
        await generator.aclose()
