"""Calls the handler of one subscriber where it runs: on the loop, in a thread, or in a process."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from runner import log
from runner.message import Message
from runner.pipeline.model import Subscriber
from runner.runtime.invocation import Results, call_in_thread, call_on_loop
from runner.runtime.thread_pool import ThreadPool
from runner.runtime.watchdog import ThreadWatchdog

if TYPE_CHECKING:
    from runner.runtime.process_pool import ProcessPool


class HandlerInvoker:
    """A handler with its arguments. `resources` are the open resources of the pipeline."""

    def __init__(self, subscriber: Subscriber, resources: Mapping[str, Any]) -> None:
        handler = subscriber.handler
        self._handler = handler
        self._timeout_s = subscriber.timeout_s
        self._given = {**handler.arguments, **{name: resources[name] for name in handler.resources}}
        self.carrier: Callable[[], dict[str, str]] = dict
        """Returns the trace context of the current call as headers, for a handler in another process."""
        self._pool: ProcessPool | None = None
        if subscriber.runs_in_process:
            from runner.runtime.process_pool import ProcessPool

            self._pool = ProcessPool(subscriber.concurrency, subscriber.name, handler.path)
        self._is_plain = (
            self._pool is None
            and handler.message_parameter is None
            and handler.positional == (handler.payload_parameter,)
        )
        """Whether a call needs only the payload, by position. Such calls skip building the arguments."""
        self._watch = ThreadWatchdog(subscriber.timeout_s)
        # A pool of its own: in the default pool, slow handlers would block DNS look-ups of the broker's name.
        self._threads = ThreadPool(subscriber.concurrency, f"handler-{subscriber.name}")
        self._run: Callable[..., Awaitable[Results]] = partial(call_on_loop, handler, timeout_s=self._timeout_s)
        """Calls the handler with positional and named arguments, on the loop or in a thread."""
        if not handler.is_async:
            self._run = partial(
                call_in_thread, handler, executor=self._threads, timeout_s=self._timeout_s, watchdog=self._watch
            )

    @property
    def is_in_thread(self) -> bool:
        """Whether the handler runs in threads."""
        return not self._handler.is_async and self._pool is None

    @property
    def overdue(self) -> int:
        """The number of calls in threads that have outlasted the timeout."""
        return self._watch.overdue

    async def start(self) -> None:
        """Start the handler's processes, so that no message waits for them."""
        if self._pool is not None:
            await self._pool.start()

    def invoke(self, payload: Any, message: Message | None) -> Awaitable[Results]:
        """Call the handler with one message and return its results. Raises HandlerFailed.

        `message` is given if the handler has a parameter for it.
        """
        return self._run((payload,), self._given) if self._is_plain else self._call(payload, message)

    def invoke_batch(self, payloads: Sequence[Any], messages: Sequence[Message] | None) -> Awaitable[Results]:
        """Call the handler with a batch, like `invoke`."""
        return self._call(list(payloads), None if messages is None else list(messages))

    async def _call(self, payload: Any, message: Message | list[Message] | None) -> Results:
        handler = self._handler
        given = self._given
        if handler.message_parameter is not None and message is not None:
            sent = message if self._pool is None else _picklable(message)
            given = {**given, handler.message_parameter: sent}
        if handler.payload_parameter is not None:
            given = {**given, handler.payload_parameter: payload}
        positional, arguments = handler.bind(given)
        if self._pool is not None:
            from runner.runtime.process_pool import HandlerCall

            asked = HandlerCall(handler.path, positional, arguments, dict(log.context.get({})), self.carrier())
            return await self._pool.call(asked, self._timeout_s)
        return await self._run(positional, arguments)

    def close(self) -> None:
        """Kill the handler's processes. Threads end by themselves or with the process."""
        if self._pool is not None:
            self._pool.close()
        self._threads.shutdown(wait=False, cancel_futures=True)


def _picklable(message: Message | list[Message]) -> Message | list[Message]:
    if isinstance(message, list):
        return [replace(each, headers=dict(each.headers)) for each in message]
    return replace(message, headers=dict(message.headers))
