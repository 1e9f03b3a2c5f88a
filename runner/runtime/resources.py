"""Opens what handlers need for a long time, in order, once per process; closes it in reverse."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import Any

from runner.errors import RunnerError
from runner.pipeline.model import Pipeline, Resource
from runner.runtime.blame import raised_at, words_of


class ResourceFailed(RunnerError):
    """A resource's factory failed: nothing has started."""

    exit_code = 1


class Resources:
    """The open resources of the pipelines of one process, by pipeline and name."""

    def __init__(self) -> None:
        self._stack = AsyncExitStack()
        self._values: dict[str, dict[str, Any]] = {}

    def of(self, pipeline: str) -> Mapping[str, Any]:
        """Return a pipeline's resources by name."""
        return self._values.get(pipeline, {})

    async def open(self, pipeline: Pipeline) -> None:
        """Open a pipeline's resources in the order of the file; raises ResourceFailed with the factory's error."""
        values = self._values.setdefault(pipeline.name, {})
        for resource in pipeline.resources:
            try:
                values[resource.name] = await self._enter(resource)
            except (Exception, asyncio.CancelledError, SystemExit) as error:
                task = asyncio.current_task()
                if isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling():
                    raise
                where = raised_at(error)
                hint = f"see {where}" if where else f"look at its factory, {resource.path}"
                text = f'resource "{resource.name}" cannot be opened: {type(error).__qualname__}: {words_of(error)}'
                raise ResourceFailed(text, hint) from error

    async def close(self) -> None:
        """Close everything, the last opened first. Raises what closing raises, after all were tried."""
        await self._stack.aclose()

    async def _enter(self, resource: Resource) -> Any:
        """Call the factory; await and enter what it returns, where that can be awaited or entered."""
        made = resource.factory(**resource.arguments)
        if inspect.isawaitable(made):
            made = await made
        if hasattr(made, "__aenter__") and hasattr(made, "__aexit__"):
            return await self._stack.enter_async_context(made)
        if hasattr(made, "__enter__") and hasattr(made, "__exit__"):
            return self._stack.enter_context(made)
        return made
