"""Long-lived objects for handlers, such as a connection pool: opened once per process, closed in reverse order."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import Any

from runner import log
from runner.errors import RunnerError
from runner.pipeline.model import Pipeline, Resource
from runner.runtime.tracebacks import error_fields, error_location, traceback_text


class ResourceFailed(RunnerError):
    """The factory of a resource failed; no subscriber or producer has started."""


class Resources:
    """The open resources of the pipelines of one process, by pipeline and name."""

    def __init__(self) -> None:
        self._open: list[tuple[Resource, AsyncExitStack]] = []
        self._values: dict[str, dict[str, Any]] = {}

    def of(self, pipeline: str) -> Mapping[str, Any]:
        """Return the resources of a pipeline by name."""
        return self._values.get(pipeline, {})

    async def open(self, pipeline: Pipeline) -> None:
        """Open the resources of a pipeline in the order of the file. Raises ResourceFailed with the factory's error."""
        values = self._values.setdefault(pipeline.name, {})
        for resource in pipeline.resources:
            try:
                values[resource.name] = await self._enter(resource)
            except (Exception, asyncio.CancelledError, SystemExit) as error:
                if _is_cancellation(error):
                    raise
                where = error_location(error)
                hint = f"see {where}" if where else f"look at its factory, {resource.path}"
                from runner.pipeline.import_failures import in_one_line

                text = f'resource "{resource.name}" cannot be opened: {in_one_line(error)}'
                raise ResourceFailed(text, hint) from error

    async def close(self) -> None:
        """Close all resources, the last opened first.

        A resource that fails to close is logged, and the others are closed.
        """
        while self._open:
            resource, stack = self._open.pop()
            try:
                await stack.aclose()
            except (Exception, asyncio.CancelledError, SystemExit) as error:
                if _is_cancellation(error):
                    raise
                fields = {**error_fields(error), "exception": traceback_text(error)}
                log.get_logger().error("resource.failed", resource=resource.name, **fields)

    async def _enter(self, resource: Resource) -> Any:
        """Call the factory, await the result if it is awaitable, and enter it if it is a context manager."""
        made = resource.factory()
        if inspect.isawaitable(made):
            made = await made
        stack = AsyncExitStack()
        if hasattr(made, "__aenter__") and hasattr(made, "__aexit__"):
            made = await stack.enter_async_context(made)
        elif hasattr(made, "__enter__") and hasattr(made, "__exit__"):
            made = stack.enter_context(made)
        self._open.append((resource, stack))
        return made


def _is_cancellation(error: BaseException) -> bool:
    """Return whether our own task is being cancelled, as opposed to something inside a factory."""
    task = asyncio.current_task()
    return isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling() > 0
