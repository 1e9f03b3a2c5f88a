"""Runs one producer: calls the user's function, publishes each item, and begins again when it fails or is due."""

from __future__ import annotations

import asyncio
import inspect
import random
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from runner import log
from runner.metrics import Totals
from runner.pipeline.model import Producer
from runner.runtime.blame import raised_at, traceback_text
from runner.runtime.invoking import HandlerFailed, guarded, in_executor
from runner.runtime.publishing import Outgoing, Publisher

WINDOW = 100
"""How many publications of one producer may wait for their confirm."""

FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 60.0


class ProducerRuntime:
    """A producer at work. `max_failures` in a row end a finite producer for good; None: it is never given up."""

    def __init__(
        self,
        producer: Producer,
        *,
        pipeline: str,
        publisher: Publisher,
        totals: Totals,
        max_failures: int | None,
        logs_messages: bool = True,
    ) -> None:
        self.producer = producer
        self._pipeline = pipeline
        self._publisher = publisher
        self._totals = totals
        self._max_failures = max_failures
        self._logs_messages = logs_messages
        self._logger = log.get_logger()
        self._executor = ThreadPoolExecutor(1, thread_name_prefix=f"producer-{producer.name}")
        self.is_finite = producer.every_s is None
        self.has_failed = False
        """Whether it was given up."""

    async def run(self) -> None:
        """Produce until there is nothing more to do, or until cancelled: what was being published then is lost or not
        confirmed, as the producer will see when it starts again."""
        log.context.set({"pipeline": self._pipeline, "producer": self.producer.name})
        try:
            if self.producer.every_s is None:
                await self._run_to_the_end()
            else:
                await self._run_every(self.producer.every_s)
        finally:
            self._executor.shutdown(wait=False, cancel_futures=True)

    async def _run_to_the_end(self) -> None:
        """Produce once; a failure begins it again after a pause."""
        failures = 0
        while not await self._round():
            failures += 1
            if self._max_failures is not None and failures >= self._max_failures:
                self.has_failed = True
                return
            pause = min(FIRST_PAUSE_S * 2.0 ** min(failures - 1, 32), LONGEST_PAUSE_S)
            await asyncio.sleep(random.uniform(pause / 2, pause))

    async def _run_every(self, every_s: float) -> None:
        """Produce now and at each tick after it; ticks that a long round has passed over are left out."""
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            await self._round()
            due += every_s
            if due <= loop.time():
                due += -(-(loop.time() - due) // every_s) * every_s
            await asyncio.sleep(due - loop.time())

    async def _round(self) -> bool:
        """Call the handler once and publish everything it gives; return whether all of it worked."""
        published = 0
        failure: BaseException | None = None
        try:
            async with asyncio.TaskGroup() as group:
                window = asyncio.Semaphore(WINDOW)
                async for item in self._items():
                    for outgoing in self._publisher.address(item, self.producer.to):
                        await window.acquire()
                        group.create_task(self._send(outgoing, window))
                        published += 1
        except* Exception as failures:  # whatever the handler raised, and every publication that was refused
            failure = _first(failures)
        if failure is not None:
            self._tell_failure(failure)
            return False
        self._logger.info("producer.finished", published=published)
        return True

    async def _send(self, outgoing: Outgoing, window: asyncio.Semaphore) -> None:
        try:
            await self._publisher.send(outgoing)
        finally:
            window.release()
        self._totals.published += 1
        if self._logs_messages:
            envelope = outgoing.envelope
            self._logger.info(
                "message.published",
                to=outgoing.destination.name,
                message_id=envelope.message_id,
                correlation_id=envelope.correlation_id,
            )

    async def _items(self) -> AsyncIterator[Any]:
        """Yield what the handler produces, item by item: from a generator, a list, or the one value it returns."""
        handler = self.producer.handler
        arguments = dict(handler.arguments)
        if handler.kind == "async generator":
            async for item in _guarded_items(handler.call(**arguments)):
                yield item
            return
        if handler.kind == "coroutine":
            result = await guarded(handler.call(**arguments))
        else:
            result = await in_executor(self._executor, lambda: handler.call(**arguments))
        if inspect.isasyncgen(result):
            async for item in _guarded_items(result):
                yield item
        elif inspect.isgenerator(result):
            end = object()
            while (item := await in_executor(self._executor, lambda: next(result, end))) is not end:
                yield item
        elif isinstance(result, list | tuple):
            for item in result:
                yield item
        else:
            yield result

    def _tell_failure(self, error: BaseException) -> None:
        cause = error.error if isinstance(error, HandlerFailed) else error
        self._logger.error(
            "producer.failed",
            error=str(cause)[:1024],
            error_type=type(cause).__qualname__,
            at=raised_at(cause),
            **({"exception": traceback_text(cause)} if isinstance(error, HandlerFailed) else {}),
        )


async def _guarded_items(generator: Any) -> AsyncIterator[Any]:
    try:
        while True:
            try:
                item = await guarded(anext(generator))
            except HandlerFailed as failure:
                if isinstance(failure.error, StopAsyncIteration):
                    return
                raise
            yield item
    finally:
        await generator.aclose()


def _first(group: BaseExceptionGroup[Any]) -> BaseException:
    """Return the first error of a group: the others of a round mostly are its consequences."""
    error: BaseException = group.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error
