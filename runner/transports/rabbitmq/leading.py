"""Turns a queue with a single active consumer into a leadership: at most one session has it, its state outlives it.

To take over, the first in line sends a call through the queue. When it comes back, everything that was in the queue has
come before it, so the newest token has the state. It is written again, in a term of our own, and when that has come
back we lead. To save is to write the next version, and to wait until the broker has confirmed it and handed it to us:
then it is what the next in line will get. Tokens of earlier terms that come in late are dropped.

A write proves that we were the first in line when it was sent. This proof is our lease: it holds for one heartbeat
interval by our own clock, is renewed four times in that, and when it has run out we do not lead and go to the end of
the line. The broker gives up a silent connection after more than two intervals (measured: 2.7), so a partition between
us and it makes no two leaders. Two may believe to lead, for one interval at most, where the broker hands on and its
word of that does not reach us: an operator closes the connection during a partition, or the nodes of a cluster lose
each other. And no lease helps a process that is frozen between asking `is_leader` and acting on it; its `save` fails.
"""

from __future__ import annotations

import asyncio
import copy
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from aiormq.exceptions import ChannelNotFoundEntity

from runner.errors import BrokerUnavailable, PublishFailed, PublishUnknown
from runner.message import Address, Envelope
from runner.tasks import end
from runner.transports.base import OnStateChange, StateChange
from runner.transports.leadership import NAME_SHARED, Led, Member, NotLeader, shared_by, start_of
from runner.transports.rabbitmq.connection import CHANNEL_ERRORS, Link, LinkClosed, pauses, was_cancelled
from runner.transports.rabbitmq.declarations import Declarations
from runner.transports.rabbitmq.publisher import Publisher
from runner.transports.rabbitmq.seat import CLOSE_S, Seat, SeatLost

RENEWALS_IN_A_LEASE = 4
ATTEMPTS_IN_A_LEASE = 2

CALL_S = 30.0
"""How often who does not lead calls at most: so soon does a leadership whose token is gone come back."""

ANSWER_S = 2.0
"""How long the session that leads may take to answer."""

LONGEST_PAUSE_S = 5.0


class RabbitLeadership:
    """See `Leadership`. Takes part from `start` to `resign`, in one seat after the other."""

    def __init__(
        self,
        name: str,
        link: Link,
        publisher: Publisher,
        declarations: Declarations,
        *,
        heartbeat_s: float,
        on_state_change: OnStateChange,
        member: Member,
    ) -> None:
        self._name = name
        self._link = link
        self._publisher = publisher
        self._declarations = declarations
        self._say = on_state_change
        self._member = member
        self._has_joined = False
        """Whether we have led, or another session has told us that it does: then we begin no start of our own."""
        self._fingerprints = {member.fingerprint}
        self._lease_s = heartbeat_s
        self._renew_s = self._lease_s / RENEWALS_IN_A_LEASE
        self._attempt_s = self._lease_s / ATTEMPTS_IN_A_LEASE
        self._seat: Seat | None = None
        self._leading: Seat | None = None
        self._known: Seat | None = None
        """The seat in which the caller has learnt that we lead."""
        self._change: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done when we begin to lead or resign; then there is a new one."""
        self._farewell: asyncio.Task[None] | None = None
        self._failures = 0
        self._task: asyncio.Task[None] | None = None

    @property
    def is_leader(self) -> bool:
        """See `Leadership.is_leader`."""
        return self._leading is not None and self._leading.is_good

    @property
    def state(self) -> Mapping[str, Any]:
        """See `Leadership.state`."""
        seat = self._known = self._lead()
        return copy.deepcopy(seat.token.state) if seat.token else {}

    @property
    def start(self) -> str:
        """See `Leadership.start`."""
        return self._lead().start

    async def ask(self) -> Led | None:
        """See `Leadership.ask`."""
        seat = self._seat
        if seat is None or self.is_leader:
            return None
        try:
            async with asyncio.timeout(ANSWER_S):
                return await seat.during(seat.ask(self._name))
        except (TimeoutError, SeatLost):
            return None

    async def compete(self) -> None:
        """Take part from now on; raises what the broker answers to the first attempt."""
        self._seat = await self._take_seat()
        self._task = asyncio.create_task(self._compete(self._seat), name=f"leadership-{self._name}")

    async def wait(self) -> None:
        """See `Leadership.wait`."""
        while not self.is_leader:
            if self._farewell is not None:
                raise NotLeader(f'the leadership of "{self._name}" was resigned')
            await asyncio.shield(self._change)
        self._known = self._leading

    async def lost(self) -> None:
        """See `Leadership.lost`."""
        seat = self._known or self._leading
        if seat is not None and seat.is_good:
            await asyncio.wait((seat.ended,))

    async def save(self, state: Mapping[str, Any]) -> None:
        """See `Leadership.save`."""
        seat = self._lead()
        if seat is not self._known:
            raise NotLeader(f'the leadership of "{self._name}" was lost and won again: read its state first')
        copied: dict[str, Any] = json.loads(json.dumps(dict(state), allow_nan=False))
        try:
            await seat.during(self._write(seat, copied))
        except SeatLost as lost:
            raise NotLeader(f'the leadership of "{self._name}" was lost while saving: {lost}') from lost

    async def resign(self) -> None:
        """See `Leadership.resign`. Who is cancelled here has resigned nevertheless."""
        if self._farewell is None:
            if self._seat is not None:
                self._seat.end("resigned")
            self._farewell = asyncio.create_task(self._leave(), name=f"resigning-{self._name}")
            self._tell_change()
        await asyncio.shield(self._farewell)

    async def _leave(self) -> None:
        if self._task is not None and self._seat is not None:
            await asyncio.wait((self._task,), timeout=CLOSE_S + 1)
        await end(self._task)

    def _lead(self) -> Seat:
        if self._leading is None or not self._leading.is_good:
            raise NotLeader(f'this session does not lead "{self._name}"')
        return self._leading

    def _tell_change(self) -> None:
        self._change.set_result(None)
        self._change = asyncio.get_running_loop().create_future()

    async def _compete(self, seat: Seat) -> None:
        """Take part in one seat after the other, until resigned or cancelled."""
        delays = pauses(longest_s=LONGEST_PAUSE_S)
        while True:
            self._seat = seat
            has_led = await self._sit(seat)
            self._seat = None
            if has_led:
                delays = pauses(longest_s=LONGEST_PAUSE_S)
            if self._farewell is not None:
                return
            try:
                seat = await self._next_seat(delays)
            except LinkClosed:
                return

    async def _take_seat(self) -> Seat:
        return await Seat.take(await self._link.ready(), self._name, self._member, self._note_other)

    async def _next_seat(self, delays: Iterator[float]) -> Seat:
        """Get in line again, as soon as the broker lets us."""
        while True:
            await asyncio.sleep(next(delays))
            try:
                return await self._take_seat()
            except CHANNEL_ERRORS as error:
                self._complain(error)
                if isinstance(error, ChannelNotFoundEntity):
                    await self._declare_again()
            except asyncio.CancelledError:
                if was_cancelled():
                    raise

    async def _sit(self, seat: Seat) -> bool:
        """Be in line, and lead when it is our turn, until the seat is lost. Returns whether we have led."""
        try:
            await seat.during(self._take_part(seat))
        except SeatLost as lost:
            if self._leading is seat and self._farewell is None:
                self._tell("leadership.lost", "warning", error=str(lost))
        except PublishFailed as failure:
            self._complain(failure)
        finally:
            await seat.leave("given up")
        return self._leading is seat

    async def _take_part(self, seat: Seat) -> None:
        await self._call_until_first(seat)
        seat.last_until(_now() + self._lease_s, "the broker took no message in time")
        await self._pass_through(seat, seat.call)
        seat.term = seat.token.term + 1 if seat.token else 1
        seat.start = start_of(seat.token.start if seat.token else "", self._member.start, has_joined=self._has_joined)
        await self._write(seat, seat.token.state if seat.token else {})
        self._leading, self._has_joined = seat, True
        self._tell_change()
        self._tell("leadership.won", "info", term=seat.term)
        await seat.lead()
        while True:
            await asyncio.sleep(seat.lasts_until - _now() - self._lease_s + self._renew_s)
            if _now() >= seat.lasts_until - self._lease_s + self._renew_s:
                await self._write(seat, None)

    async def _call_until_first(self, seat: Seat) -> None:
        """Return when anything has come to us; call meanwhile, in case that nothing is in the queue."""
        for pause in pauses(longest_s=CALL_S):
            try:
                async with asyncio.timeout(self._attempt_s):
                    await self._publish(seat.call())
                    if not self._has_joined:  # not before: what the broker refuses would close the seat's channel
                        await seat.greet(self._name)
            except PublishFailed as failure:
                self._complain(failure)
                if failure.reason == "unroutable":
                    seat.end("its queue is gone")
            except (PublishUnknown, TimeoutError) as error:
                self._complain(error)
            try:
                async with asyncio.timeout(pause):
                    await seat.is_first.wait()
                    return
            except TimeoutError:
                pass

    async def _write(self, seat: Seat, state: dict[str, Any] | None) -> None:
        """Write a state, or what there is once more, until it has come back: so often as the lease allows."""
        async with seat.writing:
            content = state if state is not None else seat.token.state if seat.token else {}
            since = await self._pass_through(seat, lambda: seat.next_token(content))
            seat.last_until(since + self._lease_s, "the lease could not be renewed in time")

    async def _pass_through(self, seat: Seat, make: Callable[[], Envelope]) -> float:
        """Send a message through the queue to ourselves, again where it does not come; return when it was sent."""
        for pause in pauses(longest_s=self._renew_s):
            since, envelope = _now(), make()
            arrived = seat.expect(envelope)
            try:
                async with asyncio.timeout(self._attempt_s):
                    await self._publish(envelope)
                    await arrived
                return since
            except PublishFailed as failure:
                if failure.reason in ("invalid", "unavailable"):
                    raise
                self._complain(failure)
            except (PublishUnknown, TimeoutError) as error:
                self._complain(error)
            finally:
                arrived.cancel()
            await asyncio.sleep(pause)
        raise AssertionError("pauses never end")

    async def _publish(self, envelope: Envelope) -> None:
        await self._publisher.publish(Address("", self._name), envelope)
        self._failures = 0

    def _note_other(self, other: Member, led: Led | None) -> None:
        """Take note of a session that greets us, or that leads and answers; say once that it runs something else."""
        self._has_joined = self._has_joined or led is not None
        if other.fingerprint not in self._fingerprints:
            self._fingerprints.add(other.fingerprint)
            self._say(StateChange(NAME_SHARED, "warning", shared_by(self._name, other)))

    async def _declare_again(self) -> None:
        try:
            await self._declarations.restore(await self._link.ready())
        except (LinkClosed, BrokerUnavailable, *CHANNEL_ERRORS):
            pass  # the next attempt to get in line finds out

    def _complain(self, error: Exception) -> None:
        """Say once what keeps us from taking part, at the second time: a lost connection is told of by its link."""
        self._failures += 1
        if self._failures == 2:
            self._tell("leadership.waiting", "warning", error=str(error.__cause__ or error) or "no answer in time")

    def _tell(self, event: str, level: str, **fields: Any) -> None:
        self._say(StateChange(event, level, {"queue": self._name, **fields}))


def _now() -> float:
    return asyncio.get_running_loop().time()
