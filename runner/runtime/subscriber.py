"""Runs one subscriber: takes deliveries, handles at most `concurrency` at the same time, and drains."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections import deque
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import replace
from typing import Any

from runner.metrics import SubscriberCounts, SubscriberState, sent_at
from runner.outcome import Retry
from runner.pipeline.model import Subscriber
from runner.runtime.execution import Execution
from runner.runtime.handler_invoker import HandlerInvoker
from runner.runtime.inbox import BatchInbox, FifoInbox, KeyedInbox
from runner.runtime.partitions import PartitionedSubscription
from runner.runtime.rate_limit import RateLimiter
from runner.runtime.stream import StreamSubscription
from runner.runtime.watchdog import TIMEOUT_GRACE_S, RunningHandler
from runner.tasks import cancel, is_cancelled_by_us, run_in_context, start_in_context, watch_loop
from runner.transports.base import Delivery, OnDelivery, Subscription, SubscriptionOptions, Transport
from runner.transports.leadership import Candidate

CANCEL_TIMEOUT_S = 1.0
"""How long cancelled handlers may take to end; one may ignore it for ever."""


class SubscriberRuntime:
    """A running subscriber. Its workers are long-lived tasks: a task per message would cost too much.

    Deliveries wait in `_inbox`, whose size the prefetch limits. With `order_by`, and of a stream, those that are to
    be retried wait in `_local_retries`; in an order, they block only their own key. `poison_lock` is shared by all
    subscribers of the process: messages that may have crashed earlier processes are handled one at a time, so that a
    crash can be attributed to one of them.
    """

    def __init__(
        self,
        subscriber: Subscriber,
        options: SubscriptionOptions,
        execution: Execution,
        invoker: HandlerInvoker,
        poison_lock: asyncio.Lock,
        on_bug: Callable[[BaseException], None],
        counts: SubscriberCounts,
        member: Candidate | None = None,
    ) -> None:
        """`member` is this process among those that read a stream in turn."""
        self.subscriber = subscriber
        self._member = member or Candidate()
        self.options = options
        self._execution = execution
        self._invoker = invoker
        self._poison_lock = poison_lock
        self._on_bug = on_bug
        self._loop = asyncio.get_running_loop()
        self._inbox = FifoInbox() if subscriber.key_of is None else KeyedInbox(subscriber.key_of)
        batch = subscriber.batch
        self._batches = BatchInbox(batch, subscriber.retry.attempts, self._loop.time) if batch is not None else None
        if subscriber.key_of is not None or subscriber.stream is not None:
            execution.retry_locally = self._retry_locally
        execution.on_waiting = lambda waiting: self._running.update(dict.fromkeys(waiting, math.inf))
        execution.on_claimed = lambda claimed: self._running.update(dict.fromkeys(claimed, self._loop.time()))
        self._batch_lock = asyncio.Lock()
        self._limiter = RateLimiter(subscriber.per_second) if subscriber.per_second else None
        if self._limiter is None and execution.may_detach:
            execution.on_ended, execution.spawn = self._note_detached_end, self._spawn
        self._local_retries: dict[Delivery, asyncio.TimerHandle] = {}
        self._idle: deque[asyncio.Future[None]] = deque()
        self._waking = 0
        """How many workers have been woken and have not looked into the inbox yet. Each wakes others if necessary."""
        self._workers: set[asyncio.Task[None]] = set()
        self._loop_watch: asyncio.Task[None] | None = None
        self._running: dict[Delivery, float] = {}
        """The deliveries that are being handled, and the loop time at which each started. A worker takes the next one
        while there are fewer than `concurrency`: some may only wait for a confirm, without a worker.
        """
        self._handler_ended: asyncio.Future[None] | None = None
        """Resolved when the next handler ends; None while no task waits for that."""
        self._transport: Transport | None = None
        self._subscription: Subscription | PartitionedSubscription | StreamSubscription | None = None
        self._changing = asyncio.Lock()
        """Held while it is paused or resumed."""
        self._is_draining = False
        self.counts = counts
        counts.state = self._state
        self.received = 0
        """The number of deliveries so far. If it is unchanged between two checks, nothing has arrived."""

    @property
    def all_options(self) -> list[SubscriptionOptions]:
        """The options of each queue that it consumes: of its queue, or of the partitions."""
        return [replace(self.options, queue=name) for name in self.subscriber.queues]

    @property
    def in_flight(self) -> int:
        """The number of deliveries that wait here or are being handled."""
        batches = len(self._batches) if self._batches is not None else 0
        return len(self._inbox) + batches + len(self._local_retries) + len(self._running)

    @property
    def running(self) -> int:
        """The number of deliveries that are being handled."""
        return len(self._running)

    def on_failure(self, note: Callable[[BaseException | None], None]) -> None:
        """Call `note` with the error of each failed attempt."""
        self._execution.on_failure = note

    @property
    def is_paused(self) -> bool:
        """Whether it is to take no messages. `pause` and `resume` make it so."""
        return self.counts.is_paused

    @is_paused.setter
    def is_paused(self, value: bool) -> None:
        self.counts.is_paused = value

    @property
    def must_change(self) -> bool:
        """Whether `pause` or `resume` has something to do."""
        return self._transport is not None and self.is_paused == (self._subscription is not None)

    @property
    def is_live(self) -> bool:
        """Whether the subscription is established."""
        return self._subscription is not None and self._subscription.is_live

    @property
    def unready_reasons(self) -> list[str]:
        """The reasons why the subscriber is not working; none when it is ready."""
        name, slots = self.subscriber.name, self.subscriber.concurrency
        if self.is_paused:
            return []
        if not self.is_live:
            return [f'nothing comes from queue "{self.options.queue}"']
        if self._overdue() < slots:
            return []
        if slots == 1:
            return [f"the one slot of {name} has been busy beyond its timeout"]
        return [f"all {slots} slots of {name} have been busy beyond their timeout"]

    def _overdue(self) -> int:
        """Return how many calls have outlasted their timeout."""
        timeout_s = self.subscriber.timeout_s
        if timeout_s is None or self._invoker.is_in_thread:
            return self._invoker.overdue
        latest = self._loop.time() - timeout_s - TIMEOUT_GRACE_S
        return len({since for since in self._running.values() if since < latest})

    def _state(self) -> SubscriberState:
        """Return what /metrics says of this moment."""
        subscriber = self.subscriber
        slots = subscriber.concurrency * (subscriber.batch.size if subscriber.batch else 1) if self.is_live else 0
        now = time.time()
        first = (sent_at(each.envelope.timestamp) for each in list(self._running) if each.attempt == 1)
        ages = (now - at for at in first if at is not None)
        return SubscriberState(len(self._running), slots, max(ages, default=0.0))

    def handlers(self) -> Iterator[tuple[Delivery, RunningHandler]]:
        """Yield the running handlers, by delivery. Handlers in threads are left out: `ThreadWatchdog` watches them."""
        if self._invoker.is_in_thread:
            return
        for delivery, since in self._running.items():
            yield delivery, RunningHandler(self._execution.log_fields(delivery), since, self.subscriber.timeout_s)

    async def start(self, transport: Transport) -> None:
        """Start the handler's processes, if it runs in processes, and subscribe, unless it is paused."""
        await self._invoker.start()
        self._transport = transport
        if not self.is_paused:
            await self.resume()
        if self.is_paused:  # perhaps only since then
            await self.pause()

    async def pause(self) -> None:
        """Take no more messages. What has not started goes back; return when the running handlers have ended.

        Messages that arrive while the broker ends the subscription may still be handled.
        """
        async with self._changing:
            if self._subscription is None:
                return
            await self._give_back()
            await self._subscription.stop()
            await self._give_back()
            while self._running:
                await self._wait_for_end()
            await self._give_back()  # retries of what was running
            await self._subscription.close()
            self._subscription = None

    async def resume(self) -> None:
        """Subscribe again after `pause`. Raises BrokerUnavailable."""
        async with self._changing:
            if self._subscription is None and self._transport is not None:
                self._subscription = await self._subscribe(self._transport, self.options, self._receive)

    async def take_one(self) -> None:
        """Take one message while it is paused, and return when that is done with. Raises BrokerUnavailable."""
        async with self._changing:
            if self._transport is None or self._subscription is not None:
                return
            first: asyncio.Future[None] = self._loop.create_future()
            more: list[Delivery] = []

            def receive(delivery: Delivery) -> None:
                if first.done():
                    more.append(delivery)
                else:
                    self._receive(delivery)
                    first.set_result(None)

            subscription = await self._subscribe(self._transport, replace(self.options, prefetch=1), receive)
            self._subscription = subscription
            await first
            await subscription.stop()
            while self._running or self._inbox or (self._batches is not None and len(self._batches)):
                await self._wait_for_end()
            await self._give_back()
            for delivery in more:
                await self._execution.release(delivery)
            await subscription.close()
            self._subscription = None

    async def _subscribe(
        self, transport: Transport, options: SubscriptionOptions, receive: OnDelivery
    ) -> Subscription | PartitionedSubscription | StreamSubscription:
        """Subscribe to the queue, to its partitions or to the stream. Raises BrokerUnavailable.

        On the in-process broker, a stream is a queue: see `runner test`.
        """
        partitioning, start = self.subscriber.partitioning, self.subscriber.stream
        if start is not None and transport.capabilities.is_shared:
            stream = StreamSubscription(transport, options, start, self._member, receive, self._let_go)
            await stream.start()
            return stream
        if partitioning is None:
            return await transport.subscribe(options, receive)
        subscription = PartitionedSubscription(
            transport,
            [replace(options, queue=name) for name in partitioning.names],
            replace(options, queue=partitioning.processes.name, prefetch=1, is_single_active=False),
            receive,
            self._let_go,
        )
        await subscription.start()
        return subscription

    async def _let_go(self, partition: str) -> None:
        """Give back what has not started of a partition, and return when its running handlers have ended."""
        await self._give_back(partition)
        while any(each.options.queue == partition for each in self._running):
            await self._wait_for_end()
            await self._give_back(partition)  # retries of what was running

    async def _wait_for_end(self, timeout_s: float | None = None) -> None:
        """Wait until the next handler ends or the timeout is over."""
        self._handler_ended = self._handler_ended or self._loop.create_future()
        await asyncio.wait((self._handler_ended,), timeout=timeout_s)

    async def _give_back(self, queue: str | None = None) -> None:
        """Release deliveries whose handler has not started, and local retries, perhaps of one queue only."""
        batches = self._batches.drain() if self._batches is not None else ()
        retries = self._take_local_retries(queue)
        for delivery in retries:
            self._inbox.free(delivery)
        for delivery in (*retries, *self._inbox.drain(queue), *batches):
            await self._execution.release(delivery)

    def stop_starting(self) -> None:
        """Start no more handlers. Deliveries that arrive from now on are released by `stop_consuming`."""
        self._is_draining = True
        self._execution.stop()

    async def stop_consuming(self) -> None:
        """Stop the subscription, and release deliveries whose handler has not started and local retries."""
        self.stop_starting()
        if self._subscription is not None:
            await self._subscription.stop()
        await self._give_back()

    async def finish(self, deadline: float) -> int:
        """Wait for running handlers, cancel them at `deadline` (loop time), and return how many were cancelled.

        Their messages are released. A handler that ignores its cancellation keeps running.
        """
        loop = self._loop
        while self._running and loop.time() < deadline:
            await self._wait_for_end(max(0.0, deadline - loop.time()))
        late = len(self._running)
        self._execution.is_past_grace = True
        for worker in self._workers:
            cancel(worker)
        if self._workers:
            await asyncio.wait(self._workers, timeout=CANCEL_TIMEOUT_S)
        for delivery in (*self._running, *self._take_local_retries()):
            if not delivery.is_settled:
                await self._execution.release(delivery)
        if self._subscription is not None:
            await self._subscription.close()
        if self._loop_watch is not None:
            cancel(self._loop_watch)
        self._invoker.close()
        return late

    def _receive(self, delivery: Delivery) -> None:
        """Take a delivery from the transport."""
        self.received += 1
        if self._local_retries and delivery.is_redelivered:
            self._drop_lost_retries()
        if self._batches is None:
            self._inbox.put(delivery)
        else:
            self._batches.put(delivery)
        if not self._waking:
            self._wake()

    def _wake_more(self) -> None:
        """Wake two workers if that many more are needed. Each worker does so once when it was woken.

        So hundreds of workers are awake after a few iterations of the loop, and what they publish is written together.
        Where one worker handles all that has arrived, because its handler never waits, only two are woken in vain.
        """
        for _ in range(min(2, len(self._inbox) - self._waking)):
            self._wake()

    def _wake(self) -> None:
        """Wake an idle worker, or start one if there are fewer than `concurrency`."""
        while self._idle:
            waiter = self._idle.popleft()
            if not waiter.done():
                waiter.set_result(None)
                self._waking += 1
                return
        if len(self._workers) < self.subscriber.concurrency and not self._is_draining:
            self._spawn(self._work())
            self._waking += 1

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        self._loop_watch = self._loop_watch or watch_loop()
        worker = self._loop.create_task(work, name=f"worker-{self.subscriber.name}")
        worker.add_done_callback(self._notice_end)
        self._workers.add(worker)

    def _notice_end(self, worker: asyncio.Task[None]) -> None:
        """Report a worker that has failed: handlers' errors never end a worker, so it is a bug in the runner.

        A task that a handler left behind can cancel a worker. Another worker takes its place.
        """
        self._workers.discard(worker)
        if not worker.cancelled():
            if (error := worker.exception()) is not None:
                self._on_bug(error)
        elif not is_cancelled_by_us(worker):
            self._waking = 0  # it may have been waking
            self._wake()

    def _note_awake(self) -> None:
        self._waking = max(0, self._waking - 1)

    async def _work(self) -> None:
        """Handle deliveries one after the other until the drain begins."""
        self._note_awake()
        if self._batches is not None:
            await self._work_in_batches(self._batches)
        inbox, is_woken = self._inbox, True
        while not self._is_draining:
            if not inbox or len(self._running) >= self.subscriber.concurrency:
                await self._wait_for_delivery()
                is_woken = True
                continue
            if self._limiter is not None:
                await self._limiter.wait()
                if not inbox or self._is_draining:
                    continue
            delivery = inbox.take()
            if inbox and (is_woken or not self._waking):
                self._wake_more()
            is_woken = False
            if delivery.is_redelivered or delivery.is_poison_suspect:
                await self._handle_again(delivery)
                continue
            self._running[delivery] = self._loop.time()
            has_ended = True
            try:
                result, rest = start_in_context(self._execution.run(delivery))
                has_ended = await rest if rest is not None else result
            finally:
                if has_ended:
                    self._note_finished(delivery)

    async def _work_in_batches(self, batches: BatchInbox) -> None:
        """Handle batches as they become due, until the drain begins."""
        while not self._is_draining:
            if not batches:
                await self._wait_for_delivery(batches.due_in())
                continue
            deliveries: list[Delivery] = []
            if self._limiter is None:
                deliveries = batches.take()
            else:
                async with self._batch_lock:  # else several workers would wait for the rate limit and find one batch
                    if batches:
                        await self._limiter.wait()
                    if not self._is_draining:
                        deliveries = batches.take()
            if deliveries:
                await self._handle_batch(deliveries, batches)

    async def _handle_again(self, delivery: Delivery) -> None:
        """Handle a delivery that is not the first one of its message."""
        self._running[delivery] = self._loop.time()
        has_ended = True
        try:
            if delivery.is_redelivered and not await self._wait_for_lost_copies((delivery,)):
                return
            async with self._poison_lock if delivery.is_poison_suspect else contextlib.nullcontext():
                has_ended = await run_in_context(self._execution.run(delivery))
        finally:
            if has_ended:
                self._note_finished(delivery)

    async def _handle_batch(self, deliveries: list[Delivery], batches: BatchInbox) -> None:
        self._running.update(dict.fromkeys(deliveries, self._loop.time()))
        if len(batches) and not self._waking:  # even if no batch is due yet: a worker has to wait for the due time
            self._wake()
        try:
            if not await self._wait_for_lost_copies(deliveries):
                return
            is_suspect = any(delivery.is_poison_suspect for delivery in deliveries)
            async with self._poison_lock if is_suspect else contextlib.nullcontext():
                await run_in_context(self._execution.run_batch(deliveries))
        finally:
            for delivery in deliveries:
                self._note_finished(delivery)

    async def _wait_for_lost_copies(self, deliveries: Sequence[Delivery]) -> bool:
        """Wait while earlier deliveries of these messages, lost with their connection, are still handled here.

        The broker redelivers them while their handlers still run. Return False if the drain began meanwhile; the
        deliveries have then been released.
        """
        again = {(each.envelope.message_id, each.envelope.body) for each in deliveries if each.is_redelivered}
        lost = [each for each in self._running if each.is_lost and each not in deliveries]
        lost = [each for each in lost if (each.envelope.message_id, each.envelope.body) in again]
        while any(each in self._running for each in lost):
            await self._wait_for_end()
        if lost and self._is_draining:
            for delivery in deliveries:
                await self._execution.release(delivery)
        return not (lost and self._is_draining)

    def _note_finished(self, delivery: Delivery) -> None:
        del self._running[delivery]
        if self._handler_ended is not None:
            self._handler_ended.set_result(None)
            self._handler_ended = None
        if delivery not in self._local_retries:
            self._inbox.free(delivery)

    def _note_detached_end(self, delivery: Delivery) -> None:
        """Note the end of a delivery that no worker waits for."""
        self._note_finished(delivery)
        if self._inbox and not self._waking:
            self._wake()

    async def _wait_for_delivery(self, timeout_s: float | None = None) -> None:
        """Wait until a delivery arrives or the timeout is over."""
        waiter = self._loop.create_future()
        self._idle.append(waiter)
        try:
            if timeout_s is None:
                await waiter
            else:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(timeout_s):
                        await waiter
        finally:
            if waiter.done() and not waiter.cancelled():
                self._note_awake()

    def _retry_locally(self, delivery: Delivery, outcome: Retry) -> None:
        """Keep a delivery until its delay is over. Its key stays busy."""
        delivery.attempt += 1
        self._local_retries[delivery] = self._loop.call_later(outcome.after_s, self._resume, delivery)

    def _take_local_retries(self, queue: str | None = None) -> list[Delivery]:
        """Remove and return the deliveries whose retry waits here: all, or those of one queue."""
        retries = [each for each in self._local_retries if queue in (None, each.options.queue)]
        for delivery in retries:
            self._local_retries.pop(delivery).cancel()
        return retries

    def _drop_lost_retries(self) -> None:
        """Drop the retries whose delivery is lost: the broker redelivers them, and their keys must be free."""
        for delivery in [each for each in self._local_retries if each.is_lost]:
            self._local_retries.pop(delivery).cancel()
            self._inbox.free(delivery)

    def _resume(self, delivery: Delivery) -> None:
        del self._local_retries[delivery]
        self._inbox.put_back(delivery)
        if not self._waking:
            self._wake()
