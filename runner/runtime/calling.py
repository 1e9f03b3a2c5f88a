"""Calls one subscriber's handler where it is to run: on the loop, in a thread, or in a process of its own."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, Sequence
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
        self._arguments = {**handler.arguments, **{name: resources[name] for name in handler.resources}}
        self._pool = ProcessPool(subscriber.concurrency, subscriber.name) if subscriber.runs_in_process else None
        self._is_plain = (
            handler.is_async and self._pool is None and handler.takes_payload and handler.message_parameter is None
        )
        # A pool of its own: handlers that fill the default one would starve look-ups of the broker's name.
        self._threads = ThreadPoolExecutor(subscriber.concurrency, thread_name_prefix=f"handler-{subscriber.name}")

    def call_one(self, payload: Any, message: Message | None) -> Awaitable[Results]:
        """Call the handler with one message and return its results; raises HandlerFailed.

        `message` is there if the handler asks for it.
        """
        if self._is_plain:
            return call_on_loop(self._handler, (payload,), self._arguments, self._timeout_s)
        return self._call(payload, message)

    def call_batch(self, payloads: Sequence[Any], messages: Sequence[Message] | None) -> Awaitable[Results]:
        """Call the handler with a batch; like `call_one`."""
        return self._call(list(payloads), None if messages is None else list(messages))

    async def _call(self, payload: Any, message: Message | list[Message] | None) -> Results:
        handler = self._handler
        arguments = self._arguments
        if handler.message_parameter is not None and message is not None:
            sent = message if self._pool is None else _picklable(message)
            arguments = {**arguments, handler.message_parameter: sent}
        positional = (payload,) if handler.takes_payload else ()
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


def _picklable(message: Message | list[Message]) -> Message | list[Message]:
    if isinstance(message, list):
        return [replace(each, headers=dict(each.headers)) for each in message]
    return replace(message, headers=dict(message.headers))
