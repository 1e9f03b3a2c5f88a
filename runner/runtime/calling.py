"""Calls one subscriber's handler where it is to run: on the loop, in a thread, or in a process of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from runner import log
from runner.message import Message
from runner.pipeline.model import Subscriber
from runner.runtime.invoking import Results, call_in_thread, call_on_loop
from runner.runtime.processes import Call, ProcessPool


class Caller:
    """Knows a handler's arguments and where it runs. `resources` are the open ones of the pipeline."""

    def __init__(self, subscriber: Subscriber, resources: Mapping[str, Any]) -> None:
        handler = subscriber.handler
        self._handler = handler
        self._timeout_s = subscriber.timeout_s
        self._is_batch = subscriber.batch is not None
        self._arguments = {**handler.arguments, **{name: resources[name] for name in handler.resources}}
        self._pool = ProcessPool(subscriber.concurrency, subscriber.name) if subscriber.runs_in_process else None
        # A pool of its own: handlers that fill the default one would starve look-ups of the broker's name.
        self._threads = ThreadPoolExecutor(subscriber.concurrency, thread_name_prefix=f"handler-{subscriber.name}")

    async def call(self, payloads: Sequence[Any], messages: Sequence[Message]) -> Results:
        """Call the handler and return its results; raises HandlerFailed.

        `payloads` and `messages` are one for each delivery; the handler gets lists only if it takes batches.
        """
        handler = self._handler
        arguments = self._arguments
        if self._pool is not None:
            messages = [replace(message, headers=dict(message.headers)) for message in messages]  # that can be pickled
        if handler.message_parameter is not None:
            message = list(messages) if self._is_batch else messages[0]
            arguments = {**arguments, handler.message_parameter: message}
        positional: tuple[Any, ...] = ()
        if handler.takes_payload:
            positional = (list(payloads),) if self._is_batch else (payloads[0],)
        if self._pool is not None:
            asked = Call(handler.path, positional, dict(arguments), dict(log.context.get({})))
            return await self._pool.call(asked, self._timeout_s)
        if handler.is_async:
            return await call_on_loop(handler, positional, arguments, self._timeout_s)
        return await call_in_thread(handler, positional, arguments, self._threads, self._timeout_s)

    def close(self) -> None:
        """End processes at once; threads end by themselves, or with the process."""
        if self._pool is not None:
            self._pool.close()
        self._threads.shutdown(wait=False, cancel_futures=True)
